"""What could not be stored, set aside until someone replays or discards it."""

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import msgspec
import psycopg
import structlog
from psycopg.rows import class_row

from the_eye.telemetry import telemetry

MAX_ERROR_CHARACTERS = 2_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

log = structlog.get_logger(__name__)

REPLAY_ROWS = 100
REPLAY_BYTES = 4 * 1024 * 1024
"""What is replayed at once, beyond a single row's own size."""

AnyConnection = psycopg.Connection[Any]
Kind = Literal["event", "message"]


class DeadEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event, or one message of the queue that cannot even be read, that cannot be stored."""

    kind: Kind
    code: str
    """Stable name of what is wrong."""
    error: str
    """For people; cut at MAX_ERROR_CHARACTERS."""
    original: bytes
    """The sender's bytes of an event, or the whole message."""
    event_id: UUID | None = None
    application_id: int | None = None
    received_at: datetime | None = None
    """These three are set for every event."""
    trace_id: UUID | None = None
    queue_id: str | None = None
    """Unique place in the queue: what was set aside from there is not set aside again."""


class DeadEntry(msgspec.Struct, frozen=True):
    """A row of ``dead_events``; ``original`` is read only where it is asked for."""

    id: int
    kind: Kind
    died_at: datetime
    event_id: UUID | None
    application_id: int | None
    application: str | None
    received_at: datetime | None
    code: str
    error: str
    size: int
    """Bytes of the original."""
    trace_id: UUID | None
    original: bytes = b""


def acceptance(event_id: UUID, received_at: datetime) -> str:
    """Name one acceptance of an event, as ``queue_id`` does: sent again, the same event is another acceptance."""
    return f"{event_id}@{(received_at - _EPOCH) // timedelta(microseconds=1)}"


def holds_events(connection: AnyConnection) -> bool:
    """Tell whether any event is set aside."""
    with telemetry.statement(connection, "SELECT", "dead_events"):
        return connection.execute("SELECT FROM dead_events WHERE kind = 'event' LIMIT 1").fetchone() is not None


def take_back(connection: AnyConnection, acceptances: Sequence[str]) -> None:
    """Remove what was set aside and is stored now: its message came again after the cause had gone."""
    with telemetry.statement(connection, "DELETE", "dead_events"):
        taken = connection.execute("DELETE FROM dead_events WHERE queue_id = ANY(%s)", (list(acceptances),)).rowcount
    if taken:
        log.warning("dead_events_taken_back", events=taken)


def set_aside(connection: AnyConnection, dead: Sequence[DeadEvent]) -> int:
    """Store what cannot be stored otherwise, all or nothing; count those that were not set aside before."""
    inserting = telemetry.statement(connection, "INSERT", "dead_events", len(dead))
    with inserting, connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(
            """INSERT INTO dead_events (kind, event_id, application_id, received_at, trace_id, code, error, original,
                                        queue_id)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (queue_id) DO NOTHING""",
            [
                (
                    entry.kind,
                    entry.event_id,
                    entry.application_id,
                    entry.received_at,
                    entry.trace_id,
                    _storable(entry.code),
                    _storable(entry.error),
                    entry.original,
                    entry.queue_id,
                )
                for entry in dead
            ],
        )
        return cursor.rowcount


def _storable(text: str) -> str:
    """Make any text one that PostgreSQL holds: an error may quote what could not be stored."""
    return text[:MAX_ERROR_CHARACTERS].replace("\0", "\\0").encode(errors="backslashreplace").decode()


_COLUMNS = """d.id, d.kind, d.died_at, d.event_id, d.application_id, a.name AS application, d.received_at,
              d.code, d.error, octet_length(d.original) AS size, d.trace_id"""
_FROM = "FROM dead_events d LEFT JOIN applications a ON a.id = d.application_id"


def list_dead(connection: AnyConnection, limit: int) -> list[DeadEntry]:
    """List the newest first, without their originals."""
    query = f"SELECT {_COLUMNS} {_FROM} ORDER BY d.id DESC LIMIT %s"
    return connection.cursor(row_factory=class_row(DeadEntry)).execute(query, (limit,)).fetchall()


def read_dead(connection: AnyConnection, dead_id: int) -> DeadEntry | None:
    """Read one with its original."""
    query = f"SELECT {_COLUMNS}, d.original {_FROM} WHERE d.id = %s"
    return connection.cursor(row_factory=class_row(DeadEntry)).execute(query, (dead_id,)).fetchone()


def discard(connection: AnyConnection, dead_id: int) -> bool:
    """Delete one for good; false when there is none of this id."""
    return connection.execute("DELETE FROM dead_events WHERE id = %s", (dead_id,)).rowcount > 0


def replay(
    connection: AnyConnection, ids: Sequence[int], enqueue: Callable[[Sequence[DeadEntry]], Sequence[int]]
) -> Sequence[int]:
    """Hand dead events to ``enqueue``, which returns the ids of those it queued durably, then delete these.

    In this order a crash in between makes a duplicate, which the store absorbs, and never a loss. Returns the ids that
    were replayed: not those that are gone or being replayed by someone else.

    The places in the queue are given up first: an event that dies again before the old row is gone is set aside anew.
    Its worker waits for this transaction to learn that the place is free.
    """
    query = f"SELECT {_COLUMNS}, d.original {_FROM} WHERE d.id = ANY(%s) ORDER BY d.id FOR UPDATE OF d SKIP LOCKED"
    with connection.transaction():
        entries = connection.cursor(row_factory=class_row(DeadEntry)).execute(query, (list(ids),)).fetchall()
        connection.execute(
            "UPDATE dead_events SET queue_id = NULL WHERE id = ANY(%s)", ([each.id for each in entries],)
        )
        queued = enqueue(entries) if entries else ()
        connection.execute("DELETE FROM dead_events WHERE id = ANY(%s)", (list(queued),))
    return queued


NAMED = 20


def named(ids: Collection[int]) -> str:
    """Name dead events for the audit log, or count them when they are many."""
    return ", ".join(map(str, sorted(ids))) if len(ids) <= NAMED else f"{len(ids)} of them"


def batches(connection: AnyConnection) -> Iterator[list[int]]:
    """Go through the ids of all that are dead now, oldest first, in batches fit for ``replay``.

    What dies again meanwhile is not met again, so that a replay of all ends.
    """
    row = connection.execute("SELECT coalesce(max(id), 0) FROM dead_events").fetchone()
    last, after = (row[0] if row else 0), 0
    while batch := _batch(connection, after, last):
        yield batch
        after = batch[-1]


def _batch(connection: AnyConnection, after: int, last: int) -> list[int]:
    rows = connection.execute(
        "SELECT id, octet_length(original) FROM dead_events WHERE id > %s AND id <= %s ORDER BY id LIMIT %s",
        (after, last, REPLAY_ROWS),
    )
    batch: list[int] = []
    total = 0
    for dead_id, size in rows:
        total += size
        if batch and total > REPLAY_BYTES:
            break
        batch.append(dead_id)
    return batch
