"""The categories and names that events have had: where free text is looked for.

Looking through the events themselves would read all of them for a text that few have. There are few kinds as a rule;
where a sender makes up names without end, the first MAX_KINDS are known.
"""

from collections.abc import Iterable
from threading import Lock
from typing import Any

import psycopg

MAX_KINDS = 10_000

Kind = tuple[str, str]


class KindsSeen:
    """The kinds that a process has told the store of; used from several threads."""

    def __init__(self) -> None:
        self._told: set[Kind] = set()
        self._lock = Lock()

    def new(self, kinds: Iterable[Kind]) -> set[Kind]:
        """Leave out those that were told of; none are left once there are too many to tell of."""
        return set(kinds) - self._told if len(self._told) < MAX_KINDS else set()

    def tell(self, connection: psycopg.Connection[Any], kinds: set[Kind]) -> None:
        """Tell the store. Raises psycopg.Error; then they stay new."""
        # Sorted, so that two processes with the same kinds wait for each other instead of deadlocking.
        categories, names = zip(*sorted(kinds), strict=True)
        connection.execute(
            """INSERT INTO event_kinds (category, name)
               SELECT * FROM unnest(%s::text[], %s::text[])
                WHERE (SELECT count(*) FROM event_kinds) < %s
               ON CONFLICT DO NOTHING""",
            (list(categories), list(names), MAX_KINDS),
        )
        with self._lock:
            self._told |= kinds


async def kinds_with(connection: psycopg.AsyncConnection[Any], text: str, limit: int) -> list[Kind]:
    """List up to ``limit`` kinds whose category or name has ``text`` in it, in whatever case."""
    pattern = f"%{text.translate(_LIKE)}%"
    cursor = await connection.execute(
        """SELECT category, name FROM event_kinds
            WHERE category COLLATE "default" ILIKE %(pattern)s OR name COLLATE "default" ILIKE %(pattern)s
            ORDER BY category, name LIMIT %(limit)s""",
        {"pattern": pattern, "limit": limit},
    )
    return await cursor.fetchall()


_LIKE = str.maketrans({"\\": r"\\", "%": r"\%", "_": r"\_"})
