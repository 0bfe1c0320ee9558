"""How many events a rule was for lately, and how many of them broke it: what a rule's status shows of an audit."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec
import psycopg

from the_eye.rules.manifest import Match, ValidatorRule
from the_eye.rules.match import Index
from the_eye.store.past_events import reading

MAX_EVENTS = 1_000_000
"""Events that are counted at most: half a second's work for PostgreSQL."""

STATEMENT_SECONDS = 10.0

AnyConnection = psycopg.Connection[Any]


class RuleCounts(msgspec.Struct, frozen=True):
    """What became of one rule."""

    events: int
    """Stored events that it matches."""
    violations: int
    """Stored events of which a violation of it is recorded, by whichever generation of it judged them."""


class AuditCounts(msgspec.Struct, frozen=True):
    """The counts of rules, all over the same events."""

    since: datetime
    """Later than asked for when there are more than the most events: then only these newest ones are counted."""
    until: datetime
    """The database's clock; events dated later are left out until their time has come."""
    rules: Mapping[str, RuleCounts]
    """By the rule's id; each rule that was asked for is there."""


def audit_counts(
    connection: AnyConnection,
    rules: Iterable[ValidatorRule],
    since: datetime,
    max_events: int = MAX_EVENTS,
    seconds: float = STATEMENT_SECONDS,
) -> AuditCounts:
    """Count, for all ``rules`` at once, the events that occurred since a time and those that violate each.

    It costs the same however many rules there are, and grows with the events of the time, ``max_events`` at the most:
    on a million 0.5 s with all in memory, on 100,000 0.05 s. The time is bounded by ``events_pkey``, read from the
    index alone; then these events' kinds are counted, and their violations found by ``events_violations``.

    Raises psycopg.errors.QueryCanceled when one of the three statements takes longer than ``seconds``, which the
    connection's own deadline should not be shorter than.
    """
    wanted = [_Wanted(rule.id, rule.spec.match) for rule in rules]
    with reading(connection, seconds):
        begin, until = _bounded(connection, since, max_events)
        events = _events(connection, wanted, begin, until)
        violations = _violations(connection, begin, until)
    return AuditCounts(begin, until, {rule.id: RuleCounts(events[rule.id], violations[rule.id]) for rule in wanted})


class _Wanted(msgspec.Struct, frozen=True):
    id: str
    match: Match


def _bounded(connection: AnyConnection, since: datetime, max_events: int) -> tuple[datetime, datetime]:
    """Come nearer to now until there are no more than the most events."""
    (until,) = connection.execute("SELECT now()").fetchall()[0]
    beyond = connection.execute(
        """SELECT e."timestamp" FROM events e WHERE e."timestamp" >= %s AND e."timestamp" <= %s
            ORDER BY e."timestamp" DESC OFFSET %s LIMIT 1""",
        (since, until, max_events - 1),
    ).fetchone()
    return (beyond[0] if beyond else since), until


def _events(connection: AnyConnection, rules: list[_Wanted], since: datetime, until: datetime) -> Counter[str]:
    find = Index(rules).find
    counts: Counter[str] = Counter()
    # Row by row: senders choose names, of which there may be as many as events.
    with connection.cursor("kinds") as cursor:
        cursor.execute(
            """SELECT k.category, k.name, coalesce(a.name, ''), k.events
                 FROM (SELECT e.category, e.name, e.application_id, count(*) AS events FROM events e
                        WHERE e."timestamp" >= %s AND e."timestamp" <= %s GROUP BY 1, 2, 3) k
                 LEFT JOIN applications a ON a.id = k.application_id""",
            (since, until),
        )
        for category, name, application, events in cursor:
            for rule in find(category, name, application):
                counts[rule.id] += events
    return counts


def _violations(connection: AnyConnection, since: datetime, until: datetime) -> Counter[str]:
    rows = connection.execute(
        """SELECT v.rule, count(*) FROM events e, unnest(e.violated_rules) AS v (rule)
            WHERE e.violated_rules IS NOT NULL AND e."timestamp" >= %s AND e."timestamp" <= %s
            GROUP BY 1""",
        (since, until),
    )
    return Counter(dict(rows.fetchall()))
