"""Which requests are traced, what their spans belong to, and what a process pays that traces none."""

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from tests.machine import free_addresses
from tests.otlp import OtlpReceiver, receiving

from the_eye.queue.messages import TRACE_CONTEXTS, EnvelopeEncoder, Payload
from the_eye.settings import SettingsError, TelemetrySettings
from the_eye.tracing import FLUSH_SECONDS, MAX_CARRIED, Tracing

if TYPE_CHECKING:
    from the_eye.spans import Creation

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"}
UNSAMPLED = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-00"}
LEAST_ID = {"traceparent": f"00-{'0' * 31}1-{SPAN_ID}-00"}
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"

PATIENCE_SECONDS = 3.0
"""Less than the exporter's own wait before it tries again once more."""

LIBRARIES_LOADED = """
import sys
import the_eye_api.app, the_eye_api.command, the_eye_worker.command
from the_eye.settings import TelemetrySettings
from the_eye.telemetry import telemetry
telemetry.start(TelemetrySettings.load(), 'the-eye-api')
assert telemetry.exemplar() is None and telemetry.creation(1) is None
telemetry.stop()
ours = 'the_eye.tracing', 'the_eye.spans'
others = 'opentelemetry.exporter', 'opentelemetry.sdk.trace', 'google.protobuf', 'requests'
print([name for name in sys.modules if name.startswith(ours + others)])
"""


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    """A collector that takes all."""
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def tracing(receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracing]:
    """What makes spans; all of them are sent when it stops."""
    monkeypatch.setenv(ENDPOINT, receiver.url)
    tracing = Tracing(TelemetrySettings(), "test")
    yield tracing
    tracing.stop()


@contextmanager
def sampler(name: str, ratio: float) -> Iterator[Tracing]:
    """Make spans by one of OpenTelemetry's samplers."""
    settings = TelemetrySettings.load({"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": str(ratio)})
    tracing = Tracing(settings, "test")
    yield tracing
    tracing.stop()


def test_a_process_without_a_collector_loads_nothing_that_traces() -> None:
    """The client of Redis loads the API and what counts, where it finds them, and makes no use of it."""
    ran = subprocess.run([sys.executable, "-c", LIBRARIES_LOADED], capture_output=True, text=True, check=True, env={})  # noqa: S603 - this interpreter

    assert ran.stdout == "[]\n"


@pytest.mark.parametrize(
    ("environ", "on"),
    [
        ({}, False),
        ({ENDPOINT: "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({ENDPOINT: "http://collector:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({ENDPOINT: "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_a_collector_that_is_named_turns_traces_on(environ: Mapping[str, str], *, on: bool) -> None:
    assert TelemetrySettings.load(environ).on is on


@pytest.mark.parametrize(
    ("key", "value"),
    [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_TRACES_SAMPLER", "half"), ("OTEL_TRACES_SAMPLER_ARG", "2")],
)
def test_what_is_not_understood_is_named(key: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{key}='{value}' does not fit"):
        TelemetrySettings.load({key: value})


@pytest.mark.parametrize(
    ("name", "ratio", "without", "sampled", "unsampled"),
    [
        ("always_on", 0.0, True, True, True),
        ("always_off", 1.0, False, False, False),
        ("parentbased_always_on", 0.0, True, True, False),
        ("parentbased_always_off", 1.0, False, True, False),
        ("parentbased_traceidratio", 0.0, False, True, False),
        ("parentbased_traceidratio", 1.0, True, True, False),
        ("traceidratio", 1.0, True, True, True),
        ("traceidratio", 0.0, False, False, False),
    ],
)
def test_samplers_decide_as_opentelemetry_defines_them(
    name: str, ratio: float, *, without: bool, sampled: bool, unsampled: bool
) -> None:
    with sampler(name, ratio) as tracing:
        taken = [tracing.sampled(carrier) is not None for carrier in ({}, SAMPLED, UNSAMPLED)]

    assert taken == [without, sampled, unsampled]


def test_what_only_ends_like_a_decision_is_none() -> None:
    with sampler("parentbased_always_on", 0.0) as tracing:
        assert tracing.sampled({"traceparent": "00-nothing-00"}) is not None


def test_a_sampler_by_ratio_takes_that_share_of_requests() -> None:
    with sampler("parentbased_traceidratio", 0.25) as tracing:
        taken = sum(tracing.sampled({}) is not None for _ in range(10_000))

    assert 2_000 < taken < 3_000


def test_a_sampler_by_ratio_alone_looks_at_the_trace_s_id() -> None:
    """So that all services of a trace come to the same decision."""
    with sampler("traceidratio", 0.01) as tracing:
        assert tracing.sampled(LEAST_ID) is not None
        assert tracing.sampled(SAMPLED) is None


def group(tracing: Tracing, requests: int) -> list[Mapping[str, str]]:
    """Have a group written that has so many sampled requests, and one that is not; gives what its message carries."""
    creations: list[Creation | None] = [None]
    for _ in range(requests):
        parent = tracing.sampled({})
        assert parent is not None
        with tracing.active(tracing.request(parent, "POST /events", {})):
            creations.append(tracing.creation(1))
    with tracing.sending(creations, len(creations)) as carried:
        return list(carried)


def test_what_one_request_has_done_is_its_child(tracing: Tracing, receiver: OtlpReceiver) -> None:
    with tracing.processing(group(tracing, 1)):
        pass
    tracing.stop()

    (request,), (sending,), (processing,) = map(receiver.named, ("POST /events", "send events", "process events"))
    assert (sending.trace_id, sending.parent_id) == (request.trace_id, request.span_id)
    assert (processing.trace_id, processing.parent_id) == (request.trace_id, sending.span_id)
    assert processing.links == ((request.trace_id, sending.span_id),)


def test_what_a_message_carries_is_the_context_of_its_write(tracing: Tracing, receiver: OtlpReceiver) -> None:
    """With the flags that say that its trace is sampled, and what the sender's system has in it."""
    parent = tracing.sampled({**SAMPLED, "tracestate": "vendor=7"})
    assert parent is not None
    with tracing.active(tracing.request(parent, "POST /events", {})):
        creation = tracing.creation(1)
    with tracing.sending([creation], 1) as carried:
        (carrier,) = carried
    tracing.stop()

    (sending,) = receiver.named("send events")
    assert carrier == {"traceparent": f"00-{TRACE_ID}-{sending.span_id}-01", "tracestate": "vendor=7"}
    assert {span.trace_state for span in receiver.spans} == {"vendor=7"}


def test_the_trace_that_begins_here_has_an_id_made_at_random(tracing: Tracing) -> None:
    """Which its flags say: samplers elsewhere may go by it."""
    (carrier,) = group(tracing, 1)

    assert carrier["traceparent"].endswith("-03")


def test_the_wait_of_each_request_that_shares_a_write_has_its_own_span(
    tracing: Tracing, receiver: OtlpReceiver
) -> None:
    begun = time.time_ns()
    group(tracing, 2)
    tracing.stop()

    (sending,) = receiver.named("send events")
    waits = receiver.named("create events")
    assert [(span.kind, sending.kind) for span in waits] == [("PRODUCER", "CLIENT")] * 2
    assert all(begun <= span.begun <= span.ended <= sending.ended for span in waits)
    assert min(span.begun for span in waits) <= max(span.ended for span in receiver.named("POST /events"))


def test_a_message_carries_no_more_contexts_than_a_span_has_links(tracing: Tracing, receiver: OtlpReceiver) -> None:
    carried = group(tracing, MAX_CARRIED + 1)
    with tracing.processing([*carried, *carried]):
        pass
    tracing.stop()

    assert len(carried) == MAX_CARRIED
    shared = receiver.named("send events") + receiver.named("process events")
    assert [len(span.links) for span in shared] == [MAX_CARRIED] * 2


def test_a_task_that_outlives_its_request_makes_no_spans(tracing: Tracing, receiver: OtlpReceiver) -> None:
    parent = tracing.sampled({})
    assert parent is not None
    span = tracing.request(parent, "GET /events", {})
    with tracing.active(span):
        span.end()
        assert tracing.creation(1) is None
    tracing.stop()

    assert len(receiver.spans) == 1


def test_what_several_requests_share_is_a_trace_of_its_own_that_links_them(
    tracing: Tracing, receiver: OtlpReceiver
) -> None:
    with tracing.processing(group(tracing, 3)):
        pass
    tracing.stop()

    creations = receiver.named("create events")
    requests = receiver.named("POST /events")
    assert {(span.trace_id, span.parent_id) for span in creations} == {
        (span.trace_id, span.span_id) for span in requests
    }
    assert len({span.trace_id for span in creations}) == 3
    for name in ("send events", "process events"):
        (span,) = receiver.named(name)
        assert span.parent_id == ""
        assert set(span.links) == {(creation.trace_id, creation.span_id) for creation in creations}


def test_a_group_of_unsampled_requests_has_no_span_and_carries_nothing(
    tracing: Tracing, receiver: OtlpReceiver
) -> None:
    assert group(tracing, 0) == []
    with tracing.processing(()):
        assert tracing.ids() == {}
    tracing.stop()

    assert receiver.spans == []


def test_of_an_error_only_the_type_is_told(tracing: Tracing, receiver: OtlpReceiver) -> None:
    """Its text may quote what was sent."""
    with suppress(ValueError), tracing.processing(group(tracing, 1)):
        message = "zebra"
        raise ValueError(message)
    tracing.stop()

    (span,) = receiver.named("process events")
    assert (span.failed, span.attributes["error.type"]) == (True, "ValueError")
    assert b"zebra" not in b"".join(receiver.bodies)


def test_what_the_user_says_of_the_service_wins(receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=api-1,service.name=mine")
    monkeypatch.setenv(ENDPOINT, receiver.url)
    tracing = Tracing(TelemetrySettings(), "the-eye-api")
    group(tracing, 1)
    tracing.stop()

    resource = receiver.spans[0].resource
    assert (resource["service.name"], resource["k8s.pod.name"]) == ("mine", "api-1")


@pytest.mark.parametrize("fault", ["away", "refusing"])
def test_a_collector_that_takes_nothing_is_told_of_once(
    fault: str, receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.answer = lambda: 503
    monkeypatch.setenv(ENDPOINT, receiver.url if fault == "refusing" else f"http://{free_addresses(1)[0]}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    records: list[logging.LogRecord] = []
    others = set(threading.enumerate())
    tracing = Tracing(TelemetrySettings(), "test")
    (sender,) = set(threading.enumerate()) - others
    (handler,) = logging.getLogger("opentelemetry").handlers
    monkeypatch.setattr(handler, "emit", records.append)

    for _ in range(20):
        group(tracing, 1)
    begun = time.monotonic()
    tracing.stop()

    assert time.monotonic() - begun < FLUSH_SECONDS + 5
    sender.join(PATIENCE_SECONDS)
    assert not sender.is_alive()
    logging.getLogger("opentelemetry.sdk").error("again")
    assert len(records) == 1


def test_what_is_no_context_does_not_keep_events_from_being_stored() -> None:
    encoder = EnvelopeEncoder()
    message: dict[str, Any] = {
        "queue_name": "events",
        "actor_name": "store_events",
        "args": (Payload.of([]),),
        "options": {TRACE_CONTEXTS: [7, {"traceparent": None}]},
        "message_id": "1",
        "message_timestamp": 1,
    }

    (payload,) = encoder.decode(encoder.encode(message))["args"]
    assert payload.trace_contexts == ()
    assert payload.events() == []


def test_a_line_of_the_log_says_which_span_it_belongs_to() -> None:
    code = """
import structlog
from the_eye.logs import configure_logging
from the_eye.settings import LogSettings, TelemetrySettings
from the_eye.telemetry import telemetry
configure_logging(LogSettings(log_level='warning', log_format='json'))
telemetry.start(TelemetrySettings.load(), 'test')
log = structlog.get_logger('test')
with telemetry.tracing.active(telemetry.tracing.request(telemetry.tracing.sampled({}), 'POST /events', {})):
    log.warning('inside', **{'active_' + key: value for key, value in telemetry.ids().items()})
log.warning('outside')
"""
    ran = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={ENDPOINT: f"http://{free_addresses(1)[0]}"},
    )

    inside, outside = (json.loads(line) for line in ran.stderr.splitlines()[:2])
    assert (inside["trace_id"], inside["span_id"]) == (inside["active_trace_id"], inside["active_span_id"])
    assert (len(inside["trace_id"]), len(inside["span_id"])) == (32, 16)
    assert not {"trace_id", "span_id"} & outside.keys()


def test_spans_outside_of_a_sampled_request_are_not_made(tracing: Tracing, receiver: OtlpReceiver) -> None:
    """The refreshing of tokens and the like."""
    assert tracing.creation(1) is None
    assert tracing.ids() == {}
    tracing.stop()

    assert receiver.spans == []
