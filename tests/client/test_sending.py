"""What is sent, and how: batches, their bounds, their bytes."""

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from tests.client.conftest import TOKEN, MakeEye, settings
from tests.client.scripted import WAIT_SECONDS, ScriptedServer
from tests.client.tracking import SESSION, track, track_many

import the_eye_client
from the_eye_client import AsyncEye, Eye, Settings


def test_the_public_surface_is_what_it_exports() -> None:
    """Every module beside it is private."""
    modules = [path.stem for path in Path(the_eye_client.__path__[0]).glob("*.py")]
    assert [name for name in modules if not name.startswith("_")] == []
    assert the_eye_client.__all__ == ["AsyncEye", "Counters", "Eye", "Fault", "Lost", "Settings"]


def test_an_event_arrives_as_it_was_tracked(server: ScriptedServer, make_eye: MakeEye) -> None:
    eye = make_eye()
    at = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=2)))
    event_id = uuid4()
    returned = eye.track(SESSION, "Käse", "cta click", {"deep": [1, 2.5, None, "ü"]}, timestamp=at, event_id=event_id)

    assert eye.flush()

    (request,) = server.requests
    assert returned == event_id
    assert request.path == "/events/batch"
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert request.events == [
        {
            "event_id": str(event_id),
            "session_id": str(SESSION),
            "category": "Käse",
            "name": "cta click",
            "data": {"deep": [1, 2.5, None, "ü"]},
            "timestamp": "2026-01-02T03:04:05.678901+02:00",
        }
    ]


def test_an_event_gets_the_time_and_an_id_that_grows_with_time(server: ScriptedServer, make_eye: MakeEye) -> None:
    eye = make_eye()
    before = datetime.now(UTC)
    first = UUID(track(eye))
    time.sleep(0.005)
    second = UUID(track(eye))
    assert eye.flush()

    sent = [event for request in server.requests for event in request.events]
    times = [datetime.fromisoformat(event["timestamp"]) for event in sent]
    assert before <= times[0] <= times[1] <= datetime.now(UTC)
    assert (first.version, first.variant) == (7, "specified in RFC 4122")
    assert first < second
    assert abs((first.int >> 80) / 1000 - before.timestamp()) < 10


def test_a_batch_waits_for_more_events_but_not_for_long(server: ScriptedServer, make_eye: MakeEye) -> None:
    eye = make_eye(batch_seconds=0.3)
    start = time.monotonic()
    track_many(eye, 3)
    (request,) = server.wait_for_requests(1)
    assert len(request.events) == 3
    assert request.at - start >= 0.3


def test_a_full_batch_does_not_wait(server: ScriptedServer, make_eye: MakeEye) -> None:
    eye = make_eye(batch_seconds=3600.0, batch_events=10)
    track_many(eye, 20)
    requests = server.wait_for_requests(2)
    assert [len(request.events) for request in requests] == [10, 10]


def test_a_batch_has_no_more_bytes_than_it_may(server: ScriptedServer, make_eye: MakeEye) -> None:
    eye = make_eye(batch_seconds=0.1, batch_bytes=4_000)
    for _ in range(20):
        eye.track(SESSION, "a", "b", {"text": "x" * 500})
    assert eye.flush()
    assert len(server.stored) == 20
    assert max(len(request.body) for request in server.requests) <= 4_000
    assert len(server.requests) <= 6


def test_large_bodies_are_compressed(server: ScriptedServer, make_eye: MakeEye) -> None:
    eye = make_eye(batch_seconds=0.1)
    track(eye)
    assert eye.flush()
    track_many(eye, 100)
    assert eye.flush()
    small, large = server.requests
    assert "Content-Encoding" not in small.headers
    assert large.headers["Content-Encoding"] == "gzip"
    assert int(large.headers["Content-Length"]) < len(large.body) / 3


def test_one_connection_serves_all_requests(server: ScriptedServer, make_eye: MakeEye) -> None:
    connections = set()

    def note(call: Any) -> None:
        connections.add(call._handler.client_address)  # noqa: SLF001 - which connection it was
        call.store()
        call.respond(202, b'{"accepted": 1, "refused": []}')

    server.otherwise = note
    eye = make_eye()
    for _ in range(5):
        track(eye)
        assert eye.flush()
    assert len(connections) == 1


def test_a_kept_connection_that_the_server_has_closed_costs_no_failure(
    server: ScriptedServer, make_eye: MakeEye
) -> None:
    eye = make_eye()
    track(eye)
    assert eye.flush()
    server.stop()
    server.start()
    track(eye)
    assert eye.flush()
    assert eye.counters.sent == 2
    assert eye.counters.retried == 0


def test_the_environment_says_where_the_server_is(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_EYE_URL", f"{server.url}/prefix/")
    monkeypatch.setenv("THE_EYE_TOKEN", f" {TOKEN}\n")
    with Eye() as eye:
        track(eye)
        assert eye.flush()
    assert server.requests[0].path == "/prefix/events/batch"
    assert server.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("url", "token", "says"),
    [
        (None, "t", "THE_EYE_URL is not set"),
        ("http://x", None, "THE_EYE_TOKEN is not set"),
        ("ftp://x", "t", "url does not look like"),
        ("x", "t", "url does not look like"),
        ("http://user:word@x", "t", "url does not look like"),
        ("http://x", "se cret", "token holds characters"),
        ("http://x", "se\rcret", "token holds characters"),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(
    url: str | None, token: str | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, when the application starts, and without the token in the text."""
    monkeypatch.delenv("THE_EYE_URL", raising=False)
    monkeypatch.delenv("THE_EYE_TOKEN", raising=False)
    with pytest.raises(ValueError, match=says) as caught:
        Eye(url, token)
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("change", [{"batch_events": 1001}, {"batch_bytes": 0}, {"batch_seconds": -1.0}])
def test_settings_that_cannot_work_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        Settings(**change)


def test_neither_representation_shows_the_token() -> None:
    eye = Eye("https://events.example.com", "eye_secret")
    assert "events.example.com" in repr(eye)
    assert "eye_secret" not in repr(eye)


async def test_the_async_client_sends_and_flushes(server: ScriptedServer) -> None:
    async with AsyncEye(server.url, TOKEN, settings()) as eye:
        ids = {str(eye.track(SESSION, "a", "b", {"n": number})) for number in range(50)}
        assert await eye.flush()
        assert eye.counters.sent == 50
    assert set(server.stored) == ids


async def test_the_async_client_never_holds_up_the_loop(server: ScriptedServer) -> None:
    """While the server hangs, a flush and the closing wait, and everything else goes on."""
    hanging = threading.Event()
    server.otherwise = lambda _call: hanging.wait(WAIT_SECONDS)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    eye = AsyncEye(server.url, TOKEN, settings())
    eye.track(SESSION, "a", "b", {})
    assert not await eye.flush(timeout=1.0)
    during_flush, ticks = ticks, 0
    await eye.close(timeout=1.0)
    ticking.cancel()
    hanging.set()
    assert during_flush > 5
    assert ticks > 5
