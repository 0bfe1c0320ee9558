"""Events in memory: a bounded queue that keeps what is on its way until it has arrived."""

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import count

from the_eye_client._event import QueuedEvent
from the_eye_client._settings import Settings


class Limits:
    """How large a batch may be: what the settings say, or less after the server has found one too large."""

    def __init__(self, events: int, size: int) -> None:
        self._most = (events, size)
        self.events = events
        self.bytes = size

    def cut(self, events: Iterable[QueuedEvent]) -> int:
        """Tell how many events make the next batch: one at least, if there is one."""
        size = 2  # the brackets
        number = 0
        for event in events:
            size += len(event.body) + 1
            if number and (number >= self.events or size > self.bytes):
                break
            number += 1
        return number

    def halve(self, batch: Sequence[QueuedEvent]) -> None:
        """Take at most half of a batch the next time."""
        self.events = max(1, len(batch) // 2)
        self.bytes = max(1, sum(len(event.body) for event in batch) // 2)

    def grow(self) -> None:
        """Go back, by a quarter each time: what was too large may have been a single event."""
        self.events = min(self._most[0], self.events + self.events // 4 + 1)
        self.bytes = min(self._most[1], self.bytes + self.bytes // 4 + 1)


class Memory:
    """A bounded queue of events.

    The lock is reentrant, since a signal's handler may track an event while its thread is tracking one.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.RLock()
        self._places = count()
        self._waiting: deque[QueuedEvent] = deque()
        self._waiting_bytes = 0
        self._waiting_since = 0.0
        """When an event came to the empty queue, or the last batch was taken."""
        self._taken: dict[int, QueuedEvent] = {}
        self._bytes = 0
        """Of all events, the taken ones included."""

    def __len__(self) -> int:
        return len(self._waiting) + len(self._taken)

    def put(self, event_id: str, body: bytes) -> bool | None:
        """Take an event; None when there is no room, True when the one who waits for a batch must be woken."""
        with self._lock:
            if len(self) >= self._settings.memory_events or self._bytes + len(body) > self._settings.memory_bytes:
                return None
            if not self._waiting:
                self._waiting_since = time.monotonic()
            was_due, first = self._is_full(), not self._waiting
            self._waiting.append(QueuedEvent(next(self._places), event_id, body))
            self._waiting_bytes += len(body)
            self._bytes += len(body)
            return first or (self._is_full() and not was_due)

    def _is_full(self) -> bool:
        """Whether there is enough for a batch."""
        settings = self._settings
        return len(self._waiting) >= settings.batch_events or self._waiting_bytes >= settings.batch_bytes

    def due_in(self, *, urgent: bool) -> float:
        """Give the seconds until a batch is to be taken, at once when it is urgent; infinity when nothing waits."""
        with self._lock:
            if not self._waiting:
                return float("inf")
            if urgent or self._is_full():
                return 0.0
            return self._waiting_since + self._settings.batch_seconds - time.monotonic()

    def take(self, limits: Limits) -> list[QueuedEvent]:
        """Take the oldest events; they stay in memory until they are settled or given back."""
        with self._lock:
            events = [self._waiting.popleft() for _ in range(limits.cut(self._waiting))]
            self._waiting_bytes -= sum(len(event.body) for event in events)
            self._waiting_since = time.monotonic()
            self._taken.update((event.place, event) for event in events)
            return events

    def settle(self, events: Iterable[QueuedEvent]) -> None:
        """Let events go."""
        with self._lock:
            for event in events:
                if self._taken.pop(event.place, None) is not None:
                    self._bytes -= len(event.body)

    def give_back(self, events: Sequence[QueuedEvent]) -> None:
        """Put events back in their place, unless they were given up meanwhile."""
        with self._lock:
            events = [event for event in events if self._taken.pop(event.place, None) is not None]
            in_order = not (events and self._waiting and events[-1].place > self._waiting[0].place)
            self._waiting.extendleft(reversed(events))
            self._waiting_bytes += sum(len(event.body) for event in events)
            if not in_order:  # two threads have taken events, as while the spool fails
                self._waiting = deque(sorted(self._waiting))

    def mark(self) -> int:
        """Give the place below which all events are that were put so far."""
        return next(self._places)

    def has_settled(self, mark: int) -> bool:
        """Whether no event below a mark is left."""
        with self._lock:
            oldest = min(self._taken, default=mark)
            return oldest >= mark and not (self._waiting and self._waiting[0].place < mark)

    def clear(self) -> list[QueuedEvent]:
        """Give up all events, those on their way included."""
        with self._lock:
            events = [*self._taken.values(), *self._waiting]
            self._taken.clear()
            self._waiting.clear()
            self._waiting_bytes = self._bytes = 0
            return events
