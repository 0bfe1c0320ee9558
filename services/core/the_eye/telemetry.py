"""Traces of this process, which are off unless a collector is named: then nothing of OpenTelemetry is imported."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import structlog

from the_eye.settings import TelemetrySettings

if TYPE_CHECKING:
    import psycopg
    from structlog.typing import EventDict, WrappedLogger

    from the_eye.spans import Creation
    from the_eye.tracing import Carrier, Tracing

    AnyConnection = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]

log = structlog.get_logger(__name__)


class Telemetry:
    """What this process tells of single requests."""

    tracing: "Tracing | None" = None
    """None while traces are off, so that whoever makes a span pays one look at it."""

    def start(self, settings: TelemetrySettings, service: str) -> None:
        """Begin to trace, if that is wanted, as the service of a name; call it before spans can be made."""
        if settings.on:
            from the_eye.tracing import Tracing  # noqa: PLC0415 - loading it takes 0.2 s and 15 MB

            self.tracing = Tracing(settings, service)
            log.info("tracing_started", service=service, ratio=settings.ratio, by_parent=settings.by_parent)

    def stop(self) -> None:
        """Send what is left, as ``Tracing.stop``."""
        if self.tracing is not None:
            self.tracing.stop()
            self.tracing = None

    def ids(self) -> Mapping[str, str]:
        """Give trace_id and span_id of the active span; nothing where none is."""
        return {} if self.tracing is None else self.tracing.ids()

    def exemplar(self) -> dict[str, str] | None:
        """Give the same as a histogram takes it."""
        return None if self.tracing is None else dict(self.tracing.ids()) or None

    def creation(self, events: int) -> "Creation | None":
        """Note that a request's events begin to wait for their turn; None where the request is not traced."""
        return None if self.tracing is None else self.tracing.creation(events)

    def sending(
        self, creations: "Sequence[Creation | None]", events: int
    ) -> "AbstractContextManager[Sequence[Carrier]]":
        """Make the span of the write of ``creations``; gives what the message has to carry."""
        return nullcontext(()) if self.tracing is None else self.tracing.sending(creations, events)

    def processing(self, carriers: "Sequence[Carrier]") -> AbstractContextManager[None]:
        """Make the span of the work on a message that carries these."""
        return nullcontext() if self.tracing is None else self.tracing.processing(carriers)

    def statement(
        self, connection: "AnyConnection", operation: str, table: str, rows: int = 1
    ) -> AbstractContextManager[None]:
        """Make a span of what is asked of the database, never with its parameters; ``rows`` are those sent with it."""
        return nullcontext() if self.tracing is None else self.tracing.statement(connection, operation, table, rows)


telemetry = Telemetry()


def add_trace(logger: "WrappedLogger", name: str, event_dict: "EventDict") -> "EventDict":
    """Say in a line of the log which span it belongs to; a processor of structlog."""
    del logger, name
    event_dict.update(telemetry.ids())
    return event_dict
