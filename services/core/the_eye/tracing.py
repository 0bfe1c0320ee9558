"""Spans by OpenTelemetry's semantic conventions, from a request to its rows, for the sampled requests alone.

A request that is not sampled has no span: the SDK's own samplers decide after a span was begun, which costs 10 µs. So
whether a request is sampled is decided here, and the SDK records all that it is given.

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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Final, NamedTuple
from uuid import uuid4

import psycopg
from opentelemetry import trace
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, TraceIdRatioBased
from opentelemetry.trace import INVALID_SPAN_CONTEXT, Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from the_eye.logs import StructlogHandler
from the_eye.settings import TelemetrySettings

Carrier = Mapping[str, str]
"""A context as W3C has it: ``traceparent`` and, where there is any, ``tracestate``."""

FLUSH_SECONDS: Final = 3.0
"""How long a process that ends may take to send its last spans."""

ABORT_SECONDS: Final = 0.5
"""How long it waits for the sending to end after that."""

SILENCE_SECONDS: Final = 60.0
"""How long nothing more is logged of an export that fails."""

MAX_CARRIED: Final = 128
"""Contexts that a message carries at most; a span has no more links, unless told otherwise."""

_LOW_64_BITS: Final = (1 << 64) - 1
_NO_PARENT: Final = Context()
_UNSAMPLED: Final = ("-00", "-02")
"""Ends of a ``traceparent`` whose sender has decided against it: reading it whole would cost such a request 8 µs."""


class Creation(NamedTuple):
    """Events of a sampled request that wait for their turn to be written."""

    context: Context
    begun: int
    """Nanoseconds since 1970."""
    events: int


class Tracing:
    """Makes spans and has them sent; usable from all threads."""

    def __init__(self, settings: TelemetrySettings, service: str) -> None:
        _quieten()
        ours = {"service.name": service, "service.version": version("the-eye"), "service.instance.id": str(uuid4())}
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource.create(ours).merge(OTELResourceDetector().detect()),  # what the user says, wins
            shutdown_on_exit=False,
        )
        self._exporter = OTLPSpanExporter()
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("the-eye", version("the-eye"))
        self._propagator = TraceContextTextMapPropagator()
        self._by_parent = settings.by_parent
        self._ratio = settings.ratio
        self._bound = TraceIdRatioBased.get_bound_for_rate(settings.ratio)

    def sampled(self, carrier: Carrier) -> Context | None:
        """Decide whether a request is sampled; gives the context it is part of, which is empty if it is the first.

        Its sender's decision holds if the sampler is by parent; else, and where it has made none, chance decides.
        """
        if carrier:
            if self._by_parent and carrier.get("traceparent", "").endswith(_UNSAMPLED):
                return None
            parent = self._propagator.extract(carrier, _NO_PARENT)
            context = trace.get_current_span(parent).get_span_context()
            if context.is_valid:
                follows = context.trace_flags.sampled if self._by_parent else self._takes(context.trace_id)
                return parent if follows else None
        return _NO_PARENT if random.random() < self._ratio else None  # noqa: S311 - no secret

    def _takes(self, trace_id: int) -> bool:
        return trace_id & _LOW_64_BITS < self._bound

    def request(self, parent: Context, name: str, attributes: Mapping[str, str]) -> Span:
        """Begin the span of a sampled request."""
        return self._tracer.start_span(name, parent, SpanKind.SERVER, attributes)

    def ids(self) -> Mapping[str, str]:
        """Give trace_id and span_id of the active span; nothing where none is."""
        context = trace.get_current_span().get_span_context()
        if context is INVALID_SPAN_CONTEXT:
            return {}
        return {"trace_id": trace.format_trace_id(context.trace_id), "span_id": trace.format_span_id(context.span_id)}

    def creation(self, events: int) -> Creation | None:
        """Note that a request's events begin to wait for their turn; None where the request is not sampled."""
        if not trace.get_current_span().is_recording():
            return None
        return Creation(get_current(), time.time_ns(), events)

    @contextmanager
    def sending(self, creations: Iterable[Creation | None], events: int) -> Iterator[Sequence[Carrier]]:
        """Make the span of a write, and those of ``creations`` if there are several; gives what the message carries."""
        sampled = [creation for creation in creations if creation is not None]
        if not sampled:
            yield ()
            return
        attributes = _messaging("send", {"messaging.batch.message_count": events})
        if len(sampled) == 1:
            span = self._tracer.start_span("send events", sampled[0].context, SpanKind.PRODUCER, attributes)
            contexts = [trace.set_span_in_context(span, _NO_PARENT)]
        else:
            contexts = [self._created(creation) for creation in sampled[:MAX_CARRIED]]
            span = self._shared("send events", SpanKind.CLIENT, contexts, attributes)
        with self.active(span):
            yield [self._carrier(context) for context in contexts]

    def _created(self, creation: Creation) -> Context:
        attributes = _messaging("create", {"messaging.batch.message_count": creation.events})
        span = self._tracer.start_span(
            "create events", creation.context, SpanKind.PRODUCER, attributes, start_time=creation.begun
        )
        span.end()
        return trace.set_span_in_context(span, _NO_PARENT)

    def _carrier(self, context: Context) -> Carrier:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, context)
        return carrier

    @contextmanager
    def processing(self, carriers: Iterable[Carrier]) -> Iterator[None]:
        """Make the span of the work on a message that carries these."""
        contexts = [self._propagator.extract(carrier, _NO_PARENT) for carrier in carriers]
        if not contexts:
            yield
            return
        with self.active(self._shared("process events", SpanKind.CONSUMER, contexts, _messaging("process", {}))):
            yield

    def _shared(
        self, name: str, kind: SpanKind, contexts: Sequence[Context], attributes: Mapping[str, str | int]
    ) -> Span:
        """Begin a span of what is done for several requests at once, or for one whose child it then is."""
        parent = contexts[0] if len(contexts) == 1 else _NO_PARENT
        links = [Link(trace.get_current_span(context).get_span_context()) for context in contexts]
        return self._tracer.start_span(name, parent, kind, attributes, links)

    @contextmanager
    def current(self, span: Span) -> Iterator[None]:
        """Have a span active, which goes on afterwards."""
        token = attach(trace.set_span_in_context(span))
        try:
            yield
        finally:
            detach(token)

    @contextmanager
    def active(self, span: Span) -> Iterator[None]:
        """Have a span active, and end it."""
        try:
            with self.current(span):
                yield
        except BaseException as error:
            fail(span, type(error).__name__)
            raise
        finally:
            span.end()

    @contextmanager
    def statement(
        self, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], operation: str, table: str, rows: int
    ) -> Iterator[None]:
        """Make a span of a statement, if what it is for is sampled."""
        if not trace.get_current_span().is_recording():
            yield
            return
        attributes: dict[str, str | int] = {
            "db.system.name": "postgresql",
            "db.namespace": connection.info.dbname,
            "db.operation.name": operation,
            "db.collection.name": table,
        }
        if rows > 1:
            attributes["db.operation.batch.size"] = rows
        span = self._tracer.start_span(f"{operation} {table}", None, SpanKind.CLIENT, attributes)
        try:
            yield
        except psycopg.Error as error:
            span.set_attribute("db.response.status_code", error.sqlstate or "")
            if not isinstance(error, psycopg.errors.UniqueViolation):  # an event that was sent before is no fault
                fail(span, error.sqlstate or type(error).__name__)
            raise
        finally:
            span.end()

    def stop(self) -> None:
        """Send what is left, as far as that takes no longer than ``FLUSH_SECONDS``."""
        # The provider itself waits for half a minute, and for its exporter without end.
        stopping = threading.Thread(target=self._provider.shutdown, name="tracing-stop", daemon=True)
        stopping.start()
        stopping.join(FLUSH_SECONDS)
        if stopping.is_alive():
            self._exporter.shutdown()  # which ends its wait for a collector that is away
            stopping.join(ABORT_SECONDS)


def _messaging(operation: str, attributes: Mapping[str, int]) -> dict[str, str | int]:
    return {
        "messaging.system": "redis",
        "messaging.destination.name": "events",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        **attributes,
    }


def fail(span: Span, error_type: str) -> None:
    """Mark a span as failed. Of an error only its type is told: its text may quote what was sent."""
    span.set_attribute("error.type", error_type)
    span.set_status(Status(StatusCode.ERROR))


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
