"""How the edge counts its answers. What it answers is shown against the real queue elsewhere."""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from prometheus_client import REGISTRY
from tests.otlp import OtlpReceiver, receiving

from the_eye.queue import QueueUnavailableError
from the_eye.settings import TelemetrySettings
from the_eye.spans import Creation
from the_eye.tracing import Tracing
from the_eye_api import metrics
from the_eye_api.edge import Edge
from the_eye_api.problems import unavailable
from the_eye_api.protocol import Answer
from the_eye_api.traced import RequestSpans, Traced

SCOPE: dict[str, Any] = {
    "type": "http",
    "method": "POST",
    "path": "/events",
    "scheme": "http",
    "http_version": "1.1",
    "headers": [],
}
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
Settle = Callable[[UUID, Exception | None], None]


def edge(spans: RequestSpans | None = None, **ingest: Callable[..., Any]) -> Edge:
    """Make an edge that knows every caller and accepts as the test says."""
    tokens = SimpleNamespace(authorize=lambda *_: "caller", recall=lambda *_: "caller")
    return Edge(cast("Any", None), cast("Any", tokens), cast("Any", SimpleNamespace(**ingest)), spans)


def refusals(code: str) -> float | None:
    """Read how many requests were refused with a code."""
    return REGISTRY.get_sample_value("the_eye_http_refusals_total", {"route": "/events", "code": code})


async def ignore(*_: object) -> None:
    """Take in an answer."""


def ignore_answer(*_: object) -> None:
    """Take in an answer that comes at once."""


def fail(error: Exception) -> Callable[..., None]:
    """Make something that raises ``error``."""

    def raising(*_: object) -> None:
        raise error

    return raising


@pytest.mark.parametrize("route", ["/events", "/events/batch"])
@pytest.mark.parametrize("status", ["202", "500", "503"])
def test_answers_that_alerts_wait_for_are_counted_from_0_on(route: str, status: str) -> None:
    """Otherwise the first one would be there without having risen."""
    edge()

    assert REGISTRY.get_sample_value("the_eye_http_requests_total", {"route": route, "status": status}) is not None


@pytest.mark.parametrize(
    ("error", "code"),
    [(unavailable("queue_full", ""), "queue_full"), (ValueError("a fault of ours"), "internal_error")],
)
async def test_a_refused_request_is_counted_by_its_code(error: Exception, code: str) -> None:
    """Whatever refused it: there is no 5xx that the dashboard cannot explain."""
    refusing = edge(let_in=fail(error))
    before = refusals(code)
    assert before is not None

    await refusing(cast("Any", SCOPE), cast("Any", ignore), ignore)

    assert refusals(code) == before + 1


def test_a_request_that_was_answered_later_is_counted_by_its_code_too() -> None:
    """That way most requests go."""

    def settle_at_once(
        _: object, __: bytes, ___: None, settle: Callable[[UUID, Exception | None], None], ____: None
    ) -> bool:
        settle(UUID(int=0), QueueUnavailableError("away"))
        return True

    accepting = edge(let_in=lambda _: None, accept_one_at_once=settle_at_once)
    before = refusals("queue_unavailable")
    assert before is not None
    answers: list[int] = []

    assert accepting.accept_at_once(cast("Any", SCOPE), b"{}", lambda status, *_: answers.append(status))

    assert answers == [503]
    assert refusals("queue_unavailable") == before + 1


class Traces:
    """An edge whose requests are traced, and what a collector has got of them."""

    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver
        self.settled: Exception | None = None
        """How the queue answers."""
        self.good = True
        """Whether events can be accepted at once."""
        self.trace_ids: list[UUID | None] = []
        self.creations: list[Creation | None] = []

    def start(self, sampler: str, ratio: float) -> None:
        """Begin to trace by one of OpenTelemetry's samplers."""
        settings = TelemetrySettings.load({"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": str(ratio)})
        self.tracing = Tracing(settings, "test")
        spans = RequestSpans(self.tracing)
        self.edge = edge(spans, let_in=lambda _: None, accept_one_at_once=self._accept)
        self.application = Traced(cast("Any", ignore), spans, self.edge.route_of)

    def _accept(self, _: object, __: bytes, trace_id: UUID | None, settle: Settle, creation: Creation | None) -> bool:
        self.trace_ids.append(trace_id)
        self.creations.append(creation)
        if self.good:
            with suppress(OSError):  # as the group commit has it: the others are answered all the same
                settle(UUID(int=0), self.settled)
        return self.good

    async def send(self, answer: Answer = ignore_answer, **headers: str) -> None:
        """Have a request accepted at once, or answered by the application."""
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = cast("Any", {**SCOPE, "headers": raw})
        if not self.edge.accept_at_once(scope, b"{}", answer):
            await self.application(scope, cast("Any", ignore), cast("Any", ignore))

    @property
    def received(self) -> OtlpReceiver:
        """What the collector has got in the end."""
        self.tracing.stop()
        return self._receiver


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traces]:
    """Traces that end with the test."""
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        traces = Traces(receiver)
        yield traces
        traces.tracing.stop()


@pytest.mark.parametrize("good", [True, False], ids=["at once", "by the application"])
async def test_chance_decides_once_about_a_request(traces: Traces, good: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001 - pytest's way
    """Whoever answers it in the end: else more of the requests that cannot be accepted at once were traced."""
    chances = [0.4, 0.6, 0.6, 0.4]
    monkeypatch.setattr(random, "random", lambda: chances.pop(0))
    traces.start("parentbased_traceidratio", 0.5)
    traces.good = good

    for _ in range(4):
        await traces.send()

    assert chances == []
    assert [creation is not None for creation in traces.creations] == [True, False, False, True]
    assert [trace_id is not None for trace_id in traces.trace_ids] == [True, False, False, True]
    spans = traces.received.named("POST /events")
    assert len(spans) == 2
    if good:
        assert {span.trace_id for span in spans} == {one.hex for one in traces.trace_ids if one}


@pytest.mark.parametrize(("flags", "sampled"), [("01", True), ("00", False)])
async def test_a_sender_s_decision_holds_for_what_is_accepted_at_once(
    traces: Traces, flags: str, *, sampled: bool
) -> None:
    traces.start("parentbased_traceidratio", 0.0)

    await traces.send(traceparent=f"00-{TRACE_ID}-b7ad6b7169203331-{flags}")

    assert traces.trace_ids == [UUID(TRACE_ID)]
    assert [span.trace_id for span in traces.received.spans] == [TRACE_ID] * sampled


async def test_a_failure_is_on_the_span_of_what_was_to_be_accepted_at_once(traces: Traces) -> None:
    traces.start("always_on", 1.0)
    traces.settled = QueueUnavailableError("away")

    await traces.send()

    (span,) = traces.received.spans
    assert (span.failed, span.attributes["http.response.status_code"]) == (True, 503)


async def test_a_span_ends_though_its_answer_cannot_be_written(traces: Traces) -> None:
    traces.start("always_on", 1.0)

    await traces.send(fail(OSError("gone")))

    assert len(traces.received.named("POST /events")) == 1


async def test_what_is_accepted_at_once_is_an_exemplar_of_how_long_it_took(traces: Traces) -> None:
    traces.start("always_on", 1.0)

    await traces.send()
    await asyncio.sleep(0)  # it is counted then

    buckets, _ = metrics.REQUEST_SECONDS.labels("/events").read()
    exemplars = [exemplar for _, _, *of_bucket in buckets for exemplar in of_bucket]
    (span,) = traces.received.spans
    assert span.span_id in {exemplar.labels["span_id"] for exemplar in exemplars}


async def test_a_span_has_not_all_of_a_long_path(traces: Traces) -> None:
    traces.start("always_on", 1.0)
    path = "/" + "x" * 60_000

    await traces.application(cast("Any", {**SCOPE, "path": path}), cast("Any", ignore), cast("Any", ignore))

    (span,) = traces.received.spans
    assert span.attributes["url.path"] == path[:1024]
