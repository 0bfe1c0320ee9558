"""Reading events: one, or pages of a list, ordered by time and id with the position of the last row as the cursor.

No page counts or skips rows: each costs the same, however deep it is and however large the table.
"""

import base64
import contextlib
import hashlib
import re
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

from the_eye.store.event_kinds import Kind, kinds_with
from the_eye.telemetry import telemetry

MAX_LIMIT = 200
DEFAULT_LIMIT = 50

MAX_PAGE_BYTES = 4 * 1024 * 1024
"""Payload bytes of a page, beyond one event's own; bounds a reader's memory."""

SAME_ID = 10
"""How many events of one id are looked at: a sender may have given it at several times."""

MAX_TEXT_KINDS = 50
"""Kinds that a query names for a text: of a text that more kinds have, enough events are found on the way."""

_ID_START = re.compile(r"[0-9a-f]{8,32}")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CURSOR = struct.Struct(">Bq16s8s")
_CURSOR_VERSION = 1

Connection = psycopg.AsyncConnection[Any]


class CursorError(Exception):
    """Raised for a cursor that no list has given."""


class CursorMismatchError(CursorError):
    """Raised for a cursor that a list with another filter has given."""


class TextMatch(msgspec.Struct, frozen=True):
    """Events whose category, name, id or session has something in it, as it was looked up for a query."""

    kinds: tuple[Kind, ...] | None
    """Categories and names that have the text; None when they are too many to name."""
    text: str
    """What to look for in each event where they are too many."""
    ids: tuple[UUID, UUID] | None
    """The first and the last id that begins with the text, when it is the beginning of one."""


async def find_text(connection: Connection, text: str) -> TextMatch:
    """Look up what a text may mean."""
    kinds = await kinds_with(connection, text, MAX_TEXT_KINDS + 1)
    return TextMatch(tuple(kinds) if len(kinds) <= MAX_TEXT_KINDS else None, text, _ids(text))


def _ids(text: str) -> tuple[UUID, UUID] | None:
    digits = text.replace("-", "").lower()
    if not _ID_START.fullmatch(digits):
        return None
    return UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events to list, and in which order; what is None does not matter."""

    application_id: int | None = None
    session_id: UUID | None = None
    category: str | None = None
    name: str | None = None
    valid: bool | None = None
    rule: str | None = None
    """A violated rule as ``namespace/name``."""
    text: TextMatch | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Not included."""
    oldest_first: bool = False

    def spans(self, timestamp: datetime) -> bool:
        """Whether ``timestamp`` lies between ``since`` and ``until``."""
        return not (self.since and timestamp < self.since) and not (self.until and timestamp >= self.until)

    def digest(self) -> bytes:
        """Tell this filter from others: 8 bytes. Of a text only itself counts: the kinds that have it may grow."""
        text = self.text and TextMatch(None, self.text.text, None)
        encoded = msgspec.msgpack.encode(msgspec.structs.replace(self, text=text))
        return hashlib.blake2b(encoded, digest_size=8).digest()


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
    trace_id: str | None
    """The W3C trace that it came with: 32 hexadecimal digits."""


class EventSummary(msgspec.Struct, frozen=True):
    """What a list shows of an event: no payload, which may be large."""

    event_id: UUID
    session_id: UUID
    application: str
    category: str
    name: str
    timestamp: datetime
    valid: bool
    violated_rules: list[str]


class SummaryPage(msgspec.Struct, frozen=True):
    """A page of a list of summaries."""

    events: list[EventSummary]
    next_cursor: str | None


class EventPage(msgspec.Struct, frozen=True):
    """A page of a list; it may be short of the limit and not the last."""

    events: list[StoredEvent]
    next_cursor: str | None
    """Where the next page begins; None on the last one."""


class _RawLoader(Loader):
    def load(self, data: Buffer) -> msgspec.Raw:
        return msgspec.Raw(bytes(data))


_APPLICATION = "coalesce((SELECT a.name FROM applications a WHERE a.id = e.application_id), '') AS application"
_COLUMNS = f"""e.event_id, e.session_id, {_APPLICATION},
       e.category, e.name, e.data, e."timestamp", e.received_at, e.stored_at, e.valid,
       coalesce(e.violations, '[]') AS violations, 'sha256:' || encode(e.ruleset, 'hex') AS ruleset,
       replace(e.trace_id::text, '-', '') AS trace_id"""

_SUMMARY_COLUMNS = f"""e.event_id, e.session_id, {_APPLICATION},
       e.category, e.name, e."timestamp", e.valid, coalesce(e.violated_rules, '{{}}') AS violated_rules"""


async def list_summaries(
    connection: Connection, filter_: EventFilter, position: Position | None = None, limit: int = DEFAULT_LIMIT
) -> SummaryPage:
    """Read up to ``limit`` summaries from ``position`` on."""
    query, parameters = page_query(filter_, position, limit + 1, _SUMMARY_COLUMNS)
    with telemetry.statement(connection, "SELECT", "events"):
        async with psycopg.AsyncClientCursor(connection, row_factory=class_row(EventSummary)) as cursor:
            await cursor.execute(query.encode(), parameters)
            events = await cursor.fetchall()
    if len(events) <= limit:
        return SummaryPage(events, None)
    last = events[limit - 1]
    return SummaryPage(events[:limit], Position(last.timestamp, last.event_id).cursor(filter_))


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


def page_query(
    filter_: EventFilter, position: Position | None, rows: int, columns: str = _COLUMNS
) -> tuple[str, dict[str, Any]]:
    """Write the query of a page of ``rows`` events."""
    order = "ASC" if filter_.oldest_first else "DESC"
    conditions = list(conditions_of(filter_)) if position is None else list(_conditions_beyond(filter_))
    parameters = {**parameters_of(filter_), **(msgspec.structs.asdict(position) if position else {})}
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    # The number stands in the query: as a parameter the planner would not know that few rows are wanted.
    query = f"""SELECT {columns}
  FROM events e
 {where}
 ORDER BY e."timestamp" {order}, e.event_id {order} LIMIT {rows:d}"""  # noqa: S608 - constants, names of fields and a number
    return query, parameters


def parameters_of(filter_: EventFilter) -> dict[str, Any]:
    """Give the values that the conditions name."""
    parameters = msgspec.structs.asdict(filter_)
    match = parameters.pop("text")
    if match is not None:
        parameters["text"] = match.text
        parameters["first_id"], parameters["last_id"] = match.ids or (None, None)
        for number, kind in enumerate(match.kinds or ()):
            parameters[f"category_{number}"], parameters[f"name_{number}"] = kind
    return parameters


def conditions_of(filter_: EventFilter) -> Iterator[str]:
    """Write what the filter wants, for the table ``events e``."""
    for field in ("application_id", "session_id", "category", "name"):
        if getattr(filter_, field) is not None:
            yield f"e.{field} = %({field})s"
    if filter_.valid is not None:
        # That there are violated rules follows; said, it lets the planner use the indexes of those rows.
        yield "e.valid" if filter_.valid else "NOT e.valid AND e.violated_rules IS NOT NULL"
    if filter_.rule is not None:
        # Each index of violations says in its own way which rows it has; that they are not null goes without saying.
        yield "e.violated_rules @> ARRAY[%(rule)s::text] AND cardinality(e.violated_rules) > 0"
    if filter_.text is not None:
        yield f"({' OR '.join(_text_ways(filter_.text)) or 'false'})"
    if filter_.since is not None:
        yield 'e."timestamp" >= %(since)s'
    if filter_.until is not None:
        yield 'e."timestamp" < %(until)s'


def _text_ways(match: TextMatch) -> Iterator[str]:
    if match.ids is not None:
        yield "e.event_id BETWEEN %(first_id)s AND %(last_id)s"
        yield "e.session_id BETWEEN %(first_id)s AND %(last_id)s"
    if match.kinds is None:
        for column in ("category", "name"):
            yield f'strpos(lower(e.{column} COLLATE "default"), lower(%(text)s::text COLLATE "default")) > 0'
    for number in range(len(match.kinds or ())):
        yield f"e.category = %(category_{number})s AND e.name = %(name_{number})s"


def _conditions_beyond(filter_: EventFilter) -> Iterator[str]:
    """Begin after the last page.

    The bound on the time alone is what partitions are chosen by. The filter's own bound on that side goes: PostgreSQL
    18 takes the wrong one of the two for the start and walks from there.
    """
    sign, passed = (">", "since") if filter_.oldest_first else ("<", "until")
    yield from conditions_of(msgspec.structs.replace(filter_, **{passed: None}))
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


async def application_names(connection: Connection) -> list[str]:
    """List all applications' names."""
    cursor = await connection.execute("SELECT name FROM applications ORDER BY name")
    return [name for (name,) in await cursor.fetchall()]


async def first_timestamp(connection: Connection) -> datetime | None:
    """Tell when the oldest event occurred."""
    cursor = await connection.execute('SELECT e."timestamp" FROM events e ORDER BY e."timestamp" LIMIT 1')
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
