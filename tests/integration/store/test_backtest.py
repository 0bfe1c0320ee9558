"""What a rule would say of stored events: which are read, which count, where it ends, and that it changes nothing.

How a rule judges an event is shown with the rules.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest
from psycopg.pq import TransactionStatus
from tests.integration.store.rows import NOON, event, insert, violating
from tests.servers import wait_until
from tests.unit.rules.making import cel, manifest, rule

from the_eye.rules import backtest as backtest_module
from the_eye.rules.backtest import BacktestResult, Limits, State, backtest
from the_eye.rules.manifest import Match, ValidatorRule
from the_eye.settings import StoreSettings
from the_eye.store import past_events
from the_eye.store.applications import create_application
from the_eye.store.connect import Connection
from the_eye.store.past_events import Key, Selection, Window, read_page, reading, select_events

DAY = Window(NOON, NOON + timedelta(days=1))
GOOD, BAD = '{"ok": true}', '{"ok": false}'
OK = cel("event.data.ok")


def stored(connection: Connection, *data: str, **changes: Any) -> list[UUID]:
    """Store events a minute apart, the first at the window's beginning; give their ids, newest first."""
    events = [event(timestamp=NOON + timedelta(minutes=i), data=one, **changes) for i, one in enumerate(data)]
    return insert(connection, *events)[::-1]


def run(connection: Connection, tried: ValidatorRule, limits: Limits | None = None, window: Window = DAY) -> Any:
    """Run a back-test to its end."""
    *_, last = backtest(connection, tried, window, limits or Limits())
    return last


def test_events_that_violate_the_rule_are_counted_and_named_newest_first(connection: Connection) -> None:
    ids = stored(connection, *[GOOD, BAD] * 12)

    result = run(connection, rule(**OK))

    assert (result.state, result.truncated, result.message) == (State.DONE, False, "")
    assert (result.examined, result.skipped, result.violations, result.share) == (24, 0, 12, 0.5)
    assert result.event_ids == tuple(ids[0:20:2])
    assert (result.from_, result.to, result.reached) == (DAY.since, DAY.until, NOON)


def test_a_window_has_its_beginning_and_not_its_end(connection: Connection) -> None:
    microsecond = timedelta(microseconds=1)
    times = [DAY.since - microsecond, DAY.since, DAY.until - microsecond, DAY.until]
    ids = insert(connection, *(event(timestamp=at, data=BAD) for at in times))

    assert run(connection, rule(**OK)).event_ids == (ids[2], ids[1])


def test_an_event_belongs_to_when_it_occurred(connection: Connection) -> None:
    """And not to when it came, which may be days later."""
    insert(connection, event(timestamp=NOON, received_at=NOON + timedelta(days=3), data=BAD))

    assert run(connection, rule(**OK)).violations == 1


KINDS = [
    (application_id, category, name)
    for application_id in (1, 2, 3)
    for category in ("page", "page view", "Page view", "other", "[x]")
    for name in ("click", "cta click", "view")
]


@pytest.mark.parametrize(
    "match",
    [
        {},
        {"category": "page"},
        {"name": "click"},
        {"category": "page", "name": "click"},
        {"category": "page*"},
        {"category": "*view"},
        {"category": "[Pp]age view", "name": "c*"},
        {"category": "[[]x]"},
        {"name": "* click"},
        {"applications": ["shop"]},
        {"applications": ["sh*", "blog"]},
        {"applications": ["nobody"]},
        {"category": "page", "name": "click", "applications": ["shop", "shoes"]},
        {"category": "page ?iew", "applications": ["*o*"]},
    ],
    ids=str,
)
def test_exactly_the_events_that_the_rule_matches_are_examined(connection: Connection, match: dict[str, Any]) -> None:
    """Whatever PostgreSQL is asked for, the rest is matched as the worker does; what was read in vain is counted."""
    names = ["shop", "shoes", "blog"]
    for name in names:
        create_application(connection, name)
    insert(connection, *(event(application_id=a, category=c, name=n, data=BAD) for a, c, n in KINDS))
    tried = rule(match=match, **OK)
    ruleset = backtest_module.alone(tried)
    assert not isinstance(ruleset, tuple)

    result = run(connection, tried)

    find = ruleset._find  # noqa: SLF001 - what the worker asks
    expected = sum(bool(find(c, n, names[a - 1])) for a, c, n in KINDS)
    assert (result.examined, result.violations) == (expected, expected)
    with connection.transaction():
        page = read_page(connection, select_events(connection, tried.spec.match), DAY, None)
    assert result.examined + result.skipped == len(page.events) <= len(KINDS)


def test_what_an_index_finds_is_not_read_in_vain(connection: Connection) -> None:
    create_application(connection, "shop")
    create_application(connection, "blog")
    insert(connection, *(event(application_id=a, category=c, name=n) for a, c, n in KINDS))
    matches = [
        {"category": "page"},
        {"name": "click"},
        {"category": "page *"},
        {"applications": ["s*"]},
    ]

    assert [run(connection, rule(match=match, **OK)).skipped for match in matches] == [0, 0, 0, 0]


@pytest.mark.parametrize(("category", "examined"), [("*", 4), ("[p]age", 2)])
def test_the_bound_on_events_ends_it_early(connection: Connection, category: str, examined: int) -> None:
    """What is read for a glob and does not match counts, too: reading is what takes time."""
    insert(
        connection,
        *(event(timestamp=NOON + timedelta(minutes=i), category=f"{'pq'[i % 2]}age", data=BAD) for i in range(10)),
    )

    result = run(connection, rule(match={"category": category}, **OK), Limits(rows=4))

    assert (result.examined, result.skipped, result.violations) == (examined, 4 - examined, examined)
    assert (result.state, result.truncated) == (State.DONE, True)
    assert result.message == "the bound of 4 events was reached"
    assert result.reached == NOON + timedelta(minutes=6)


def test_a_bound_that_is_just_met_is_none(connection: Connection) -> None:
    stored(connection, *[GOOD] * 4)

    result = run(connection, rule(**OK), Limits(rows=4))

    assert (result.examined, result.truncated) == (4, False)


def test_the_bound_on_time_ends_it_early(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two events, not only between two pages."""
    stored(connection, *[BAD] * 5)
    seconds = iter(range(1000))
    monkeypatch.setattr("the_eye.rules.backtest.time.monotonic", lambda: float(next(seconds)))

    result = run(connection, rule(**OK), Limits(seconds=4.5))

    assert result.message == "the bound of 4.5 seconds was reached"
    assert result.truncated
    assert 0 < result.examined < 5


def test_a_database_that_is_too_slow_ends_it_early(connection: Connection, store_settings: StoreSettings) -> None:
    """A page that does not come in time is given up with all that was found before it."""
    stored(connection, *[BAD] * 3)
    with psycopg.connect(store_settings.database_url) as other:
        other.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")

        result = run(connection, rule(**OK), Limits(seconds=0.2))

    assert (result.state, result.truncated, result.examined) == (State.DONE, True, 0)
    assert result.message == "the bound of 0.2 seconds was reached"
    assert run(connection, rule(**OK)).examined == 3


def test_it_cannot_write(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database would refuse, whatever was tried."""
    stored(connection, BAD)

    def write(connection: Connection, *_: object) -> None:
        connection.execute("DELETE FROM events")

    monkeypatch.setattr(backtest_module, "read_page", write)

    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        run(connection, rule(**OK))


def test_nothing_is_held_between_two_pages(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither maintenance nor VACUUM waits for a back-test."""
    monkeypatch.setattr(backtest_module, "PAGE_EVENTS", 2)
    stored(connection, *[BAD] * 5)
    found = []

    for result in backtest(connection, rule(**OK), DAY):
        assert connection.info.transaction_status == TransactionStatus.IDLE
        found.append((result.state, result.examined))

    assert found == [(State.RUNNING, 2), (State.RUNNING, 4), (State.DONE, 5)]


def test_data_that_cannot_be_read_violates(connection: Connection) -> None:
    """As it would in the worker."""
    stored(connection, "[1]", GOOD)

    result = run(connection, rule(**OK))

    assert (result.examined, result.violations) == (2, 1)


def test_a_time_in_the_future_is_no_violation_of_the_rule(connection: Connection) -> None:
    insert(connection, event(timestamp=NOON, received_at=NOON - timedelta(days=1), data=GOOD))

    result = run(connection, rule(**OK))

    assert (result.examined, result.violations) == (1, 0)


def test_the_rule_judges_alone_whatever_is_stored(connection: Connection) -> None:
    stored(connection, GOOD, **violating("default/rule", "shop/other"))

    result = run(connection, rule(**OK))

    assert (result.examined, result.violations) == (1, 0)


def test_a_rule_that_does_not_compile_is_a_failure_with_its_field(connection: Connection) -> None:
    result = run(connection, rule(**cel("event.nope == 1")))

    assert result.state is State.FAILED
    assert result.message.startswith("spec.validations[0].expression: ")


def pages(connection: Connection, selection: Selection, rows: int) -> Iterator[list[Key]]:
    """Read page after page."""
    after, more = None, True
    while more:
        with reading(connection, 5):
            page = read_page(connection, selection, DAY, after, rows)
        yield [past.key for past in page.events]
        after, more = page.events[-1].key if page.events else after, page.more


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 12, 13])
@pytest.mark.parametrize("violated", [None, "shop/a"])
def test_pages_have_every_event_once_in_order(connection: Connection, rows: int, violated: str | None) -> None:
    """Also where several are of one time, and of one id."""
    same = UUID(int=7)
    for at in (NOON, NOON + timedelta(seconds=1)):
        for application_id in (1, 2, 3):
            changes = violating("shop/a") if application_id == 2 else {}
            insert(connection, event(timestamp=at, event_id=same, application_id=application_id, **changes))
            insert(connection, event(timestamp=at, application_id=application_id))
    rows_stored = connection.execute('SELECT "timestamp", event_id, application_id FROM events').fetchall()

    read = [key for page in pages(connection, Selection(match=Match(), violated=violated), rows) for key in page]

    assert read == sorted((Key(*row) for row in rows_stored), reverse=True)


def test_events_that_match_and_events_that_have_violated_are_read_together(connection: Connection) -> None:
    events = [
        event(timestamp=NOON + timedelta(minutes=i), category=category, **changes)
        for i, (category, changes) in enumerate(
            [("a", {}), ("b", {}), ("a", violating("shop/a")), ("b", violating("shop/a")), ("b", violating("shop/b"))]
        )
    ]
    ids = insert(connection, *events)

    selection = Selection(match=Match(category="a"), violated="shop/a")
    read = [key.event_id for page in pages(connection, selection, 2) for key in page]

    assert read == [ids[3], ids[2], ids[0]]


def test_a_page_ends_early_when_its_events_are_large(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the connection is as good as before."""
    monkeypatch.setattr(past_events, "PAGE_BYTES", 100)
    monkeypatch.setattr(past_events, "FETCHED_ROWS", 2)
    stored(connection, *(json.dumps({"x": "y" * size}) for size in (10, 10, 10, 10, 10, 1000, 10, 10)))

    read = list(pages(connection, Selection(match=Match()), 100))

    assert [len(page) for page in read] == [2, 1, 5]


class Process:
    """`python -m the_eye.rules.backtest` with a request."""

    def __init__(self, url: str) -> None:
        self._url = url

    def start(self) -> subprocess.Popen[bytes]:
        """Start it; it waits for its request."""
        return subprocess.Popen(
            [sys.executable, "-m", "the_eye.rules.backtest"],
            env={**os.environ, "THE_EYE_DATABASE_URL": self._url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, tried: dict[str, Any], **fields: Any) -> tuple[int, list[BacktestResult], str]:
        """Run it to its end."""
        request = {"rule": tried, "from": DAY.since, "to": DAY.until, **fields}
        process = self.start()
        out, err = process.communicate(msgspec.json.encode(request), timeout=60)
        lines = [msgspec.json.decode(line, type=BacktestResult) for line in out.splitlines()]
        return process.returncode, lines, err.decode()


@pytest.fixture
def process(store_settings: StoreSettings) -> Process:
    """The process, over the empty store."""
    return Process(store_settings.database_url)


def test_a_process_of_its_own_reads_a_request_and_writes_lines(process: Process, connection: Connection) -> None:
    ids = stored(connection, *[GOOD, BAD] * 3)

    status, lines, _ = process.run(manifest(**OK), max_rows=4)

    assert status == 0
    assert (lines[-1].state, lines[-1].examined, lines[-1].truncated) == (State.DONE, 4, True)
    assert lines[-1].event_ids == tuple(ids[0:4:2])
    assert (lines[-1].from_, lines[-1].to) == (DAY.since, DAY.until)


def test_the_process_lets_all_others_go_first(process: Process, store_settings: StoreSettings) -> None:
    del store_settings
    started = process.start()
    try:
        wait_until(
            lambda: os.getpriority(os.PRIO_PROCESS, started.pid) == 19, 30, lambda: "its priority is not the lowest"
        )
    finally:
        started.kill()
        started.communicate()


def test_the_process_says_why_it_failed(process: Process) -> None:
    """In a line like all others, and without the URL's password."""
    broken = process.run(manifest(match={"category": 5}, **OK))
    away = Process("postgresql://someone:hunter2@127.0.0.1:9/nowhere").run(manifest(**OK))
    unset = Process("").run(manifest(**OK))

    assert [status for status, _, _ in (broken, away, unset)] == [1, 1, 1]
    assert all([line.state for line in lines] == [State.FAILED] for _, lines, _ in (broken, away, unset))
    assert "spec.match.category: expected `str`, got `int`" in broken[1][0].message
    assert "refused" in away[1][0].message
    assert "hunter2" not in away[1][0].message + away[2]
    assert unset[1][0].message == "THE_EYE_DATABASE_URL is not set"


def test_the_clock_of_the_result_is_the_window_asked_for(connection: Connection) -> None:
    """Of an empty store, too."""
    result = run(connection, rule(**OK), window=Window(datetime.min.replace(tzinfo=NOON.tzinfo), NOON))

    assert (result.state, result.examined, result.share, result.reached) == (State.DONE, 0, 0.0, None)
