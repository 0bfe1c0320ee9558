"""A list as a file, read page by page: it holds no connection between them, and ends at a bound."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Iterable

import msgspec

from the_eye.store.connect import AsyncPool
from the_eye.store.event_query import MAX_LIMIT, EventFilter, Position, StoredEvent, list_events
from the_eye_api.queries import reading

MAX_EXPORT_EVENTS = 100_000
MAX_EXPORT_BYTES = 256 * 1024 * 1024

_COLUMNS = msgspec.structs.fields(StoredEvent)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


async def export(pool: AsyncPool, filter_: EventFilter, form: str, slots: asyncio.Semaphore) -> AsyncIterator[bytes]:
    """Give the newest events as NDJSON or CSV, up to MAX_EXPORT_EVENTS and about MAX_EXPORT_BYTES."""
    write = _csv if form == "csv" else _ndjson
    async with slots:
        if form == "csv":
            yield _lines([[field.name for field in _COLUMNS]])
        position, events, size = None, 0, 0
        while events < MAX_EXPORT_EVENTS and size < MAX_EXPORT_BYTES:
            async with reading(pool) as connection:
                page = await list_events(connection, filter_, position, MAX_LIMIT)
            chunk = await asyncio.to_thread(write, page.events)
            yield chunk
            events, size = events + len(page.events), size + len(chunk)
            if page.next_cursor is None:
                return
            position = Position.parse(page.next_cursor, filter_)


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
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode().strip('"')
    return f"'{text}" if text.startswith(_FORMULA) else text
