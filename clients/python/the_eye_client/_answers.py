"""What an answer means for the events of a batch."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from re import compile as pattern
from typing import Any

from the_eye_client._http import Answer
from the_eye_client._outcomes import Fault

LONGEST_RETRY_AFTER_SECONDS = 60 * 60.0
"""A server that asks for more is asked again after this."""

Faults = Mapping[int, tuple[Fault, ...]]
"""What is wrong with events, by their index in the batch."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The server has the events, but for those with faults."""

    refused: Faults


@dataclass(frozen=True, slots=True)
class Refused:
    """The server has none of the events; those without faults are to be sent again."""

    refused: Faults


@dataclass(frozen=True, slots=True)
class TooMuch:
    """The server takes no such batch, and says of no event that it is the cause: a smaller one may pass."""

    fault: Fault
    """What is wrong with the event of a batch of one."""


@dataclass(frozen=True, slots=True)
class Unauthorized:
    """The token is not let in."""

    error: str


@dataclass(frozen=True, slots=True)
class Later:
    """It is not certain whether the server has the events: they are to be sent again."""

    error: str
    retry_after: float = 0.0
    """Seconds that the server asks for."""


Outcome = Accepted | Refused | TooMuch | Unauthorized | Later


def judge(answer: Answer, count: int) -> Outcome:
    """Tell what an answer means for a batch of so many events."""
    problem = _json(answer.body)
    match answer.status:
        case HTTPStatus.ACCEPTED if "refused" in problem:
            return Accepted(_within(count, _refused(problem["refused"])))
        case HTTPStatus.BAD_REQUEST if "code" in problem:
            faults = tuple(_faults(problem.get("errors")))
            by_index = _within(count, _by_index(faults))
            return Refused(by_index) if by_index else TooMuch(faults[0] if faults else _fault(problem))
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return TooMuch(_fault(problem, code="too_large"))
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return Unauthorized(_error(answer, problem))
        case _:  # 429 and 5xx, and whatever else stands between: it may be mended, and no event is at fault
            return Later(_error(answer, problem), _retry_after(answer))


def _within(count: int, faults: Faults) -> Faults:
    return {index: found for index, found in faults.items() if 0 <= index < count}


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _refused(refused: Any) -> Faults:
    """Read ``refused`` of the answer to a batch."""
    entries = refused if isinstance(refused, list) else []
    return {
        entry["index"]: tuple(_faults(entry.get("errors"))) or (Fault("$", "refused", ""),)
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("index"), int)
    }


def _faults(errors: Any) -> Iterator[Fault]:
    for error in errors if isinstance(errors, list) else []:
        if isinstance(error, dict):
            yield Fault(*(str(error.get(key, "")) for key in ("path", "code", "message")))


_INDEXED = pattern(r"\$\[(\d+)\](.*)")


def _by_index(faults: Iterable[Fault]) -> Faults:
    """Sort faults of a whole batch, such as ``$[3].session_id``, by their events."""
    found: dict[int, tuple[Fault, ...]] = {}
    for fault in faults:
        if match := _INDEXED.fullmatch(fault.path):
            index = int(match[1])
            found[index] = (*found.get(index, ()), Fault(f"${match[2]}", fault.code, fault.message))
    return found


def _fault(problem: Mapping[str, Any], code: str = "malformed") -> Fault:
    return Fault("$", str(problem.get("code", code)), str(problem.get("detail", "")))


def _error(answer: Answer, problem: Mapping[str, Any]) -> str:
    return f"{answer.status} {problem.get('code', '')}".rstrip()


def _retry_after(answer: Answer) -> float:
    """Read ``Retry-After``, in seconds or as a date; 0 without one."""
    given = str(answer.headers.get("Retry-After", "")).strip()
    seconds = float(given) if given.isascii() and given.isdigit() else _seconds_until(given, answer)
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)


def _seconds_until(date: str, answer: Answer) -> float:
    """Both dates are the server's where it says what time it is: this machine's clock may be wrong."""
    try:
        now = _date(str(answer.headers["Date"])) if "Date" in answer.headers else datetime.now(UTC)
        return (_date(date) - now).total_seconds()
    except ValueError:
        return 0.0


def _date(text: str) -> datetime:
    date = parsedate_to_datetime(text)
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date
