"""Stored events get another verdict: which of them, all or nothing, once, and with the old one kept as long as they.

Whether the row that was judged is still the row is looked at while it is locked; that PostgreSQL's locks hold is not
shown here.
"""

import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest
from tests.integration.store.rows import NOON, RULESET, event, insert, violating
from tests.unit.rules.making import TOLERANCE, cel, rule, ruleset

from the_eye.rules.manifest import ValidatorRule
from the_eye.rules.rejudging import Rejudging
from the_eye.rules.ruleset import FUTURE_TIMESTAMP, RuleSet, empty_ruleset
from the_eye.settings import RetentionSettings, StoreSettings
from the_eye.store import partitions, revalidations
from the_eye.store.applications import create_application
from the_eye.store.audit import RuleCounts, audit_counts
from the_eye.store.connect import AsyncConnection, Connection, connect
from the_eye.store.event_query import EventFilter, list_events
from the_eye.store.past_events import PastEvent, Selection, Window, read_page, select_events
from the_eye.store.revalidations import Counts, Revalidation, Task, apply, begin, try_out, verdicts_of
from the_eye.verdict import Action, Verdict, Violation

DAY = Window(NOON, NOON + timedelta(days=1))
GOOD, BAD = '{"ok": true}', '{"ok": false}'
SHOP: dict[str, Any] = {"metadata": {"namespace": "shop"}}
WRONG = rule("a", **SHOP, **cel("!event.data.ok"))
RIGHT = rule("a", **SHOP, **cel("event.data.ok"))


@pytest.fixture(autouse=True)
def _no_runs(connection: Connection) -> None:
    connection.execute("TRUNCATE revised_verdicts, revalidations RESTART IDENTITY")


def task(
    connection: Connection,
    rules: RuleSet,
    *,
    name: str = "shop/a",
    window: Window = DAY,
    batch: int = 2,
) -> Task:
    """What `the-eye events revalidate` makes of its options."""
    judge = Rejudging(rules, name)
    return Task(name, window, rules.digest, select_events(connection, judge.match, name), judge, batch)


def finish(connection: Connection, todo: Task) -> Revalidation:
    """Apply all."""
    *_, last = apply(connection, todo, begin(connection, todo, "tester").id)
    return last


def last(counts: Iterable[Counts]) -> Counts:
    """The final figures."""
    *_, final = counts
    return final


def stored(connection: Connection, *data: str, **changes: Any) -> list[UUID]:
    """Store events a minute apart, the first at the window's beginning."""
    events = [event(timestamp=NOON + timedelta(minutes=i), data=one, **changes) for i, one in enumerate(data)]
    return insert(connection, *events)


def rows(connection: Connection) -> dict[UUID, Any]:
    """Read what a verdict consists of, and PostgreSQL's version of the row."""
    query = "SELECT event_id, valid, violations, violated_rules, ruleset, xmin::text FROM events"
    return {row[0]: row[1:] for row in connection.execute(query)}


def kept(connection: Connection) -> list[Any]:
    """Read the old verdicts."""
    query = "SELECT event_id, valid, violated, ruleset FROM (SELECT *, violations->0->>'rule' AS violated FROM revised_verdicts) r ORDER BY \"timestamp\", revalidation_id"  # noqa: E501
    return connection.execute(query).fetchall()


async def shown(settings: StoreSettings, *, valid: bool) -> list[UUID]:
    """List events as the API does."""
    async with await AsyncConnection.connect(settings.database_url, autocommit=True) as own:
        page = await list_events(own, EventFilter(valid=valid, oldest_first=True))
    return [one.event_id for one in page.events]


async def test_what_a_wrong_rule_did_is_repaired_and_kept(
    connection: Connection, store_settings: StoreSettings
) -> None:
    """Readers see the new verdict; the old one can be read beside it."""
    good, bad = stored(connection, GOOD, BAD)
    wrong, right = ruleset(WRONG), ruleset(RIGHT)
    finish(connection, task(connection, wrong))
    assert (await shown(store_settings, valid=True), await shown(store_settings, valid=False)) == ([bad], [good])

    done = finish(connection, task(connection, right))

    assert done.counts == Counts(examined=2, became_valid=1, became_invalid=1)
    assert (await shown(store_settings, valid=True), await shown(store_settings, valid=False)) == ([good], [bad])
    assert rows(connection)[good][:4] == (True, None, None, right.digest)
    assert rows(connection)[bad][2:4] == (["shop/a"], right.digest)
    history = verdicts_of(connection, good)
    assert [(given.valid, given.ruleset) for given in history] == [
        (True, f"sha256:{RULESET.hex()}"),
        (False, wrong.revision),
        (True, right.revision),
    ]
    assert history[1].violations[0].code == "expression.false"
    assert [(given.revalidation, given.rule, given.revised_by) for given in history] == [
        (1, "shop/a", "tester"),
        (2, "shop/a", "tester"),
        (None, None, None),
    ]


def test_a_dry_run_counts_what_is_applied_and_writes_nothing(connection: Connection) -> None:
    """Of every kind of event: those of other rules are not even counted."""
    unchanged = cel_violation()
    stored(connection, GOOD, BAD, GOOD)
    stored(connection, GOOD, BAD, BAD, **violating("shop/a"))
    stored(connection, BAD, **unchanged)
    stored(connection, GOOD, BAD, category="other", **violating("shop/a"))
    stored(connection, GOOD, BAD, category="other", **violating("shop/b"))
    stored(connection, GOOD, BAD, category="other")
    before = rows(connection)
    todo = task(connection, ruleset(rule("a", match={"category": "page *"}, **SHOP, **cel("event.data.ok"))))

    counted = last(try_out(connection, todo))

    assert counted == Counts(examined=9, became_valid=3, became_invalid=1, violations_changed=2, unchanged=3)
    assert (rows(connection), kept(connection)) == (before, [])
    assert connection.execute("SELECT FROM revalidations").rowcount == 0
    assert finish(connection, todo).counts == counted


def cel_violation() -> dict[str, Any]:
    """Make the changes of an event that broke the right rule."""
    changes = violating("shop/a")
    changes["violations"].obj[0] |= {"path": "$", "code": "expression.false", "message": "not true: event.data.ok"}
    return changes


def test_a_second_time_nothing_changes(connection: Connection) -> None:
    stored(connection, GOOD, BAD, BAD)
    todo = task(connection, ruleset(RIGHT))
    first = finish(connection, todo)
    after, old = rows(connection), kept(connection)

    second = finish(connection, todo)

    assert second.id != first.id
    assert second.counts == Counts(examined=3, unchanged=3)
    assert (rows(connection), kept(connection)) == (after, old)


def test_a_verdict_that_stays_names_the_ruleset_that_first_gave_it(connection: Connection) -> None:
    """The row is not touched at all."""
    good, bad = stored(connection, GOOD, BAD)
    before = rows(connection)

    finish(connection, task(connection, ruleset(RIGHT)))

    assert rows(connection)[good] == before[good]
    assert rows(connection)[bad] != before[bad]
    assert [one[0] for one in kept(connection)] == [bad]


def test_what_was_stopped_goes_on_where_it_was(connection: Connection) -> None:
    """Newest first; the run is the same, and nothing is counted or kept twice."""
    ids = stored(connection, *[BAD] * 5)
    todo = task(connection, ruleset(RIGHT))
    expected = last(try_out(connection, todo))
    next(apply(connection, todo, begin(connection, todo, "first").id))
    assert [one[0] for one in kept(connection)] == ids[3:]

    again = begin(connection, todo, "second")
    *_, done = apply(connection, todo, again.id)

    assert (again.id, again.started_by, again.examined) == (1, "first", 2)
    assert again.position == (NOON + timedelta(minutes=3), ids[3], 1)
    assert (done.id, done.counts) == (1, expected)
    assert [one[0] for one in kept(connection)] == ids


@pytest.mark.parametrize("step", ["_write", "_advance"])
def test_a_batch_is_written_whole_or_not_at_all(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Killed within the second batch, that one has left nothing."""
    ids = stored(connection, *[BAD] * 5)
    todo = task(connection, ruleset(RIGHT))
    calls: list[object] = []
    real = getattr(revalidations, step)

    def die(*arguments: Any) -> Any:
        calls.append(arguments)
        done = real(*arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(revalidations, step, die)
    with pytest.raises(KeyboardInterrupt):
        finish(connection, todo)
    (run,) = revalidations.list_revalidations(connection, 10)
    assert (run.examined, run.event_id, run.finished_at) == (2, ids[3], None)
    assert [one[0] for one in kept(connection)] == ids[3:]
    assert [rows(connection)[one][0] for one in ids] == [True, True, True, False, False]

    assert finish(connection, todo).counts == Counts(examined=5, became_invalid=5)


def test_another_ruleset_begins_anew(connection: Connection) -> None:
    """What was judged by rules that are no longer in force is judged again."""
    stored(connection, *[BAD] * 3)
    todo = task(connection, ruleset(RIGHT))
    next(apply(connection, todo, begin(connection, todo, "tester").id))

    other = begin(connection, task(connection, ruleset(WRONG)), "tester")

    assert (other.id, other.position) == (2, None)


def test_several_at_once_share_the_batches(connection: Connection, store_settings: StoreSettings) -> None:
    """None is judged twice."""
    ids = stored(connection, *[BAD] * 40)
    todo = task(connection, ruleset(RIGHT), batch=1)
    run = begin(connection, todo, "tester").id
    judged: list[PastEvent] = []
    done: list[Revalidation] = []

    def judge(past: PastEvent) -> Verdict | None:
        judged.append(past)
        return todo.judge(past)

    def work() -> None:
        with connect(store_settings, "revalidate") as own:
            done.extend(apply(own, msgspec.structs.replace(todo, judge=judge), run))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [one.counts for one in done if one.finished_at] == [Counts(examined=40, became_invalid=40)] * 3
    assert [one[0] for one in kept(connection)] == ids
    assert len(judged) == 40


def test_an_event_that_changes_meanwhile_is_judged_again(connection: Connection, store_settings: StoreSettings) -> None:
    """Another run gave it a verdict after it was read: that one is what is kept as the old one."""
    (bad,) = stored(connection, BAD)
    todo = task(connection, ruleset(RIGHT))
    judged: list[PastEvent] = []

    def judge(past: PastEvent) -> Verdict | None:
        judged.append(past)
        if len(judged) == 1:
            with psycopg.connect(store_settings.database_url) as other:
                other.execute("UPDATE events SET ruleset = %s", (bytes(32),))
        return todo.judge(past)

    done = finish(connection, msgspec.structs.replace(todo, judge=judge))

    assert [past.ruleset for past in judged] == [RULESET, bytes(32)]
    assert done.counts == Counts(examined=1, became_invalid=1)
    assert kept(connection) == [(bad, True, None, bytes(32))]


def test_a_window_has_its_beginning_and_not_its_end(connection: Connection) -> None:
    microsecond = timedelta(microseconds=1)
    times = [DAY.since - microsecond, DAY.since, DAY.until - microsecond, DAY.until]
    ids = insert(connection, *(event(timestamp=at, data=BAD) for at in times))

    finish(connection, task(connection, ruleset(RIGHT)))

    assert [one[0] for one in kept(connection)] == ids[1:3]


def test_all_rules_judge_and_not_only_the_one(connection: Connection) -> None:
    """An event is as the rules now in force together would have it."""
    (bad,) = stored(connection, BAD, **violating("shop/a", "shop/gone"))
    rules = ruleset(RIGHT, rule("b", **SHOP, action="Audit", **cel("has(event.data.b)")))

    finish(connection, task(connection, rules))

    assert rows(connection)[bad][2] == ["shop/a", "shop/b"]


def test_of_a_rule_that_is_gone_the_violations_go(connection: Connection) -> None:
    ids = stored(connection, GOOD, BAD, **violating("shop/a"))
    stored(connection, BAD)

    done = finish(connection, task(connection, empty_ruleset(future_tolerance=TOLERANCE)))

    assert done.counts == Counts(examined=2, became_valid=2)
    assert [rows(connection)[one][0] for one in ids] == [True, True]


def test_that_an_event_came_from_the_future_stays(connection: Connection) -> None:
    """It depends on a setting of the workers, which this process may not have, and on no rule."""
    future = violating(FUTURE_TIMESTAMP)
    (bad,) = stored(connection, BAD, **future)
    (early,) = stored(connection, GOOD, received_at=NOON - timedelta(days=9))

    finish(connection, task(connection, ruleset(RIGHT)))

    assert rows(connection)[bad][2] == ["shop/a", FUTURE_TIMESTAMP]
    assert rows(connection)[early][0] is True


def test_an_application_is_known_by_its_name(connection: Connection) -> None:
    create_application(connection, "shop")
    create_application(connection, "blog")
    ours = stored(connection, BAD, application_id=1)
    stored(connection, BAD, application_id=2)
    tried = rule("a", match={"applications": ["shop"]}, **SHOP, **cel("event.application == 'blog'"))

    finish(connection, task(connection, ruleset(tried)))

    assert [one[0] for one in kept(connection)] == ours
    assert verdicts_of(connection, ours[0])[0].application == "shop"


def test_events_of_several_days_are_written_at_once(connection: Connection) -> None:
    """A batch may span partitions."""
    for day in (NOON.date(), NOON.date() + timedelta(days=1)):
        with connection.transaction():
            partitions.create(connection, day)
    ids = insert(connection, *(event(timestamp=NOON + timedelta(hours=6 * i), data=BAD) for i in range(12)))

    done = finish(connection, task(connection, ruleset(RIGHT), window=Window(NOON, NOON + timedelta(days=9)), batch=12))

    assert done.counts == Counts(examined=12, became_invalid=12)
    assert [one[0] for one in kept(connection)] == ids


def test_old_verdicts_go_with_their_events(connection: Connection) -> None:
    """Whole days with their partition; strays, whose time says nothing, one by one."""
    old_day, new_day = NOON, NOON + timedelta(days=20)
    now = NOON + timedelta(days=25)
    for day in (old_day.date(), new_day.date()):
        with connection.transaction():
            partitions.create(connection, day)
    stray = datetime(1999, 1, 1, tzinfo=UTC)
    gone = insert(connection, event(timestamp=old_day, data=BAD), event(timestamp=stray, data=BAD, stored_at=old_day))
    stay = insert(connection, event(timestamp=new_day, data=BAD), event(timestamp=stray, data=BAD, stored_at=new_day))
    finish(connection, task(connection, ruleset(RIGHT), window=Window(stray, now)))
    assert {one[0] for one in kept(connection)} == {*gone, *stay}

    steps = list(partitions.maintain(connection, RetentionSettings(retention_days=10, partitions_ahead_days=1), now))

    assert partitions.Dropped(old_day.date()) in steps
    assert steps[-1] == partitions.Deleted(1)
    assert {one[0] for one in kept(connection)} == set(stay) == set(rows(connection))


def test_no_event_is_moved_or_deleted_while_a_batch_is_in_work(
    connection: Connection, store_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maintenance waits; both would lock the same rows, each in an order of its own."""
    monkeypatch.setattr(partitions, "ATTEMPTS", 1)
    monkeypatch.setattr(partitions, "LOCK_SECONDS", 0.05)
    now = NOON + timedelta(days=25)
    settings = RetentionSettings(retention_days=10, partitions_ahead_days=1)
    stray = event(timestamp=datetime(1999, 1, 1, tzinfo=UTC), stored_at=NOON)
    insert(connection, stray)
    list(partitions.maintain(connection, settings, NOON + timedelta(days=5)))
    todo = task(connection, ruleset(RIGHT), window=Window(stray["timestamp"], now))
    refused: list[str] = []

    def judge(past: PastEvent) -> Verdict | None:
        with connect(store_settings, "maintain") as own:
            for at in (NOON + timedelta(days=6), now):
                with pytest.raises(partitions.MaintenanceError) as error:
                    list(partitions.maintain(own, settings, at))
                refused.append(str(error.value).partition(":")[0])
            with pytest.raises(partitions.MaintenanceError) as error:
                list(partitions._delete_strays(own, now))  # noqa: SLF001 - what maintenance comes to last
            refused.append(str(error.value).partition(":")[0])
        return todo.judge(past)

    finish(connection, msgspec.structs.replace(todo, judge=judge))

    assert refused[-1] == "cannot delete from events_default"
    assert refused[0].startswith("cannot create events_p")


@pytest.mark.parametrize("days", [0, 1, 40])
def test_an_event_that_is_chosen_for_two_reasons_is_read_once(connection: Connection, days: int) -> None:
    """However many partitions there are."""
    for offset in range(days):
        with connection.transaction():
            partitions.create(connection, NOON.date() - timedelta(days=offset))
    ids = stored(connection, GOOD, BAD, GOOD, **violating("shop/a"))
    chosen = Selection(match=RIGHT.spec.match, violated="shop/a")

    with connection.transaction():
        page = read_page(connection, chosen, DAY, None)

    assert [past.event.event_id for past in page.events] == ids[::-1]
    assert page.events[0].violations == (Violation("shop/a", 1, Action.ENFORCE, "$.data", "schema.type", "wrong"),)


def audited(connection: Connection, rules: Iterable[ValidatorRule], **options: Any) -> dict[str, tuple[int, int]]:
    """Count for rules what they are for and what breaks them."""
    counts = audit_counts(connection, rules, NOON, **options)
    return {name: (found.events, found.violations) for name, found in counts.rules.items()}


def test_rules_are_counted_together(connection: Connection) -> None:
    """Each event once, whatever else it breaks; events from before are left out, and so is what is still to come."""
    create_application(connection, "shop")
    create_application(connection, "blog")
    stored(connection, GOOD, GOOD, BAD, application_id=1, **violating("shop/a", "shop/b", action="Audit"))
    stored(connection, GOOD, application_id=2)
    stored(connection, GOOD, application_id=2, category="other", **violating("shop/b"))
    later = datetime.now(UTC) + timedelta(days=1)
    for at in (NOON - timedelta(microseconds=1), later):
        insert(connection, event(timestamp=at, **violating("shop/a")))
    rules = [
        rule("a", match={"category": "page *"}, **SHOP, **cel("true")),
        rule("b", match={"applications": ["s*"]}, **SHOP, **cel("true")),
        rule("c", match={"category": "none"}, **SHOP, **cel("true")),
    ]

    assert audited(connection, rules) == {"shop/a": (4, 3), "shop/b": (3, 4), "shop/c": (0, 0)}


def test_counting_is_bounded_and_says_by_what(connection: Connection) -> None:
    """The newest events are those that are counted."""
    stored(connection, GOOD, GOOD, **violating("shop/a"))
    insert(connection, *(event(timestamp=NOON + timedelta(hours=i)) for i in (1, 2, 3)))

    counts = audit_counts(connection, [RIGHT], NOON, max_events=3)
    whole = audit_counts(connection, [RIGHT], NOON, max_events=5)

    assert (counts.since, counts.rules) == (NOON + timedelta(hours=1), {"shop/a": RuleCounts(3, 0)})
    assert (whole.since, whole.rules) == (NOON, {"shop/a": RuleCounts(5, 2)})
    assert abs(counts.until - datetime.now(UTC)) < timedelta(minutes=1)
