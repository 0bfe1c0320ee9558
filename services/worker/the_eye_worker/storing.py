"""From a message to rows: decode, judge, store, whatever happens to the database meanwhile."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

import msgspec
import psycopg
import structlog

from the_eye.event import Event, Fault, read_accepted
from the_eye.queue import Outcome, Payload, QueuedEvent, Unfinished
from the_eye.rules.ruleset import RuleSet
from the_eye.store.connect import Connection, Pool
from the_eye.store.dead_events import DeadEvent, acceptance, holds_events, set_aside
from the_eye.store.event_kinds import KindsSeen
from the_eye.store.events import Fate, Row, is_unstorable, write_events
from the_eye.telemetry import telemetry
from the_eye_worker import metrics

FIRST_BACKOFF_SECONDS = 0.1
LONGEST_BACKOFF_SECONDS = 5.0

DEAD_LOOK_SECONDS = 1.0
"""How often a worker looks whether anything is set aside; well below the shortest heartbeat that makes sense."""

log = structlog.get_logger(__name__)


class RuleSource(Protocol):
    """Knows the ruleset in force."""

    @property
    def current(self) -> RuleSet:
        """The ruleset in force now."""
        ...


class Judged(msgspec.Struct, frozen=True):
    """A row with what it was made from, should it turn out not to be storable."""

    queued: QueuedEvent
    row: Row


class EventStorer:
    """Stores the events of messages; called from several threads."""

    def __init__(self, pool: Pool, rules: RuleSource, stopping: threading.Event) -> None:
        self._pool = pool
        self._rules = rules
        self._stopping = stopping
        self._dead = _DeadRows()
        self._kinds = KindsSeen()

    def store(self, payload: Payload) -> list[Outcome]:
        """See to it that every event of a message is stored or set aside; return only then, with what became of each.

        Raises Unfinished when the worker is stopping and the database is away. Raises msgspec.MsgspecError for a
        message of a format this version does not know, psycopg.Error for an event that cannot even be set aside: then
        the message becomes a dead letter, whole.
        """
        ruleset = self._rules.current
        judged: list[Judged] = []
        dead: list[DeadEvent] = []
        unreadable: list[int] = []
        ignored: list[str] = []
        events = payload.events()
        for place, queued in enumerate(events):
            event = read_event(queued)
            if isinstance(event, Event):
                verdict = ruleset.judge(event, on_ignored=ignored.append)
                judged.append(Judged(queued, Row(event, verdict, ruleset.digest)))
            else:
                unreadable.append(place)
                dead.append(
                    _dead(queued, event[0].code, "; ".join(f"{fault.path}: {fault.message}" for fault in event))
                )
        _count_judged(len(events), ignored)
        outcomes = self._write(judged, dead)
        self._set_aside(dead)
        for place in unreadable:
            outcomes.insert(place, Outcome.DEAD)
        return outcomes

    def _write(self, judged: Sequence[Judged], dead: list[DeadEvent]) -> list[Outcome]:
        """Write all, or find by halving the ones that cannot be written."""
        if not judged:
            return []
        try:
            fates = self._until_stored([one.row for one in judged])
        except Unfinished:
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours, too, must not cost the event or its neighbours
            if len(judged) == 1:
                dead.append(_dead(judged[0].queued, _code(error), _words(error)))
                return [Outcome.DEAD]
            log.warning("message_halved", events=len(judged), code=_code(error))
            middle = len(judged) // 2
            return self._write(judged[:middle], dead) + self._write(judged[middle:], dead)
        _count([one.row for one in judged], fates)
        self._note_kinds([one.row for one in judged])
        return [_OUTCOMES[fate] for fate in fates]

    def _note_kinds(self, rows: Sequence[Row]) -> None:
        """Make new kinds known to those who search; it is no reason to store anything again."""
        new = self._kinds.new((row.event.category, row.event.name) for row in rows)
        if not new:
            return
        try:
            with self._pool.connection() as connection:
                self._kinds.tell(connection, new)
        except psycopg.Error as error:
            log.warning("kinds_not_noted", error=reason(error))

    def _until_stored(self, rows: Sequence[Row]) -> list[Fate]:
        """Try until the database takes the rows or says that they are at fault."""
        for backoff in _backoffs():
            try:
                with metrics.WRITE_SECONDS.time(), self._pool.connection() as connection:
                    return write_events(connection, rows, may_be_dead=self._dead.may_be(connection))
            except psycopg.Error as error:
                if is_unstorable(error):
                    raise
                self._wait(backoff, error)
        raise AssertionError  # _backoffs never ends

    def _set_aside(self, dead: Sequence[DeadEvent]) -> None:
        """Set aside what cannot be stored, all at once and after its neighbours were stored."""
        if not dead:
            return
        for one in dead:
            log.error("event_set_aside", event_id=str(one.event_id), code=one.code)
        for backoff in _backoffs():
            try:
                with self._pool.connection() as connection:
                    new = set_aside(connection, dead)
            except psycopg.Error as failure:
                if is_unstorable(failure):
                    raise
                self._wait(backoff, failure)
            else:
                self._dead.note()
                metrics.EVENTS.labels("dead").inc(new)
                return

    def _wait(self, seconds: float, error: psycopg.Error) -> None:
        metrics.WRITE_RETRIES.inc()
        log.warning("write_retried", error=reason(error), seconds=round(seconds, 2))
        if self._stopping.wait(seconds):
            raise Unfinished


class _DeadRows:
    """Knows whether an event that comes may have been set aside before: then storing it must take it back.

    That happens when a worker died between setting aside and acknowledging, and the cause has gone until the message
    comes again, which is ``worker_heartbeat_seconds`` later at the earliest. So it is enough to look now and then.
    """

    def __init__(self) -> None:
        self._held = True
        self._look_at = 0.0

    def may_be(self, connection: Connection) -> bool:
        now = time.monotonic()
        if now >= self._look_at:
            self._held = holds_events(connection)
            self._look_at = now + DEAD_LOOK_SECONDS
        return self._held

    def note(self) -> None:
        """Take in that this worker has set something aside."""
        self._held = True


def _dead(queued: QueuedEvent, code: str, error: str) -> DeadEvent:
    received_at = _time(queued.received_at)
    return DeadEvent(
        kind="event",
        code=code,
        error=error,
        original=queued.body,
        event_id=queued.event_id,
        application_id=queued.application_id,
        received_at=received_at,
        trace_id=queued.trace_id,
        # A message that comes twice makes one dead event of it.
        queue_id=acceptance(queued.event_id, received_at),
    )


def read_event(queued: QueuedEvent) -> Event | tuple[Fault, ...]:
    """Read an event from the queue; faults here mean that the edge and the worker disagree."""
    sent = read_accepted(queued.body)
    if isinstance(sent, tuple):
        return sent
    return Event(
        event_id=queued.event_id,
        application_id=queued.application_id,
        application=queued.application,
        session_id=sent.session_id,
        category=sent.category,
        name=sent.name,
        data=bytes(sent.data),
        timestamp=sent.timestamp,
        received_at=_time(queued.received_at),
        trace_id=queued.trace_id,
    )


def _count_judged(events: int, ignored: Sequence[str]) -> None:
    metrics.MESSAGE_EVENTS.observe(events)
    for rule, count in Counter(ignored).items():
        metrics.IGNORED.labels(rule).inc(count)


@lru_cache(256)
def _time(microseconds: int) -> datetime:
    """Convert a time once: the events of a batch have come at the same."""
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC)


def _backoffs() -> Iterator[float]:
    """Seconds to wait before each next try, without end; half of each is chance, so that workers spread out."""
    longest = FIRST_BACKOFF_SECONDS
    while True:
        yield longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        longest = min(longest * 2, LONGEST_BACKOFF_SECONDS)


def reason(error: psycopg.Error) -> str:
    """Say what went wrong without what PostgreSQL adds to it, which quotes the row."""
    return error.diag.message_primary or str(error).partition("\n")[0]


def _words(error: Exception) -> str:
    return reason(error) if isinstance(error, psycopg.Error) else str(error)


def _code(error: Exception) -> str:
    return (isinstance(error, psycopg.Error) and error.sqlstate) or type(error).__name__


def _count(rows: Sequence[Row], fates: Sequence[Fate]) -> None:
    """Count a message at once: its events share most of what is counted."""
    for fate, count in Counter(fates).items():
        metrics.EVENTS.labels(_LABELS[fate]).inc(count)
    now = datetime.now(UTC)
    stored = [row for row, fate in zip(rows, fates, strict=True) if fate in _STORED]
    metrics.STORED_AFTER_SECONDS.observe_all(
        [(now - row.event.received_at).total_seconds() for row in stored], telemetry.exemplar()
    )
    metrics.UNMATCHED.inc(sum(not row.verdict.matched for row in stored))
    violated = Counter((one.rule, one.action.value) for row in stored for one in row.verdict.violations)
    for labels, count in violated.items():
        metrics.VIOLATIONS.labels(*labels).inc(count)


_STORED = frozenset({Fate.VALID, Fate.INVALID})
_OUTCOMES = {
    Fate.VALID: Outcome.VALID,
    Fate.VALID_BEFORE: Outcome.VALID,
    Fate.INVALID: Outcome.INVALID,
    Fate.INVALID_BEFORE: Outcome.INVALID,
    Fate.DUPLICATE: Outcome.DUPLICATE,
}
_LABELS = {fate: fate.value for fate in Fate} | {
    Fate.VALID_BEFORE: "redelivered",
    Fate.INVALID_BEFORE: "redelivered",
}
for _label in _LABELS.values():
    metrics.EVENTS.labels(_label)  # from 0 on: a rate does not see a series' first value
