"""Events of past days, many millions of them: ``python -m tests.load.bench.filling URL DAY ROWS`` fills one day.

Rows come by ``COPY`` into a table without indexes, which are built afterwards, as many a restore does it.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import psycopg
from psycopg import sql
from tests.load.bench.processes import finish, python, start
from tests.load.bench.raw import COLUMNS, Rows, read_rows
from tests.load.bench.stores import Stores

from the_eye.store.partitions import list_partitions, partition_name

ROWS_A_DAY = 5_000_000
ROWS_A_PIECE = 10_000
AT_ONCE = 2
DAY_SECONDS = 900.0
"""The longest that filling in one day may take."""


def fill(stores: Stores, rows: int) -> None:
    """Fill the days before those that are there with ``rows`` events."""
    with stores.connect() as connection:
        newest = min(list_partitions(connection)) - timedelta(days=1)
    counts = [min(ROWS_A_DAY, rows - done) for done in range(0, rows, ROWS_A_DAY)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = [
            pool.submit(_fill_in_process, stores.database_url, newest - timedelta(days=back), count)
            for back, count in enumerate(counts)
        ]
        for job in jobs:
            job.result()
    if rows:
        with stores.connect() as connection:
            connection.execute("ANALYZE events")


def _fill_in_process(url: str, day: date, rows: int) -> None:
    finish([start([*python("filling"), url, str(day), str(rows)])], DAY_SECONDS)


def fill_day(url: str, day: date, rows: int) -> None:
    """Make the partition of ``day`` with ``rows`` events, evenly over the day."""
    name = partition_name(day)
    first, step = datetime(day.year, day.month, day.day, tzinfo=UTC), timedelta(days=1) / rows
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET maintenance_work_mem = '512MB'")
        table = sql.Identifier(name)
        options = sql.SQL("INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STATISTICS INCLUDING STORAGE")
        connection.execute(sql.SQL("CREATE TABLE {} (LIKE events {})").format(table, options))
        made = Rows(read_rows(connection))
        into_table = f"COPY {name} ({COLUMNS}) FROM STDIN (FORMAT BINARY, FREEZE)"
        with connection.transaction():
            connection.execute(sql.SQL("TRUNCATE {}").format(table))
            for done in range(0, rows, ROWS_A_PIECE):
                with connection.cursor().copy(into_table.encode()) as copy:
                    copy.write(made.transaction(min(ROWS_A_PIECE, rows - done), first + done * step, step))
        _index(connection, name)
        attach = sql.SQL("ALTER TABLE events ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})")
        connection.execute(attach.format(table, str(first), str(first + timedelta(days=1))))


def _index(connection: psycopg.Connection, name: str) -> None:
    """Build the indexes that the other partitions have, so that attaching takes them as they are."""
    found = connection.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'events_default'").fetchall()
    for (definition,) in found:
        connection.execute(definition.replace("events_default", name).encode())
    key = sql.Identifier(f"{name}_pkey")
    add = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} PRIMARY KEY USING INDEX {}")
    connection.execute(add.format(sql.Identifier(name), key, key))


if __name__ == "__main__":
    fill_day(sys.argv[1], date.fromisoformat(sys.argv[2]), int(sys.argv[3]))
