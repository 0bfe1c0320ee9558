"""Logs: one line per event on standard error, JSON or readable, from structlog and the standard library alike.

No payload is ever logged. Tracebacks therefore come without local variables, and of an exception's text only the first
line is kept: PostgreSQL goes on in later ones (DETAIL, CONTEXT) to quote the row.
"""

import json
import logging
import sys
from typing import Any, BinaryIO, cast

import msgspec
import structlog
from structlog.processors import ExceptionRenderer
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from the_eye.settings import LogSettings
from the_eye.telemetry import add_trace

MAX_FRAMES = 20
"""Frames kept of one traceback: the outermost and the innermost halves."""

MAX_EXCEPTION_TEXT = 500
"""Characters kept of an exception's text."""

_LIBRARIES_WITH_HANDLERS = (
    "uvicorn",
    "uvicorn.access",
    "uvicorn.error",
    "dramatiq",
    "litestar",
    "psycopg.pool",
    "redis",
)


def configure_logging(settings: LogSettings) -> None:
    """Send this process's logs to standard error.

    Call it once, before the first event is logged: loggers keep the configuration they are first used with.
    """
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            add_trace,
            structlog.stdlib.add_logger_name,
            structlog.processors.add_log_level,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            ExceptionRenderer(describe_exception),
            *_renderers(settings),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(cast("BinaryIO", sys.stderr.buffer)),
        cache_logger_on_first_use=True,
    )
    _route_standard_library(level)


def _renderers(settings: LogSettings) -> list[Processor]:
    terminal = sys.stderr.isatty()
    if settings.log_format == "json" or (settings.log_format == "auto" and not terminal):
        return [render_json]
    return [_exception_as_text, structlog.dev.ConsoleRenderer(colors=terminal), _encode]


def _route_standard_library(level: int) -> None:
    root = logging.getLogger()
    root.handlers = [StructlogHandler()]
    root.setLevel(level)
    for name in _LIBRARIES_WITH_HANDLERS:
        library = logging.getLogger(name)
        library.handlers = []
        library.propagate = True
    logging.captureWarnings(capture=True)
    # What it says of starting and stopping, the command itself says in one line each.
    logging.getLogger("uvicorn.error").setLevel(max(level, logging.WARNING))


class StructlogHandler(logging.Handler):
    """Hands the standard library's records to structlog, so that there is one way to the line."""

    def __init__(self) -> None:
        super().__init__()
        self._loggers: dict[str, structlog.typing.FilteringBoundLogger] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Log ``record`` with its level rounded down to a standard one."""
        try:
            logger = self._loggers.setdefault(record.name, structlog.get_logger(record.name))
            logger.log(record.levelno // 10 * 10, record.getMessage(), exc_info=record.exc_info)
        except Exception:  # noqa: BLE001 - logging's contract: a record that cannot be written never harms the caller
            self.handleError(record)


_transform = ExceptionDictTransformer(show_locals=False, max_frames=MAX_FRAMES)


def describe_exception(exc_info: ExcInfo) -> list[dict[str, Any]]:
    """Describe an exception and its causes, outermost first: type, the text's first line, frames."""
    return [_stack(stack) for stack in _transform(exc_info)]


def _stack(stack: dict[str, Any]) -> dict[str, Any]:
    described = {
        "type": stack["exc_type"],
        "text": stack["exc_value"].partition("\n")[0][:MAX_EXCEPTION_TEXT],
        "frames": [_frame(frame) for frame in stack["frames"]],
    }
    if stack["is_group"]:
        described["exceptions"] = [[_stack(inner) for inner in each] for each in stack["exceptions"]]
    return described


def _frame(frame: dict[str, Any]) -> str:
    return f"{frame['filename']}:{frame['lineno']} {frame['name']}"


_FIRST = ("timestamp", "level", "event", "logger")
_encoder = msgspec.json.Encoder(enc_hook=repr)


def render_json(logger: WrappedLogger, name: str, event_dict: EventDict) -> bytes:
    """Render one line, with what every line has in front."""
    del logger, name
    line = {key: event_dict.pop(key) for key in _FIRST} | dict(event_dict)
    try:
        return _encoder.encode(line)
    except (ValueError, OverflowError, TypeError):  # lone surrogates, integers beyond 64 bits, unusual keys
        return json.dumps(line, default=repr, skipkeys=True).encode()


def _exception_as_text(logger: WrappedLogger, name: str, event_dict: EventDict) -> EventDict:
    del logger, name
    if "exception" in event_dict:
        event_dict["exception"] = "\n".join(_lines(event_dict["exception"]))
    return event_dict


def _lines(stacks: list[dict[str, Any]], indent: str = "") -> list[str]:
    lines = []
    for stack in stacks:
        lines.append(f"{indent}{stack['type']}: {stack['text']}")
        lines.extend(f"{indent}  {frame}" for frame in stack["frames"])
        for inner in stack.get("exceptions", ()):
            lines.extend(_lines(inner, indent + "  | "))
    return lines


def _encode(logger: WrappedLogger, name: str, line: EventDict | str) -> bytes:
    del logger, name
    return str(line).encode(errors="backslashreplace")
