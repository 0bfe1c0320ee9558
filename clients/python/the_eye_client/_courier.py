"""Brings events to the server, in a thread of its own."""

import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol, assert_never

from the_eye_client._answers import Accepted, Faults, Later, Outcome, Refused, TooMuch, Unauthorized, judge
from the_eye_client._event import QueuedEvent
from the_eye_client._http import Connection, NoAnswerError
from the_eye_client._memory import Limits, Memory
from the_eye_client._outcomes import Lost, Tally
from the_eye_client._settings import Server, Settings
from the_eye_client._spool import POLL_SECONDS, Spool, SpoolError

UNAUTHORIZED_SECONDS = 60.0
"""How often a server that does not let the token in is asked again."""

FAULT_SECONDS = 1.0
"""How long a thread rests after a fault of the client's own."""

WRITTEN = Limits(1_000, 4 * 1024 * 1024)
"""How much is written to the spool at once."""


class Bell:
    """Wakes a thread. Made of a queue whose ``put`` may also be called in a signal's handler."""

    def __init__(self) -> None:
        self._rings: SimpleQueue[None] = SimpleQueue()

    def ring(self) -> None:
        """Wake the thread, or keep it from falling asleep."""
        self._rings.put(None)

    def wait(self, seconds: float) -> None:
        """Sleep until it rings, but no longer than so many seconds."""
        with suppress(Empty):
            self._rings.get(timeout=min(max(seconds, 0.0), 60 * 60.0))
            while True:
                self._rings.get_nowait()


class Store(Protocol):
    """Where events wait."""

    def take(self, limits: Limits) -> list[QueuedEvent]:
        """Take a batch, which stays there."""

    def settle(self, events: Iterable[QueuedEvent]) -> None:
        """Let events go that need not be sent again."""

    def give_back(self, events: Sequence[QueuedEvent]) -> None:
        """Have events taken again."""


@dataclass(slots=True)
class Flush:
    """Somebody waits until all events up to a mark have arrived."""

    mark: int
    done: "Future[bool]"
    spool_mark: int | None = None
    """The same in the spool; None while some of them are in memory."""


class Courier:
    """Takes batches, sends them, and does what the answers say."""

    def __init__(self, server: Server, settings: Settings, memory: Memory, spool: Spool | None, tally: Tally) -> None:
        self.bell = Bell()
        self.deadline = float("inf")
        """When every request must have ended, whatever its own deadline."""
        self._server = server
        self._settings = settings
        self._memory = memory
        self._spool = spool
        self._tally = tally
        self._connection = Connection(server, settings.ssl_context)
        self._limits = Limits(settings.batch_events, settings.batch_bytes)
        self._flushes: list[Flush] = []
        self._failures = 0
        self._paused_until = float("-inf")
        self._unauthorized = False

    def flush(self) -> "Future[bool]":
        """Send without waiting for more; the future is true once all that was tracked before has an end."""
        flush = Flush(self._memory.mark(), Future())
        self._flushes.append(flush)
        self.bell.ring()
        return flush.done

    def run(self, ended: Callable[[], bool]) -> None:
        """Send until it is ended."""
        while not ended():
            try:
                self._end_flushes()
                seconds = self._due_in()
                if seconds > 0:
                    self.bell.wait(min(seconds, self.deadline - time.monotonic()))
                else:
                    self._send_batch()
            except SpoolError as error:
                self._note_spool(error)
            except Exception as error:  # noqa: BLE001 - a thread that ends here would never send again
                self._tally.fail(type(error).__name__)
                self._tally.log.say(logging.ERROR, "A fault of the client's own: %s", type(error).__name__)
                self.bell.wait(FAULT_SECONDS)
        self._connection.close()

    def _due_in(self) -> float:
        """Give the seconds until there is something to do."""
        paused = self._paused_until - time.monotonic()
        if paused > 0:
            return paused
        urgent = bool(self._flushes)
        spool = self._spool
        from_spool = float("inf") if spool is None else spool.due_in(urgent=urgent)
        by_spool = spool is not None and not spool.broken_for and not spool.unwritable_for
        return from_spool if by_spool else min(from_spool, self._memory.due_in(urgent=urgent))

    def _send_batch(self) -> None:
        store, events = self._take()
        if events:
            self._follow(self._ask(events), store, events)

    def _take(self) -> tuple[Store, list[QueuedEvent]]:
        """Take from the spool, and from memory only what cannot be written there."""
        spool = self._spool
        if spool is not None and not spool.broken_for:
            events = spool.take(self._limits)
            if events or not spool.unwritable_for:
                return spool, events
        return self._memory, self._memory.take(self._limits)

    def _ask(self, events: Sequence[QueuedEvent]) -> Outcome:
        deadline = min(time.monotonic() + self._settings.request_seconds, self.deadline)
        try:
            return judge(self._connection.post((event.body for event in events), deadline), len(events))
        except NoAnswerError as error:
            return Later(str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the events must not be held for ever
            return Later(type(error).__name__)

    def _follow(self, outcome: Outcome, store: Store, events: Sequence[QueuedEvent]) -> None:
        match outcome:
            case Accepted(refused):
                self._recover()
                bad = self._refuse(events, refused)
                self._tally.add(sent=len(events) - len(bad))
                store.settle(events)
            case Refused(refused):
                bad = self._refuse(events, refused)
                store.settle(bad)
                store.give_back([event for event in events if event not in bad])
            case TooMuch(fault) if len(events) == 1:
                store.settle(self._refuse(events, {0: (fault,)}))
            case TooMuch():
                self._limits.halve(events)
                store.give_back(events)
            case Unauthorized(error):
                self._stop(error)
                store.give_back(events)
            case Later(error, retry_after):
                self._pause(error, retry_after)
                store.give_back(events)
            case _:
                assert_never(outcome)

    def _refuse(self, events: Sequence[QueuedEvent], refused: Faults) -> set[QueuedEvent]:
        """Tell the application of the events that the server has found faults with; gives those."""
        bad = {events[index]: faults for index, faults in refused.items()}
        for event, faults in bad.items():
            self._tally.lose(Lost("refused", faults, event.event_id, event.body))
        return set(bad)

    def _recover(self) -> None:
        self._failures = 0
        self._unauthorized = False
        self._limits.grow()

    def _stop(self, error: str) -> None:
        self._unauthorized = True
        self._paused_until = time.monotonic() + UNAUTHORIZED_SECONDS
        self._tally.fail(error)
        self._tally.log.say(
            logging.ERROR,
            "The server refuses the token (%s): nothing is sent, and events are kept while there is room",
            error,
        )

    def _pause(self, error: str, retry_after: float) -> None:
        """Wait as long as the server asks for and, so that not all clients come at once, some time at random."""
        settings = self._settings
        most = min(settings.first_backoff_seconds * 2.0 ** min(self._failures, 60), settings.longest_backoff_seconds)
        self._failures += 1
        self._paused_until = time.monotonic() + retry_after + random.uniform(0, most)  # noqa: S311 - no secret
        self._tally.add(retried=1)
        self._tally.fail(error)
        self._tally.log.say(logging.WARNING, "Events could not be sent (%s) and will be sent again", error)

    def _note_spool(self, error: SpoolError) -> None:
        self._tally.fail(str(error))
        self._tally.log.say(logging.ERROR, "The spool cannot be used (%s): events stay in memory meanwhile", error)

    def _end_flushes(self) -> None:
        """Tell those who wait for a flush what came of it; nobody need wait for what cannot come any more."""
        hopeless = self._unauthorized or self._paused_until > self.deadline
        for flush in tuple(self._flushes):
            if flush.done.cancelled() or hopeless or self._is_flushed(flush):
                self._flushes.remove(flush)
                if flush.done.set_running_or_notify_cancel():
                    flush.done.set_result(not hopeless)

    def _is_flushed(self, flush: Flush) -> bool:
        if not self._memory.has_settled(flush.mark):
            return False
        if self._spool is None:
            return True
        if flush.spool_mark is None:
            flush.spool_mark = self._spool.written
        return self._spool.has_settled(flush.spool_mark)


class Spooler:
    """Writes events from memory to the spool, in a thread of its own: as many as wait, in one transaction."""

    def __init__(self, memory: Memory, spool: Spool, tally: Tally, courier: Courier) -> None:
        self.bell = Bell()
        self._memory = memory
        self._spool = spool
        self._tally = tally
        self._courier = courier

    def run(self, ended: Callable[[], bool]) -> None:
        """Write until it is ended."""
        while not ended():
            if self._spool.unwritable_for or not self.write():
                # Events that the courier gives back ring no bell.
                self.bell.wait(self._spool.unwritable_for or POLL_SECONDS)

    def write(self) -> bool:
        """Write what waits; false when nothing does, or when not all of it can be written."""
        events = self._memory.take(WRITTEN)
        if not events:
            return False
        written = 0
        try:
            written = self._spool.insert(events)
        except SpoolError as error:
            self._tally.fail(str(error))
            self._tally.log.say(
                logging.ERROR, "The spool cannot be written (%s): events stay in memory meanwhile", error
            )
        self._tally.add(spooled=written)
        self._memory.settle(events[:written])
        self._memory.give_back(events[written:])
        self._courier.bell.ring()
        return written == len(events)
