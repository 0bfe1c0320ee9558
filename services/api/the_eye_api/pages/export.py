"""A list as a file, read page by page: it holds no connection between them, and ends at a bound.

A file that was cut there ends with a line that is no event and says where the rest is. Nothing but the file itself can
tell: whoever gave a header or a name would have to read all events before the first one is sent.
"""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Callable, Iterable

import msgspec

from the_eye.store.connect import AsyncPool
from the_eye.store.event_query import MAX_LIMIT, EventFilter, Position, StoredEvent, list_events
from the_eye_api.queries import reading

MAX_EXPORT_EVENTS = 100_000
MAX_EXPORT_BYTES = 256 * 1024 * 1024

_COLUMNS = msgspec.structs.fields(StoredEvent)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Cut(msgspec.Struct, frozen=True):
    """How a file was cut."""

    events: int
    """How many it has."""
    next: str
    """The URL of the file that goes on where it ends."""


class _CutLine(msgspec.Struct, frozen=True):
    cut: Cut


class Wanted(msgspec.Struct, frozen=True):
    """What a file is to have."""

    filter: EventFilter
    position: Position | None
    """Where it begins; None is with the newest event."""
    form: str
    """``ndjson`` or ``csv``."""
    url_of: Callable[[str], str]
    """Gives the URL of the file that goes on from a cursor."""


async def export(pool: AsyncPool, wanted: Wanted, slots: asyncio.Semaphore) -> AsyncIterator[bytes]:
    """Give the events, up to MAX_EXPORT_EVENTS and about MAX_EXPORT_BYTES."""
    form, position = wanted.form, wanted.position
    write = _csv if form == "csv" else _ndjson
    async with slots:
        if form == "csv":
            yield _lines([[field.name for field in _COLUMNS]])
        events, size = 0, 0
        while True:
            async with reading(pool) as connection:
                page = await list_events(connection, wanted.filter, position, MAX_LIMIT)
            chunk = await asyncio.to_thread(write, page.events)
            yield chunk
            events, size = events + len(page.events), size + len(chunk)
            if page.next_cursor is None:
                return
            if events >= MAX_EXPORT_EVENTS or size >= MAX_EXPORT_BYTES:
                yield _last_line(form, Cut(events, wanted.url_of(page.next_cursor)))
                return
            position = Position.parse(page.next_cursor, wanted.filter)


def _last_line(form: str, cut: Cut) -> bytes:
    if form == "csv":
        return _lines([[f"# cut after {cut.events} events; the next: {cut.next}"]])
    return msgspec.json.encode(_CutLine(cut)) + b"\n"


def _ndjson(events: Iterable[StoredEvent]) -> bytes:
    # A sender's JSON may have line breaks between its tokens, which a line of NDJSON has not.
    return b"".join(msgspec.json.format(msgspec.json.encode(event), indent=-1) + b"\n" for event in events)


def _csv(events: Iterable[StoredEvent]) -> bytes:
    return _lines([_cell(getattr(event, field.name)) for field in _COLUMNS] for event in events)


def _lines(rows: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cell(value: object) -> str:
    """Write a value so that no spreadsheet takes it for a formula."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode().strip('"')
    return f"'{text}" if text.startswith(_FORMULA) else text
