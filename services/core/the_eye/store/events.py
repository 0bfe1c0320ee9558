"""How a message's events become rows: all of them in one transaction, none of them twice."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from psycopg import errors, sql
from psycopg.rows import TupleRow
from psycopg.types.numeric import Int4BinaryDumper

from the_eye.event import Event
from the_eye.store.dead_events import acceptance, take_back
from the_eye.telemetry import telemetry
from the_eye.verdict import Verdict

Connection = psycopg.Connection[TupleRow]


class Row(msgspec.Struct, frozen=True):
    """An event with its verdict, as it is stored."""

    event: Event
    verdict: Verdict
    ruleset: bytes
    """SHA-256 of the ruleset that judged it: 32 bytes."""

    @property
    def key(self) -> tuple[datetime, UUID, int]:
        """What makes it the same event; no application can take another's place."""
        return (self.event.timestamp, self.event.event_id, self.event.application_id)


class Fate(StrEnum):
    """What became of an event."""

    VALID = "valid"
    INVALID = "invalid"
    DUPLICATE = "duplicate"
    """Sent before: another acceptance of the same event is stored."""
    VALID_BEFORE = "valid before"
    INVALID_BEFORE = "invalid before"
    """This very acceptance is stored already, with this verdict: its message came twice."""


_COLUMNS = (
    "event_id",
    "session_id",
    "application_id",
    "category",
    "name",
    "data",
    "timestamp",
    "received_at",
    "valid",
    "violations",
    "violated_rules",
    "ruleset",
    "trace_id",
)
_COLUMN_LIST = sql.SQL(", ").join(map(sql.Identifier, _COLUMNS))
_JSONB_VERSION = b"\x01"

_COPY = sql.SQL("COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)")
_COPY_TO = {table: _COPY.format(table=sql.Identifier(table), columns=_COLUMN_LIST) for table in ("events", "incoming")}
_CREATE_INCOMING = sql.SQL(
    "CREATE TEMPORARY TABLE incoming ON COMMIT DROP AS SELECT {columns} FROM events WITH NO DATA"
).format(columns=_COLUMN_LIST)
# Ordered, so that two workers with the same events wait for each other instead of deadlocking.
_INSERT_NEW = sql.SQL(
    "INSERT INTO events ({columns}) SELECT {columns} FROM incoming "
    'ORDER BY "timestamp", event_id ON CONFLICT DO NOTHING RETURNING "timestamp", event_id, application_id'
).format(columns=_COLUMN_LIST)
_SELECT_STORED = """SELECT "timestamp", event_id, application_id, e.received_at, e.valid
                      FROM incoming i JOIN events e USING ("timestamp", event_id, application_id)"""


def write_events(connection: Connection, rows: Sequence[Row], *, may_be_dead: bool = True) -> list[Fate]:
    """Store ``rows`` in one transaction and say of each, in the same order, what became of it.

    Raises psycopg.Error, with nothing stored. Events are new as a rule, so they are copied straight in; only when
    one is there already, all take the way through a temporary table. Without ``may_be_dead`` none of them has been
    set aside before, and the one statement needs no transaction around it.
    """
    try:
        if may_be_dead:
            with connection.transaction():
                _copy(connection, "events", rows)
                _take_back(connection, rows)
        else:
            _copy(connection, "events", rows)
    except errors.UniqueViolation:
        return _write_new(connection, rows)
    return [_judged(row) for row in rows]


def _write_new(connection: Connection, rows: Sequence[Row]) -> list[Fate]:
    first = {row.key: row for row in reversed(rows)}
    with connection.transaction():
        connection.execute(_CREATE_INCOMING)
        _copy(connection, "incoming", list(first.values()))
        with telemetry.statement(connection, "INSERT", "events", len(first)):
            new = set(connection.execute(_INSERT_NEW).fetchall())
        with telemetry.statement(connection, "SELECT", "events"):
            stored = {tuple(key): (at, valid) for *key, at, valid in connection.execute(_SELECT_STORED).fetchall()}
        _take_back(connection, rows)
    return [_fate(row, new, stored) for row in rows]


def _fate(row: Row, new: set[Any], stored: dict[Any, tuple[datetime, bool]]) -> Fate:
    """Tell what became of a row; the first of several that are the same acceptance is the one that is stored.

    What it is told of is taken out of ``stored``.
    """
    received_at, valid = stored.get(row.key, (None, False))
    if received_at != row.event.received_at:
        return Fate.DUPLICATE
    del stored[row.key]
    if row.key in new:
        return _judged(row)
    return Fate.VALID_BEFORE if valid else Fate.INVALID_BEFORE


def _judged(row: Row) -> Fate:
    return Fate.VALID if row.verdict.valid else Fate.INVALID


def _take_back(connection: Connection, rows: Sequence[Row]) -> None:
    take_back(connection, [acceptance(row.event.event_id, row.event.received_at) for row in rows])


def _copy(connection: Connection, table: str, rows: Sequence[Row]) -> None:
    with telemetry.statement(connection, "COPY", table, len(rows)), connection.cursor() as cursor:
        # Binary COPY carries no types, only bytes that the column's own type reads: an int must have the column's size,
        # and bytes that are ready need no conversion. (set_types would choose slower dumpers.)
        cursor.adapters.register_dumper(int, Int4BinaryDumper)
        with cursor.copy(_COPY_TO[table]) as copy:
            write_row = copy.write_row
            for row in rows:
                write_row(_values(row))


def _values(row: Row) -> tuple[object, ...]:
    event, violations = row.event, row.verdict.violations
    return (
        event.event_id.int.to_bytes(16),
        event.session_id.int.to_bytes(16),
        event.application_id,
        event.category,
        event.name,
        event.data,
        event.timestamp,
        event.received_at,
        row.verdict.valid,
        _JSONB_VERSION + msgspec.json.encode(violations) if violations else None,
        sorted({violation.rule for violation in violations}) if violations else None,
        row.ruleset,
        event.trace_id,
    )


def is_unstorable(error: psycopg.Error) -> bool:
    """Whether the rows themselves are at fault, so that trying again cannot help."""
    if isinstance(error, errors.RaiseException):  # a trigger of the user's own
        return True
    if isinstance(error, errors.CheckViolation):
        # Without a constraint's name it says that no partition fits: the table's fault.
        return error.diag.constraint_name is not None
    return isinstance(error, psycopg.DataError | psycopg.IntegrityError | errors.ProgramLimitExceeded)
