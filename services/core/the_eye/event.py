"""An event, as it is sent and as it is accepted; what is malformed and what cannot be stored is found here.

Whatever passes here PostgreSQL can hold, as ``json`` and converted to ``jsonb``: valid UTF-8, no NUL, no lone
surrogate, numbers within ``numeric``, bounded nesting. ``data`` stays the sender's bytes throughout, so that no
number loses digits.
"""

import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any, cast
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

MAX_EVENT_BYTES = 1024 * 1024
"""The largest event accepted, counted as the sender's JSON."""

MAX_DEPTH = 64
"""The deepest nesting of ``data``, itself being level 1."""

MAX_DIGITS = 4_000
MAX_EXPONENT_DIGITS = 3
"""Digits in a row, and of the exponent, that a number in ``data`` may have.

Well within PostgreSQL's ``numeric`` (131,072 digits before the point and 16,383 after it,
https://www.postgresql.org/docs/current/datatype-numeric.html) and within what Python converts to ``int`` (4,300).
"""

MAX_FAULTS = 20
"""The most faults that are listed of one event."""

MAX_SEARCHED_BYTES = 64 * 1024
"""Data beyond this is not searched for the place of a fault."""

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
    trace_id: UUID | None = None
    """The W3C trace that it came with."""


_decode_sent = msgspec.json.Decoder(SentEvent).decode
_decode_any = msgspec.json.Decoder().decode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError)


def parse_event(body: bytes) -> SentEvent | tuple[Fault, ...]:
    """Read one event, or list everything that is wrong with it."""
    if len(body) > MAX_EVENT_BYTES:
        return (Fault("$", "too_large", f"an event has at most {MAX_EVENT_BYTES} bytes"),)
    try:
        return _checked(_timed_in_utc(_decode_sent(body)), body)
    except _UNREADABLE:
        return _all_faults(body)


def parse_events(bodies: Sequence[bytes]) -> Sequence[SentEvent | tuple[Fault, ...]]:
    """Read events, each as ``parse_event`` does: where nothing about them is rare, at half the price."""
    if max(map(len, bodies), default=0) > MAX_DIGITS:
        return [parse_event(body) for body in bodies]
    try:
        sent = [_timed_in_utc(_decode_sent(body)) for body in bodies]
    except _UNREADABLE:
        return [parse_event(body) for body in bodies]
    if _have_nothing_rare(sent, bodies):
        return sent
    return [_checked(one, body) for one, body in zip(sent, bodies, strict=True)]


def _checked(sent: SentEvent, body: bytes) -> SentEvent | tuple[Fault, ...]:
    """Give an event back, or list what is wrong with it although it could be decoded."""
    try:
        faults = data_faults(sent.data)
    except _UNREADABLE:
        return _all_faults(body)
    if "\0" in sent.category or "\0" in sent.name:
        faults = (*_label_faults(sent), *faults)
    return faults or sent


def _all_faults(body: bytes) -> tuple[Fault, ...]:
    return tuple(islice(_faults(body), MAX_FAULTS)) or (Fault("$", "malformed_json", "the event cannot be read"),)


def read_accepted(body: bytes) -> SentEvent | tuple[Fault, ...]:
    """Read an event that ``parse_event`` has found to be good, without looking at its ``data`` again."""
    try:
        return _timed_in_utc(_decode_sent(body))
    except _UNREADABLE:
        return parse_event(body)


def data_faults(data: Raw) -> tuple[Fault, ...]:
    """Find what is wrong with an event's ``data``, in a time that grows with its size and no faster."""
    raw = bytes(data)
    if raw[0] == _BRACE and raw.isascii() and not _may_be_unstorable(raw):
        return ()  # msgspec has gone through it for a Raw, where it looks at everything but UTF-8
    try:
        decoded = _decode_any(raw)
    except RecursionError:
        return (_too_deep(),)
    except UnicodeDecodeError:
        return (_invalid_utf8(),)
    except msgspec.ValidationError:  # a number beyond a double, or of too many digits for Python: it went no further
        if not _is_utf8(raw):
            return (_invalid_utf8(),)
        decoded = {} if raw.startswith(b"{") else None
    if not isinstance(decoded, dict):
        return (Fault("$.data", "invalid_type", "data is a JSON object"),)
    return tuple(islice(_unstorable(decoded, raw), MAX_FAULTS)) if _may_be_unstorable(raw) else ()


def _may_be_unstorable(raw: bytes) -> bool:
    """Look for what every fault has, among others: nearly no event has any of it."""
    return len(raw) > MAX_DIGITS or b"\\u0000" in raw or _may_have_long_exponent(raw) or _may_be_too_deep(raw)


def _may_have_long_exponent(raw: bytes) -> bool:
    return _LONG_EXPONENT_MARKED in raw.translate(_EXPONENTS_MARKED, b"+-")


def _may_be_too_deep(raw: bytes) -> bool:
    return len(raw) > 2 * MAX_DEPTH and raw.count(b"[") + raw.count(b"{") > MAX_DEPTH


def _have_nothing_rare(sent: Sequence[SentEvent], bodies: Sequence[bytes]) -> bool:
    """Look in all events at once for what every fault has that decoding has not found, among others.

    Decoding has gone through ``data`` for a Raw, where it looks at everything but UTF-8. No event is longer than a
    number may be.
    """
    text, data = b"\n".join(bodies), [bytes(one.data) for one in sent]
    return (
        _is_utf8(text)
        and (b"\\" not in text or b"\\u0000" not in text)  # a single byte is found much faster than several
        and all(raw[0] == _BRACE for raw in data)
        and not any(map(_may_be_too_deep, data))
        and not _may_have_long_exponent(b"\n".join(data))
    )


def _unstorable(decoded: dict[str, Any], raw: bytes) -> Iterator[Fault]:
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and _deeper_than(MAX_DEPTH, raw):
        yield _too_deep()
    elif _may_hold_extreme_number(raw) and _may_hold_extreme_number(_STRING.sub(b"", raw)):
        yield Fault("$.data", "number_out_of_range", _NUMBER_LIMITS)
    elif b"\\u0000" in raw and _NUL.search(raw):
        # A repeated key hides its first value from whoever decodes, but not from PostgreSQL.
        paths = list(islice(_nul_paths(decoded, raw), MAX_FAULTS)) or ["$.data"]
        yield from map(_nul, paths)


def decode_data(data: bytes) -> dict[str, Any]:
    """Decode ``data`` for the rules, which compute in doubles.

    Digits beyond a double's precision are lost here, not in the store; a number beyond its range becomes an infinity.
    """
    try:
        return cast("dict[str, Any]", _decode_any(data))
    except msgspec.ValidationError:
        return cast("dict[str, Any]", json.loads(data))


def _timed_in_utc(sent: SentEvent) -> SentEvent:
    """Nearly every event's time is in UTC already: then there is nothing to copy."""
    if sent.timestamp.tzinfo is UTC:
        return sent
    return msgspec.structs.replace(sent, timestamp=_in_utc(sent.timestamp))


def _in_utc(timestamp: datetime) -> datetime:
    """A time without a zone is UTC: that is what existing senders mean by it."""
    return timestamp.replace(tzinfo=UTC) if timestamp.tzinfo is None else timestamp.astimezone(UTC)


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _invalid_utf8() -> Fault:
    return Fault("$.data", "invalid_utf8", "text is UTF-8")


def _too_deep() -> Fault:
    return Fault("$.data", "too_deep", f"data is nested at most {MAX_DEPTH} levels deep")


# Possessive quantifiers and fixed ends: none of these patterns ever goes back over what it has read.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_LONG_EXPONENT = re.compile(rb"[eE][+-]?[0-9]{%d}" % (MAX_EXPONENT_DIGITS + 1))
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*+\\u0000")

_BRACE = ord("{")
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND_OF_BRACKETS = bytes.maketrans(b"{}", b"[]")
_DIGITS_MARKED = bytes(ord("d") if byte in b"0123456789" else 0 for byte in range(256))
_TOO_MANY_DIGITS = b"d" * (MAX_DIGITS + 1)
_EXPONENTS_MARKED = bytes(
    ord("d") if byte in b"0123456789" else ord("e") if byte in b"eE" else 0 for byte in range(256)
)
_LONG_EXPONENT_MARKED = b"e" + b"d" * (MAX_EXPONENT_DIGITS + 1)

_NUMBER_LIMITS = f"a number has at most {MAX_DIGITS} digits in a row and {MAX_EXPONENT_DIGITS} in its exponent"


def _deeper_than(levels: int, raw: bytes) -> bool:
    """Take the innermost brackets away, level by level."""
    brackets = _STRING.sub(b"", raw).translate(_ONE_KIND_OF_BRACKETS, _ALL_BUT_BRACKETS)
    for _ in range(levels):
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
    return True


def _may_hold_extreme_number(raw: bytes) -> bool:
    """Look for what such a number would have; texts may have it too."""
    if _LONG_EXPONENT.search(raw):
        return True
    return len(raw) > MAX_DIGITS and _TOO_MANY_DIGITS in raw.translate(_DIGITS_MARKED)


def _label_faults(sent: SentEvent) -> Iterator[Fault]:
    if "\0" in sent.category:
        yield _nul("$.category")
    if "\0" in sent.name:
        yield _nul("$.name")


def _nul(path: str) -> Fault:
    return Fault(path, "unstorable_text", "text holds no NUL character")


def _nul_paths(data: dict[str, Any], raw: bytes) -> Iterator[str]:
    """Find where the NULs are; in large data that would take too long."""
    return _nul_paths_in(data, "$.data") if len(raw) <= MAX_SEARCHED_BYTES else iter(())


def _nul_paths_in(value: object, path: str) -> Iterator[str]:
    if isinstance(value, str):
        if "\0" in value:
            yield path
    elif isinstance(value, dict):
        for key, inner in value.items():
            if "\0" in key:
                yield path
            yield from _nul_paths_in(inner, json_path(path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _nul_paths_in(inner, json_path(path, index))


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
