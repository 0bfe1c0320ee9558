"""From a message to rows: decode, judge, store, whatever happens to the database meanwhile."""

import random
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol
from uuid import UUID

import msgspec
import psycopg
import structlog

from the_eye.event import Event, Fault, read_accepted
from the_eye.queue import Payload, QueuedEvent, Unfinished
from the_eye.rules.ruleset import RuleSet
from the_eye.store.connect import Pool
from the_eye.store.dead_events import DeadEvent, set_aside
from the_eye.store.events import Fate, Row, is_unstorable, write_events
from the_eye.verdict import Verdict
from the_eye_worker import metrics

FIRST_BACKOFF_SECONDS = 0.1
LONGEST_BACKOFF_SECONDS = 5.0

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

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

    def store(self, payload: Payload) -> None:
        """See to it that every event of a message is stored or set aside; return only then.

        Raises Unfinished when the worker is stopping and the database is away. Raises msgspec.MsgspecError for a
        message of a format this version does not know.
        """
        ruleset = self._rules.current
        judged: list[Judged] = []
        for queued in payload.events():
            event = read_event(queued)
            if isinstance(event, Event):
                judged.append(Judged(queued, Row(event, _judge(ruleset, event), ruleset.digest)))
            else:
                self._set_aside(queued, event[0].code, "; ".join(f"{fault.path}: {fault.message}" for fault in event))
        self._write(judged)

    def _write(self, judged: Sequence[Judged]) -> None:
        """Write all, or find by halving the ones that cannot be written."""
        if not judged:
            return
        try:
            fates = self._until_stored([one.row for one in judged])
        except Unfinished:
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours, too, must not cost the event or its neighbours
            if len(judged) == 1:
                self._set_aside(judged[0].queued, _code(error), _words(error))
                return
            log.warning("message_halved", events=len(judged), code=_code(error))
            middle = len(judged) // 2
            self._write(judged[:middle])
            self._write(judged[middle:])
        else:
            _count([one.row for one in judged], fates)

    def _until_stored(self, rows: Sequence[Row]) -> list[Fate]:
        """Try until the database takes the rows or says that they are at fault."""
        for backoff in _backoffs():
            try:
                with metrics.WRITE_SECONDS.time(), self._pool.connection() as connection:
                    return write_events(connection, rows)
            except psycopg.Error as error:
                if is_unstorable(error):
                    raise
                self._wait(backoff, error)
        raise AssertionError  # _backoffs never ends

    def _set_aside(self, queued: QueuedEvent, code: str, error: str) -> None:
        dead = DeadEvent(
            kind="event",
            code=code,
            error=error,
            original=queued.body,
            event_id=UUID(bytes=queued.event_id),
            application_id=queued.application_id,
            received_at=_time(queued.received_at),
            # The same acceptance of the same event: a message that comes twice makes one dead event of it.
            queue_id=f"{UUID(bytes=queued.event_id)}@{queued.received_at}",
        )
        log.error("event_set_aside", event_id=str(dead.event_id), code=code)
        for backoff in _backoffs():
            try:
                with self._pool.connection() as connection:
                    new = set_aside(connection, [dead])
            except psycopg.Error as failure:
                self._wait(backoff, failure)
            else:
                metrics.EVENTS.labels("dead").inc(new)
                return

    def _wait(self, seconds: float, error: psycopg.Error) -> None:
        metrics.WRITE_RETRIES.inc()
        log.warning("write_retried", error=reason(error), seconds=round(seconds, 2))
        if self._stopping.wait(seconds):
            raise Unfinished


def read_event(queued: QueuedEvent) -> Event | tuple[Fault, ...]:
    """Read an event from the queue; faults here mean that the edge and the worker disagree."""
    sent = read_accepted(queued.body)
    if isinstance(sent, tuple):
        return sent
    return Event(
        event_id=UUID(bytes=queued.event_id),
        application_id=queued.application_id,
        application=queued.application,
        session_id=sent.session_id,
        category=sent.category,
        name=sent.name,
        data=bytes(sent.data),
        timestamp=sent.timestamp,
        received_at=_time(queued.received_at),
    )


def _judge(ruleset: RuleSet, event: Event) -> Verdict:
    return ruleset.judge(event, on_ignored=lambda rule: metrics.IGNORED.labels(rule).inc())


def _time(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


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
    now = datetime.now(UTC)
    for row, fate in zip(rows, fates, strict=True):
        metrics.EVENTS.labels(fate.value).inc()
        if fate in {Fate.VALID, Fate.INVALID}:
            _count_stored(row, now)


def _count_stored(row: Row, now: datetime) -> None:
    metrics.STORED_AFTER_SECONDS.observe((now - row.event.received_at).total_seconds())
    if not row.verdict.matched:
        metrics.UNMATCHED.inc()
    for violation in row.verdict.violations:
        metrics.VIOLATIONS.labels(violation.rule, violation.action.value).inc()
