"""The client against the real API, Valkey, worker and PostgreSQL: what is tracked is stored exactly once."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.client.tracking import SESSION, track, track_many
from tests.machine import Machine, running
from tests.servers import wait_until

from the_eye_client import AsyncEye, Eye, Lost, Settings

pytestmark = pytest.mark.timeout(300)

STORED_SECONDS = 60.0


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """`the-eye up`, for all tests of this module."""
    with running(tmp_path_factory.mktemp("up")) as machine:
        yield machine


def stored(up: Machine) -> list[str]:
    """List the ids of all rows."""
    with psycopg.connect(up.database_url) as connection:
        return [str(row[0]) for row in connection.execute("SELECT event_id FROM events").fetchall()]


def wait_until_stored(up: Machine, ids: set[str]) -> None:
    """Wait until all of these are stored, and see that none of them is twice."""
    wait_until(lambda: set(stored(up)) >= ids, STORED_SECONDS, lambda: f"{len(stored(up))} rows")
    rows = [event_id for event_id in stored(up) if event_id in ids]
    assert len(rows) == len(ids)


def test_events_of_many_threads_are_stored_once(up: Machine) -> None:
    ids: list[set[str]] = []
    with Eye(up.api, up.token) as eye:
        threads = [threading.Thread(target=lambda: ids.append(track_many(eye, 100))) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert eye.flush(60.0)
    wait_until_stored(up, set().union(*ids))
    assert (eye.counters.sent, eye.counters.refused, eye.counters.dropped) == (5_000, 0, 0)


async def test_the_async_client_and_the_real_server_agree(up: Machine) -> None:
    async with AsyncEye(up.api, up.token) as eye:
        ids = {str(eye.track(SESSION, "page interaction", "pageview", {"n": number})) for number in range(100)}
        assert await eye.flush(60.0)
    await asyncio.to_thread(wait_until_stored, up, ids)


def test_the_servers_refusals_are_understood(up: Machine) -> None:
    """Of some events of a batch, and of all of them."""
    lost: list[Lost] = []
    with Eye(up.api, up.token, Settings(on_lost=lost.append)) as eye:
        good = track_many(eye, 10)
        some = [track(eye, number, "no uuid") for number in range(3)]
        assert eye.flush(60.0)
        all_bad = [track(eye, number, "no uuid") for number in range(3)]
        assert eye.flush(60.0)
    wait_until_stored(up, good)
    assert [one.event_id for one in lost] == some + all_bad
    assert {(fault.path, fault.code) for one in lost for fault in one.faults} == {("$.session_id", "invalid_uuid")}


def test_a_token_that_is_none_stops_the_client(up: Machine) -> None:
    with Eye(up.api, "eye_unknown", Settings(close_seconds=0.0)) as eye:
        track(eye)
        assert not eye.flush(60.0)
        assert eye.counters.last_error == "401 invalid_token"


def test_what_the_spool_holds_is_stored_once_after_the_server_came_back(up: Machine, tmp_path: Path) -> None:
    """Tracked by a client that ended while the server was away, and sent by its successor, twice."""
    settings = Settings(spool=tmp_path / "spool", close_seconds=2.0)
    with Eye("http://127.0.0.1:9", up.token, settings) as eye:
        ids = track_many(eye, 500)
    copy = (tmp_path / "spool").read_bytes()
    for _ in range(2):
        with Eye(up.api, up.token, settings) as eye:
            track(eye)
            assert eye.flush(60.0)
            assert eye.counters.sent == 501
        (tmp_path / "spool").write_bytes(copy)  # as a backup that is restored
    wait_until_stored(up, ids)
