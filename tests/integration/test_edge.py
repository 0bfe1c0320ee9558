"""The HTTP edge in its own process, before a real queue and a real store: what it accepts, what it refuses, and how.

What becomes of accepted events is the storing's and the whole way's to show.
"""

import contextlib
import gzip
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import dramatiq
import httpx
import pytest
import redis
from tests.integration.conftest import clean
from tests.machine import free_addresses
from tests.servers import Postgres, Valkey, wait_until

from the_eye.queue import EVENTS_QUEUE, REPLAYS_QUEUE, EnvelopeEncoder, QueuedEvent
from the_eye.settings import QueueSettings, StoreSettings
from the_eye.store.applications import (
    create_application,
    create_token,
    disable_application,
    limit_application,
    revoke_token,
)
from the_eye.store.connect import Connection, connect
from the_eye.tokens import RateLimit, Scope

DEADLINE = 60.0
GOOD: dict[str, Any] = {
    "session_id": "e2085be5-9137-4e4e-80b5-f1ffddc25423",
    "category": "page interaction",
    "name": "cta click",
    "data": {"host": "www.consumeraffairs.com", "path": "/", "element": "chat bubble"},
    "timestamp": "2023-01-01 09:15:27.243860Z",
}
MIB = 1024 * 1024


class Edge:
    """A running `the-eye api` with a token that may send and read."""

    def __init__(self, queue: QueueSettings, connection: Connection) -> None:
        self.queue = queue
        self.connection = connection
        create_application(connection, "demo")
        self.created = create_token(connection, "demo", [Scope.INGEST, Scope.READ])
        self.url = ""
        self.metrics_url = ""

    def client(self, token: str | None = None) -> httpx.Client:
        """A client with a token."""
        headers = {"Authorization": f"Bearer {token or self.created.text}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=10)

    def send(self, content: bytes, path: str = "/events", token: str | None = None, **headers: str) -> httpx.Response:
        """POST a body."""
        with self.client(token) as client:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            return client.post(path, content=content, headers={"Content-Type": "application/json"} | names)

    def get(self, path: str, token: str | None = None) -> httpx.Response:
        """GET a path."""
        with self.client(token) as client:
            return client.get(path)

    def batch(self, content: bytes, **headers: str) -> httpx.Response:
        """POST a batch."""
        return self.send(content, "/events/batch", **headers)

    def queued(self) -> list[QueuedEvent]:
        """Read what is in the queue, in order."""
        return self._in(EVENTS_QUEUE)

    def replays(self) -> list[QueuedEvent]:
        """Read what waits to be stored again, in order."""
        return self._in(REPLAYS_QUEUE)

    def _in(self, queue: str) -> list[QueuedEvent]:
        dramatiq.set_encoder(EnvelopeEncoder())
        with redis.Redis.from_url(self.queue.redis_url) as client:
            name = f"{self.queue.queue_namespace}:{queue}"
            ids: list[Any] = client.lrange(name, 0, -1)
            raw: list[Any] = client.hmget(f"{name}.msgs", ids) if ids else []
        return [event for message in raw for event in dramatiq.Message.decode(message).args[0].events()]

    def counted(self, sample: str) -> float:
        """Read one of its metrics."""
        lines = httpx.get(f"{self.metrics_url}/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(sample))


@contextlib.contextmanager
def running(edge: Edge, store: StoreSettings, **environ: str) -> Iterator[Edge]:
    """Run the process until the test is done."""
    listen, metrics = free_addresses(2)
    settings = {
        "THE_EYE_DATABASE_URL": store.database_url,
        "THE_EYE_REDIS_URL": edge.queue.redis_url,
        "THE_EYE_QUEUE_NAMESPACE": edge.queue.queue_namespace,
        "THE_EYE_QUEUE_TIMEOUT_SECONDS": "1",
        "THE_EYE_TOKEN_REFRESH_SECONDS": "0.2",
        "THE_EYE_DATABASE_CONNECT_SECONDS": "1",
        "THE_EYE_API_LISTEN": listen,
        "THE_EYE_API_METRICS_LISTEN": metrics,
    }
    command = [sys.executable, "-m", "the_eye_cli", "api"]
    process = subprocess.Popen(command, env={**os.environ, **settings, **environ})  # noqa: S603 - our own command
    edge.url, edge.metrics_url = f"http://{listen}", f"http://{metrics}"
    try:
        wait_until(lambda: _status(f"{edge.url}/readyz") == 200, DEADLINE, lambda: "the edge did not get ready")
        yield edge
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0


def _status(url: str) -> int:
    try:
        return httpx.get(url).status_code
    except httpx.TransportError:
        return 0


@contextlib.contextmanager
def shared(valkey: Valkey, migrated_url: str) -> Iterator[Edge]:
    """Run one process for all tests that need no other settings."""
    queue = QueueSettings(redis_url=valkey.url(), queue_namespace=f"edge-{uuid4().hex}")
    clean(migrated_url)
    store = StoreSettings(database_url=migrated_url)
    environ = {"THE_EYE_RATE_LIMIT_EVENTS_PER_SECOND": "0"}  # each test's application has the same id
    with connect(store, "test") as connection, running(Edge(queue, connection), store, **environ) as ready:
        yield ready


def renewed(process: Edge, connection: Connection) -> Edge:
    """Give a process that is shared an empty queue, and a new token of the empty store that is connected to."""
    with redis.Redis.from_url(process.queue.redis_url) as client:
        client.flushall()
    fresh = Edge(process.queue, connection)
    fresh.url, fresh.metrics_url = process.url, process.metrics_url
    wait_until(lambda: fresh.get("/events").status_code == 200, DEADLINE, lambda: "the token was not taken up")
    return fresh


@pytest.fixture(scope="module")
def process(valkey: Valkey, migrated_url: str) -> Iterator[Edge]:
    """One process for the tests of this module."""
    with shared(valkey, migrated_url) as ready:
        yield ready


@pytest.fixture
def edge(process: Edge, connection: Connection) -> Edge:
    """The edge with an empty queue, an empty store and a new token."""
    return renewed(process, connection)


def body(**changes: object) -> bytes:
    """Encode a good event with changes."""
    return json.dumps(GOOD | changes).encode()


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """Read an error, whose shape is always the same."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert found["status"] == status
    assert found["code"]
    return found


def faults(response: httpx.Response, status: int = 400) -> list[tuple[str, str]]:
    """Read the places and codes of an error."""
    return [(fault["path"], fault["code"]) for fault in problem(response, status)["errors"]]


def test_an_event_is_queued_as_it_came(edge: Edge) -> None:
    """Byte for byte, with the id that the answer names, and with or without the slash."""
    raw = body().replace(b'"/"', b'"/" , "n": 1.00000000000000000001')

    first, second = edge.send(raw), edge.send(body(event_id="6f1c1a3e-5b0f-4f52-9a44-0d4a3f3e8a11"), "/events/")

    assert (first.status_code, second.status_code) == (202, 202)
    assert second.json() == {"event_id": "6f1c1a3e-5b0f-4f52-9a44-0d4a3f3e8a11"}
    queued = edge.queued()
    assert [str(event.event_id) for event in queued] == [
        first.json()["event_id"],
        second.json()["event_id"],
    ]
    assert queued[0].body == raw
    assert {event.application for event in queued} == {"demo"}


@pytest.mark.parametrize("send", ["whole", "in pieces", "the long way"])
def test_an_event_is_answered_alike_however_it_comes(edge: Edge, send: str) -> None:
    """The common request is answered without the framework of ASGI; nobody must be able to tell."""
    raw = body(event_id="6f1c1a3e-5b0f-4f52-9a44-0d4a3f3e8a11")
    media_type = "application/json" + ("; charset=utf-8" if send == "the long way" else "")
    head = (
        f"POST /events HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer {edge.created.text}\r\n"
        f"Content-Type: {media_type}\r\nContent-Length: {len(raw)}\r\nConnection: close\r\n\r\n"
    ).encode()
    url = httpx.URL(edge.url)
    with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
        for piece in [head, raw] if send == "in pieces" else [head + raw]:
            connection.sendall(piece)
            time.sleep(0.05)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))

    status_line, *lines = answer.decode().split("\r\n")
    assert status_line == "HTTP/1.1 202 Accepted"
    assert sorted(line.partition(":")[0] for line in lines[:-2]) == [
        "connection",
        "content-length",
        "content-type",
        "date",
    ]
    assert lines[-1] == '{"event_id":"6f1c1a3e-5b0f-4f52-9a44-0d4a3f3e8a11"}'
    assert [event.body for event in edge.queued()] == [raw]


@pytest.mark.parametrize("send", ["at once", "the long way", "batch"])
def test_an_event_has_the_trace_of_its_request(edge: Edge, send: str) -> None:
    """Whether the sender recorded it or not; one that is malformed, or given twice, counts as none."""
    trace_id, other = uuid4(), uuid4()
    headers = {"Content-Type": "application/json" + ("; charset=utf-8" if send == "the long way" else "")}
    given = [
        [("traceparent", f"00-{trace_id.hex}-b7ad6b7169203331-00")],
        [],
        [("traceparent", f"00-{trace_id.hex}-0-00")],
        [("traceparent", f"00-{each.hex}-b7ad6b7169203331-00") for each in (trace_id, other)],
    ]
    path, content = ("/events/batch", b"[%s,%s]" % (body(), body())) if send == "batch" else ("/events", body())

    with edge.client() as client:
        for traceparents in given:
            response = client.post(path, content=content, headers=[*headers.items(), *traceparents])
            assert response.status_code == 202, response.text

    queued = [event.trace_id for event in edge.queued()]
    first = 2 if send == "batch" else 1
    assert queued == [trace_id] * first + [None] * 3 * first


def test_a_malformed_event_is_refused_with_every_fault(edge: Edge) -> None:
    """And nothing of it is queued."""
    response = edge.send(body(session_id="x", category=""))

    assert sorted(faults(response)) == [("$.category", "invalid_length"), ("$.session_id", "invalid_uuid")]
    assert edge.queued() == []


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_batch_is_queued_in_one_message(edge: Edge, encoding: str) -> None:
    """In order, compressed or not."""
    ids = [str(uuid4()) for _ in range(1_000)]
    content = json.dumps([GOOD | {"event_id": event_id} for event_id in ids]).encode()
    if encoding == "gzip":
        content = gzip.compress(content)

    groups = edge.counted("the_eye_group_events_count")

    response = edge.batch(content, Content_Encoding=encoding)

    assert response.status_code == 202, response.text
    assert response.json() == {"accepted": 1000, "refused": []}
    assert [str(event.event_id) for event in edge.queued()] == ids
    assert edge.counted("the_eye_group_events_count") - groups == 1


def test_one_malformed_event_refuses_no_neighbour(edge: Edge) -> None:
    """It is named by its place, with its faults; lines are told apart as array members are."""
    lines = b"\n".join([body(name="first"), b"", b'{"session_id": 5', body(name="second"), body(name=5), b""])

    response = edge.batch(lines, Content_Type="application/x-ndjson; charset=utf-8")

    assert response.status_code == 202, response.text
    answer = response.json()
    assert answer["accepted"] == 2
    assert [(one["index"], one["errors"][0]["path"], one["errors"][0]["code"]) for one in answer["refused"]] == [
        (1, "$", "malformed_json"),
        (3, "$.name", "invalid_type"),
    ]
    assert len(edge.queued()) == 2


def test_a_batch_without_a_good_event_is_malformed(edge: Edge) -> None:
    """Each fault with its place in the batch."""
    assert faults(edge.batch(json.dumps([GOOD | {"name": 5}, 7]).encode())) == [
        ("$[0].name", "invalid_type"),
        ("$[1]", "invalid_type"),
    ]
    assert faults(edge.batch(b"[]")) == [("$", "empty_batch")]
    assert faults(edge.batch(b"\n\n", Content_Type="application/x-ndjson")) == [("$", "empty_batch")]
    assert faults(edge.batch(body())) == [("$", "invalid_type")]
    assert faults(edge.batch(b"[" + body())) == [("$", "malformed_json")]
    assert faults(edge.batch(b"[" * 100_000)) == [("$", "too_deep")]


def test_what_is_too_large_is_refused(edge: Edge) -> None:
    """In events, in bytes, and in what a small body unpacks to."""
    assert problem(edge.batch(b"[" + b",".join([b"1"] * 1001) + b"]"), 413)["code"] == "too_many_events"
    lines = edge.batch(b"{}\n" * 1001, Content_Type="application/x-ndjson")
    assert problem(lines, 413)["code"] == "too_many_events"
    assert problem(edge.batch(b" " * (4 * MIB + 1)), 413)["code"] == "too_large"
    assert problem(edge.send(b" " * (MIB + 1)), 413)["code"] == "too_large"
    bomb = gzip.compress(b" " * (200 * MIB))
    assert problem(edge.batch(bomb, Content_Encoding="gzip"), 413)["code"] == "too_large"


def test_an_unsupported_form_is_named(edge: Edge) -> None:
    """With what is supported."""
    form = edge.send(body(), Content_Type="application/x-www-form-urlencoded")
    assert problem(form, 415)["code"] == "unsupported_media_type"
    assert form.headers["accept"] == "application/cloudevents+json, application/json"
    packed = edge.send(body(), Content_Encoding="br")
    assert problem(packed, 415)["code"] == "unsupported_encoding"
    assert packed.headers["accept-encoding"] == "gzip, zstd"


def test_no_token_no_event(edge: Edge) -> None:
    """Without one, with an unknown one, with one that is no token."""
    for authorization in ("", "Bearer", "Bearer eye_unknown", "Basic ZGVtbzpkZW1v", "Bearer \xff"):
        headers = [(b"Authorization", authorization.encode("latin-1"))] if authorization else []
        response = httpx.post(f"{edge.url}/events", content=body(), headers=headers)
        problem(response, 401)
        assert response.headers["www-authenticate"].startswith("Bearer ")

    assert edge.queued() == []


def test_a_token_allows_its_scopes_alone(edge: Edge) -> None:
    """Sending and reading are apart."""
    sender = create_token(edge.connection, "demo", [Scope.INGEST]).text
    reader = create_token(edge.connection, "demo", [Scope.READ]).text
    wait_until(lambda: edge.get("/events", reader).status_code == 200, DEADLINE, lambda: "not taken up")

    response = edge.send(body(), token=reader)

    assert problem(response, 403)["code"] == "insufficient_scope"
    assert 'scope="ingest"' in response.headers["www-authenticate"]
    assert edge.send(body(), token=sender).status_code == 202
    problem(edge.get("/events", sender), 403)


def test_a_revoked_token_stops_working(edge: Edge) -> None:
    """Within the refresh, and so does every token of a disabled application."""
    second = create_token(edge.connection, "demo", [Scope.INGEST])
    wait_until(lambda: edge.send(body(), token=second.text).status_code == 202, DEADLINE, lambda: "not taken up")

    revoke_token(edge.connection, second.id)
    wait_until(lambda: edge.send(body(), token=second.text).status_code == 401, DEADLINE, lambda: "still works")

    disable_application(edge.connection, "demo")
    wait_until(lambda: edge.send(body()).status_code == 401, DEADLINE, lambda: "still works")


def test_events_are_accepted_while_the_database_is_away(edge: Edge, postgres: Postgres) -> None:
    """The last known tokens stay in force; readers are asked to come back."""
    postgres.stop()
    try:
        assert edge.send(body()).status_code == 202
        response = edge.get("/events")
        problem(response, 503)
        assert int(response.headers["retry-after"]) > 0
        assert httpx.get(f"{edge.url}/readyz").status_code == 200
    finally:
        postgres.start()

    assert edge.send(body()).status_code == 202


def test_a_queue_that_is_away_is_never_a_202(edge: Edge, valkey: Valkey) -> None:
    """Nor a hang; and it serves again by itself."""
    valkey.pause()
    try:
        response = edge.send(body())
        assert problem(response, 503)["code"] == "queue_unavailable"
        assert UUID(response.json()["event_id"]).version == 7
        assert int(response.headers["retry-after"]) > 0
        assert httpx.get(f"{edge.url}/readyz").status_code == 200, "a proxy must still send what is to be answered 503"
        assert httpx.get(f"{edge.url}/healthz").status_code == 200
    finally:
        valkey.resume()
    wait_until(lambda: edge.send(body()).status_code == 202, DEADLINE, lambda: "did not come back")

    valkey.kill()
    assert problem(edge.send(body()), 503)["code"] == "queue_unavailable"
    valkey.start()
    wait_until(lambda: edge.send(body()).status_code == 202, DEADLINE, lambda: "did not come back")


def test_every_error_has_the_one_shape(edge: Edge) -> None:
    """Also those of routes and methods that do not exist."""
    with edge.client() as client:
        problem(client.get("/nothing"), 404)
        problem(client.get("/api/schema/nothing"), 404)
        problem(client.post("/nothing"), 404)
        for method, path in [
            ("DELETE", "/events"),
            ("PUT", "/events"),
            ("GET", "/events/batch/x"),
            ("POST", "/healthz"),
        ]:
            response = client.request(method, path)
            assert response.status_code in {404, 405}
            problem(response, response.status_code)


def test_an_endless_head_is_cut_off(edge: Edge) -> None:
    """Before anyone has shown a token, so it must cost no memory; pipelined and kept connections go on to work."""
    host, port = edge.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=DEADLINE) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        answers = b""
        while answers.count(b'{"status":"ok"}') < 3:
            answers += connection.recv(65536)
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 100 * MIB:
                sent += connection.send(b"x" * 65536)
        assert sent < 20 * MIB  # what the sockets' buffers hold
        with contextlib.suppress(ConnectionError):
            assert b" 431 " in connection.recv(65536)


def test_methods_that_exist_are_told(edge: Edge) -> None:
    """OPTIONS and HEAD, as load balancers and browsers ask."""
    assert httpx.options(f"{edge.url}/events").headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert httpx.options(f"{edge.url}/events/batch").headers["allow"] == "OPTIONS, POST"
    with edge.client() as client:
        for path in ("/healthz", "/readyz", "/events"):
            response = client.head(path)
            assert (response.status_code, response.content) == (200, b"")


def test_a_header_that_is_given_twice_is_refused(edge: Edge) -> None:
    """Where it would not be clear which one counts."""
    token = f"Bearer {edge.created.text}"
    headers = [("Authorization", token), ("Content-Encoding", "gzip"), ("Content-Encoding", "identity")]

    response = httpx.post(f"{edge.url}/events", content=body(), headers=headers)

    assert faults(response) == [("$", "repeated_header")]


def test_an_answer_is_bounded(edge: Edge) -> None:
    """A batch of hundreds of thousands of faults gets a short answer, and its good event is accepted."""
    bad = [{str(number): number for number in range(300)}] * 999

    response = edge.batch(json.dumps([*bad, GOOD]).encode())

    assert response.status_code == 202
    assert response.json()["accepted"] == 1
    assert len(response.json()["refused"]) == 999
    assert len(response.content) < 400_000


def test_the_description_is_complete_and_served_from_here(edge: Edge) -> None:
    """OpenAPI with every route, and a page that loads nothing from elsewhere."""
    schema = httpx.get(f"{edge.url}/api/schema").json()
    assert set(schema["paths"]) == {"/events", "/events/batch", "/events/{event_id}", "/sessions/{session_id}/events"}
    assert set(schema["paths"]["/events"]) == {"get", "post"}

    page = httpx.get(f"{edge.url}/api/schema/swagger-ui").text
    assets = [part.split('"')[0] for part in page.split('src="')[1:] + page.split('href="')[1:]]
    assert len(assets) >= 3
    for asset in assets:
        assert asset.startswith("/")
        assert httpx.get(f"{edge.url}{asset}").status_code == 200


def test_what_is_accepted_and_refused_is_counted(edge: Edge) -> None:
    """The half of the ledger that the edge keeps."""
    samples = {
        'the_eye_events_accepted_total{application="demo"}': 3,
        'the_eye_http_request_bytes_total{route="/events"}': len(body()) + 1,
        'the_eye_events_refused_total{code="malformed_json"}': 1,
        'the_eye_events_refused_total{code="invalid_type"}': 1,
        'the_eye_http_requests_total{route="/events",status="202"}': 1,
    }
    before = {sample: edge.counted(sample) for sample in samples}

    edge.send(body())
    edge.send(b"{")
    edge.batch(json.dumps([GOOD, GOOD, 5]).encode())

    assert {sample: edge.counted(sample) - count for sample, count in before.items()} == samples


def test_an_application_that_sends_too_much_is_slowed(edge: Edge) -> None:
    """It alone, and it is told when to return."""
    limit_application(edge.connection, "demo", RateLimit(events_per_second=0.02, burst=1))
    create_application(edge.connection, "other")
    other = create_token(edge.connection, "other", [Scope.INGEST]).text

    wait_until(lambda: edge.send(body()).status_code == 429, DEADLINE, lambda: "the limit was not taken up")

    begun = time.monotonic()
    response = edge.send(body())
    assert problem(response, 429)["code"] == "rate_limited"
    assert time.monotonic() - begun >= 0.1  # who does not listen is slowed all the same
    assert 1 <= int(response.headers["retry-after"]) <= 100
    wait_until(lambda: edge.send(body(), token=other).status_code == 202, DEADLINE, lambda: "the other was slowed too")

    limit_application(edge.connection, "demo", None)
    wait_until(lambda: edge.send(body()).status_code == 202, DEADLINE, lambda: "the limit was not lifted")


def test_a_full_queue_takes_no_more(queue_settings: QueueSettings, store_settings: StoreSettings) -> None:
    """Until the workers have caught up; nobody is left to guess when to return."""
    with (
        connect(store_settings, "test") as connection,
        running(Edge(queue_settings, connection), store_settings, THE_EYE_BACKLOG_MAX_BYTES="100000") as edge,
    ):
        big = body(data={"text": secrets.token_hex(30_000)})  # which compresses badly
        wait_until(lambda: edge.send(big).status_code == 503, DEADLINE, lambda: "the queue was never full")
        response = edge.send(body())
        assert problem(response, 503)["code"] == "queue_full"
        assert int(response.headers["retry-after"]) >= 1

        with redis.Redis.from_url(queue_settings.redis_url) as client:
            client.delete(f"{queue_settings.queue_namespace}:{EVENTS_QUEUE}.msgs")
        wait_until(lambda: edge.send(body()).status_code == 202, DEADLINE, lambda: "the queue stayed full")
