"""An event, as it is sent and as it is accepted; what is malformed and what cannot be stored is found here.

Whatever passes here PostgreSQL can hold, as ``json`` and converted to ``jsonb``: valid UTF-8, no NUL, no lone
surrogate, numbers within ``numeric``, bounded nesting. ``data`` stays the sender's bytes throughout, so that no
number loses digits.
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, cast
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

MAX_EVENT_BYTES = 1024 * 1024
"""The largest event accepted, counted as the sender's JSON."""

MAX_DEPTH = 64
"""The deepest nesting of ``data``, itself being level 1."""

NUMERIC_DIGITS_BEFORE_POINT = 131_072
NUMERIC_DIGITS_AFTER_POINT = 16_383
"""Limits of PostgreSQL's ``numeric``: https://www.postgresql.org/docs/current/datatype-numeric.html"""

LONGEST_INT = 4_300
"""Digits beyond which Python refuses to convert text to ``int`` (``sys.get_int_max_str_digits``)."""

Label = Annotated[str, Meta(min_length=1, max_length=255)]


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong with what a sender sent."""

    path: str
    """JSON path of the place, such as ``$.session_id``."""
    code: str
    """Stable name of the fault: senders may branch on it."""
    message: str


class SentEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An event as an application sends it."""

    session_id: UUID
    category: Label
    name: Label
    data: Raw
    timestamp: datetime
    event_id: UUID | UnsetType = UNSET


class Event(msgspec.Struct, frozen=True):
    """An accepted event."""

    event_id: UUID
    application_id: int
    application: str
    session_id: UUID
    category: str
    name: str
    data: bytes
    """The sender's JSON object, byte for byte."""
    timestamp: datetime
    """When it occurred, by the sender's clock, in UTC."""
    received_at: datetime
    """When the edge accepted it, in UTC."""


_decode_sent = msgspec.json.Decoder(SentEvent).decode
_decode_any = msgspec.json.Decoder().decode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode


def parse_event(body: bytes | Raw) -> SentEvent | tuple[Fault, ...]:
    """Read one event, or list everything that is wrong with it."""
    if memoryview(body).nbytes > MAX_EVENT_BYTES:
        return (Fault("$", "too_large", f"an event has at most {MAX_EVENT_BYTES} bytes"),)
    try:
        sent = _decode_sent(body)
        faults = (*_label_faults(sent), *data_faults(sent.data))
        return faults or msgspec.structs.replace(sent, timestamp=_in_utc(sent.timestamp))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError):
        return tuple(_faults(bytes(body))) or (Fault("$", "malformed_json", "the event cannot be read"),)


def data_faults(data: Raw) -> tuple[Fault, ...]:
    """Find what is wrong with an event's ``data``."""
    raw = bytes(data)
    try:
        decoded = _decode_any(raw)
    except RecursionError:
        return (_too_deep(),)
    except UnicodeDecodeError:
        return (Fault("$.data", "invalid_utf8", "text is UTF-8"),)
    except msgspec.ValidationError:  # a number beyond a double or beyond Python's longest int
        decoded = {} if raw.startswith(b"{") else None
        suspicious = True
    else:
        suspicious = b"\\u0000" in raw or b"e-" in raw or b"E-" in raw or len(raw) > NUMERIC_DIGITS_AFTER_POINT
    if not isinstance(decoded, dict):
        return (Fault("$.data", "invalid_type", "data is a JSON object"),)
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and _depth(raw) > MAX_DEPTH:
        return (_too_deep(),)
    return tuple(_unstorable(raw)) if suspicious else ()


def decode_data(data: bytes) -> dict[str, Any]:
    """Decode ``data`` for the rules, which compute in doubles.

    Digits beyond a double's precision are lost here, not in the store; a number beyond its range becomes an infinity.
    """
    try:
        return cast("dict[str, Any]", _decode_any(data))
    except msgspec.ValidationError:
        return cast("dict[str, Any]", json.loads(data, parse_int=_int_or_infinity))


def _int_or_infinity(literal: str) -> int | float:
    return int(literal) if len(literal) <= LONGEST_INT else float(literal)


def _in_utc(timestamp: datetime) -> datetime:
    """A time without a zone is UTC: that is what existing senders mean by it."""
    return timestamp.replace(tzinfo=UTC) if timestamp.tzinfo is None else timestamp.astimezone(UTC)


def _too_deep() -> Fault:
    return Fault("$.data", "too_deep", f"data is nested at most {MAX_DEPTH} levels deep")


_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_BRACKET = re.compile(rb"[\[\]{}]")


def _depth(raw: bytes) -> int:
    depth = deepest = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", raw)):
        depth += 1 if bracket[0] in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _label_faults(sent: SentEvent) -> Iterator[Fault]:
    if "\0" in sent.category:
        yield _nul("$.category")
    if "\0" in sent.name:
        yield _nul("$.name")


def _nul(path: str) -> Fault:
    return Fault(path, "unstorable_text", "text holds no NUL character")


class _NumberOutOfRangeError(Exception):
    """Raised inside the decoder for a number that PostgreSQL's ``numeric`` cannot hold."""


def _unstorable(raw: bytes) -> Iterator[Fault]:
    """Look at every number's literal and every text; slow, so only where there is a hint of trouble."""
    try:
        document = json.loads(raw, parse_float=_check_number, parse_int=_check_number)
    except _NumberOutOfRangeError:
        yield Fault("$.data", "number_out_of_range", "a number is too large, too small or too precise to be stored")
        return
    for path in _nul_paths(document, "$.data"):
        yield _nul(path)


_NUMBER = re.compile(r"-?(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?")


def _check_number(literal: str) -> int:
    match = _NUMBER.fullmatch(literal)
    if match is None:  # json's own scanner passes nothing else
        raise _NumberOutOfRangeError
    whole, fraction, exponent = match.groups(default="")
    if len(exponent) > len(str(NUMERIC_DIGITS_BEFORE_POINT)) + 1:
        raise _NumberOutOfRangeError
    shift = int(exponent or "0")
    if len(whole) + shift > NUMERIC_DIGITS_BEFORE_POINT or len(fraction) - shift > NUMERIC_DIGITS_AFTER_POINT:
        raise _NumberOutOfRangeError
    return 0


def _nul_paths(value: object, path: str) -> Iterator[str]:
    if isinstance(value, str):
        if "\0" in value:
            yield path
    elif isinstance(value, dict):
        for key, inner in value.items():
            if "\0" in key:
                yield path
            yield from _nul_paths(inner, json_path(path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _nul_paths(inner, json_path(path, index))


_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def json_path(path: str, *steps: str | int) -> str:
    """Extend a JSON path (RFC 9535) by keys and indexes."""
    for step in steps:
        if isinstance(step, int):
            path += f"[{step}]"
        elif _PLAIN_KEY.fullmatch(step):
            path += f".{step}"
        else:
            path += "[" + json.dumps(step, ensure_ascii=False) + "]"
    return path


_FIELD_CHECKS: dict[str, tuple[Any, str, str]] = {
    "event_id": (UUID, "invalid_uuid", "event_id is a UUID"),
    "session_id": (UUID, "invalid_uuid", "session_id is a UUID"),
    "category": (Label, "invalid_length", "category has 1 to 255 characters"),
    "name": (Label, "invalid_length", "name has 1 to 255 characters"),
    "timestamp": (
        datetime,
        "invalid_timestamp",
        "timestamp is a date and time as in RFC 3339, such as 2023-01-01T09:15:27.243860Z",
    ),
    "data": (Raw, "invalid_type", "data is a JSON object"),
}
_REQUIRED = tuple(field for field in _FIELD_CHECKS if field != "event_id")


def _faults(body: bytes) -> Iterator[Fault]:
    """Find every fault of an event that could not be decoded in one go."""
    try:
        fields = _decode_fields(body)
    except RecursionError:
        yield Fault("$", "too_deep", f"data is nested at most {MAX_DEPTH} levels deep")
        return
    except UnicodeDecodeError:
        yield Fault("$", "invalid_utf8", "text is UTF-8")
        return
    except msgspec.ValidationError:
        yield Fault("$", "invalid_type", "an event is a JSON object")
        return
    except msgspec.DecodeError as error:
        yield _malformed(error)
        return
    for field in _REQUIRED:
        if field not in fields:
            yield Fault(f"$.{field}", "missing_field", f"{field} is required")
    for field, raw in fields.items():
        yield from _field_faults(field, raw)


def _malformed(error: msgspec.DecodeError) -> Fault:
    if "surrogate" in str(error) or "hex escape" in str(error):
        return Fault("$", "unstorable_text", f"text holds no lone surrogate: {error}")
    return Fault("$", "malformed_json", str(error))


def _field_faults(field: str, raw: Raw) -> Iterator[Fault]:
    if field not in _FIELD_CHECKS:
        yield Fault(json_path("$", field), "unknown_field", "an event has no such field")
        return
    type_, code, message = _FIELD_CHECKS[field]
    path = f"$.{field}"
    try:
        value = msgspec.json.decode(raw, type=type_)
        if isinstance(value, datetime):
            _in_utc(value)
    except UnicodeDecodeError:
        yield Fault(path, "invalid_utf8", "text is UTF-8")
    except msgspec.ValidationError as error:
        wrong_type = str(error).startswith("Expected `") and "got `" in str(error)
        yield Fault(path, "invalid_type" if wrong_type else code, message)
    except OverflowError:
        yield Fault(path, "invalid_timestamp", "timestamp lies between the years 1 and 9999 in UTC")
    else:
        if isinstance(value, str) and "\0" in value:
            yield _nul(path)
        if isinstance(value, Raw):
            yield from data_faults(value)
