"""Events as they are stored: what came since the last look."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from psycopg.rows import class_row

LOOK_EVENTS = 500
"""Events that one look gives at most, the newest; of the others it is told how many there are."""

OVERLAP = timedelta(seconds=3)
"""``stored_at`` is when a transaction began: what is committed within this after it is not missed."""

Connection = psycopg.AsyncConnection[Any]


class NewEvent(msgspec.Struct, frozen=True):
    """A summary of an event that was stored just now."""

    event_id: UUID
    session_id: UUID
    application_id: int
    application: str
    category: str
    name: str
    timestamp: datetime
    stored_at: datetime
    valid: bool
    violated_rules: list[str]


class NewEvents(msgspec.Struct, frozen=True):
    """What a look found."""

    events: list[NewEvent]
    """Oldest first, none that an earlier look gave."""
    left_out: int


_Key = tuple[datetime, UUID, int]


class Watch:
    """Looks for new events, again and again."""

    def __init__(self) -> None:
        self._since: datetime | None = None
        self._given: dict[_Key, datetime] = {}
        """When those were stored that a look gave and the next would find once more."""

    async def look(self, connection: Connection) -> NewEvents:
        """Read what was stored since the last look; the first one only begins. Raises psycopg.Error."""
        if self._since is None:
            cursor = await connection.execute("SELECT now()")
            (self._since,) = (await cursor.fetchall())[0]
            return NewEvents([], 0)
        after = self._since - OVERLAP
        rows = await _read(connection, after, self._since)
        new = [row for row in rows if row.key not in self._given]
        left_out = rows[0].newer - sum(row.stored_at > self._since for row in rows) if rows else 0
        self._given.update({row.key: row.stored_at for row in new})
        self._since = max([self._since, *(row.stored_at for row in new)])
        self._given = {key: at for key, at in self._given.items() if at > self._since - OVERLAP}
        return NewEvents([msgspec.convert(row, NewEvent, from_attributes=True) for row in reversed(new)], left_out)


class _Row(NewEvent, frozen=True, kw_only=True):
    newer: int
    """How many there are beyond the last look, whether or not they are given."""

    @property
    def key(self) -> _Key:
        return (self.timestamp, self.event_id, self.application_id)


async def _read(connection: Connection, after: datetime, since: datetime) -> list[_Row]:
    query = f"""SELECT e.event_id, e.session_id, e.application_id,
       coalesce((SELECT a.name FROM applications a WHERE a.id = e.application_id), '') AS application,
       e.category, e.name, e."timestamp", e.stored_at, e.valid, coalesce(e.violated_rules, '{{}}') AS violated_rules,
       count(*) FILTER (WHERE e.stored_at > %(since)s) OVER () AS newer
  FROM events e
 WHERE e.stored_at > %(after)s
 ORDER BY e.stored_at DESC, e."timestamp" DESC LIMIT {LOOK_EVENTS:d}"""  # noqa: S608 - constants and a number
    async with psycopg.AsyncClientCursor(connection, row_factory=class_row(_Row)) as cursor:
        await cursor.execute(query.encode(), {"after": after, "since": since})
        return await cursor.fetchall()
