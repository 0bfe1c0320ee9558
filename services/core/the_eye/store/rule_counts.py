"""How many events violate each rule, and which ruleset judges events now: both from the newest events alone."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
import psycopg
from psycopg.rows import class_row

from the_eye.store.problems import MAX_EVENTS

LATEST_EVENTS = 100
"""Of the newest by their own time, the one that was stored last: a sender's clock may be ahead."""

Connection = psycopg.AsyncConnection[Any]


class RuleCount(msgspec.Struct, frozen=True):
    """Events that violate a rule."""

    rule: str
    events: int
    last_seen: datetime


class RuleCounts(msgspec.Struct, frozen=True):
    """Of all rules that are violated in a range."""

    by_rule: Mapping[str, RuleCount]
    since: datetime | None
    """When the oldest event occurred that was looked at; None when there was none."""
    whole: bool
    """Whether all events of the range were looked at."""

    def events_of(self, rule: str) -> int:
        """How many events violate a rule."""
        count = self.by_rule.get(rule)
        return count.events if count else 0


class JudgedLast(msgspec.Struct, frozen=True):
    """The event that was stored last."""

    ruleset: str
    """Revision of the ruleset that judged it."""
    stored_at: datetime


async def count_rules(connection: Connection, since: datetime | None) -> RuleCounts:
    """Count by rule the newest events with violations, MAX_EVENTS at most, from ``since`` on."""
    place = "" if since is None else 'AND e."timestamp" >= %(since)s'
    query = f"""WITH newest AS MATERIALIZED (
    SELECT e."timestamp", e.violated_rules FROM events e
     WHERE e.violated_rules IS NOT NULL {place}
     ORDER BY e."timestamp" DESC, e.event_id DESC LIMIT {MAX_EVENTS:d}
)
SELECT r.rule, count(*) AS events, max(n."timestamp") AS last_seen,
       (SELECT count(*) FROM newest) AS looked_at, (SELECT min("timestamp") FROM newest) AS looked_since
  FROM newest n CROSS JOIN LATERAL unnest(n.violated_rules) r(rule)
 GROUP BY r.rule"""  # noqa: S608 - constants and numbers
    async with psycopg.AsyncClientCursor(connection, row_factory=class_row(_Row)) as cursor:
        await cursor.execute(query.encode(), {"since": since})
        rows = await cursor.fetchall()
    if not rows:
        return RuleCounts({}, None, whole=True)
    return RuleCounts({row.rule: row for row in rows}, rows[0].looked_since, rows[0].looked_at < MAX_EVENTS)


class _Row(RuleCount, frozen=True, kw_only=True):
    looked_at: int
    looked_since: datetime


async def judged_last(connection: Connection) -> JudgedLast | None:
    """Tell by which ruleset a worker judged last; None where nothing is stored."""
    query = f"""SELECT 'sha256:' || encode(e.ruleset, 'hex') AS ruleset, e.stored_at
  FROM (SELECT ruleset, stored_at FROM events ORDER BY "timestamp" DESC LIMIT {LATEST_EVENTS:d}) e
 ORDER BY e.stored_at DESC LIMIT 1"""  # noqa: S608 - a number
    async with connection.cursor(row_factory=class_row(JudgedLast)) as cursor:
        await cursor.execute(query.encode())
        return await cursor.fetchone()
