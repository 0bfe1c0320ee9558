"""What is wrong with events, by what is wrong: violations of the same rule, at the same path, of the same code."""

from collections import Counter
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from psycopg.rows import class_row

MAX_EVENTS = 5_000
"""Events with violations that are looked at, the newest: what PostgreSQL reads in some tens of milliseconds."""

MAX_EVENTS_OF_RULE = 1_000
"""The same where they are those of one rule, which have to be looked for."""

SAMPLES = 3

Connection = psycopg.AsyncConnection[Any]


class Problem(msgspec.Struct, frozen=True):
    """Violations that are alike; indexes of arrays do not tell them apart."""

    rule: str
    path: str
    code: str
    action: str
    message: str
    """Of the newest."""
    first_seen: datetime
    last_seen: datetime
    times: list[float]
    """When each of the events occurred, in seconds since 1970: thousands of them are read in a third of the time."""
    samples: list[UUID]
    """The newest events."""

    @property
    def count(self) -> int:
        """How many violations there are."""
        return len(self.times)

    def trend(self, since: datetime, until: datetime, parts: int) -> list[int]:
        """Count them in each part of a range."""
        begin, length = since.timestamp(), (until - since).total_seconds() / parts
        counts = Counter(min(parts - 1, int((at - begin) / length)) for at in self.times) if length else Counter()
        return [counts[part] for part in range(parts)]


class Problems(msgspec.Struct, frozen=True):
    """The problems of a range, most frequent first."""

    problems: list[Problem]
    since: datetime | None
    """When the oldest event occurred that was looked at; None when there was none."""
    whole: bool
    """Whether all events of the range were looked at."""
    most: int
    """How many are looked at."""


async def read_problems(
    connection: Connection, since: datetime | None, application_id: int | None = None, rule: str | None = None
) -> Problems:
    """Group the violations of the newest events from ``since`` on, those of one rule or of all."""
    # As in event_query: said in both ways, PostgreSQL would expect next to none, and read and sort all that there are.
    one_rule = "e.violated_rules @> ARRAY[%(rule)s::text] AND cardinality(e.violated_rules) > 0"
    conditions = ["e.violated_rules IS NOT NULL" if rule is None else one_rule]
    if since is not None:
        conditions.append('e."timestamp" >= %(since)s')
    if application_id is not None:
        conditions.append("e.application_id = %(application_id)s")
    most = MAX_EVENTS if rule is None else MAX_EVENTS_OF_RULE
    of_rule = "" if rule is None else "WHERE v.value ->> 'rule' = %(rule)s"
    query = f"""WITH newest AS MATERIALIZED (
    SELECT e."timestamp", e.event_id, e.violations FROM events e
     WHERE {" AND ".join(conditions)}
     ORDER BY e."timestamp" DESC, e.event_id DESC LIMIT {most:d}
), looked_at AS (SELECT count(*) AS events, min("timestamp") AS since FROM newest)
SELECT v.value ->> 'rule' AS rule, regexp_replace(v.value ->> 'path', '\\[\\d+\\]', '[*]', 'g') AS path,
       v.value ->> 'code' AS code, v.value ->> 'action' AS action,
       (array_agg(v.value ->> 'message' ORDER BY n."timestamp" DESC))[1] AS message,
       min(n."timestamp") AS first_seen, max(n."timestamp") AS last_seen,
       array_agg(extract(epoch FROM n."timestamp")::float) AS times,
       (array_agg(n.event_id ORDER BY n."timestamp" DESC))[1:{SAMPLES:d}] AS samples,
       (SELECT events FROM looked_at) AS looked_at, (SELECT since FROM looked_at) AS looked_since
  FROM newest n CROSS JOIN LATERAL jsonb_array_elements(n.violations) v {of_rule}
 GROUP BY 1, 2, 3, 4 ORDER BY count(*) DESC, 1, 2, 3"""  # noqa: S608 - constants and numbers
    async with psycopg.AsyncClientCursor(connection, row_factory=class_row(_Row)) as cursor:
        await cursor.execute(query.encode(), {"since": since, "application_id": application_id, "rule": rule})
        rows = await cursor.fetchall()
    if not rows:
        return Problems([], None, whole=True, most=most)
    problems = [msgspec.convert(row, Problem, from_attributes=True) for row in rows]
    return Problems(problems, rows[0].looked_since, rows[0].looked_at < most, most)


class _Row(Problem, frozen=True, kw_only=True):
    looked_at: int
    looked_since: datetime
