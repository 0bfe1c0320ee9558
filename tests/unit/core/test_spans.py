"""That spans are encoded as the SDK's exporter encodes them."""

from typing import Any

import msgspec
import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)
from tests.otlp import receiving

from the_eye.spans import Attributes, Span, SpanExporter

RESOURCE = Resource.create({"service.name": "test", "process.command_args": ("the-eye", "api")})
SCOPE = InstrumentationScope("the-eye", "1")
OURS = SpanContext(0xAF7651916CD43DD8448EB211C80319C, 1, is_remote=False, trace_flags=TraceFlags(1))
REMOTE = SpanContext(2, 3, is_remote=True, trace_flags=TraceFlags(1))
ATTRIBUTES: Attributes = {"url.path": "/events", "http.response.status_code": 202, "a": "1", "b": 1, "c": "ä\0"}
OTHERS: Attributes = {"url.path": "/", "http.response.status_code": 400, "a": 1, "b": "1"}


def span(**changes: Any) -> Span:
    """Make a span that has ended."""
    begun = 1_785_000_000_000_000_000
    plain = Span("POST /events", SpanKind.SERVER, INVALID_SPAN_CONTEXT, OURS, begun, ATTRIBUTES, (), _nowhere)
    return msgspec.structs.replace(plain, ended=begun + 1, **changes)


def _nowhere(_: Span) -> None:
    pass


def of_the_sdk(span: Span) -> ReadableSpan:
    """Say the same as the SDK does."""
    return ReadableSpan(
        span.name,
        span.context,
        span.parent if span.parent.is_valid else None,
        RESOURCE,
        span.attributes,
        links=[Link(link) for link in span.links],
        kind=span.kind,
        status=Status(StatusCode.ERROR if span.failed else StatusCode.UNSET),
        start_time=span.begun,
        end_time=span.ended,
        instrumentation_scope=SCOPE,
    )


@pytest.mark.parametrize(
    "spans",
    [
        [span(kind=kind) for kind in SpanKind],
        [span(parent=OURS), span(parent=REMOTE, links=(OURS, REMOTE)), span(failed=True)],
        [span(context=SpanContext(1, 2, is_remote=False, trace_state=TraceState([("vendor", "7"), ("other", "8")])))],
        [span(attributes=OTHERS), span(attributes={}), span()],
        [],
    ],
    ids=["kinds", "parents and links", "state of a trace", "attributes", "none"],
)
def test_spans_are_encoded_as_the_sdk_encodes_them(spans: list[Span]) -> None:
    first = span()
    encoded = SpanExporter(RESOURCE, SCOPE).encode([first, *spans])

    assert encoded == encode_spans([of_the_sdk(one) for one in (first, *spans)])


def test_a_link_says_the_state_of_its_trace() -> None:
    """Which the SDK's encoding leaves away."""
    linked = SpanContext(1, 2, is_remote=True, trace_state=TraceState([("vendor", "7")]))
    encoded = SpanExporter(RESOURCE, SCOPE).encode([span(links=[linked])])

    assert encoded.resource_spans[0].scope_spans[0].spans[0].links[0].trace_state == "vendor=7"


def test_nothing_is_sent_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though batches may wait then."""
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        exporter = SpanExporter(RESOURCE, SCOPE)
        results = [exporter.export([span()])]
        exporter.shutdown()  # type: ignore[no-untyped-call] # the SDK's
        results.append(exporter.export([span()]))

    assert results == [SpanExportResult.SUCCESS, SpanExportResult.FAILURE]
    assert receiver.requests == 1
