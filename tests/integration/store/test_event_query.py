"""Events are read back exactly, by every filter and in every order, page by page, and always by way of an index."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
from tests.integration.conftest import clean
from tests.integration.store.rows import NOON, SESSION, event, insert, violating
from tests.traffic import fill

from the_eye.settings import StoreSettings
from the_eye.store import event_query as module
from the_eye.store.applications import create_application
from the_eye.store.connect import AsyncConnection, Connection, make_async_pool
from the_eye.store.event_query import (
    EventFilter,
    Position,
    StoredEvent,
    event_query,
    list_events,
    page_query,
    read_event,
)

ALL = EventFilter()
TRACE = UUID("0af7651916cd43dd8448eb211c80319c")


@pytest.fixture
async def reader(store_settings: StoreSettings) -> AsyncIterator[AsyncConnection]:
    """A connection as the API has it."""
    async with make_async_pool(store_settings, "test", 1) as pool, pool.connection() as connection:
        yield connection


async def ids(reader: AsyncConnection, filter_: EventFilter) -> list[UUID]:
    """List the ids of the events that fit."""
    return [one.event_id for one in (await list_events(reader, filter_)).events]


async def test_an_event_is_shown_as_it_was_stored(reader: AsyncConnection, connection: Connection) -> None:
    """Its payload byte for byte, its times in UTC, its violations and the ruleset that judged it."""
    create_application(connection, "shop")
    data = '{"n": 1.10, "big": 123456789012345678901234567890,\n"a":1, "a" :2, "é": "\\u00e9"}'
    (event_id,) = insert(connection, event(data=data, trace_id=TRACE, **violating("shop/a", "shop/b")))

    found = await read_event(reader, event_id)

    assert isinstance(found, StoredEvent)
    assert bytes(found.data).decode() == data
    encoded = msgspec.json.encode(found)
    assert data.encode() in encoded
    shown = json.loads(encoded)
    assert [violation["rule"] for violation in shown.pop("violations")] == ["shop/a", "shop/b"]
    assert shown == {
        "event_id": str(event_id),
        "session_id": str(SESSION),
        "application": "shop",
        "category": "page interaction",
        "name": "cta click",
        "data": json.loads(data),
        "timestamp": "2026-03-10T12:00:00Z",
        "received_at": "2026-03-10T12:00:01Z",
        "stored_at": "2026-03-10T12:00:02Z",
        "valid": False,
        "ruleset": "sha256:" + bytes(range(32)).hex(),
        "trace_id": TRACE.hex,
    }


async def test_an_event_without_violations_shows_an_empty_list(reader: AsyncConnection, connection: Connection) -> None:
    (event_id,) = insert(connection, event())

    found = await read_event(reader, event_id)

    assert found is not None
    assert (bytes(found.violations), found.valid) == (b"[]", True)


@pytest.mark.parametrize("year", [1, 9999])
async def test_the_first_and_the_last_year_can_be_read(
    reader: AsyncConnection, connection: Connection, year: int
) -> None:
    at = datetime(year, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC) if year > 1 else datetime(1, 1, 1, tzinfo=UTC)
    (event_id,) = insert(connection, event(timestamp=at))

    page = await list_events(reader, EventFilter(since=at), None, 1)

    assert [one.timestamp for one in page.events] == [at]
    assert Position.parse(Position(at, event_id).cursor(ALL), ALL) == Position(at, event_id)


async def test_of_several_events_with_one_id_the_latest_is_shown(
    reader: AsyncConnection, connection: Connection
) -> None:
    event_id = uuid4()
    times = [NOON, NOON + timedelta(days=1), NOON - timedelta(days=1)]
    insert(connection, *(event(event_id=event_id, timestamp=at) for at in times))

    found = await read_event(reader, event_id)

    assert found is not None
    assert found.timestamp == NOON + timedelta(days=1)


async def test_an_event_of_another_application_is_not_found(reader: AsyncConnection, connection: Connection) -> None:
    (event_id,) = insert(connection, event(application_id=2))

    assert await read_event(reader, event_id, application_id=1) is None
    assert await read_event(reader, event_id, application_id=2) is not None
    assert await read_event(reader, uuid4()) is None


async def test_each_filter_finds_what_fits_and_nothing_else(reader: AsyncConnection, connection: Connection) -> None:
    other_session, later = uuid4(), NOON + timedelta(hours=1)
    plain, second, search, invalid, audited, late = insert(
        connection,
        event(timestamp=NOON + timedelta(seconds=6)),
        event(timestamp=NOON + timedelta(seconds=5), application_id=2),
        event(timestamp=NOON + timedelta(seconds=4), category="search", name="query"),
        event(timestamp=NOON + timedelta(seconds=3), **violating("shop/a", "shop/b")),
        event(timestamp=NOON + timedelta(seconds=2), **violating("shop/b", action="Audit")),
        event(timestamp=later, session_id=other_session),
    )

    expected = {
        EventFilter(): [late, plain, second, search, invalid, audited],
        EventFilter(application_id=2): [second],
        EventFilter(session_id=other_session): [late],
        EventFilter(category="search"): [search],
        EventFilter(name="query"): [search],
        EventFilter(category="search", name="cta click"): [],
        EventFilter(valid=True): [late, plain, second, search, audited],
        EventFilter(valid=False): [invalid],
        EventFilter(rule="shop/a"): [invalid],
        EventFilter(rule="shop/b"): [invalid, audited],
        EventFilter(rule="shop/b", valid=True): [audited],
        EventFilter(rule="shop"): [],
        EventFilter(since=later): [late],
        EventFilter(until=later): [plain, second, search, invalid, audited],
        EventFilter(since=NOON + timedelta(seconds=5), until=later): [plain, second],
        EventFilter(oldest_first=True): [audited, invalid, search, second, plain, late],
        EventFilter(application_id=1, session_id=SESSION, name="cta click", valid=True, until=later): [plain, audited],
    }
    assert {filter_: await ids(reader, filter_) for filter_ in expected} == expected


@pytest.mark.parametrize("oldest_first", [False, True])
@pytest.mark.parametrize("limit", [1, 3, 7])
async def test_pages_show_each_event_once_in_order(
    reader: AsyncConnection, connection: Connection, limit: int, *, oldest_first: bool
) -> None:
    """Several events have the same time; some that come between two pages, where pages were, move nothing."""
    filter_ = EventFilter(
        oldest_first=oldest_first,
        category="page interaction",
        since=NOON + timedelta(seconds=1),
        until=NOON + timedelta(seconds=5),
    )
    insert(connection, *(event(timestamp=NOON + timedelta(seconds=second % 6)) for second in range(30)))
    expected = connection.execute(
        """SELECT event_id FROM events WHERE "timestamp" >= %(since)s AND "timestamp" < %(until)s
            ORDER BY "timestamp", event_id""",
        msgspec.structs.asdict(filter_),
    ).fetchall()
    assert len(expected) == 20

    seen: list[UUID] = []
    position: Position | None = None
    while True:
        page = await list_events(reader, filter_, position, limit)
        seen += [one.event_id for one in page.events]
        if page.next_cursor is None:
            break
        assert len(page.events) == limit
        position = Position.parse(page.next_cursor, filter_)
        first_of_all = UUID(int=len(seen) if oldest_first else 2**128 - len(seen))
        insert(connection, event(timestamp=NOON + timedelta(seconds=1 if oldest_first else 4), event_id=first_of_all))

    assert (seen if oldest_first else seen[::-1]) == [row[0] for row in expected]


async def test_a_page_that_ends_with_the_last_event_is_the_last(
    reader: AsyncConnection, connection: Connection
) -> None:
    insert(connection, *(event() for _ in range(3)))

    assert (await list_events(reader, ALL, None, 3)).next_cursor is None
    assert (await list_events(reader, ALL, None, 2)).next_cursor is not None


async def test_large_events_make_short_pages(
    reader: AsyncConnection, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page holds at least one event, and the connection can be used again at once."""
    monkeypatch.setattr(module, "MAX_PAGE_BYTES", 2_500)
    sizes = (1_000, 1_000, 1_000, 5_000, 10, 10)
    made = insert(
        connection,
        *(
            event(timestamp=NOON - timedelta(seconds=number), data=json.dumps({"text": "x" * size}))
            for number, size in enumerate(sizes)
        ),
    )

    pages: list[list[UUID]] = []
    position: Position | None = None
    while True:
        page = await list_events(reader, ALL, position)
        pages.append([one.event_id for one in page.events])
        if page.next_cursor is None:
            break
        position = Position.parse(page.next_cursor, ALL)

    assert pages == [made[:2], made[2:3], made[3:4], made[4:]]


async def test_a_query_that_takes_too_long_is_ended(reader: AsyncConnection, connection: Connection) -> None:
    """The reader's deadline holds while it waits for a lock, too."""
    insert(connection, event())
    await reader.execute("SET statement_timeout = '100ms'")
    with connection.transaction():
        connection.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(psycopg.errors.QueryCanceled):
            await asyncio.wait_for(list_events(reader, ALL), 5)


ROWS = 40_000
DAYS = 4
LAST_DAY = date(2026, 6, 30)

FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "a large application": {"application_id": 1},
    "a small application": {"application_id": 6},
    "a session": {"session_id": "one that exists"},
    "a frequent category": {"category": "page interaction"},
    "a rare category": {"category": "diagnostics"},
    "a frequent name": {"name": "pageview"},
    "a frequent kind": {"category": "page interaction", "name": "pageview"},
    "a rare kind": {"category": "account", "name": "login"},
    "valid": {"valid": True},
    "invalid": {"valid": False},
    "a frequent rule": {"rule": "shop/pageview-host"},
    "a rare rule": {"rule": "shop/rare"},
    "an unknown rule": {"rule": "shop/unknown"},
    "a time range": {"since": datetime(2026, 6, 28, 6, tzinfo=UTC), "until": datetime(2026, 6, 29, 6, tzinfo=UTC)},
    "invalid of a small application": {"application_id": 6, "valid": False},
    "a rule in a large application": {"application_id": 1, "rule": "shop/pageview-host"},
    "a kind in a small application": {"application_id": 6, "category": "page interaction", "name": "cta click"},
}


@pytest.fixture(scope="module")
def filled(migrated_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A store with enough events that reading all of a partition would be the dearer way."""
    clean(migrated_url)
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        fill(connection, ROWS, DAYS, LAST_DAY)
        yield connection


@pytest.mark.parametrize(("name", "oldest_first", "paged"), list(product(FILTERS, [False, True], [False, True])))
def test_no_query_reads_all_of_a_partition(
    filled: psycopg.Connection[Any], name: str, *, oldest_first: bool, paged: bool
) -> None:
    """Each way in has its index, on the first page and on later ones."""
    fields = dict(FILTERS[name])
    middle = filled.execute('SELECT "timestamp", event_id, session_id FROM events LIMIT 1 OFFSET 20000').fetchall()[0]
    if "session_id" in fields:
        fields["session_id"] = middle[2]
    position = Position(middle[0], middle[1]) if paged else None

    plan = explain(filled, *page_query(EventFilter(**fields, oldest_first=oldest_first), position, 51))

    assert not scanned_whole(plan), plan


@pytest.mark.parametrize("application_id", [None, 1])
def test_an_event_is_found_by_its_id_without_reading_all(
    filled: psycopg.Connection[Any], application_id: int | None
) -> None:
    plan = explain(filled, *event_query(uuid4(), application_id))

    assert not scanned_whole(plan), plan


def explain(connection: psycopg.Connection[Any], query: str, parameters: dict[str, Any]) -> str:
    """Ask for the plan of a query."""
    return "\n".join(row[0] for row in connection.execute(f"EXPLAIN {query}".encode(), parameters))


def scanned_whole(plan: str) -> list[str]:
    """Find the daily partitions that a plan reads from end to end."""
    return re.findall(r"Seq Scan on (events_p\d+)", plan)
