"""What becomes of events, as it is told to the application."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

log = logging.getLogger("the_eye_client")
log.addHandler(logging.NullHandler())

QUIET_SECONDS = 60.0
"""How long a message of one kind is not said again."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with an event."""

    path: str
    """JSON path of the place, such as ``$.session_id``."""
    code: str
    """Stable name of the fault, the server's or one of the client's own: ``unserializable``, ``memory_full``,
    ``closed``."""
    message: str


@dataclass(frozen=True, slots=True)
class Lost:
    """An event that will not be stored."""

    reason: Literal["refused", "dropped"]
    """Refused: it has faults, and would be refused again. Dropped: there was no room or no time for it."""
    faults: tuple[Fault, ...]
    event_id: str | None
    event: bytes
    """Its JSON; empty when none could be made of it."""


@dataclass(frozen=True, slots=True)
class Counters:
    """What this process's client has done so far."""

    queued: int = 0
    """Events in memory now, those on their way included."""
    spooled: int = 0
    """Events written to the spool."""
    sent: int = 0
    """Events that the server has; with a shared spool, those of other processes too."""
    refused: int = 0
    """Events with faults, found by the server or here."""
    dropped: int = 0
    """Events for which there was no room, or no time at the end."""
    retried: int = 0
    """Requests that failed and whose events are sent again."""
    last_error: str | None = None
    """What went wrong last; it is not forgotten when all is well again."""


class Tally:
    """Counts, and tells the application of each event that is lost."""

    def __init__(self, on_lost: Callable[[Lost], None] | None) -> None:
        self.log = SparingLog()
        self._on_lost = on_lost
        self._lock = threading.RLock()
        self._counters = Counters()
        self._telling = threading.local()

    def read(self, queued: int) -> Counters:
        """Give the counters."""
        return replace(self._counters, queued=queued)

    def add(self, *, spooled: int = 0, sent: int = 0, retried: int = 0) -> None:
        """Count what went well, or will."""
        with self._lock:
            now = self._counters
            self._counters = replace(
                now, spooled=now.spooled + spooled, sent=now.sent + sent, retried=now.retried + retried
            )

    def fail(self, error: str) -> None:
        """Remember what went wrong."""
        with self._lock:
            self._counters = replace(self._counters, last_error=error)

    def lose(self, lost: Lost) -> None:
        """Count an event that is lost, and say so; no lock may be held, for the application's code is called."""
        refused = lost.reason == "refused"
        with self._lock:
            now = self._counters
            self._counters = replace(now, refused=now.refused + refused, dropped=now.dropped + (not refused))
        fault = lost.faults[0]
        self.log.say(logging.WARNING, "An event was %s: %s at %s", lost.reason, fault.code, fault.path)
        # Whoever tracks in the callback what is lost in its turn would otherwise be called without end.
        if self._on_lost is None or getattr(self._telling, "active", False):
            return
        self._telling.active = True
        try:
            self._on_lost(lost)
        except Exception as error:  # noqa: BLE001 - the application's code may raise anything
            self.log.say(logging.WARNING, "on_lost raised %s", type(error).__name__)
        finally:
            self._telling.active = False


class SparingLog:
    """Says a message of one kind once a minute; no message holds a payload or a token."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[str, tuple[float, int]] = {}
        """When each kind was said last, and how often it was not said since."""

    def say(self, level: int, text: str, *arguments: object) -> None:
        """Log a message; its kind is its text without the arguments."""
        now = self._clock()
        said_at, unsaid = self._kinds.get(text, (None, 0))
        if said_at is not None and now < said_at + QUIET_SECONDS:
            self._kinds[text] = (said_at, unsaid + 1)
            return
        self._kinds[text] = (now, 0)
        log.log(level, "%s%s", text % arguments, f" (and {unsaid} more like it)" if unsaid else "")
