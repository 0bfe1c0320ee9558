"""The limits of the stores: the same rows by ``COPY`` alone, the same messages by Valkey's script alone.

Run as ``python -m tests.load.bench.raw`` with ``copy URL SECONDS`` or ``copy-encoded URL SECONDS``, which take rows
from the table that ``prepare`` makes, or with ``valkey URL SECONDS EVENTS`` for messages of so many events.
"""

import os
import struct
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psycopg
import uuid_utils
from psycopg import sql
from psycopg.types.json import Jsonb
from tests.load.bench import events
from tests.load.bench.processes import finish, python, start
from tests.traffic import TYPES

from the_eye.event import Event
from the_eye.queue import EVENTS_QUEUE, EventBroker, QueuedEvent, events_message
from the_eye.rules.directory import RuleDirectory
from the_eye.settings import QueueSettings
from the_eye.store.events import Row, write_events
from the_eye_worker.storing import read_event

ROWS = 500
"""Rows of one transaction."""

SAMPLE = "bench_sample"
SLACK_SECONDS = 60.0

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_UNIX_MILLISECONDS = 946_684_800_000
COLUMNS = """"timestamp", event_id, received_at, stored_at, session_id, application_id, valid, category, name, data,
              ruleset, violations, violated_rules"""
_TIME_AT, _ID_AT, _RECEIVED_AT, _STORED_AT = 6, 18, 38, 50
"""Where the values of the first columns begin in a row of binary COPY: 2 bytes, then 4 bytes before each value."""


def prepare(connection: psycopg.Connection[Any], application_id: int, rules: Path) -> None:
    """Judge the benchmark's events and keep them as rows in a table of their own."""
    now = datetime.now(UTC)
    directory = RuleDirectory(rules, poll_seconds=1.0, future_tolerance=timedelta(minutes=5), on_change=lambda _: None)
    directory.load()
    rows: list[Row] = []
    for queued in queued_events(application_id, now):
        event = read_event(queued)
        assert isinstance(event, Event)
        rows.append(Row(event, directory.current.judge(event), directory.current.digest))
    with connection.transaction():
        write_events(connection, rows)
        connection.execute(sql.SQL("CREATE TABLE {} AS SELECT * FROM events").format(sql.Identifier(SAMPLE)))
        connection.execute("DELETE FROM events")


def queued_events(application_id: int, at: datetime) -> list[QueuedEvent]:
    """Make the benchmark's events as the edge queues them."""
    received = int(at.timestamp() * 1e6)
    return [
        QueuedEvent(UUID(bytes=uuid_utils.uuid7().bytes), application_id, "bench", received, events.whole(head, at))
        for head in events.heads()
    ]


def read_rows(connection: psycopg.Connection[Any]) -> list[bytearray]:
    """Read the prepared rows in the form of binary ``COPY``."""
    with connection.cursor().copy(f"COPY {SAMPLE} ({COLUMNS}) TO STDOUT (FORMAT BINARY)".encode()) as copy:
        chunks = [bytes(chunk) for chunk in copy]
    # The server sends a row at a time; the signature stands before the first.
    rows = (chunk.removeprefix(_SIGNATURE) for chunk in chunks)
    return [bytearray(row) for row in rows if row not in {b"", _END}]


class Rows:
    """Rows without end, each with an id of its own."""

    def __init__(self, rows: Sequence[bytearray]) -> None:
        self._rows = cycle(rows)

    def transaction(self, count: int, first: datetime, step: timedelta = timedelta(microseconds=1)) -> bytes:
        """Make what ``COPY`` takes for ``count`` rows whose times follow one another."""
        at, apart = ((time - _EPOCH) // timedelta(microseconds=1) for time in (first, _EPOCH + step))
        chance = os.urandom(10 * count)
        parts = [_SIGNATURE]
        for number, row in zip(range(count), self._rows, strict=False):
            when = at + number * apart
            for place in (_TIME_AT, _RECEIVED_AT, _STORED_AT):
                struct.pack_into("!q", row, place, when)
            milliseconds = when // 1_000 + _UNIX_MILLISECONDS
            row[_ID_AT : _ID_AT + 16] = milliseconds.to_bytes(6, "big") + chance[10 * number : 10 * number + 10]
            parts.append(bytes(row))
        return b"".join([*parts, _END])


COPY = f"COPY events ({COLUMNS}) FROM STDIN (FORMAT BINARY)".encode()


class Count(msgspec.Struct, frozen=True):
    """How much was written."""

    events: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Events a second."""
        return self.events / self.seconds


def copy_rate(url: str, connections: int, seconds: float, *, encoded: bool = False) -> float:
    """Copy transactions of ``ROWS`` rows into ``events`` on so many connections at once; events a second.

    psycopg encodes the rows as they are written, as it does for every program that has rows to store. With ``encoded``
    they are bytes beforehand: what PostgreSQL takes when there is no client to speak of.
    """
    what = "copy-encoded" if encoded else "copy"
    return _together([*python("raw"), what, url, str(seconds)], connections, seconds)


def valkey_rate(url: str, connections: int, seconds: float, size: int) -> float:
    """Enqueue messages of ``size`` events on so many connections at once; events a second."""
    return _together([*python("raw"), "valkey", url, str(seconds), str(size)], connections, seconds)


def _together(command: list[str], count: int, seconds: float) -> float:
    printed = finish([start(command) for _ in range(count)], seconds + SLACK_SECONDS)
    return sum(msgspec.json.decode(text, type=Count).per_second for text in printed)


def copy_encoded(url: str, seconds: float) -> Count:
    """Copy ready bytes for so long."""
    with psycopg.connect(url, autocommit=True) as connection:
        rows = Rows(read_rows(connection))
        begun, done = time.monotonic(), 0
        while time.monotonic() - begun < seconds:
            with connection.cursor().copy(COPY) as into:
                into.write(rows.transaction(ROWS, datetime.now(UTC)))
            done += ROWS
        return Count(done, time.monotonic() - begun)


def copy(url: str, seconds: float) -> Count:
    """Copy rows for so long."""
    with psycopg.connect(url, autocommit=True) as connection:
        query = f"SELECT {COLUMNS} FROM {SAMPLE}".replace("data", "data::text")  # noqa: S608 - constants
        sample = connection.execute(query.encode()).fetchall()
        rests = cycle([(*row[4:11], row[11] and Jsonb(row[11]), row[12]) for row in sample])
        begun, done = time.monotonic(), 0
        while time.monotonic() - begun < seconds:
            now = datetime.now(UTC)
            times = (now + timedelta(microseconds=number) for number in range(ROWS))
            with connection.cursor().copy(COPY) as into:
                into.set_types(TYPES)
                for at, rest in zip(times, rests, strict=False):
                    into.write_row((at, UUID(bytes=uuid_utils.uuid7().bytes), at, at, *rest))
            done += ROWS
        return Count(done, time.monotonic() - begun)


def valkey(url: str, seconds: float, size: int) -> Count:
    """Enqueue for so long."""
    broker = EventBroker(QueueSettings(redis_url=url, queue_namespace="raw"))
    message = events_message(queued_events(1, datetime.now(UTC))[:size])
    encoded = message.encode()
    dispatch = broker.scripts["dispatch"]
    begun, done = time.monotonic(), 0
    while time.monotonic() - begun < seconds:
        milliseconds = time.time_ns() // 1_000_000
        fixed = ("enqueue", milliseconds, EVENTS_QUEUE, broker.broker_id, 5_000, 5_000, 0, 1)
        dispatch(keys=["raw"], args=[*fixed, str(uuid4()), encoded])
        done += size
    return Count(done, time.monotonic() - begun)


def main(what: str, url: str, seconds: str, *rest: str) -> Count:
    """Run one of them."""
    if what == "valkey":
        return valkey(url, float(seconds), int(rest[0]))
    return (copy if what == "copy" else copy_encoded)(url, float(seconds))


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(main(*sys.argv[1:])))
