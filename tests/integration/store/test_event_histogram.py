"""Events over time are counted where that is cheap, and otherwise told about right."""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest
from tests.integration.store.rows import NOON, SESSION, event, insert, violating

from the_eye.settings import StoreSettings
from the_eye.store import event_histogram
from the_eye.store.applications import create_application
from the_eye.store.connect import AsyncConnection, Connection, make_async_pool
from the_eye.store.event_histogram import Histogram, read_histogram
from the_eye.store.event_kinds import KindsSeen
from the_eye.store.event_query import EventFilter, find_text

HOUR = timedelta(hours=1)
SECONDS = 3_600
BARS = 4
# Twenty a second in one half of the hour, one a second in the other; every tenth is invalid.
DENSE = """INSERT INTO events ("timestamp", event_id, received_at, session_id, application_id, valid, category, name,
                               data, ruleset, violations, violated_rules)
           SELECT %(since)s + n * interval '50 ms', gen_random_uuid(), now(), %(session)s, 1 + n %% 2, n %% 10 > 0,
                  'page interaction', CASE WHEN n %% 3 = 0 THEN 'cta click' ELSE 'pageview' END, '{}', %(ruleset)s,
                  CASE WHEN n %% 10 = 0 THEN '[]'::jsonb END, CASE WHEN n %% 10 = 0 THEN ARRAY['shop/a'] END
             FROM generate_series(0, 71999) n WHERE n < 36000 OR n %% 20 = 0"""
DENSE_BARS = [18_000, 18_000, 900, 900]


@pytest.fixture
async def reader(store_settings: StoreSettings) -> AsyncIterator[AsyncConnection]:
    """A connection as the API has it."""
    async with make_async_pool(store_settings, "test", 1) as pool, pool.connection() as connection:
        yield connection


@pytest.fixture
def dense(connection: Connection) -> Connection:
    """Many events within an hour."""
    for name in ("shop", "blog"):
        create_application(connection, name)
    connection.execute(DENSE, {"since": NOON, "session": SESSION, "ruleset": bytes(32)})
    connection.execute("ANALYZE events")
    return connection


async def histogram(reader: AsyncConnection, **filter_: object) -> Histogram:
    return await read_histogram(reader, EventFilter(**filter_), NOON, NOON + HOUR, BARS)  # type: ignore[arg-type]


def counts(shown: Histogram) -> list[tuple[int, int]]:
    return [(bar.valid, bar.invalid) for bar in shown.bars]


async def test_few_events_are_counted_each_in_its_bar(reader: AsyncConnection, connection: Connection) -> None:
    """The range's beginning belongs to it, its end does not; audited events are valid."""
    insert(
        connection,
        event(timestamp=NOON - timedelta(microseconds=1)),
        event(timestamp=NOON),
        event(timestamp=NOON + HOUR / 4 - timedelta(microseconds=1), **violating("shop/a")),
        event(timestamp=NOON + HOUR / 4, **violating("shop/a", action="Audit")),
        event(timestamp=NOON + HOUR - timedelta(microseconds=1)),
        event(timestamp=NOON + HOUR),
    )

    shown = await histogram(reader)

    assert shown.exact
    assert counts(shown) == [(1, 1), (1, 0), (0, 0), (1, 0)]
    assert [bar.since - NOON for bar in shown.bars] == [number * HOUR / 4 for number in range(4)]
    assert counts(await histogram(reader, rule="shop/a")) == [(0, 1), (1, 0), (0, 0), (0, 0)]


@pytest.mark.usefixtures("dense")
@pytest.mark.parametrize(
    ("filter_", "share", "invalid"),
    [
        ({}, 1, 0.1),
        ({"application_id": 2}, 0.5, 0),
        ({"category": "page interaction", "name": "pageview"}, 2 / 3, 0.1),
        ({"name": "cta click"}, 1 / 3, 0.1),
        ({"rule": "shop/a"}, 0.1, 1),
        ({"valid": False}, 0.1, 1),
        ({"valid": True}, 0.9, 0),
        ({"session_id": SESSION}, 1, 0.1),
        ({"category": "unknown"}, 0, 0),
    ],
    ids=str,
)
async def test_many_events_are_told_about_right(
    reader: AsyncConnection, monkeypatch: pytest.MonkeyPatch, filter_: dict[str, object], share: float, invalid: float
) -> None:
    """Within a fifth where there are many, whatever is asked for."""
    exact = counts(await histogram(reader, **filter_))
    monkeypatch.setattr(event_histogram, "CHEAP", 0.0)

    shown = await histogram(reader, **filter_)

    assert not shown.exact
    # The other half has too few events to be told within a fifth.
    for (valid, broken), (counted_valid, counted_broken) in list(zip(counts(shown), exact, strict=True))[:2]:
        assert valid == pytest.approx(counted_valid, rel=0.2)
        assert broken == pytest.approx(counted_broken, rel=0.2)
    assert sum(exact[0]) == pytest.approx(DENSE_BARS[0] * share, abs=1)
    assert exact[0][1] == pytest.approx(DENSE_BARS[0] * share * invalid, abs=1)


@pytest.mark.usefixtures("dense")
async def test_very_many_events_are_not_counted(reader: AsyncConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking what counting them costs takes as long as half of the estimate, where there are many partitions."""
    assert (await histogram(reader)).exact
    monkeypatch.setattr(event_histogram, "MANY", sum(DENSE_BARS) // 2)

    assert not (await histogram(reader)).exact


async def test_events_at_the_same_moment_are_not_lost(
    reader: AsyncConnection, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than a stratum shows: how soon they came tells nothing."""
    monkeypatch.setattr(event_histogram, "CHEAP", 0.0)
    insert(connection, *(event() for _ in range(event_histogram.STRATUM_EVENTS + 5)))

    shown = await histogram(reader)

    assert shown.bars[0].valid == event_histogram.STRATUM_EVENTS


async def test_text_is_found_in_kinds_and_at_the_beginning_of_ids(
    reader: AsyncConnection, connection: Connection
) -> None:
    """In whatever case; what would be a pattern elsewhere is a letter here."""
    seen = KindsSeen()
    kinds = {("page interaction", "CTA click"), ("form", "100%"), ("form", "a_b"), ("Ärger", "x")}
    seen.tell(connection, seen.new(kinds))

    async def found(text: str) -> set[tuple[str, str]]:
        return set((await find_text(reader, text)).kinds or ())

    assert await found("cta") == {("page interaction", "CTA click")}
    assert await found("FORM") == {("form", "100%"), ("form", "a_b")}
    assert await found("%") == {("form", "100%")}
    assert await found("_") == {("form", "a_b")}
    assert await found("ärg") == {("Ärger", "x")}
    assert await found("\\") == set()
    assert (await find_text(reader, "e2085be5")).ids == (
        UUID("e2085be5-0000-0000-0000-000000000000"),
        UUID("e2085be5-ffff-ffff-ffff-ffffffffffff"),
    )
    assert (await find_text(reader, str(SESSION).upper())).ids == (SESSION, SESSION)
    assert (await find_text(reader, "e2085be")).ids is None
    assert (await find_text(reader, "e2085bex")).ids is None


def test_a_process_tells_of_a_kind_once_and_of_no_more_than_fit(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("the_eye.store.event_kinds.MAX_KINDS", 2)
    seen = KindsSeen()
    kinds = [("a", "1"), ("a", "1"), ("b", "1")]

    assert seen.new(kinds) == {("a", "1"), ("b", "1")}
    seen.tell(connection, seen.new(kinds))

    assert seen.new([*kinds, ("c", "1")]) == set(), "there are too many to tell of"
    other = KindsSeen()
    other.tell(connection, {("c", "1")})
    assert connection.execute("SELECT category FROM event_kinds ORDER BY 1").fetchall() == [("a",), ("b",)]
