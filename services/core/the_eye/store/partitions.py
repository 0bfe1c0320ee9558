"""Daily partitions of ``events``: made ahead, dropped when the retention has passed.

``DETACH PARTITION CONCURRENTLY`` is not to be had beside a default partition, so each step locks more than one would
like, for milliseconds: it gives up after LOCK_SECONDS, so that nothing queues behind it for longer, and tries again.
"""

import random
import re
import time
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import msgspec
import psycopg
from psycopg import sql

from the_eye.settings import RetentionSettings

LOCK_SECONDS = 0.5
ATTEMPTS = 60
PAUSE_SECONDS = (0.2, 1.0)
"""Pause between attempts, at random so that two that collided do not collide again."""

DELETE_BLOCKS = 1_000
"""Pages of the default partition that one transaction looks through."""

ADVISORY_LOCK = 0x7468652D657965
"""Held by every step, so that two maintenances at once do each thing once; and by whoever changes verdicts, shared."""

AnyConnection = psycopg.Connection[Any]
T = TypeVar("T")

_PARTITION = re.compile(r"events_p(\d{4})(\d{2})(\d{2})")


class Created(msgspec.Struct, frozen=True):
    """A partition was made."""

    day: date
    moved: int
    """Events of that day which had gone to the default partition before."""

    def __str__(self) -> str:
        return f"created {partition_name(self.day)}" + (f", moved {self.moved} events into it" if self.moved else "")


class Dropped(msgspec.Struct, frozen=True):
    """A partition was dropped with its events."""

    day: date

    def __str__(self) -> str:
        return f"dropped {partition_name(self.day)}"


class Deleted(msgspec.Struct, frozen=True):
    """Events were deleted from the default partition."""

    rows: int

    def __str__(self) -> str:
        return f"deleted {self.rows} events of days without a partition"


Step = Created | Dropped | Deleted


class MaintenanceError(Exception):
    """Raised when a step could not get its locks in all its attempts; the steps before it stay done."""


def maintain(connection: AnyConnection, settings: RetentionSettings, now: datetime) -> Iterator[Step]:
    """Make and drop partitions and tell each step once it is done; with nothing to do, nothing is told.

    ``now`` is the database's clock. Raises MaintenanceError.
    """
    today = now.date()
    # Any number of days may be set to keep events for good, more than a calendar has too.
    kept = timedelta(days=min(settings.retention_days, today.toordinal() - 2))
    oldest = today - kept
    existing = list_partitions(connection)
    yield from _create(connection, _missing(existing, oldest, today, settings.partitions_ahead_days))
    for day in existing:
        if day < oldest and _attempt(connection, f"drop {partition_name(day)}", partial(drop, connection, day)):
            yield Dropped(day)
    deleted = sum(_delete_strays(connection, now - kept))
    if deleted:
        yield Deleted(deleted)


def clock(connection: AnyConnection) -> datetime:
    """Read the database's clock, in UTC."""
    return connection.execute("SELECT now()").fetchall()[0][0]  # type: ignore[no-any-return]


def partition_name(day: date) -> str:
    """Name the partition of a UTC day."""
    return f"events_p{day:%Y%m%d}"


def list_partitions(connection: AnyConnection) -> list[date]:
    """List the days that have a partition, oldest first."""
    rows = connection.execute(
        """SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = 'events'::regclass"""
    )
    matches = (_PARTITION.fullmatch(name) for (name,) in rows)
    return sorted(date(*map(int, match.groups())) for match in matches if match)


def _missing(existing: list[date], oldest: date, today: date, ahead: int) -> list[date]:
    """List the days to make: also those that a maintenance that came late has left out."""
    first = max(oldest, min([today - timedelta(days=1), *existing]))
    days = (first + timedelta(days=offset) for offset in range((today - first).days + ahead + 1))
    return sorted(set(days).difference(existing))


def _create(connection: AnyConnection, days: list[date]) -> Iterator[Created]:
    for day in days:
        moved = _attempt(connection, f"create {partition_name(day)}", partial(create, connection, day))
        if moved is not None:
            yield Created(day, moved)


def _attempt(connection: AnyConnection, what: str, step: Callable[[], T]) -> T:
    for _ in range(ATTEMPTS):
        try:
            with connection.transaction():
                connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(int(LOCK_SECONDS * 1000)))
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
                return step()
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            time.sleep(random.uniform(*PAUSE_SECONDS))  # noqa: S311 - no secret
    message = (
        f"cannot {what}: after {ATTEMPTS} attempts something still held events locked, such as a long query or a dump"
    )
    raise MaintenanceError(message)


def create(connection: AnyConnection, day: date) -> int | None:
    """Make a day's partition and move the day's events from the default partition into it; count them.

    Returns None when there is such a partition already.
    """
    if day in list_partitions(connection):
        return None
    names = {
        "partition": sql.Identifier(partition_name(day)),
        "first": sql.Literal(f"{day}T00:00:00Z"),
        "end": sql.Literal(f"{day + timedelta(days=1)}T00:00:00Z"),
    }
    connection.execute(sql.SQL("CREATE TABLE {partition} (LIKE events INCLUDING ALL)").format(**names))
    # Writers wait: one that had chosen the default partition before would find that it no longer takes the day.
    connection.execute("LOCK TABLE events IN SHARE ROW EXCLUSIVE MODE")
    connection.execute("LOCK TABLE events_default IN ACCESS EXCLUSIVE MODE")
    moved = connection.execute(
        sql.SQL(
            """WITH moved AS (DELETE FROM events_default
                               WHERE "timestamp" >= {first} AND "timestamp" < {end} RETURNING *)
               INSERT INTO {partition} SELECT * FROM moved"""
        ).format(**names)
    )
    connection.execute(
        sql.SQL("ALTER TABLE events ATTACH PARTITION {partition} FOR VALUES FROM ({first}) TO ({end})").format(**names)
    )
    return moved.rowcount


def drop(connection: AnyConnection, day: date) -> bool:
    """Drop a day's partition with its events and the verdicts they had before; false when it is gone already."""
    if day not in list_partitions(connection):
        return False
    # First, while nobody waits for the locks of the rest.
    connection.execute(
        """DELETE FROM revised_verdicts WHERE "timestamp" >= %s AND "timestamp" < %s""",
        (f"{day}T00:00:00Z", f"{day + timedelta(days=1)}T00:00:00Z"),
    )
    connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(partition_name(day))))
    return True


def _delete_strays(connection: AnyConnection, before: datetime) -> Iterator[int]:
    """Delete from the default partition what was stored before a time, a range of pages at a time."""
    size = "SELECT pg_relation_size('events_default') / current_setting('block_size')::integer"
    blocks = connection.execute(size).fetchall()[0][0]
    for first in range(0, blocks, DELETE_BLOCKS):
        yield _attempt(connection, "delete from events_default", partial(_delete_range, connection, first, before))


def _delete_range(connection: AnyConnection, first: int, before: datetime) -> int:
    """Delete events with the verdicts they had before; count the events."""
    deleted = connection.execute(
        """WITH gone AS (DELETE FROM events_default WHERE ctid >= %s::tid AND ctid < %s::tid AND stored_at < %s
                         RETURNING "timestamp", event_id, application_id),
                theirs AS (DELETE FROM revised_verdicts USING gone
                            WHERE revised_verdicts."timestamp" = gone."timestamp"
                              AND revised_verdicts.event_id = gone.event_id
                              AND revised_verdicts.application_id = gone.application_id)
           SELECT count(*) FROM gone""",
        (f"({first},0)", f"({first + DELETE_BLOCKS},0)", before),
    )
    return deleted.fetchall()[0][0]  # type: ignore[no-any-return]
