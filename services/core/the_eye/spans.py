"""Spans, and their way to a collector by OpenTelemetry's protocol.

The SDK's exporter sends them; they are encoded here. Its own encoding makes a message anew for each attribute and, to
group by resource, JSON of the resource for each span, which takes longer than all else that is done for a span.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Final, NamedTuple

import msgspec
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Encoded
from opentelemetry.proto.trace.v1.trace_pb2 import SpanFlags, Status
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext, SpanKind

Attributes = dict[str, str | int]
"""Valid Unicode, numbers of 64 bits, and no booleans: a span with others cannot be encoded, nor those sent with it."""

_SERVER_ERROR: Final = HTTPStatus.INTERNAL_SERVER_ERROR.value
_KINDS: Final = {kind: Encoded.SpanKind.Value(f"SPAN_KIND_{kind.name}") for kind in SpanKind}
_UNSET: Final = Status()
_FAILED: Final = Status(code=Status.STATUS_CODE_ERROR)


class Span(msgspec.Struct, eq=False):
    """Something that is done for a sampled request.

    It belongs to one thread and, once it has ended, to the exporter's: it must not be changed then.
    """

    name: str
    kind: SpanKind
    parent: SpanContext
    context: SpanContext
    begun: int
    """Nanoseconds since 1970."""
    attributes: Attributes
    links: Sequence[SpanContext]
    send: Callable[["Span"], None]
    """Takes it once it has ended."""
    failed: bool = False
    ended: int = 0
    """Nanoseconds since 1970; 0 while it lasts."""

    @property
    def ids(self) -> dict[str, str]:
        """Its trace_id and span_id."""
        context = self.context
        return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}

    def creation(self, events: int) -> "Creation":
        """Note that its events begin to wait for their turn."""
        return Creation(self.context, time.time_ns(), events)

    def fail(self, error_type: str) -> None:
        """Mark it as failed. Of an error only its type is told: its text may quote what was sent."""
        self.attributes["error.type"] = error_type
        self.failed = True

    def note_status(self, status: int) -> None:
        """Say how the request was answered."""
        self.attributes["http.response.status_code"] = status
        if status >= _SERVER_ERROR:
            self.fail(str(status))

    def end(self) -> None:
        """End it once, and have it sent."""
        if not self.ended:
            self.ended = time.time_ns()
            self.send(self)


class Creation(NamedTuple):
    """Events of a sampled request that wait for their turn to be written."""

    context: SpanContext
    begun: int
    """Nanoseconds since 1970."""
    events: int


class SpanExporter(OTLPSpanExporter):
    """Sends spans to the collector that the environment names."""

    def __init__(self, resource: Resource, scope: InstrumentationScope) -> None:
        """``resource`` says what they come from, ``scope`` what makes them."""
        super().__init__()
        self._frame = encode_spans(
            [ReadableSpan("", INVALID_SPAN_CONTEXT, resource=resource, instrumentation_scope=scope)]
        )
        del self._frame.resource_spans[0].scope_spans[0].spans[:]

    def export(self, spans: Sequence[Span]) -> SpanExportResult:  # type: ignore[override] # spans of ours, not the SDK's
        """Send spans, for as long as the exporter's timeout allows; what goes wrong is logged."""
        if self._shutdown:
            return SpanExportResult.FAILURE
        sent = self._client.export(self.encode(spans).SerializeToString())
        return SpanExportResult.SUCCESS if sent.success else SpanExportResult.FAILURE

    def encode(self, spans: Iterable[Span]) -> ExportTraceServiceRequest:
        """Make the message that says these."""
        request = ExportTraceServiceRequest()
        request.CopyFrom(self._frame)
        request.resource_spans[0].scope_spans[0].spans.extend(map(_encoded, spans))
        return request


def _encoded(span: Span) -> Encoded:
    context, parent = span.context, span.parent
    return Encoded(
        trace_id=_trace_id(context),
        span_id=_span_id(context),
        trace_state=context.trace_state.to_header(),
        parent_span_id=_span_id(parent) if parent.is_valid else b"",
        flags=_flags(parent),
        name=span.name,
        kind=_KINDS[span.kind],
        start_time_unix_nano=span.begun,
        end_time_unix_nano=span.ended,
        attributes=[_attribute(*attribute) for attribute in span.attributes.items()],
        links=[_link(context) for context in span.links],
        status=_FAILED if span.failed else _UNSET,
    )


def _link(context: SpanContext) -> Encoded.Link:
    return Encoded.Link(
        trace_id=_trace_id(context),
        span_id=_span_id(context),
        trace_state=context.trace_state.to_header(),
        flags=_flags(context),
    )


def _trace_id(context: SpanContext) -> bytes:
    return context.trace_id.to_bytes(16)


def _span_id(context: SpanContext) -> bytes:
    return context.span_id.to_bytes(8)


def _flags(context: SpanContext) -> int:
    known = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
    return known | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK if context.is_remote else known


@lru_cache(1024)
def _attribute(key: str, value: str | int) -> KeyValue:
    """Make an attribute; most are the same in all spans."""
    typed = AnyValue(string_value=value) if isinstance(value, str) else AnyValue(int_value=value)
    return KeyValue(key=key, value=typed)
