"""Reading stored events back to judge them again: page by page, newest first, each page a statement of its own.

No transaction spans pages: one that did would keep ``the-eye maintain`` from its locks, and VACUUM from its work, for
as long as the reading takes. The order is that of the primary key, backwards, and a page begins after the last row of
the one before; so it costs the same however deep it is.
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import psycopg
from psycopg import pq
from psycopg.abc import Buffer
from psycopg.adapt import Loader

from the_eye.event import Event
from the_eye.rules.manifest import Match
from the_eye.rules.match import Index, is_glob
from the_eye.verdict import Verdict, Violation

PAGE_EVENTS = 500
PAGE_BYTES = 4 * 1024 * 1024
"""What a page holds, beyond one event's own size."""

FETCHED_ROWS = 50
"""Rows that come from the server at once: 50 MiB when all are as large as an event can be."""

AnyConnection = psycopg.Connection[Any]


class Window(msgspec.Struct, frozen=True):
    """A range of the events' own time: what the partitions and all indexes go by, as ``from`` and ``to`` of the API.

    An event belongs to when it occurred, however late it came.
    """

    since: datetime
    until: datetime
    """Not included."""


class Key(NamedTuple):
    """What makes an event the same event, in the order of the primary key."""

    timestamp: datetime
    event_id: UUID
    application_id: int


class PastEvent(msgspec.Struct, frozen=True):
    """A stored event with the verdict it has now."""

    event: Event
    valid: bool
    violations: tuple[Violation, ...]
    ruleset: bytes
    """SHA-256 of the ruleset that gave the verdict."""
    row_version: str
    """PostgreSQL's ``xmin``: another one after any change of the row."""

    @property
    def key(self) -> Key:
        """Its place in the order of pages."""
        return Key(self.event.timestamp, self.event.event_id, self.event.application_id)

    def violates(self, rule: str) -> bool:
        """Whether a violation of ``rule`` is stored."""
        return any(violation.rule == rule for violation in self.violations)

    def has(self, verdict: Verdict) -> bool:
        """Whether it is stored with this very verdict."""
        return self.valid == verdict.valid and self.violations == verdict.violations


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which events are read: those that may match a rule, those that have violated one, or both.

    What an index can find is left to PostgreSQL. The rest of a glob is for the caller to match, who does it as the
    worker does: some of the events that are read do not match.
    """

    match: Match | None = None
    application_ids: tuple[int, ...] | None = None
    """The applications that ``match`` is for; None for all."""
    violated: str | None = None
    """A rule as ``namespace/name``, of which a violation is stored."""


class Page(msgspec.Struct, frozen=True):
    """Some events, and whether there may be more after the last of them."""

    events: list[PastEvent]
    more: bool


class _Matched(msgspec.Struct, frozen=True):
    match: Match


def select_events(connection: AnyConnection, match: Match | None, violated: str | None = None) -> Selection:
    """Choose the events that may match, or that have violated a rule; the applications are looked up by their names."""
    ids = _application_ids(connection, match.applications) if match and match.applications else None
    return Selection(match=match, application_ids=ids, violated=violated)


def _application_ids(connection: AnyConnection, patterns: tuple[str, ...]) -> tuple[int, ...]:
    rows = connection.execute("SELECT id, name FROM applications ORDER BY id").fetchall()
    find = Index([_Matched(Match(applications=patterns))]).find
    return tuple(application_id for application_id, name in rows if find("", "", name))


@contextmanager
def reading(connection: AnyConnection, seconds: float) -> Iterator[None]:
    """Open a transaction that cannot write, sees one state of the store, and whose statements end after ``seconds``.

    Raises psycopg.errors.QueryCanceled for one that takes longer.
    """
    with connection.transaction():
        milliseconds = max(1, math.ceil(seconds * 1000))
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.execute(f"SET LOCAL statement_timeout = {milliseconds:d}")
        yield


def read_page(
    connection: AnyConnection, selection: Selection, window: Window, after: Key | None, rows: int = PAGE_EVENTS
) -> Page:
    """Read up to ``rows`` events older than ``after``, or as many as PAGE_BYTES holds. Needs a transaction."""
    query, parameters = page_query(selection, window, after, rows)
    events: list[PastEvent] = []
    size = 0
    # A server-side cursor: it can stop short of its last row without making the transaction fail, as cancelling would.
    with connection.cursor("past_events") as cursor:
        cursor.itersize = FETCHED_ROWS
        cursor.adapters.register_loader("json", _BytesLoader)
        cursor.execute(query.encode(), parameters, binary=True)
        for row in cursor:
            past = _past_event(row)
            size += len(past.event.data)
            if events and size > PAGE_BYTES:
                return Page(events, more=True)
            events.append(past)
    return Page(events, more=len(events) == rows)


class _BytesLoader(Loader):
    format = pq.Format.BINARY

    def load(self, data: Buffer) -> bytes:
        return bytes(data)


_COLUMNS = """e."timestamp", e.event_id, e.application_id, e.session_id, e.category, e.name, e.data, e.received_at,
       coalesce((SELECT a.name FROM applications a WHERE a.id = e.application_id), '') AS application,
       e.valid, coalesce(e.violations, '[]') AS violations, e.ruleset, e.xmin::text AS row_version"""
_KEY = 'e."timestamp", e.event_id, e.application_id'


def _past_event(row: tuple[Any, ...]) -> PastEvent:
    timestamp, event_id, application_id, session_id, category, name, data, received_at, application = row[:9]
    valid, violations, ruleset, row_version = row[9:]
    return PastEvent(
        Event(
            event_id=event_id,
            application_id=application_id,
            application=application,
            session_id=session_id,
            category=category,
            name=name,
            data=data,
            timestamp=timestamp,
            received_at=received_at,
        ),
        valid,
        msgspec.convert(violations, tuple[Violation, ...]),
        ruleset,
        row_version,
    )


def page_query(selection: Selection, window: Window, after: Key | None, rows: int) -> tuple[str, dict[str, Any]]:
    """Write the query of a page.

    Of each way to choose events an index gives the first ``rows`` in order. Those of two ways are put together by
    their keys: leaving out of one what the other has would walk through all that both have, anew for each page.
    """
    ways, place = list(_ways(selection)), " AND ".join(_place(after))
    query = _in_order(_COLUMNS, f"{place} AND {ways[0]}", rows) if len(ways) == 1 else _together(ways, place, rows)
    return query, {**_parameters(selection), **msgspec.structs.asdict(window), **(after._asdict() if after else {})}


def _in_order(columns: str, where: str, rows: int) -> str:
    return f"""SELECT {columns}
  FROM events e
 WHERE {where}
 ORDER BY e."timestamp" DESC, e.event_id DESC, e.application_id DESC LIMIT {rows:d}"""  # noqa: S608 - constants and a number


def _together(ways: list[str], place: str, rows: int) -> str:
    keys = " UNION ".join(f"({_in_order(_KEY, f'{place} AND {way}', rows)})" for way in ways)
    return f"""SELECT {_COLUMNS}
  FROM ({keys} ORDER BY 1 DESC, 2 DESC, 3 DESC LIMIT {rows:d}) chosen
  JOIN events e USING ("timestamp", event_id, application_id)
 WHERE {place}
 ORDER BY 1 DESC, 2 DESC, 3 DESC"""  # noqa: S608 - as above


def _place(after: Key | None) -> Iterator[str]:
    yield 'e."timestamp" >= %(since)s'
    if after is None:
        yield 'e."timestamp" < %(until)s'
        return
    # In place of the window's own end: of two bounds PostgreSQL 18 may walk from the wrong one.
    yield 'e."timestamp" <= %(timestamp)s'
    yield '(e."timestamp", e.event_id, e.application_id) < (%(timestamp)s, %(event_id)s, %(application_id)s)'


def _ways(selection: Selection) -> Iterator[str]:
    if selection.match is not None:
        yield " AND ".join(_conditions(selection, selection.match)) or "true"
    if selection.violated is not None:
        # As in event_query: each index of violations says in its own way which rows it has.
        yield "e.violated_rules @> ARRAY[%(violated)s::text] AND cardinality(e.violated_rules) > 0"


def _conditions(selection: Selection, match: Match) -> Iterator[str]:
    for field in ("category", "name"):
        pattern = getattr(match, field)
        if not is_glob(pattern):
            yield f"e.{field} = %(match_{field})s"
        elif _literal_start(pattern):
            yield f"e.{field} ^@ %(match_{field})s"
    if selection.application_ids is not None:
        yield "e.application_id = ANY(%(application_ids)s)"


def _parameters(selection: Selection) -> dict[str, Any]:
    match = selection.match or Match()
    return {
        "match_category": _literal_start(match.category),
        "match_name": _literal_start(match.name),
        "application_ids": list(selection.application_ids or ()),
        "violated": selection.violated,
    }


_LITERAL_START = re.compile(r"[^*?\[]*")


def _literal_start(pattern: str) -> str:
    """What every text begins with that matches: all of it where the pattern is no glob."""
    start = _LITERAL_START.match(pattern)
    return start[0] if start else ""
