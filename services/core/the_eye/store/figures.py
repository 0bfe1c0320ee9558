"""What the store tells of itself, for whoever watches it."""

from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta

import msgspec

from the_eye.store.connect import Connection
from the_eye.store.partitions import list_partitions


class StoreFigures(msgspec.Struct, frozen=True):
    """All there is to tell."""

    dead: Mapping[str, int]
    """Rows of ``dead_events`` by their kind."""
    partitions_until: datetime | None
    """End of the last daily partition; None while there is none."""
    bytes: int
    """Size of the database on disk."""
    connections: Mapping[str, int]
    """Clients by ``state`` of ``pg_stat_activity``; ``unknown`` where this user may not see it."""


def read_figures(connection: Connection) -> StoreFigures:
    """Ask for all figures. Raises psycopg.Error."""
    dead = connection.execute("SELECT kind, count(*) FROM dead_events GROUP BY kind").fetchall()
    days = list_partitions(connection)
    ((size,),) = connection.execute("SELECT pg_database_size(current_database())").fetchall()
    clients = connection.execute(
        """SELECT coalesce(state, 'unknown'), count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND backend_type = 'client backend' GROUP BY 1"""
    ).fetchall()
    return StoreFigures(
        dead={"event": 0, "message": 0, **dict(dead)},
        partitions_until=datetime.combine(days[-1] + timedelta(days=1), time(), UTC) if days else None,
        bytes=size,
        connections=dict(clients),
    )
