"""Whatever an application gives to the client, and whatever happens to it: no exception, no waiting, no growth."""

import json
import logging
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from tests.client.conftest import MakeEye
from tests.client.scripted import WAIT_SECONDS, Call, ScriptedServer, refuse_those
from tests.client.tracking import SESSION, track, track_many

from the_eye_client import Lost
from the_eye_client._outcomes import QUIET_SECONDS, SparingLog


class Vicious(Mapping[str, Any]):
    """A mapping that fails."""

    def __getitem__(self, key: str) -> Any:
        raise LookupError

    def __iter__(self) -> Iterator[str]:
        raise ZeroDivisionError

    def __len__(self) -> int:
        return 1


class Nameless:
    """A value that has no text."""

    def __str__(self) -> str:
        raise ValueError


CIRCLE: dict[str, Any] = {}
CIRCLE["self"] = CIRCLE
DEEP: dict[str, Any] = {}
for _ in range(100_000):
    DEEP = {"deeper": DEEP}

GOOD: dict[str, Any] = {"session_id": SESSION, "category": "a", "name": "b", "data": {}}


WRONG: dict[str, dict[str, Any]] = {
    "an object": {"data": {"value": object()}},
    "NaN": {"data": {"value": float("nan")}},
    "too many digits": {"data": {"value": 10**5000}},
    "a lone surrogate": {"data": {"value": "\ud800"}},
    "a key that is none": {"data": {("a", "b"): 1}},
    "a circle": {"data": CIRCLE},
    "too deep": {"data": DEEP},
    "a mapping that fails": {"data": Vicious()},
    "no data": {"data": None},
    "a text for data": {"data": "text"},
    "a category that is no text": {"category": object()},
    "a session that has no text": {"session_id": Nameless()},
    "a time that is none": {"timestamp": "yesterday"},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_what_no_json_can_be_made_of_is_reported_and_counted(
    wrong: dict[str, Any], server: ScriptedServer, make_eye: MakeEye, lost: list[Lost]
) -> None:
    eye = make_eye(on_lost=lost.append)
    assert eye.track(**(GOOD | wrong)) is None
    good = track(eye)
    assert eye.flush()
    assert set(server.stored) == {good}
    assert [(one.reason, one.faults[0].code) for one in lost] == [("refused", "unserializable")]
    assert eye.counters.refused == 1


def test_an_id_that_has_no_text_raises_nothing(make_eye: MakeEye) -> None:
    eye = make_eye()
    assert eye.track(**(GOOD | {"event_id": Nameless()})) is None
    assert eye.counters.refused == 1


def test_what_the_server_finds_wrong_is_left_to_the_server(
    server: ScriptedServer, make_eye: MakeEye, lost: list[Lost]
) -> None:
    """It knows the rules, and a newer one may have others."""
    server.otherwise = refuse_those(lambda event: not isinstance(event["category"], str))
    eye = make_eye(on_lost=lost.append)
    eye.track(**(GOOD | {"category": 3}))
    assert eye.flush()
    assert [one.reason for one in lost] == ["refused"]


def test_an_event_that_is_too_large_is_refused_at_once(
    server: ScriptedServer, make_eye: MakeEye, lost: list[Lost]
) -> None:
    eye = make_eye(on_lost=lost.append)
    assert eye.track(SESSION, "a", "b", {"text": "x" * 1024 * 1024}) is None
    assert eye.track(SESSION, "a", "b", {"text": "x" * 1024 * 1000}) is not None
    assert eye.flush()
    assert [one.faults[0].code for one in lost] == ["too_large"]
    assert len(server.stored) == 1


def test_values_of_other_types_are_the_applications_to_translate(server: ScriptedServer, make_eye: MakeEye) -> None:
    eye = make_eye(json_default=str)
    eye.track(SESSION, "a", "b", {"price": Decimal("1.50")})
    assert eye.flush()
    assert server.requests[0].events[0]["data"] == {"price": "1.50"}


def test_data_may_change_after_it_was_tracked(server: ScriptedServer, make_eye: MakeEye) -> None:
    eye = make_eye()
    data = {"n": 1}
    eye.track(SESSION, "a", "b", data)
    data["n"] = 2
    assert eye.flush()
    assert server.requests[0].events[0]["data"] == {"n": 1}


@pytest.mark.parametrize("bound", [{"memory_events": 50}, {"memory_bytes": 10_000}])
def test_memory_is_bounded_and_the_newest_are_dropped(
    bound: dict[str, int], server: ScriptedServer, make_eye: MakeEye, lost: list[Lost]
) -> None:
    server.stop()
    eye = make_eye(on_lost=lost.append, **bound)
    ids = [str(eye.track(SESSION, "a", "b", {"n": number})) for number in range(100)]
    taken = [event_id for event_id in ids if event_id != "None"]
    counters = eye.counters
    assert taken == ids[: len(taken)], "what was taken stays"
    assert 0 < len(taken) <= 60
    assert len(taken) == counters.queued
    assert [(one.reason, one.faults[0].code) for one in lost] == [("dropped", "memory_full")] * counters.dropped
    assert counters.queued + counters.dropped == 100
    server.start()
    server.wait_for_events(len(taken))
    assert set(server.stored) == set(taken)
    assert eye.flush()
    track(eye)  # there is room again


def test_tracking_does_not_wait_for_the_server(server: ScriptedServer, make_eye: MakeEye) -> None:
    """All is tracked while the first request has no answer yet."""
    tracked = threading.Event()

    def hang(call: Call) -> None:
        assert tracked.wait(WAIT_SECONDS)
        call.store()
        call.respond(202, b'{"accepted": 1, "refused": []}')

    server.otherwise = hang
    eye = make_eye()
    track(eye)
    server.wait_for_requests(1)
    track_many(eye, 1_000)
    assert not server.stored
    tracked.set()
    assert eye.flush()


def test_a_callback_that_fails_does_no_harm(
    server: ScriptedServer, make_eye: MakeEye, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_lost: Lost) -> None:
        message = "private text"
        raise RuntimeError(message)

    server.otherwise = refuse_those(lambda event: bool(event["data"].get("bad")))
    eye = make_eye(on_lost=fail)
    assert eye.track(SESSION, "a", "b", {"value": object()}) is None
    eye.track(SESSION, "a", "b", {"bad": True})
    good = track(eye)
    assert eye.flush()
    assert set(server.stored) == {good}
    assert eye.counters.refused == 2
    assert "on_lost raised RuntimeError" in caplog.text
    assert "private text" not in caplog.text


def test_a_callback_may_track_and_is_not_called_without_end(server: ScriptedServer, make_eye: MakeEye) -> None:
    calls = 0

    def complain(_lost: Lost) -> None:
        nonlocal calls
        calls += 1
        eye.track(SESSION, "a", "lost", {"value": object()})
        eye.track(SESSION, "a", "lost", {})

    eye = make_eye(on_lost=complain)
    eye.track(SESSION, "a", "b", {"value": object()})
    assert eye.flush()
    assert calls == 1
    assert eye.counters.refused == 2
    assert len(server.stored) == 1


def test_what_is_tracked_after_the_end_is_dropped(make_eye: MakeEye, lost: list[Lost]) -> None:
    eye = make_eye(on_lost=lost.append)
    eye.close()
    assert eye.track(SESSION, "a", "b", {}) is None
    assert [one.faults[0].code for one in lost] == ["closed"]
    assert eye.flush()
    eye.close()


def test_threads_end_with_the_client(make_eye: MakeEye) -> None:
    before = set(threading.enumerate())
    eye = make_eye()
    track(eye)
    assert {thread.name for thread in set(threading.enumerate()) - before} >= {"the-eye-client"}
    eye.close()
    assert not any(thread.name == "the-eye-client" for thread in set(threading.enumerate()) - before)


def test_where_no_thread_can_be_started_events_are_sent_at_the_end(
    server: ScriptedServer, make_eye: MakeEye, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while an interpreter is ending, from Python 3.12 on."""
    eye = make_eye(close_seconds=WAIT_SECONDS)

    def refuse(_thread: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        ids = track_many(eye, 3)
    eye.close()
    assert set(server.stored) == ids


def test_a_signals_handler_may_track_while_its_thread_does(server: ScriptedServer, make_eye: MakeEye) -> None:
    """No lock is waited for that the same thread holds."""
    eye = make_eye()
    handled = 0

    def handle(_number: int, _frame: object) -> None:
        nonlocal handled
        handled += 1
        track(eye)

    previous = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    tracked = 0
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while handled < 100 and time.monotonic() < deadline:
            track(eye)
            tracked += 1
            if tracked % 5_000 == 0:
                eye.flush()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert handled >= 100
    assert eye.flush(timeout=60.0)
    assert len(server.stored) == tracked + handled
    assert eye.counters.queued == 0


def test_messages_of_one_kind_are_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    log = SparingLog(lambda: now)
    for number in range(100):
        log.say(logging.WARNING, "Trouble %s", number)
    log.say(logging.WARNING, "Other trouble")
    now = QUIET_SECONDS
    log.say(logging.WARNING, "Trouble %s", "again")
    assert caplog.messages == ["Trouble 0", "Other trouble", "Trouble again (and 99 more like it)"]
    assert {record.name for record in caplog.records} == {"the_eye_client"}


def test_no_message_holds_a_payload(
    server: ScriptedServer, make_eye: MakeEye, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.otherwise = refuse_those(lambda _event: True)
    eye = make_eye()
    eye.track("private session", "private category", "private name", {"private": "private"})
    eye.track(SESSION, "a", "b", {"private": {"private"}})
    assert eye.flush()
    assert "refused" in caplog.text
    assert "private" not in caplog.text + json.dumps(eye.counters.last_error)


def test_a_naive_time_is_sent_as_it_is(server: ScriptedServer, make_eye: MakeEye) -> None:
    """The server takes it for UTC."""
    eye = make_eye()
    eye.track(SESSION, "a", "b", {}, timestamp=datetime(2026, 1, 1, 12))  # noqa: DTZ001 - that is what is tested
    assert eye.flush()
    assert server.requests[0].events[0]["timestamp"] == "2026-01-01T12:00:00"
