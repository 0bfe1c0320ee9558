"""Reading events: one, or pages of a list, ordered by time and id with the position of the last row as the cursor.

No page counts or skips rows: each costs the same, however deep it is and however large the table.
"""

import base64
import contextlib
import hashlib
import struct
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import UUID

import msgspec
import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.rows import class_row

from the_eye.telemetry import telemetry

MAX_LIMIT = 200
DEFAULT_LIMIT = 50

MAX_PAGE_BYTES = 4 * 1024 * 1024
"""Payload bytes of a page, beyond one event's own; bounds a reader's memory."""

SAME_ID = 10
"""How many events of one id are looked at: a sender may have given it at several times."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CURSOR = struct.Struct(">Bq16s8s")
_CURSOR_VERSION = 1

Connection = psycopg.AsyncConnection[Any]


class CursorError(Exception):
    """Raised for a cursor that no list has given."""


class CursorMismatchError(CursorError):
    """Raised for a cursor that a list with another filter has given."""


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events to list, and in which order; what is None does not matter."""

    application_id: int | None = None
    session_id: UUID | None = None
    category: str | None = None
    name: str | None = None
    valid: bool | None = None
    rule: str | None = None
    """A violated rule as ``namespace/name``."""
    since: datetime | None = None
    until: datetime | None = None
    """Not included."""
    oldest_first: bool = False

    def spans(self, timestamp: datetime) -> bool:
        """Whether ``timestamp`` lies between ``since`` and ``until``."""
        return not (self.since and timestamp < self.since) and not (self.until and timestamp >= self.until)

    def digest(self) -> bytes:
        """Tell this filter from others: 8 bytes."""
        return hashlib.blake2b(msgspec.msgpack.encode(self), digest_size=8).digest()


class Position(msgspec.Struct, frozen=True):
    """Where a page ended."""

    timestamp: datetime
    event_id: UUID

    def cursor(self, filter_: EventFilter) -> str:
        """Write this position as an opaque text that fits ``filter_`` alone."""
        microseconds = (self.timestamp - _EPOCH) // timedelta(microseconds=1)
        packed = _CURSOR.pack(_CURSOR_VERSION, microseconds, self.event_id.bytes, filter_.digest())
        return base64.urlsafe_b64encode(packed).decode()

    @classmethod
    def parse(cls, cursor: str, filter_: EventFilter) -> Self:
        """Read what ``cursor`` wrote.

        Raises CursorError, and CursorMismatchError when it was written for another filter.
        """
        try:
            packed = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
            version, microseconds, event_id, digest = _CURSOR.unpack(packed)
            position = cls(_EPOCH + timedelta(microseconds=microseconds), UUID(bytes=event_id))
        except (ValueError, struct.error, OverflowError) as error:
            raise CursorError from error
        if version != _CURSOR_VERSION or not filter_.spans(position.timestamp):
            raise CursorError
        if digest != filter_.digest():
            raise CursorMismatchError
        return position


class StoredEvent(msgspec.Struct, frozen=True):
    """An event with its verdict."""

    event_id: UUID
    session_id: UUID
    application: str
    category: str
    name: str
    data: msgspec.Raw
    """The sender's JSON object, byte for byte."""
    timestamp: datetime
    received_at: datetime
    stored_at: datetime
    valid: bool
    violations: msgspec.Raw
    """A JSON array of violations; those of rules that only audit leave the event valid."""
    ruleset: str
    """Revision of the ruleset that judged the event: ``sha256:`` and 64 hexadecimal digits."""


class EventPage(msgspec.Struct, frozen=True):
    """A page of a list; it may be short of the limit and not the last."""

    events: list[StoredEvent]
    next_cursor: str | None
    """Where the next page begins; None on the last one."""


class _RawLoader(Loader):
    def load(self, data: Buffer) -> msgspec.Raw:
        return msgspec.Raw(bytes(data))


_COLUMNS = """e.event_id, e.session_id,
       coalesce((SELECT a.name FROM applications a WHERE a.id = e.application_id), '') AS application,
       e.category, e.name, e.data, e."timestamp", e.received_at, e.stored_at, e.valid,
       coalesce(e.violations, '[]') AS violations, 'sha256:' || encode(e.ruleset, 'hex') AS ruleset"""


async def list_events(
    connection: Connection, filter_: EventFilter, position: Position | None = None, limit: int = DEFAULT_LIMIT
) -> EventPage:
    """Read up to ``limit`` events from ``position`` on, or as many as MAX_PAGE_BYTES holds."""
    query, parameters = page_query(filter_, position, limit + 1)
    events: list[StoredEvent] = []
    size = 0
    async with contextlib.aclosing(_stream(connection, query, parameters)) as rows:
        async for event in rows:
            size += memoryview(event.data).nbytes
            if events and (len(events) == limit or size > MAX_PAGE_BYTES):
                last = events[-1]
                return EventPage(events, Position(last.timestamp, last.event_id).cursor(filter_))
            events.append(event)
    return EventPage(events, None)


def page_query(filter_: EventFilter, position: Position | None, rows: int) -> tuple[str, dict[str, Any]]:
    """Write the query of a page of ``rows`` events."""
    order = "ASC" if filter_.oldest_first else "DESC"
    conditions = list(_conditions(filter_)) if position is None else list(_conditions_beyond(filter_))
    parameters = {**msgspec.structs.asdict(filter_), **(msgspec.structs.asdict(position) if position else {})}
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    # The number stands in the query: as a parameter the planner would not know that few rows are wanted.
    query = f"""SELECT {_COLUMNS}
  FROM events e
 {where}
 ORDER BY e."timestamp" {order}, e.event_id {order} LIMIT {rows:d}"""  # noqa: S608 - constants, names of fields and a number
    return query, parameters


def _conditions(filter_: EventFilter) -> Iterator[str]:
    for field in ("application_id", "session_id", "category", "name"):
        if getattr(filter_, field) is not None:
            yield f"e.{field} = %({field})s"
    if filter_.valid is not None:
        # That there are violated rules follows; said, it lets the planner use the indexes of those rows.
        yield "e.valid" if filter_.valid else "NOT e.valid AND e.violated_rules IS NOT NULL"
    if filter_.rule is not None:
        # Each index of violations says in its own way which rows it has; that they are not null goes without saying.
        yield "e.violated_rules @> ARRAY[%(rule)s::text] AND cardinality(e.violated_rules) > 0"
    if filter_.since is not None:
        yield 'e."timestamp" >= %(since)s'
    if filter_.until is not None:
        yield 'e."timestamp" < %(until)s'


def _conditions_beyond(filter_: EventFilter) -> Iterator[str]:
    """Begin after the last page.

    The bound on the time alone is what partitions are chosen by. The filter's own bound on that side goes: PostgreSQL
    18 takes the wrong one of the two for the start and walks from there.
    """
    sign, passed = (">", "since") if filter_.oldest_first else ("<", "until")
    yield from _conditions(msgspec.structs.replace(filter_, **{passed: None}))
    yield f'e."timestamp" {sign}= %(timestamp)s AND (e."timestamp", e.event_id) {sign} (%(timestamp)s, %(event_id)s)'


async def read_event(connection: Connection, event_id: UUID, application_id: int | None = None) -> StoredEvent | None:
    """Read an event, of one application or of any; of several with this id, the latest."""
    events = [event async for event in _stream(connection, *event_query(event_id, application_id))]
    return max(events, key=lambda event: event.timestamp, default=None)


def event_query(event_id: UUID, application_id: int | None) -> tuple[str, dict[str, Any]]:
    """Write the query of the events that have an id: unordered, or the planner would walk the order it is asked for."""
    scope = "" if application_id is None else " AND e.application_id = %(application_id)s"
    query = f"SELECT {_COLUMNS}\n  FROM events e\n WHERE e.event_id = %(event_id)s{scope} LIMIT {SAME_ID}"  # noqa: S608
    return query, {"event_id": event_id, "application_id": application_id}


async def find_application(connection: Connection, name: str) -> int | None:
    """Find an application's id."""
    with telemetry.statement(connection, "SELECT", "applications"):
        cursor = await connection.execute("SELECT id FROM applications WHERE name = %s", (name,))
        row = await cursor.fetchone()
    return row[0] if row else None


async def _stream(connection: Connection, query: str, parameters: dict[str, Any]) -> AsyncGenerator[StoredEvent]:
    """Read row by row, and so never more than is wanted.

    Streams are not prepared, which suits: a plan for any values would be a bad one for most.
    """
    with telemetry.statement(connection, "SELECT", "events"):
        async with connection.cursor(row_factory=class_row(StoredEvent)) as cursor:
            cursor.adapters.register_loader("json", _RawLoader)
            cursor.adapters.register_loader("jsonb", _RawLoader)
            async for event in cursor.stream(query.encode(), parameters):
                yield event
