"""Spans by OpenTelemetry's semantic conventions, from a request to its rows, for the sampled requests alone.

Of the SDK, its batches, its exporter and its resource are used. Whether a request is sampled is decided here, and its
spans are those of ``the_eye.spans``: the SDK's own samplers decide after a span was begun, and the SDK's tracer does
much that no span here needs, and that is in no cache where a request is one of a hundred.

``POST /events`` (server) has the child ``send events`` (producer), the write of its group, whose context the message
carries; ``process events`` (consumer), the work on the message, links it and is its child: one trace leads from HTTP to
SQL. Where a group has several sampled requests, each has a ``create events`` (producer) of its own, whose contexts the
message carries, and ``send events`` and ``process events`` are traces of their own that link them, for a span has one
parent.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from importlib.metadata import version
from typing import Any, Final, cast
from uuid import uuid4

import psycopg
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from the_eye.logs import StructlogHandler
from the_eye.settings import TelemetrySettings
from the_eye.spans import Attributes, Creation, Span, SpanExporter

Carrier = Mapping[str, str]
"""A context as W3C has it: ``traceparent`` and, where there is any, ``tracestate``."""

FLUSH_SECONDS: Final = 3.0
"""How long a process that ends may take to send its last spans."""

ABORT_SECONDS: Final = 0.5
"""How long it waits for the sending to end after that."""

SILENCE_SECONDS: Final = 60.0
"""How long nothing more is logged of an export that fails."""

MAX_CARRIED: Final = 128
"""Contexts that a message carries at most, and links of a span: as many as OpenTelemetry has by default."""

NO_PARENT: Final = INVALID_SPAN_CONTEXT
"""The parent of a span that begins a trace."""

_LOW_64_BITS: Final = (1 << 64) - 1
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_SAMPLED_AT_RANDOM: Final = TraceFlags(TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID)
_HEADER_LENGTH: Final = 55
"""Of a ``traceparent`` of version 00."""
_UNSAMPLED: Final = ("-00", "-02")
"""Ends of a ``traceparent`` whose sender has decided against it: reading it whole would cost such a request 8 µs."""


def _context_in(parent: SpanContext) -> SpanContext:
    """Make the context of a span that is a child, or the first of a trace."""
    if not parent.is_valid:
        return SpanContext(_ids.generate_trace_id(), _ids.generate_span_id(), False, _SAMPLED_AT_RANDOM)  # noqa: FBT003 - it is not remote
    at_random = parent.trace_flags & TraceFlags.RANDOM_TRACE_ID
    flags = _SAMPLED_AT_RANDOM if at_random else _SAMPLED
    return SpanContext(parent.trace_id, _ids.generate_span_id(), False, flags, parent.trace_state)  # noqa: FBT003 - it is not remote


def _recording() -> Span | None:
    """Give the active span; a task may outlive the request that has begun it, and its span."""
    span = _active.get()
    return None if span is None or span.ended else span


_ids: Final = RandomIdGenerator()
_active: ContextVar[Span | None] = ContextVar("active_span", default=None)


class Tracing:
    """Makes spans and has them sent; usable from all threads."""

    def __init__(self, settings: TelemetrySettings, service: str) -> None:
        _quieten()
        ours = {"service.name": service, "service.version": version("the-eye"), "service.instance.id": str(uuid4())}
        resource = Resource.create(ours).merge(OTELResourceDetector().detect())  # what the user says, wins
        self._exporter = SpanExporter(resource, InstrumentationScope("the-eye", version("the-eye")))
        self._processor = BatchSpanProcessor(self._exporter)
        self._send = cast("Callable[[Span], None]", self._processor.on_end)  # it looks at the context alone
        self._propagator = TraceContextTextMapPropagator()
        self._by_parent = settings.by_parent
        self._ratio = settings.ratio
        self._bound = TraceIdRatioBased.get_bound_for_rate(settings.ratio)

    def sampled(self, carrier: Carrier) -> SpanContext | None:
        """Decide whether a request is sampled; gives its parent, ``NO_PARENT`` if it is the first.

        Its sender's decision holds if the sampler is by parent; else, and where it has made none, chance decides.
        """
        if carrier:
            header = carrier.get("traceparent", "")
            if self._by_parent and len(header) == _HEADER_LENGTH and header.endswith(_UNSAMPLED):
                return None
            parent = self._read(carrier)
            if parent.is_valid:
                follows = parent.trace_flags.sampled if self._by_parent else self._takes(parent.trace_id)
                return parent if follows else None
        return self.by_chance()

    def by_chance(self) -> SpanContext | None:
        """Decide the same about a request without a context."""
        return NO_PARENT if random.random() < self._ratio else None  # noqa: S311 - no secret

    def _takes(self, trace_id: int) -> bool:
        return trace_id & _LOW_64_BITS < self._bound

    def _read(self, carrier: Carrier) -> SpanContext:
        """Read a context; gives ``NO_PARENT`` where it is none."""
        return trace.get_current_span(self._propagator.extract(carrier, Context())).get_span_context()

    def begin(  # noqa: PLR0913 - these are a span's fields
        self,
        name: str,
        kind: SpanKind,
        parent: SpanContext,
        attributes: Attributes,
        *,
        links: Sequence[SpanContext] = (),
        begun: int = 0,
    ) -> Span:
        """Begin a span; ``begun`` are nanoseconds since 1970, now by default."""
        return Span(name, kind, parent, _context_in(parent), begun or time.time_ns(), attributes, links, self._send)

    def request(self, parent: SpanContext, name: str, attributes: Attributes) -> Span:
        """Begin the span of a sampled request."""
        return self.begin(name, SpanKind.SERVER, parent, attributes)

    def ids(self) -> Mapping[str, str]:
        """Give trace_id and span_id of the active span; nothing where none is."""
        span = _active.get()
        return {} if span is None else span.ids

    def creation(self, events: int) -> Creation | None:
        """Note that a request's events begin to wait for their turn; None where the request is not sampled."""
        span = _recording()
        return None if span is None else span.creation(events)

    def sending(self, creations: Iterable[Creation | None], events: int) -> AbstractContextManager[Sequence[Carrier]]:
        """Make the span of a write, and those of ``creations`` if there are several; gives what the message carries."""
        sampled = [creation for creation in creations if creation is not None]
        return self._sending(sampled, events) if sampled else nullcontext(())

    @contextmanager
    def _sending(self, sampled: Sequence[Creation], events: int) -> Iterator[Sequence[Carrier]]:
        attributes = _messaging("send", events)
        if len(sampled) == 1:
            span = self.begin("send events", SpanKind.PRODUCER, sampled[0].context, attributes)
            contexts = [span.context]
        else:
            contexts = [self._created(creation) for creation in sampled[:MAX_CARRIED]]
            span = self._shared("send events", SpanKind.CLIENT, contexts, attributes)
        with self.active(span):
            yield [_carrier(context) for context in contexts]

    def _created(self, creation: Creation) -> SpanContext:
        attributes = _messaging("create", creation.events)
        span = self.begin("create events", SpanKind.PRODUCER, creation.context, attributes, begun=creation.begun)
        span.end()
        return span.context

    def processing(self, carriers: Iterable[Carrier]) -> AbstractContextManager[None]:
        """Make the span of the work on a message that carries these."""
        contexts = [context for carrier in carriers if (context := self._read(carrier)).is_valid]
        if not contexts:
            return nullcontext()
        return self.active(self._shared("process events", SpanKind.CONSUMER, contexts, _messaging("process")))

    def _shared(self, name: str, kind: SpanKind, contexts: Sequence[SpanContext], attributes: Attributes) -> Span:
        """Begin a span of what is done for several requests at once, or for one whose child it then is."""
        parent = contexts[0] if len(contexts) == 1 else NO_PARENT
        return self.begin(name, kind, parent, attributes, links=contexts[:MAX_CARRIED])

    @contextmanager
    def active(self, span: Span) -> Iterator[None]:
        """Have a span active, and end it."""
        token = _active.set(span)
        try:
            yield
        except BaseException as error:
            span.fail(type(error).__name__)
            raise
        finally:
            span.end()
            _active.reset(token)

    def statement(
        self, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], operation: str, table: str, rows: int
    ) -> AbstractContextManager[None]:
        """Make a span of a statement, if what it is for is sampled."""
        parent = _recording()
        if parent is None:
            return nullcontext()
        attributes: Attributes = {
            "db.system.name": "postgresql",
            "db.namespace": connection.info.dbname,
            "db.operation.name": operation,
            "db.collection.name": table,
        }
        if rows > 1:
            attributes["db.operation.batch.size"] = rows
        return self._statement(self.begin(f"{operation} {table}", SpanKind.CLIENT, parent.context, attributes))

    @contextmanager
    def _statement(self, span: Span) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            span.attributes["db.response.status_code"] = error.sqlstate or ""
            if not isinstance(error, psycopg.errors.UniqueViolation):  # an event that was sent before is no fault
                span.fail(error.sqlstate or type(error).__name__)
            raise
        finally:
            span.end()

    def stop(self) -> None:
        """Send what is left, within ``FLUSH_SECONDS`` and ``ABORT_SECONDS``."""
        # The SDK itself waits for half a minute.
        stopping = threading.Thread(target=self._processor.shutdown, name="tracing-stop", daemon=True)
        stopping.start()
        stopping.join(FLUSH_SECONDS)
        if stopping.is_alive():
            self._exporter.shutdown()  # type: ignore[no-untyped-call] # ends a wait for a collector that is away, not one for an answer
            stopping.join(ABORT_SECONDS)


def _carrier(context: SpanContext) -> Carrier:
    carrier = {"traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"}
    if context.trace_state:
        carrier["tracestate"] = context.trace_state.to_header()
    return carrier


def _messaging(operation: str, events: int | None = None) -> Attributes:
    attributes: Attributes = {
        "messaging.system": "redis",
        "messaging.destination.name": "events",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
    }
    if events is not None:
        attributes["messaging.batch.message_count"] = events
    return attributes


class _NowAndThen(logging.Filter):
    """Lets one record a while through."""

    def __init__(self) -> None:
        super().__init__()
        self._silent_until = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self._silent_until:
            return False
        self._silent_until = now + SILENCE_SECONDS
        return super().filter(record)


def _quieten() -> None:
    """Have what OpenTelemetry says of itself logged now and then: a collector that is away is away for each batch."""
    handler = StructlogHandler()
    handler.addFilter(_NowAndThen())
    library = logging.getLogger("opentelemetry")
    library.handlers = [handler]
    library.propagate = False
