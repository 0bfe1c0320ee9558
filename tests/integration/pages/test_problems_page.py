"""What is wrong is shown by what it has in common, and dead events are replayed and discarded by admins alone."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from tests.integration.pages.conftest import Browser
from tests.integration.store.rows import event, insert, violating
from tests.integration.test_edge import Edge

from the_eye.store.applications import create_application
from the_eye.store.audit_log import latest_acts
from the_eye.store.connect import AsyncConnection, Connection
from the_eye.store.dead_events import DeadEvent, set_aside
from the_eye.store.problems import read_problems

NOW = datetime.now(UTC)
EVIL = "<script>alert(1)</script>"


async def problems_of(url: str, since: datetime | None = None) -> list[tuple[str, int, datetime, datetime]]:
    """List the problems as rule, count, first and last seen."""
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        found = await read_problems(connection, since)
    return [(one.rule, one.count, one.first_seen, one.last_seen) for one in found.problems]


async def test_violations_are_grouped_and_counted(people: Connection, migrated_url: str) -> None:
    hour = timedelta(hours=1)
    insert(
        people,
        event(timestamp=NOW - 3 * hour, **violating("shop/a")),
        event(timestamp=NOW - hour, **violating("shop/a", "shop/b")),
        event(timestamp=NOW),
    )

    assert await problems_of(migrated_url) == [
        ("shop/a", 2, NOW - 3 * hour, NOW - hour),
        ("shop/b", 1, NOW - hour, NOW - hour),
    ]
    assert [one[:2] for one in await problems_of(migrated_url, NOW - 2 * hour)] == [("shop/a", 1), ("shop/b", 1)]


def test_the_page_leads_from_a_problem_to_its_events(viewer: Browser, people: Connection) -> None:
    create_application(people, "shop")
    (broken,) = insert(people, event(timestamp=NOW, **violating(f"shop/{EVIL}")))

    text = viewer.get("/ui/problems").text

    assert f"/ui/events/{broken}" in text
    assert "rule=shop%2F" in text
    assert EVIL not in text


@pytest.fixture
def dead(people: Connection, served: Edge) -> int:
    """A dead event that could be stored now."""
    application_id = create_application(people, "shop").id
    body = b'{"category": "c", "name": "n"}'
    one = DeadEvent(
        kind="event",
        code="22001",
        error=EVIL,
        original=body,
        event_id=uuid4(),
        application_id=application_id,
        received_at=NOW,
    )
    set_aside(people, [one])
    del served
    row = people.execute("SELECT id FROM dead_events").fetchone()
    assert row is not None
    return int(row[0])


def test_a_dead_event_is_shown_as_it_came(viewer: Browser, dead: int) -> None:
    assert EVIL not in viewer.get("/ui/problems").text
    text = viewer.get(f"/ui/problems/dead/{dead}").text
    assert "&#34;category&#34;: &#34;c&#34;" in text
    assert EVIL not in text
    assert viewer.get("/ui/problems/dead/999999").status_code == 404


@pytest.mark.parametrize("act", ["replay", "discard"])
def test_a_viewer_does_nothing_to_a_dead_event(viewer: Browser, people: Connection, dead: int, act: str) -> None:
    answer = viewer.post(f"/ui/problems/dead/{dead}/{act}", data=viewer.form("/ui/problems"))

    assert answer.status_code == 403
    assert f"/dead/{dead}/{act}" not in viewer.get("/ui/problems").text
    assert people.execute("SELECT count(*) FROM dead_events").fetchone() == (1,)


@pytest.mark.parametrize("path", ["{dead}/replay", "replay-all"])
def test_an_admin_puts_a_dead_event_back_into_the_queue(
    admin: Browser, people: Connection, served: Edge, dead: int, path: str
) -> None:
    before = len(served.replays())

    answer = admin.post(f"/ui/problems/dead/{path.format(dead=dead)}", data=admin.form("/ui/problems"))

    assert answer.status_code == 303
    assert people.execute("SELECT count(*) FROM dead_events").fetchone() == (0,)
    assert len(served.replays()) == before + 1
    (act,) = latest_acts(people, 10)
    assert (act.actor, act.act, act.subject) == ("alice", "dead events replayed", str(dead))
    again = admin.post(f"/ui/problems/dead/{path.format(dead=dead)}", data=admin.form("/ui/problems"))
    assert again.status_code == 422
    assert "Nothing was there" in again.text


def test_an_admin_discards_a_dead_event(admin: Browser, people: Connection, dead: int) -> None:
    for _ in range(2):
        answer = admin.post(f"/ui/problems/dead/{dead}/discard", data=admin.form("/ui/problems"))
        assert answer.status_code == 303

    assert people.execute("SELECT count(*) FROM dead_events").fetchone() == (0,)
    (act,) = latest_acts(people, 10)
    assert (act.actor, act.act, act.subject) == ("alice", "dead event discarded", str(dead))
