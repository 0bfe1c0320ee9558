"""observability/otel-collector.yaml in a real OpenTelemetry Collector, with The Eye before it and a receiver behind."""

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx
import msgspec
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Status, StatusCode
from tests import machine
from tests.machine import free_addresses, until
from tests.otlp import OtlpReceiver, receiving

CONFIGURATION = Path(__file__).parents[2] / "observability" / "otel-collector.yaml"
DEADLINE = 90.0
SPAN = "b7ad6b7169203331"


class Collector(msgspec.Struct, frozen=True):
    """Where a Collector takes spans, and what it tells."""

    endpoint: str
    metrics: str
    own_metrics: str

    def samples(self) -> list[str]:
        """Read the metrics that it makes of spans."""
        return httpx.get(self.metrics).text.splitlines()


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    """What the Collector sends to."""
    with receiving() as receiver:
        yield receiver


@contextmanager
def collecting(otelcol: Path, log: Path, receiver: OtlpReceiver, **environ: str) -> Iterator[Collector]:
    """Run the Collector with the configuration as it is, at addresses of the test's own and without long waits."""
    http, grpc, metrics, health, own = free_addresses(5)
    host, _, port = own.partition(":")
    addresses = {
        "OTLP_HTTP_LISTEN": http,
        "OTLP_GRPC_LISTEN": grpc,
        "PROMETHEUS_LISTEN": metrics,
        "HEALTH_LISTEN": health,
        "OWN_METRICS_HOST": host,
        "OWN_METRICS_PORT": port,
        "OTLP_OUT_ENDPOINT": receiver.url,
        "DECISION_WAIT": "2s",
        "BATCH_TIMEOUT": "100ms",
        "METRICS_FLUSH_INTERVAL": "200ms",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [otelcol, "--config", CONFIGURATION], env={**os.environ, **addresses, **environ}, stderr=output
        )
    try:
        until(lambda: process.poll() is not None or _answers(f"http://{health}"), DEADLINE)
        assert process.poll() is None, log.read_text()
        yield Collector(f"http://{http}", f"http://{metrics}/metrics", f"http://{own}/metrics")
    finally:
        process.terminate()
        process.wait(DEADLINE)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def send_event(up: machine.Machine, headers: Mapping[str, str]) -> None:
    """POST an event that is accepted."""
    event = {
        "session_id": str(uuid4()),
        "category": "page interaction",
        "name": "cta click",
        "data": {"host": "www.consumeraffairs.com", "element": "chat bubble"},
        "timestamp": datetime.now(UTC).isoformat(),
    }
    token = {"Authorization": f"Bearer {up.token}", "Content-Type": "application/json"}
    answer = httpx.post(f"{up.api}/events", content=json.dumps(event), headers={**token, **headers}, timeout=30)
    assert answer.status_code == 202, answer.text


def test_one_request_is_one_trace_behind_the_collector(otelcol: Path, receiver: OtlpReceiver, tmp_path: Path) -> None:
    """From HTTP to SQL, and counted by route."""
    trace_id = uuid4().hex
    with (
        collecting(otelcol, tmp_path / "otelcol.log", receiver, KEPT_PERCENT="100") as collector,
        machine.running(tmp_path, changes={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}) as up,
    ):
        send_event(up, {"traceparent": f"00-{trace_id}-{SPAN}-01"})

        names = {"POST /events", "send events", "process events", "COPY events"}
        until(lambda: {span.name for span in receiver.spans if span.trace_id == trace_id} >= names, DEADLINE)
        counted = 'http_route="/events",'
        until(lambda: any("calls_total{" in line and counted in line for line in collector.samples()), DEADLINE)
        assert any("otelcol_processor_tail_sampling" in line for line in httpx.get(collector.own_metrics).text.split())

    spans = [span for span in receiver.spans if span.trace_id == trace_id]
    ids = {span.span_id for span in spans} | {SPAN}
    assert {span.parent_id for span in spans} <= ids
    assert {span.service for span in spans} == {"the-eye-api", "the-eye-worker"}


def test_errors_and_what_is_slow_are_kept_and_of_the_rest_a_share(
    otelcol: Path, receiver: OtlpReceiver, tmp_path: Path
) -> None:
    with collecting(otelcol, tmp_path / "otelcol.log", receiver, KEPT_PERCENT="0") as collector:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{collector.endpoint}/v1/traces")))
        tracer = provider.get_tracer("test")
        now = time.time_ns()
        for name, seconds, status in (
            ("usual", 0.1, StatusCode.UNSET),
            ("failed", 0.1, StatusCode.ERROR),
            ("slow", 1.5, StatusCode.UNSET),
        ):
            span = tracer.start_span(name, start_time=now - int(seconds * 1e9))
            span.set_status(Status(status))
            span.end(now)
        provider.shutdown()

        until(lambda: {span.name for span in receiver.spans} >= {"failed", "slow"}, DEADLINE)
        until(lambda: any("calls_total{" in line and '"usual"' in line for line in collector.samples()), DEADLINE)
        decided = 'policy="a share of the rest"'
        until(lambda: any(decided in line for line in httpx.get(collector.own_metrics).text.splitlines()), DEADLINE)

    assert {span.name for span in receiver.spans} == {"failed", "slow"}
