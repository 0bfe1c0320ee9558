"""What the client does when the server refuses, is slow, breaks, or is away."""

import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from uuid import uuid4

import pytest
from tests.client.conftest import TOKEN, MakeEye, settings
from tests.client.scripted import WAIT_SECONDS, Answer, Call, ScriptedServer, accept, problem, refuse_those
from tests.client.tracking import SESSION, track, track_many
from tests.machine import free_addresses
from tests.servers import wait_until

from the_eye_client import Eye, Fault, Lost
from the_eye_client._courier import UNAUTHORIZED_SECONDS

BAD = "no uuid"
FAULT = Fault("$.session_id", "invalid_uuid", "session_id is a UUID")


def is_bad(event: dict[str, Any]) -> bool:
    """Tell the events that the server refuses here."""
    return bool(event["session_id"] == BAD)


def hang_up(call: Call) -> None:
    """End the connection without an answer."""
    call.hang_up()


def store_and_hang_up(call: Call) -> None:
    """Keep the events, and end before saying so."""
    call.store()
    call.hang_up()


def half_an_answer(call: Call) -> None:
    """Keep the events, and end in the middle of the answer."""
    call.store()
    call.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 60\r\n\r\n" + b'{"accepted": 1, "ref')
    call.hang_up()


def half_a_head(call: Call) -> None:
    """End in the middle of the answer's head."""
    call.write(b"HTTP/1.1 202 Accep")
    call.hang_up()


def no_http(call: Call) -> None:
    """Answer as something else would."""
    call.write(b"-ERR unknown command\r\n")
    call.hang_up()


PASSING: dict[str, Answer] = {
    "429": problem(429, "rate_limited"),
    "503": problem(503, "queue_unavailable"),
    "500": problem(500, "internal_error"),
    "408": problem(408, "body_timeout"),
    "404": problem(404, "not_found"),
    "a proxy's 502": lambda call: call.respond(502, b"<html>Bad Gateway</html>"),
    "a proxy's 400": lambda call: call.respond(400, b"<html>The plain HTTP request was sent to HTTPS port</html>"),
    "a hotel's 200": lambda call: call.respond(200, b"<html>Welcome to our network</html>"),
    "202 without JSON": lambda call: call.respond(202, b"Accepted"),
    "202 with deep JSON": lambda call: call.respond(202, b"[" * 100_000),
    "301": lambda call: call.respond(301, Location="/elsewhere"),
    "no answer": hang_up,
    "half a head": half_a_head,
    "no HTTP": no_http,
}


@pytest.mark.parametrize("answer", PASSING.values(), ids=PASSING.keys())
def test_what_may_pass_is_sent_again_until_it_is_accepted(
    answer: Answer, server: ScriptedServer, make_eye: MakeEye, lost: list[Lost]
) -> None:
    """Also what only something between the client and the server would say."""
    server.script.extend([answer] * 3)
    eye = make_eye(on_lost=lost.append)
    ids = track_many(eye, 10)

    assert eye.flush()

    assert server.stored == dict.fromkeys(ids, 1)
    assert eye.counters.retried >= 2
    assert eye.counters.last_error is not None
    assert (eye.counters.sent, lost) == (10, [])


@pytest.mark.parametrize("answer", [store_and_hang_up, half_an_answer])
def test_a_doubt_is_resolved_by_sending_the_same_event_again(
    answer: Answer, server: ScriptedServer, make_eye: MakeEye
) -> None:
    """With the same id and time, so that the server counts it once."""
    eye = make_eye()
    track(eye)
    assert eye.flush()
    server.script.extend([answer] * 2)
    track_many(eye, 5)
    assert eye.flush()
    _, *tries = server.requests
    assert len(tries) >= 3
    assert len({request.body for request in tries}) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_the_least_that_is_waited(status: int, server: ScriptedServer, make_eye: MakeEye) -> None:
    server.script.append(problem(status, "wait", Retry_After="1"))
    eye = make_eye()
    track(eye)
    first, second = server.wait_for_requests(2)
    assert second.at - first.at >= 1.0


def test_retry_after_may_be_a_date_by_the_servers_clock(server: ScriptedServer, make_eye: MakeEye) -> None:
    """Which may be another than this machine's."""
    now = datetime.now(UTC) - timedelta(days=400)
    dates = {"Date": format_datetime(now, usegmt=True), "Retry-After": format_datetime(now + timedelta(seconds=1))}

    def answer(call: Call) -> None:
        head = "".join(f"{name}: {value}\r\n" for name, value in dates.items())
        call.write(f"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n{head}\r\n".encode())

    server.script.append(answer)
    eye = make_eye()
    track(eye)
    first, second = server.wait_for_requests(2)
    assert second.at - first.at >= 1.0


@pytest.mark.parametrize("value", ["-5", "soon", "", "1e400", "Wed, 99 Foo", "\u0661"])
def test_a_retry_after_that_means_nothing_is_ignored(value: str, server: ScriptedServer, make_eye: MakeEye) -> None:
    head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: {value}\r\n\r\n"
    server.script.append(lambda call: call.write(head.encode()))
    eye = make_eye()
    track(eye)
    assert eye.flush()


def test_pauses_are_at_random_and_grow(server: ScriptedServer, make_eye: MakeEye, monkeypatch: Any) -> None:
    """From nothing to a bound that doubles: all clients of a server that was away must not come at once."""
    bounds: list[tuple[float, float]] = []

    def uniform(least: float, most: float) -> float:
        bounds.append((least, most))
        return 0.0

    monkeypatch.setattr("random.uniform", uniform)
    server.script.extend([problem(503, "away")] * 6)
    eye = make_eye(first_backoff_seconds=1.0, longest_backoff_seconds=10.0)
    track(eye)
    assert eye.flush()
    assert bounds == [(0, 1.0), (0, 2.0), (0, 4.0), (0, 8.0), (0, 10.0), (0, 10.0)]


def test_a_server_that_is_away_is_waited_for(make_eye: MakeEye, server: ScriptedServer) -> None:
    server.stop()
    eye = make_eye()
    ids = track_many(eye, 10)
    wait_until(lambda: eye.counters.retried >= 3, WAIT_SECONDS, lambda: str(eye.counters))
    assert eye.counters.queued == 10
    server.start()
    server.wait_for_events(10)
    assert set(server.stored) == ids


def test_an_address_that_does_not_exist_is_no_fault_of_the_application() -> None:
    with Eye("http://the-eye.invalid", TOKEN, settings()) as eye:
        track(eye)
        assert not eye.flush(timeout=0.5)
    assert eye.counters.dropped == 1


def test_a_request_has_a_deadline_even_if_the_answer_drips(server: ScriptedServer, make_eye: MakeEye) -> None:
    """The standard library's timeout would begin anew with each byte."""

    def drip(call: Call) -> None:
        call.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 1000\r\n\r\n")
        while True:
            call.write(b" ")
            time.sleep(0.05)

    server.script.append(drip)
    eye = make_eye(request_seconds=0.5)
    track(eye)
    first, second = server.wait_for_requests(2)
    assert second.at - first.at >= 0.4
    assert eye.flush()
    assert eye.counters.last_error == "TimeoutError"


def test_a_server_that_takes_no_connection_is_left_after_the_deadline() -> None:
    """Its backlog is full, and it never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with Eye(address, TOKEN, settings(request_seconds=0.2)) as eye:
            track(eye)
            wait_until(lambda: eye.counters.retried >= 2, WAIT_SECONDS, lambda: str(eye.counters))
    assert eye.counters.last_error == "TimeoutError"


def test_good_events_of_a_batch_are_accepted_and_bad_ones_reported(
    server: ScriptedServer, make_eye: MakeEye, lost: list[Lost]
) -> None:
    server.otherwise = refuse_those(is_bad)
    eye = make_eye(on_lost=lost.append)
    good = track_many(eye, 3)
    bad = track(eye, 3, BAD)
    assert eye.flush()
    assert server.stored == dict.fromkeys(good, 1)
    assert [(one.reason, one.event_id, one.faults) for one in lost] == [("refused", bad, (FAULT,))]
    assert bad.encode() in lost[0].event
    assert (eye.counters.sent, eye.counters.refused, eye.counters.queued) == (3, 1, 0)


def test_a_batch_without_a_good_event_is_reported_whole(
    server: ScriptedServer, make_eye: MakeEye, lost: list[Lost]
) -> None:
    server.otherwise = refuse_those(is_bad)
    eye = make_eye(on_lost=lost.append)
    bad = [track(eye, number, BAD) for number in range(3)]
    assert eye.flush()
    assert [(one.event_id, one.faults) for one in lost] == [(one, (FAULT,)) for one in bad]
    assert len(server.requests) == 1


def test_events_of_a_refused_batch_that_have_no_fault_are_sent_again(
    server: ScriptedServer, make_eye: MakeEye, lost: list[Lost]
) -> None:
    """As when the server lists no more than some of the faults, or takes all or nothing."""

    def all_or_nothing(call: Call) -> None:
        bad = [index for index, event in enumerate(call.request.events) if is_bad(event)]
        if bad:
            path = f"$[{bad[0]}].session_id"
            call.problem(400, "malformed", [{"path": path, "code": FAULT.code, "message": FAULT.message}])
        else:
            accept(call)

    server.otherwise = all_or_nothing
    eye = make_eye(on_lost=lost.append)
    good = track_many(eye, 5)
    bad = [track(eye, number, BAD) for number in range(2)]
    good |= track_many(eye, 5)
    assert eye.flush()
    assert server.stored == dict.fromkeys(good, 1)
    assert [one.event_id for one in lost] == bad


def test_a_batch_that_is_refused_without_a_word_which_event_is_halved(
    server: ScriptedServer, make_eye: MakeEye, lost: list[Lost]
) -> None:
    def whole(call: Call) -> None:
        if any(is_bad(event) for event in call.request.events):
            call.problem(400, "malformed", [{"path": "$", "code": "malformed_json", "message": "?"}])
        else:
            accept(call)

    server.otherwise = whole
    eye = make_eye(on_lost=lost.append)
    good = track_many(eye, 20)
    bad = track(eye, 20, BAD)
    good |= track_many(eye, 20)
    assert eye.flush()
    assert server.stored == dict.fromkeys(good, 1)
    assert [(one.event_id, one.faults[0].code) for one in lost] == [(bad, "malformed_json")]


def test_a_body_that_is_too_large_is_split(server: ScriptedServer, make_eye: MakeEye, lost: list[Lost]) -> None:
    """A proxy may take less than the server does; what is too large alone is refused."""

    def small(call: Call) -> None:
        if len(call.request.body) > 3_000:
            call.respond(413, b"<html>Request Entity Too Large</html>")
        else:
            accept(call)

    server.otherwise = small
    eye = make_eye(on_lost=lost.append, batch_seconds=0.1)
    good = track_many(eye, 40)
    giant = str(eye.track(SESSION, "a", "b", {"text": "x" * 5_000}))
    good |= track_many(eye, 40)
    assert eye.flush()
    assert server.stored == dict.fromkeys(good, 1)
    assert [(one.event_id, one.faults[0].code) for one in lost] == [(giant, "too_large")]
    track_many(eye, 40)
    assert eye.flush()
    assert max(len(request.events) for request in server.requests[-5:]) > 1, "single events for ever"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_stops_the_sending_and_keeps_the_events(
    status: int, server: ScriptedServer, make_eye: MakeEye, lost: list[Lost], caplog: pytest.LogCaptureFixture
) -> None:
    server.otherwise = problem(status, "invalid_token")
    eye = make_eye(on_lost=lost.append)
    track(eye)
    start = time.monotonic()
    assert not eye.flush(timeout=WAIT_SECONDS)
    track_many(eye, 100)
    assert not eye.flush(timeout=WAIT_SECONDS)
    assert time.monotonic() - start < WAIT_SECONDS, "a flush waits for what will not come"
    assert len(server.requests) == 1
    assert (eye.counters.queued, lost) == (101, [])
    assert eye.counters.last_error == f"{status} invalid_token"
    assert f"refuses the token ({status} invalid_token)" in caplog.text
    assert TOKEN not in caplog.text


def test_a_token_that_is_accepted_later_needs_no_restart(
    server: ScriptedServer, make_eye: MakeEye, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a minute the server is asked again, in vain or not."""
    assert UNAUTHORIZED_SECONDS == 60.0
    monkeypatch.setattr("the_eye_client._courier.UNAUTHORIZED_SECONDS", 0.1)
    server.script.extend([problem(401, "invalid_token")] * 2)
    eye = make_eye()
    ids = track_many(eye, 3)
    server.wait_for_events(3)
    assert set(server.stored) == ids
    assert eye.flush()


def test_closing_does_not_wait_for_a_server_that_asks_for_more_time(
    server: ScriptedServer, make_eye: MakeEye, lost: list[Lost]
) -> None:
    server.otherwise = problem(503, "away", Retry_After="3600")
    eye = make_eye(on_lost=lost.append, close_seconds=WAIT_SECONDS)
    track(eye)
    server.wait_for_requests(1)
    start = time.monotonic()
    eye.close()
    assert time.monotonic() - start < WAIT_SECONDS / 2
    assert [(one.reason, one.faults[0].code) for one in lost] == [("dropped", "closed")]


def test_a_clock_that_jumps_delays_nothing(
    server: ScriptedServer, make_eye: MakeEye, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches, pauses and deadlines go by a clock that nobody sets."""
    server.script.append(problem(503, "away"))
    eye = make_eye(batch_seconds=0.2)
    track(eye)
    true = time.time
    for jump in (-86_400.0, 86_400.0):
        monkeypatch.setattr("time.time", lambda jump=jump: true() + jump)
        monkeypatch.setattr("time.time_ns", lambda jump=jump: int((true() + jump) * 1e9))
        track(eye)
        server.wait_for_events(2)
        assert eye.flush()


def test_two_clients_in_one_process_do_not_meet(server: ScriptedServer) -> None:
    (nowhere,) = free_addresses(1)
    with Eye(f"http://{nowhere}", TOKEN, settings()) as away, Eye(server.url, TOKEN, settings()) as here:
        track(away)
        event_id = track(here)
        assert here.flush()
        assert not away.flush(timeout=0.2)
    assert set(server.stored) == {event_id}


def test_thousands_of_threads_may_track(server: ScriptedServer, make_eye: MakeEye) -> None:
    """Each event arrives once, and the counters agree."""
    eye = make_eye()
    ids: list[set[str]] = []
    threads = [threading.Thread(target=lambda: ids.append(track_many(eye, 5))) for _ in range(2_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert eye.flush(timeout=60.0)
    assert server.stored == dict.fromkeys(set.union(*ids), 1)
    assert len(server.stored) == eye.counters.sent == 10_000
    assert eye.counters.queued == 0


def test_the_same_id_may_be_given_again(server: ScriptedServer, make_eye: MakeEye) -> None:
    """It is the server that counts it once."""
    eye = make_eye()
    event_id = uuid4()
    for _ in range(2):
        eye.track(SESSION, "a", "b", {}, timestamp=datetime(2026, 1, 1, tzinfo=UTC), event_id=event_id)
    assert eye.flush()
    assert server.stored == {str(event_id): 2}
