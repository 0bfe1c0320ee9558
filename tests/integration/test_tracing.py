"""Traces from a request to its rows: a real API and a real worker, before a receiver of OpenTelemetry's protocol.

How they fare in OpenTelemetry's own Collector is in ``tests/collector``.
"""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from tests.integration.conftest import clean
from tests.machine import RULES, environment, until
from tests.otlp import OtlpReceiver, Received, receiving
from tests.servers import Valkey

from the_eye.settings import StoreSettings
from the_eye.store.applications import create_application, create_token
from the_eye.store.connect import Connection, connect
from the_eye.tokens import Scope

DEADLINE = 90.0
PROVIDERS_STOP_SECONDS = 30.0
"""How long OpenTelemetry's own end would wait for the exporter."""

OPEN_METRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
SPAN = "b7ad6b7169203331"
"""Of the sender."""
MARK = "zebra-7319"
"""Stands in what is sent, and nowhere else."""


class House:
    """An API and a worker."""

    def __init__(self, folder: Path, connection: Connection, changes: Mapping[str, str]) -> None:
        self._folder = folder
        self.connection = connection
        self.environ = environment({"THE_EYE_RULES_DIR": str(RULES), **changes})
        self.url = f"http://{self.environ['THE_EYE_API_LISTEN']}"
        self.api_metrics = f"http://{self.environ['THE_EYE_API_METRICS_LISTEN']}/metrics"
        self.worker = f"http://{self.environ['THE_EYE_WORKER_METRICS_LISTEN']}"
        application = f"traced-{uuid4().hex[:8]}"
        create_application(connection, application)
        token = create_token(connection, application, [Scope.INGEST, Scope.READ]).text
        self.client = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=30)
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start both and wait until they are at work."""
        for command in ("api", "worker"):
            with self._log(command).open("wb") as log:
                self._processes.append(
                    subprocess.Popen([sys.executable, "-m", "the_eye_cli", command], env=self.environ, stderr=log)  # noqa: S603 - our own command
                )
        for url in (f"{self.url}/readyz", f"{self.worker}/readyz"):
            until(lambda url=url: self._answers(url), DEADLINE)  # type: ignore[misc]

    def _answers(self, url: str) -> bool:
        assert all(process.poll() is None for process in self._processes), self.logs
        try:
            return httpx.get(url, timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> float:
        """Stop both in order; gives the seconds that took."""
        begun = time.monotonic()
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(DEADLINE) for process in self._processes] == [0] * len(self._processes)
        self._processes.clear()
        return time.monotonic() - begun

    def _log(self, command: str) -> Path:
        return self._folder / f"{command}.log"

    @property
    def logs(self) -> str:
        """What both have logged."""
        return "".join(log.read_text() for log in self._folder.glob("*.log"))

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Give the lines of the log that tell of something."""
        return [line for line in map(json.loads, self.logs.splitlines()) if line["event"] == event]

    def send(self, body: bytes, path: str = "/events", **headers: str) -> httpx.Response:
        """POST a body."""
        return self.client.post(path, content=body, headers={"Content-Type": "application/json", **headers})

    def accepted(self, **headers: str) -> str:
        """POST an event that is accepted; gives its id."""
        answer = self.send(event(), **headers)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["event_id"])

    def wait_until_stored(self, event_id: str) -> None:
        """Wait for a row."""
        query = "SELECT FROM events WHERE event_id = %s"
        until(lambda: self.connection.execute(query, (event_id,)).fetchone() is not None, DEADLINE)


def event(name: str = "cta click", **fields: Any) -> bytes:
    """Make an event with the secret in its payload."""
    known = {
        "session_id": str(uuid4()),
        "category": "page interaction",
        "name": name,
        "data": {"host": "www.consumeraffairs.com", "element": MARK},
        "timestamp": datetime.now(UTC).isoformat(),
    }
    return json.dumps({**known, **fields}).encode()


@contextmanager
def living(folder: Path, valkey: Valkey, url: str, **changes: str) -> Iterator[House]:
    """Have an API and a worker with an empty store and a queue of their own."""
    clean(url)
    settings = {
        "THE_EYE_DATABASE_URL": url,
        "THE_EYE_REDIS_URL": valkey.url(),
        "THE_EYE_QUEUE_NAMESPACE": f"traced-{uuid4().hex}",
        "THE_EYE_TOKEN_REFRESH_SECONDS": "0.2",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        **changes,
    }
    with connect(StoreSettings(database_url=url), "test") as connection:
        house = House(folder, connection, settings)
        try:
            house.start()
            yield house
        finally:
            house.stop()
            house.client.close()


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    """A collector that takes all."""
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def house(
    receiver: OtlpReceiver, valkey: Valkey, migrated_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """An API and a worker that trace every request."""
    folder = tmp_path_factory.mktemp("traced")
    with living(folder, valkey, migrated_url, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url) as house:
        yield house


def the_trace(receiver: OtlpReceiver, trace_id: str, *names: str) -> dict[str, Received]:
    """Wait for the spans of a trace, and give them by name."""

    def found() -> list[Received]:
        return [span for span in receiver.spans if span.trace_id == trace_id]

    until(lambda: {span.name for span in found()} >= set(names), DEADLINE)
    spans = {span.name: span for span in found()}
    assert len(spans) == len(found()), found()
    return spans


def begun() -> tuple[str, dict[str, str]]:
    """Begin a trace as a sender does; gives its id and the header that says so."""
    trace_id = uuid4().hex
    return trace_id, {"traceparent": f"00-{trace_id}-{SPAN}-01"}


def test_one_request_gives_one_trace_from_http_to_sql(house: House, receiver: OtlpReceiver) -> None:
    trace_id, header = begun()
    house.accepted(**header)

    names = ("POST /events", "send events", "process events", "COPY events")
    spans = the_trace(receiver, trace_id, *names)
    request, sending, processing, copy = (spans[name] for name in names)
    assert (request.kind, request.parent_id, request.service) == ("SERVER", SPAN, "the-eye-api")
    assert (sending.kind, sending.parent_id) == ("PRODUCER", request.span_id)
    assert (processing.kind, processing.parent_id) == ("CONSUMER", sending.span_id)
    assert processing.service == "the-eye-worker"
    assert (copy.kind, copy.parent_id) == ("CLIENT", processing.span_id)
    assert processing.links == ((trace_id, sending.span_id),)
    assert not any(span.failed for span in spans.values())


def test_a_refused_request_is_one_span_with_its_status(house: House, receiver: OtlpReceiver) -> None:
    """Though it was tried first whether it can be accepted at once."""
    trace_id, header = begun()
    house.client.post("/events", content=b"no json", headers=header)

    spans = the_trace(receiver, trace_id, "POST /events")
    assert spans["POST /events"].attributes["http.response.status_code"] == 400
    assert not spans["POST /events"].failed


def test_spans_follow_the_semantic_conventions(house: House, receiver: OtlpReceiver) -> None:
    trace_id, header = begun()
    house.send(b"[" + event() + b"," + event() + b"]", "/events/batch", **header)

    spans = the_trace(receiver, trace_id, "POST /events/batch", "send events", "COPY events")
    assert spans["POST /events/batch"].attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 202,
        "http.route": "/events/batch",
        "network.protocol.version": "1.1",
        "url.path": "/events/batch",
        "url.scheme": "http",
    }
    assert spans["send events"].attributes == {
        "messaging.system": "redis",
        "messaging.destination.name": "events",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.batch.message_count": 2,
    }
    assert spans["COPY events"].attributes == {
        "db.system.name": "postgresql",
        "db.namespace": "the_eye",
        "db.operation.name": "COPY",
        "db.collection.name": "events",
        "db.operation.batch.size": 2,
    }
    resource = spans["COPY events"].resource
    assert {"service.name", "service.version", "service.instance.id", "telemetry.sdk.name"} <= resource.keys()


def test_a_query_is_traced_with_its_route_and_its_statement(house: House, receiver: OtlpReceiver) -> None:
    event_id = house.accepted()
    house.wait_until_stored(event_id)

    trace_id, header = begun()
    house.client.get(f"/events/{event_id}", headers=header).raise_for_status()

    spans = the_trace(receiver, trace_id, "GET /events/{event_id}", "SELECT events")
    assert spans["SELECT events"].parent_id == spans["GET /events/{event_id}"].span_id


def test_what_a_sender_did_not_sample_is_not_traced(house: House, receiver: OtlpReceiver) -> None:
    unsampled = uuid4().hex
    event_id = house.accepted(traceparent=f"00-{unsampled}-{SPAN}-00")
    house.wait_until_stored(event_id)
    assert house.client.get(f"/events/{event_id}").json()["trace_id"] == unsampled

    trace_id, header = begun()
    house.accepted(**header, tracestate="vendor=7")
    the_trace(receiver, trace_id, "POST /events", "COPY events")
    assert unsampled not in {span.trace_id for span in receiver.spans}


@pytest.mark.parametrize("header", [{}, {"traceparent": "00-nothing-01"}], ids=["none", "malformed"])
def test_a_row_has_the_trace_that_its_request_is_part_of(
    house: House, receiver: OtlpReceiver, header: dict[str, str]
) -> None:
    """The one that begins here, where the sender has none."""
    event_id = house.accepted(**header)
    house.wait_until_stored(event_id)

    found = house.client.get(f"/events/{event_id}").json()["trace_id"]
    the_trace(receiver, found, "POST /events", "COPY events")


@pytest.mark.parametrize("header", [{}, {"traceparent": "00-nothing-01"}], ids=["none", "malformed"])
def test_without_a_context_a_trace_begins(house: House, receiver: OtlpReceiver, header: dict[str, str]) -> None:
    path = f"/events/{uuid4()}"
    house.client.get(path, headers=header)

    def found() -> list[Received]:
        return [span for span in receiver.spans if span.attributes.get("url.path") == path]

    until(found, DEADLINE)
    assert [span.parent_id for span in found()] == [""]


def test_probes_are_not_traced(house: House, receiver: OtlpReceiver) -> None:
    httpx.get(f"{house.url}/readyz").raise_for_status()

    trace_id, header = begun()
    house.accepted(**header)
    the_trace(receiver, trace_id, "POST /events")
    assert not [span for span in receiver.spans if span.attributes.get("url.path") == "/readyz"]


@pytest.mark.parametrize(
    ("histogram", "where"),
    [
        ("the_eye_http_request_duration_seconds", "api"),
        ("the_eye_http_other_request_duration_seconds", "api"),
        ("the_eye_stored_after_seconds", "worker"),
    ],
)
def test_latencies_have_exemplars(house: House, receiver: OtlpReceiver, histogram: str, where: str) -> None:
    """A scraper that asks for OpenMetrics gets the trace of a request in each bucket; others see none."""
    event_id = house.accepted()
    house.wait_until_stored(event_id)
    house.client.get(f"/events/{event_id}").raise_for_status()
    url = house.api_metrics if where == "api" else f"{house.worker}/metrics"

    def exemplars() -> list[Mapping[str, str]]:
        families = text_string_to_metric_families(httpx.get(url, headers=OPEN_METRICS).text)  # type: ignore[no-untyped-call]
        samples = [sample for family in families if family.name == histogram for sample in family.samples]
        return [sample.exemplar.labels for sample in samples if sample.exemplar is not None]

    until(exemplars, DEADLINE)
    wanted = {(labels["trace_id"], labels["span_id"]) for labels in exemplars()}
    until(lambda: wanted <= {(span.trace_id, span.span_id) for span in receiver.spans}, DEADLINE)
    assert "trace_id" not in httpx.get(url).text


@contextmanager
def refusing_rows(connection: Connection) -> Iterator[None]:
    """Have PostgreSQL refuse events of a name, with a text that quotes the row."""
    connection.execute(
        """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN RAISE EXCEPTION 'refused' USING DETAIL = NEW.data::text; END $$"""
    )
    connection.execute(
        """CREATE TRIGGER refuse BEFORE INSERT ON events_default
           FOR EACH ROW WHEN (NEW.name = 'unstorable') EXECUTE FUNCTION refuse()"""
    )
    try:
        yield
    finally:
        connection.execute("DROP FUNCTION refuse CASCADE")


def test_what_was_sent_is_in_no_log_and_in_no_span(house: House, receiver: OtlpReceiver) -> None:
    """Whatever becomes of an event: valid, invalid, duplicate, refused, dead, queried, or part of an error."""
    known = str(uuid4())
    timestamp = datetime.now(UTC).isoformat()
    bodies = [
        event(),
        event(data={"host": MARK, "element": "buy button"}),
        *[event(event_id=known, timestamp=timestamp)] * 2,
        event("unstorable"),
    ]
    refused = [event(data=MARK), event(timestamp=MARK), b'{"' + MARK.encode(), MARK.encode() * 100_000]

    with refusing_rows(house.connection):
        for body in bodies:
            assert house.send(body).status_code == 202
        until(lambda: house.connection.execute("SELECT 1 FROM dead_events").fetchone(), DEADLINE)
    for body in refused:
        assert house.send(body).status_code in {400, 413}
    house.client.get("/events", params={"category": MARK, "limit": "1"}).raise_for_status()
    house.client.get("/events", params={"cursor": MARK}, headers={"Authorization": f"Bearer {MARK}"})
    last, header = begun()
    house.client.get("/sessions/none/events", headers=header)
    the_trace(receiver, last, "GET /sessions/{session_id}/events")

    (dead,) = house.lines("event_set_aside")
    assert {"trace_id", "span_id"} <= dead.keys()
    assert house.lines("message_halved") == [] or "trace_id" in house.lines("message_halved")[0]
    assert MARK not in house.logs
    assert MARK not in str(receiver.spans)


def test_failures_are_told_by_their_type_alone(house: House, receiver: OtlpReceiver) -> None:
    with refusing_rows(house.connection):
        trace_id, header = begun()
        house.send(event("unstorable"), **header)
        copy = the_trace(receiver, trace_id, "COPY events", "INSERT dead_events")["COPY events"]

    assert copy.failed
    assert copy.attributes["db.response.status_code"] == copy.attributes["error.type"] == "P0001"


def test_a_collector_that_does_not_answer_holds_up_nothing(valkey: Valkey, migrated_url: str, tmp_path: Path) -> None:
    """Events are accepted and stored beyond what waits to be sent, the log tells of it once, and both processes end."""
    over = threading.Event()
    with receiving() as receiver:
        receiver.answer = lambda: 200 if over.wait(DEADLINE) else 503
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_BSP_MAX_QUEUE_SIZE": "512"}
        with living(tmp_path, valkey, migrated_url, **endpoint) as house:
            until(lambda: house.accepted() and receiver.requests, DEADLINE)
            stored = [house.accepted() for _ in range(300)]
            for event_id in stored:
                house.wait_until_stored(event_id)
            assert house.stop() < PROVIDERS_STOP_SECONDS
        over.set()

    lines = [line for line in map(json.loads, house.logs.splitlines()) if line["logger"].startswith("opentelemetry")]
    assert len(lines) <= len(("api", "worker")), lines
