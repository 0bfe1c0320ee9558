"""An event on its way: made into JSON once, with the id and the time that make every retry free."""

import json
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID


class QueuedEvent(NamedTuple):
    """An event that waits or is on its way."""

    place: int
    """Grows from event to event within the memory, and within the spool."""
    event_id: str
    body: bytes
    """Its JSON, as it is sent."""


class TrackedEvent(NamedTuple):
    """An event as the application gives it."""

    event_id: UUID
    session_id: UUID | str
    category: str
    name: str
    data: Mapping[str, Any]
    timestamp: datetime | None

    def encode(self, default: Callable[[Any], Any] | None) -> bytes:
        """Make its JSON.

        What is only wrong about it the server finds; what no JSON can be made of raises whatever ``data`` makes it
        raise.
        """
        event = {
            "event_id": str(self.event_id),
            "session_id": str(self.session_id),
            "category": self.category,
            "name": self.name,
            "data": self.data if isinstance(self.data, dict) else dict(self.data),
            "timestamp": (self.timestamp or datetime.now(UTC)).isoformat(),
        }
        # Bytes, not escapes: shorter, and a lone surrogate is found here.
        return json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=default).encode()


def new_event_id() -> UUID:
    """Make a UUIDv7 (RFC 9562, 5.7), whose order is that of time, so that the server's index grows at its end.

    May be replaced by ``uuid.uuid7`` once Python 3.14 is the oldest that is supported.
    """
    milliseconds = time.time_ns() // 1_000_000 & (1 << 48) - 1
    bits = int.from_bytes(os.urandom(10))
    return UUID(int=milliseconds << 80 | 7 << 76 | (bits >> 62 & 0xFFF) << 64 | 2 << 62 | bits & (1 << 62) - 1)
