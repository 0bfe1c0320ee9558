"""Giving stored events another verdict, in batches, the old one kept: what repairs what a wrong rule did.

A batch is one transaction: its events' old verdicts are kept, the new ones written and the run's position moved on,
all or nothing. So a run that was killed goes on where it was, and several processes that do the same run share its
batches.

Locks are taken in one order by all: the partitions' advisory lock, shared, so that no event is moved meanwhile; the
run's row; the rows of the events that change, newest first. Rows that do not change are never locked, and neither
readers nor workers wait for any of these.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from psycopg.rows import class_row, dict_row

from the_eye.store.partitions import ADVISORY_LOCK
from the_eye.store.past_events import PAGE_EVENTS, Key, Page, PastEvent, Selection, Window, read_page, reading
from the_eye.verdict import Verdict, Violation

STATEMENT_SECONDS = 120.0
"""Deadline of one statement: room for a maintenance that is moving events, which a batch waits for."""

AnyConnection = psycopg.Connection[Any]
Judge = Callable[[PastEvent], Verdict | None]
"""Gives an event's verdict; None leaves the event alone, uncounted."""


class Task(msgspec.Struct, frozen=True):
    """Which events are judged again, and by what."""

    rule: str
    """The rule whose events they are, as ``namespace/name``."""
    window: Window
    ruleset: bytes
    """SHA-256 of the ruleset that judges."""
    selection: Selection
    judge: Judge
    batch: int = PAGE_EVENTS
    """Events read at once; fewer when they are large."""


class Counts(msgspec.Struct, frozen=True):
    """What becomes of the events that are judged again."""

    examined: int = 0
    """All of the following."""
    became_valid: int = 0
    became_invalid: int = 0
    violations_changed: int = 0
    """As valid or invalid as before, for other reasons."""
    unchanged: int = 0
    """The same verdict: these rows are left alone, and still name the ruleset that first gave it."""

    def __add__(self, other: "Counts") -> "Counts":
        mine, others = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        return Counts(*map(sum, zip(mine, others, strict=True)))


class Revalidation(msgspec.Struct, frozen=True):
    """A run, as it is recorded."""

    id: int
    rule: str
    since: datetime
    until: datetime
    """Not included."""
    ruleset: str
    """Revision of the ruleset that judged again."""
    started_at: datetime
    started_by: str
    finished_at: datetime | None
    """None while it goes on, or waits to be gone on with."""
    timestamp: datetime | None
    """With the next two the last event that was judged; None at the beginning."""
    event_id: UUID | None
    application_id: int | None
    examined: int
    became_valid: int
    became_invalid: int
    violations_changed: int
    unchanged: int

    @property
    def counts(self) -> Counts:
        """What became of the events so far."""
        return Counts(self.examined, self.became_valid, self.became_invalid, self.violations_changed, self.unchanged)

    @property
    def position(self) -> Key | None:
        """Where the next batch begins."""
        if self.timestamp is None or self.event_id is None or self.application_id is None:
            return None
        return Key(self.timestamp, self.event_id, self.application_id)


class GivenVerdict(msgspec.Struct, frozen=True):
    """A verdict that an event has, or had until it was revised."""

    timestamp: datetime
    """The event's."""
    application: str
    valid: bool
    violations: tuple[Violation, ...]
    ruleset: str
    """Revision of the ruleset that gave the verdict."""
    revised_at: datetime | None
    """When another took its place; None for the verdict in force, and so in the next three."""
    revalidation: int | None
    rule: str | None
    """The rule that the revalidation was for."""
    revised_by: str | None


class _ChangedMeanwhileError(Exception):
    """Raised when an event is no longer the row that was judged: the batch is begun again."""


def try_out(connection: AnyConnection, task: Task) -> Iterator[Counts]:
    """Count what ``apply`` would do and write nothing; tell after each batch what it is so far."""
    counts, after, more = Counts(), None, True
    while more:
        with reading(connection, STATEMENT_SECONDS):
            page = read_page(connection, task.selection, task.window, after, task.batch)
        after, more = _end(page) or after, page.more
        counts += _count(_judged(page, task.judge))
        yield counts


def begin(connection: AnyConnection, task: Task, started_by: str) -> Revalidation:
    """Record a run, or find the one that was begun with the same rule, window and ruleset and is not finished."""
    query = f"""INSERT INTO revalidations (rule, since, until, ruleset, started_by)
                VALUES (%s, %s, %s, %s, %s)
                ON CONFLICT (rule, since, until, ruleset) WHERE finished_at IS NULL
                DO UPDATE SET rule = excluded.rule
                RETURNING {_RUN}"""  # noqa: S608 - columns
    return _run(connection, query, (task.rule, task.window.since, task.window.until, task.ruleset, started_by))


def apply(connection: AnyConnection, task: Task, run: int) -> Iterator[Revalidation]:
    """Judge and write batch after batch until the run is finished; tell of each once it is stored.

    Whoever stops taking from it stops the run between two batches. Raises psycopg.Error, with the batches before kept.
    """
    finished = False
    while not finished:
        try:
            done = _batch(connection, task, run)
        except _ChangedMeanwhileError:
            continue
        finished = done.finished_at is not None
        yield done


def _batch(connection: AnyConnection, task: Task, run: int) -> Revalidation:
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock_shared(%s)", (ADVISORY_LOCK,))
        so_far = _run(connection, f"SELECT {_RUN} FROM revalidations WHERE id = %s FOR UPDATE", (run,))  # noqa: S608 - columns
        if so_far.finished_at:
            return so_far
        page = read_page(connection, task.selection, task.window, so_far.position, task.batch)
        judged = _judged(page, task.judge)
        changes = [_change(past, verdict) for past, verdict in judged if not past.has(verdict)]
        if changes:
            _write(connection, task, run, changes)
        return _advance(connection, so_far, page, _count(judged))


def _judged(page: Page, judge: Judge) -> list[tuple[PastEvent, Verdict]]:
    verdicts = ((past, judge(past)) for past in page.events)
    return [(past, verdict) for past, verdict in verdicts if verdict is not None]


def _end(page: Page) -> Key | None:
    return page.events[-1].key if page.events else None


def _count(judged: Iterable[tuple[PastEvent, Verdict]]) -> Counts:
    outcomes = Counter(_outcome(past, verdict) for past, verdict in judged)
    return Counts(examined=outcomes.total(), **outcomes)


def _outcome(past: PastEvent, verdict: Verdict) -> str:
    if past.has(verdict):
        return "unchanged"
    if past.valid == verdict.valid:
        return "violations_changed"
    return "became_valid" if verdict else "became_invalid"


class _Change(msgspec.Struct, frozen=True):
    """A row of the JSON in which a batch's new verdicts go to PostgreSQL."""

    timestamp: datetime
    event_id: UUID
    application_id: int
    row_version: str
    valid: bool
    violations: tuple[Violation, ...] | None
    violated_rules: list[str] | None


def _change(past: PastEvent, verdict: Verdict) -> _Change:
    violations = verdict.violations or None
    rules = sorted({violation.rule for violation in verdict.violations}) or None
    return _Change(*past.key, past.row_version, verdict.valid, violations, rules)


# The bounds of the time say which partitions the rows are in.
_CHANGES = """jsonb_to_recordset(%(changes)s::jsonb) AS n (
                  "timestamp" timestamptz, event_id uuid, application_id integer, row_version text,
                  valid boolean, violations jsonb, violated_rules text[])"""
_SAME = """e."timestamp" = n."timestamp" AND e.event_id = n.event_id AND e.application_id = n.application_id
            AND e."timestamp" BETWEEN %(oldest)s AND %(newest)s"""
_LOCK = f"""SELECT FROM events e, {_CHANGES} WHERE {_SAME} AND e.xmin::text = n.row_version
             ORDER BY e."timestamp" DESC, e.event_id DESC, e.application_id DESC FOR NO KEY UPDATE OF e"""
_KEEP = f"""INSERT INTO revised_verdicts ("timestamp", event_id, application_id, revalidation_id,
                                          valid, ruleset, violations)
            SELECT e."timestamp", e.event_id, e.application_id, %(run)s, e.valid, e.ruleset, e.violations
              FROM events e, {_CHANGES} WHERE {_SAME}"""  # noqa: S608 - constants
_REVISE = f"""UPDATE events e SET valid = n.valid, violations = n.violations, violated_rules = n.violated_rules,
                                  ruleset = %(ruleset)s
                FROM {_CHANGES} WHERE {_SAME}"""  # noqa: S608 - constants


def _write(connection: AnyConnection, task: Task, run: int, changes: Sequence[_Change]) -> None:
    parameters = {
        "changes": msgspec.json.encode(changes).decode(),
        "newest": changes[0].timestamp,
        "oldest": changes[-1].timestamp,
        "run": run,
        "ruleset": task.ruleset,
    }
    if connection.execute(_LOCK.encode(), parameters).rowcount < len(changes):
        raise _ChangedMeanwhileError
    connection.execute(_KEEP.encode(), parameters)
    connection.execute(_REVISE.encode(), parameters)


_RUN = """id, rule, since, until, 'sha256:' || encode(ruleset, 'hex') AS ruleset, started_at, started_by, finished_at,
          "timestamp", event_id, application_id,
          examined, became_valid, became_invalid, violations_changed, unchanged"""


def _advance(connection: AnyConnection, run: Revalidation, page: Page, counts: Counts) -> Revalidation:
    query = f"""UPDATE revalidations
                   SET "timestamp" = %(timestamp)s, event_id = %(event_id)s, application_id = %(application_id)s,
                       examined = %(examined)s, became_valid = %(became_valid)s, became_invalid = %(became_invalid)s,
                       violations_changed = %(violations_changed)s, unchanged = %(unchanged)s,
                       finished_at = CASE WHEN %(more)s THEN NULL ELSE clock_timestamp() END
                 WHERE id = %(id)s RETURNING {_RUN}"""  # noqa: S608 - columns
    position = _end(page) or run.position
    at = position._asdict() if position else dict.fromkeys(Key._fields)
    total = msgspec.structs.asdict(run.counts + counts)
    return _run(connection, query, {**at, **total, "more": page.more, "id": run.id})


def _run(connection: AnyConnection, query: str, parameters: Any) -> Revalidation:
    return connection.cursor(row_factory=class_row(Revalidation)).execute(query.encode(), parameters).fetchall()[0]


def list_revalidations(connection: AnyConnection, limit: int) -> list[Revalidation]:
    """List the newest first."""
    query = f"SELECT {_RUN} FROM revalidations ORDER BY id DESC LIMIT %s"  # noqa: S608 - columns
    return connection.cursor(row_factory=class_row(Revalidation)).execute(query.encode(), (limit,)).fetchall()


def verdicts_of(connection: AnyConnection, event_id: UUID) -> list[GivenVerdict]:
    """List the verdicts that events of this id had, oldest first, the one in force last; empty when there is none."""
    rows = connection.cursor(row_factory=dict_row).execute(
        """SELECT v."timestamp", coalesce(a.name, '') AS application, v.valid,
                  coalesce(v.violations, '[]') AS violations, 'sha256:' || encode(v.ruleset, 'hex') AS ruleset,
                  v.revised_at, v.revalidation_id AS revalidation, r.rule, r.started_by AS revised_by
             FROM (SELECT "timestamp", application_id, valid, violations, ruleset, revised_at, revalidation_id
                     FROM revised_verdicts WHERE event_id = %(event_id)s
                   UNION ALL
                   SELECT "timestamp", application_id, valid, violations, ruleset, NULL, NULL
                     FROM events WHERE event_id = %(event_id)s) v
             LEFT JOIN revalidations r ON r.id = v.revalidation_id
             LEFT JOIN applications a ON a.id = v.application_id
            ORDER BY v."timestamp", v.application_id, v.revised_at NULLS LAST, v.revalidation_id""",
        {"event_id": event_id},
    )
    return [msgspec.convert(row, GivenVerdict) for row in rows]
