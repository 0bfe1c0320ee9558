"""What is written to standard error, seen from outside: logging is set up once per process."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

SET_UP = """
import logging, warnings
import structlog
from the_eye.logs import configure_logging
from the_eye.settings import LogSettings
"""


OWN_HANDLER = """
library = logging.getLogger('dramatiq')
library.addHandler(logging.StreamHandler())
library.propagate = False
configure_logging(LogSettings())
library.error('broken')
"""


def stderr_of(code: str, log_level: str = "info", log_format: str = "auto") -> str:
    """Run code in a process of its own, with logging set up."""
    configure = f"configure_logging(LogSettings(log_level={log_level!r}, log_format={log_format!r}))"
    ran = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", f"{SET_UP}\n{configure}\n{code}"], capture_output=True, text=True, check=True
    )
    assert ran.stdout == ""
    return ran.stderr


def lines_of(code: str, log_level: str = "info") -> list[dict[str, Any]]:
    """Run code and read its lines as JSON."""
    return [json.loads(line) for line in stderr_of(code, log_level).splitlines()]


def test_an_event_is_one_line_of_json_with_time_level_and_logger() -> None:
    (line,) = lines_of("structlog.get_logger('the_eye.part').info('worker_started', threads=4)")

    age = datetime.now(UTC) - datetime.fromisoformat(line.pop("timestamp"))
    assert line == {"level": "info", "event": "worker_started", "logger": "the_eye.part", "threads": 4}
    assert abs(age) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("logging.getLogger('uvicorn.error').warning('port %d', 8000)", ("warning", "port 8000", "uvicorn.error")),
        ("logging.getLogger('any').log(35, 'custom')", ("warning", "custom", "any")),
        (OWN_HANDLER, ("error", "broken", "dramatiq")),
    ],
)
def test_the_standard_library_s_logs_take_the_same_way(code: str, expected: tuple[str, str, str]) -> None:
    (line,) = lines_of(code)

    assert (line["level"], line["event"], line["logger"]) == expected


def test_warnings_are_logged() -> None:
    (line,) = lines_of("warnings.warn('old')")

    assert (line["level"], line["logger"]) == ("warning", "py.warnings")


def test_what_is_below_the_level_is_not_written() -> None:
    code = "for log in structlog.get_logger('one'), logging.getLogger('two'): log.info('no'); log.warning('yes')"

    assert [(line["logger"], line["event"]) for line in lines_of(code, "warning")] == [("one", "yes"), ("two", "yes")]


FAILING = """
def fail(payload):
    try:
        raise ValueError("first line\\nDETAIL: Failing row contains (payload)")
    except ValueError as error:
        raise ExceptionGroup("several", [KeyError("one")]) from error

try:
    fail("payload")
except Exception:
    LOG.exception("failed")
"""


@pytest.mark.parametrize("logger", ["structlog.get_logger('any')", "logging.getLogger('any')"])
def test_an_exception_is_structured_and_shows_neither_values_nor_details(logger: str) -> None:
    (line,) = lines_of(FAILING.replace("LOG", logger))

    (cause, outer) = sorted(line["exception"], key=lambda described: described["type"], reverse=True)
    assert (cause["type"], cause["text"]) == ("ValueError", "first line")
    assert outer["type"] == "ExceptionGroup"
    assert [inner["type"] for inner in outer["exceptions"][0]] == ["KeyError"]
    assert outer["frames"][-1].endswith(" fail")
    assert "payload" not in json.dumps(line)


def test_an_exception_for_a_person_shows_neither_values_nor_details() -> None:
    shown = stderr_of(FAILING.replace("LOG", "structlog.get_logger('any')"), log_format="console")

    assert "ValueError: first line\n" in shown
    assert "payload" not in shown


def test_what_json_cannot_hold_is_written_all_the_same() -> None:
    (line,) = lines_of(r"structlog.get_logger('any').info('odd', text='\ud800', number=2**70, thing=object)")

    assert (line["event"], line["text"], line["number"]) == ("odd", "\ud800", 2**70)
    assert line["thing"] == "<class 'object'>"


def test_a_person_s_line_has_no_colours_where_it_is_no_terminal() -> None:
    shown = stderr_of("structlog.get_logger('part').info('started', threads=4)", log_format="console")

    assert "started" in shown
    assert "threads=4" in shown
    assert "\x1b" not in shown
