"""Whoever watches is given each event once, soon after it is stored."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from tests.integration.store.rows import NOON, event, insert, violating

from the_eye.settings import StoreSettings
from the_eye.store import new_events
from the_eye.store.applications import create_application
from the_eye.store.connect import AsyncConnection, Connection, make_async_pool
from the_eye.store.event_query import EventFilter, TextMatch
from the_eye.store.new_events import NewEvent, Watch
from the_eye.store.partitions import create
from the_eye_api.pages import viewers
from the_eye_api.pages.viewers import BUFFERED, Live, Viewer, fits


@pytest.fixture
async def reader(store_settings: StoreSettings) -> AsyncIterator[AsyncConnection]:
    """A connection as the API has it."""
    async with make_async_pool(store_settings, "test", 1) as pool, pool.connection() as connection:
        yield connection


def store_now(connection: Connection, count: int = 1) -> list[UUID]:
    """Store events, whatever the time they occurred."""
    return insert(connection, *(event(stored_at=datetime.now(UTC) + timedelta(microseconds=n)) for n in range(count)))


async def test_each_event_is_given_once(reader: AsyncConnection, connection: Connection) -> None:
    """Not those of long before; and those of a transaction that was committed late are not missed."""
    create_application(connection, "shop")
    insert(connection, event(stored_at=datetime.now(UTC) - 2 * new_events.OVERLAP))
    watch = Watch()
    assert (await watch.look(reader)).events == []
    late = event(stored_at=datetime.now(UTC))
    first = store_now(connection, 3)

    found = await watch.look(reader)
    assert [one.event_id for one in found.events] == first
    assert found.events[0].application == "shop"
    assert found.left_out == 0
    insert(connection, late)
    assert [one.event_id for one in (await watch.look(reader)).events] == [late["event_id"]]
    assert (await watch.look(reader)).events == []


async def test_of_too_many_it_is_told_how_many_were_left_out(
    reader: AsyncConnection, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new_events, "LOOK_EVENTS", 5)
    watch = Watch()
    await watch.look(reader)
    stored = store_now(connection, 12)

    found = await watch.look(reader)

    assert [one.event_id for one in found.events] == stored[-5:]
    assert found.left_out == 7


async def test_new_events_have_an_index_in_every_partition(connection: Connection) -> None:
    """All of a large table would be read every second otherwise."""
    with connection.transaction():
        create(connection, NOON.date())

    found = connection.execute(
        "SELECT tablename FROM pg_indexes WHERE indexdef LIKE '%brin (stored_at)%autosummarize%'"
    )
    assert {name for (name,) in found} >= {"events_default", "events_p20260310"}


MADE = NewEvent(UUID(int=1), UUID(int=2), 3, "shop", "Page", "Click", NOON, NOON, valid=False, violated_rules=["a/b"])


@pytest.mark.parametrize(
    ("filter_", "wanted"),
    [
        ({}, True),
        ({"application_id": 3}, True),
        ({"application_id": 4}, False),
        ({"session_id": UUID(int=2)}, True),
        ({"session_id": UUID(int=1)}, False),
        ({"category": "Page", "name": "Click"}, True),
        ({"category": "page"}, False),
        ({"valid": False}, True),
        ({"valid": True}, False),
        ({"rule": "a/b"}, True),
        ({"rule": "a/c"}, False),
        ({"text": TextMatch(None, "cLi", None)}, True),
        ({"text": TextMatch(None, "x", None)}, False),
        ({"text": TextMatch(None, "0", (UUID(int=1), UUID(int=1)))}, True),
        ({"text": TextMatch(None, "0", (UUID(int=3), UUID(int=4)))}, False),
    ],
    ids=str,
)
def test_a_filter_wants_what_it_wants_in_the_list(filter_: dict[str, object], *, wanted: bool) -> None:
    assert fits(EventFilter(**filter_), MADE) is wanted  # type: ignore[arg-type]


async def test_a_slow_viewer_is_told_how_many_it_missed() -> None:
    viewer = Viewer(EventFilter())
    for _ in range(BUFFERED + 3):
        viewer.give("<tr></tr>")

    missed, events = list(await viewer.take())

    assert (missed.event, missed.data) == ("missed", "3")
    assert str(events.data).count("<tr>") == BUFFERED


async def until(condition: Callable[[], object]) -> None:
    """Wait, for nobody tells."""
    while not condition():  # noqa: ASYNC110 - as said
        await asyncio.sleep(0.01)


async def test_one_look_serves_all_viewers(
    store_settings: StoreSettings, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none is made when nobody watches any more."""
    monkeypatch.setattr(viewers, "LOOK_SECONDS", 0.05)
    looks = 0
    read = new_events._read  # noqa: SLF001 - counted

    async def counted(*given: object) -> object:
        nonlocal looks
        looks += 1
        return await read(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(new_events, "_read", counted)
    create_application(connection, "shop")
    async with make_async_pool(store_settings, "test", 2) as pool:
        live = Live(pool)
        with live.viewer(EventFilter(valid=False)) as picky, live.viewer(EventFilter()) as other:
            async with asyncio.timeout(30):
                await until(lambda: looks)
                insert(connection, event(stored_at=datetime.now(UTC), name="<b>", **violating("a/b")))
                rows = [next(iter(list(await viewer.take()))) for viewer in (picky, other)]
        assert rows[0].data == rows[1].data
        assert "&lt;b&gt;" in str(rows[0].data)
        async with asyncio.timeout(30):
            await until(lambda: not live.looking)


async def test_streams_end_when_the_process_stops(store_settings: StoreSettings) -> None:
    async with make_async_pool(store_settings, "test", 1) as pool:
        live = Live(pool)
        with live.viewer(EventFilter()) as viewer:
            waiting = asyncio.create_task(viewer.take())
            await asyncio.sleep(0)
            live.close()
            await asyncio.wait_for(waiting, 10)
            assert live.closing
        with pytest.raises(Exception, match="Service Unavailable"), live.viewer(EventFilter()):
            pass
