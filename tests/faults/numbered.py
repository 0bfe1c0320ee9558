"""Events that are known by their numbers, so that afterwards each can be asked for."""

from datetime import UTC, datetime
from uuid import UUID

INVALID_EVERY = 10
"""Each tenth event breaks the sample rule of clicks."""

_EVENT = (
    b'{"event_id":"%b","session_id":"e2085be5-9137-4e4e-80b5-f1ffddc25423","category":"page interaction",'
    b'"name":"cta click","data":{"n":%d,"element":"%b"},"timestamp":"%b"}'
)
_ACCEPTED = "00000000-0000-4000-8000-{:012x}"
_REFUSED = "ffffffff-ffff-4fff-8fff-{:012x}"


def event_id(number: int) -> UUID:
    """Give the id of an event."""
    return UUID(_ACCEPTED.format(number))


def event(number: int, timestamp: datetime | None = None) -> bytes:
    """Make an event; its number is in its id and, once more, in its data."""
    return _encode(_ACCEPTED.format(number), number, timestamp or datetime.now(UTC))


def batch(numbers: range) -> bytes:
    """Make a batch of events."""
    now = datetime.now(UTC)
    return b"[" + b",".join(event(number, now) for number in numbers) + b"]"


def malformed(number: int) -> bytes:
    """Make an event that is refused for its session_id, with an id by which it would be found."""
    return _encode(_REFUSED.format(number), number, datetime.now(UTC)).replace(b"e2085be5", b"no uuid,")


def refused(number: int) -> bytes:
    """Make a good event for a request that is refused for another reason, with an id by which it would be found."""
    return _encode(_REFUSED.format(number), number, datetime.now(UTC))


def is_valid(number: int) -> bool:
    """Tell the verdict that the event must get."""
    return number % INVALID_EVERY != 0


def _encode(text: str, number: int, timestamp: datetime) -> bytes:
    element = b"chat bubble" if is_valid(number) else b"banner"
    return _EVENT % (text.encode(), number, element, timestamp.isoformat().encode())
