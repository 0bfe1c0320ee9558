"""How many valid and invalid events there are over a range of time, in a time that does not grow with the table.

The range is cut into strata, several to a bar, of each of which the first few events are read from an index: where they
are fewer than asked for, their number is exact, and else how soon they came tells how many there are. Unless these are
very many, they are counted instead if the planner expects that to be cheap. Invalid events are few as a rule and have
an index of their own, so that they are sampled by themselves, and are mostly counted exactly.

Of a long range planning takes longest, which is for each partition in it. So the statements that are asked most are
planned once for each connection.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
import psycopg

from the_eye.store.event_query import EventFilter, conditions_of, parameters_of

CHEAP = 6_000.0
"""Cost, in the planner's units, up to which events are counted: some tens of milliseconds."""

MANY = 100_000
"""Events, by their estimate, beyond which the planner is not asked what counting them costs: always more than CHEAP."""

STRATA_A_BAR = 4
STRATUM_EVENTS = 60
STRATUM_VIOLATIONS = 20
"""Events, and such with violations, that are read of a stratum at most: these lie apart, each in a page of its own."""

Connection = psycopg.AsyncConnection[Any]


class Bar(msgspec.Struct, frozen=True):
    """The events of a part of the range."""

    since: datetime
    valid: int
    invalid: int


class Histogram(msgspec.Struct, frozen=True):
    """The bars of a range, which are all of the same width."""

    since: datetime
    until: datetime
    bars: tuple[Bar, ...]
    exact: bool
    """Whether the events were counted; otherwise the numbers are estimates."""


async def read_histogram(
    connection: Connection, filter_: EventFilter, since: datetime, until: datetime, bars: int
) -> Histogram:
    """Count the events of ``filter_`` from ``since`` to ``until``, or estimate their number.

    The filter's own range does not matter.
    """
    asked = _Asked(msgspec.structs.replace(filter_, since=since, until=until), since, until, bars)
    counts, exact = await _read(connection, asked)
    width = (until - since) / bars
    return Histogram(
        since,
        until,
        tuple(Bar(since + number * width, *counts.get(number, (0, 0))) for number in range(bars)),
        exact=exact,
    )


class _Asked(msgspec.Struct, frozen=True):
    filter: EventFilter
    since: datetime
    until: datetime
    bars: int


_Counts = dict[int, tuple[int, int]]
"""Valid and invalid events by the number of the bar."""


async def _read(connection: Connection, asked: _Asked) -> tuple[_Counts, bool]:
    """Give the counts, and whether they are exact."""
    filter_ = asked.filter
    only_invalid = filter_.valid is False
    every = await _sampled(connection, asked, msgspec.structs.replace(filter_, valid=False if only_invalid else None))
    if not every.exact and sum(every.sizes) <= MANY:
        counted = await _counted(connection, asked)
        if counted is not None:
            return counted, True
    invalid = every
    if not only_invalid:
        invalid = await _sampled(connection, asked, msgspec.structs.replace(filter_, valid=False))
    counts = {
        bar: (round(max(all_ - broken, 0)), 0 if filter_.valid else round(broken))
        for bar, (all_, broken) in enumerate(zip(every.sizes, invalid.sizes, strict=True))
    }
    return counts, every.exact and invalid.exact


async def _counted(connection: Connection, asked: _Asked) -> _Counts | None:
    """Count, if that is cheap."""
    width = (asked.until - asked.since) / asked.bars
    query = f"""SELECT width_bucket(e."timestamp", %(bars)s) - 1 AS bar,
       count(*) FILTER (WHERE e.valid), count(*) FILTER (WHERE NOT e.valid)
  FROM events e
 WHERE {" AND ".join(conditions_of(asked.filter))}
 GROUP BY bar"""  # noqa: S608 - constants and names of fields
    parameters = {**parameters_of(asked.filter), "bars": [asked.since + bar * width for bar in range(asked.bars)]}
    async with psycopg.AsyncClientCursor(connection) as cursor:
        plan = await (await cursor.execute(f"EXPLAIN (FORMAT JSON) {query}".encode(), parameters)).fetchone()
        if plan is None or plan[0][0]["Plan"]["Total Cost"] > CHEAP:
            return None
        await cursor.execute(query.encode(), parameters)
        return {bar: (valid, invalid) for bar, valid, invalid in await cursor.fetchall()}


class _Sample(msgspec.Struct, frozen=True):
    sizes: list[float]
    """The events of each bar."""
    exact: bool
    """Whether all of them were read."""


async def _sampled(connection: Connection, asked: _Asked, filter_: EventFilter) -> _Sample:
    """Estimate the events of each bar."""
    query, parameters = sample_query(filter_, asked.since, asked.until, asked.bars * STRATA_A_BAR)
    most = _most(filter_)
    sizes, exact = [0.0] * asked.bars, True
    for number, *read in await _rows(connection, filter_, query, parameters):
        stratum = _Stratum(*read)
        sizes[number // STRATA_A_BAR] += stratum.size(most)
        exact &= stratum.read < most
    return _Sample(sizes, exact)


async def _rows(connection: Connection, filter_: EventFilter, query: str, parameters: dict[str, Any]) -> list[Any]:
    """Ask with a plan for the values, or with one for any values where few statements are that common.

    A plan takes 2 MB where there are 90 partitions, which each connection keeps.
    """
    if not _is_common(filter_):
        async with psycopg.AsyncClientCursor(connection) as cursor:
            await cursor.execute(query.encode(), parameters)
            return await cursor.fetchall()
    async with connection.transaction():
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        return await (await connection.execute(query.encode(), parameters, prepare=True)).fetchall()


def _is_common(filter_: EventFilter) -> bool:
    """Whether nothing but an application and a verdict are asked for."""
    others = ("session_id", "category", "name", "rule", "text")
    return all(getattr(filter_, field) is None for field in others)


class _Stratum(msgspec.Struct, frozen=True):
    """What was read of a stratum."""

    read: int
    fitting: int
    """How many of them the filter wants."""
    share: float | None
    """The part of the stratum's time after which the last one came."""

    def size(self, most: int) -> float:
        """Tell how many the filter wants of the whole stratum, of which up to ``most`` events were read."""
        if self.read < most or not self.share:
            return self.fitting
        return self.fitting / self.share


def sample_query(filter_: EventFilter, since: datetime, until: datetime, strata: int) -> tuple[str, dict[str, Any]]:
    """Write the query of the first events of each stratum.

    Only what an index in order of time has is asked of the events that are read: asked for more, PostgreSQL would walk
    until enough of them fit.
    """
    walk, rest = " AND ".join(_walk(filter_)), msgspec.structs.replace(filter_, since=None, until=None)
    fitting = " AND ".join(conditions_of(rest)) or "true"
    # The bounds of the whole range choose the partitions while planning, those of the stratum while running.
    query = f"""SELECT s.number, v.read, v.fitting, extract(epoch FROM v.last - s.since)::float / %(width)s
  FROM (SELECT number, %(since)s + number * make_interval(secs => %(width)s) AS since,
               %(since)s + (number + 1) * make_interval(secs => %(width)s) AS until
          FROM generate_series(0, {strata - 1:d}) number) s
 CROSS JOIN LATERAL (
       SELECT count(*) AS read, count(*) FILTER (WHERE {fitting}) AS fitting, max(e."timestamp") AS last
         FROM (SELECT * FROM events e
                WHERE {walk} AND e."timestamp" >= s.since AND e."timestamp" < s.until
                ORDER BY e."timestamp" LIMIT {_most(filter_):d}) e
       ) v"""  # noqa: S608 - constants, names of fields and numbers
    width = (until - since).total_seconds() / strata
    return query, {**parameters_of(filter_), "since": since, "until": until, "width": width}


def _most(filter_: EventFilter) -> int:
    return STRATUM_VIOLATIONS if _among_violations(filter_) else STRATUM_EVENTS


def _among_violations(filter_: EventFilter) -> bool:
    return filter_.valid is False or filter_.rule is not None


def _walk(filter_: EventFilter) -> Iterator[str]:
    """Write what of a filter one of the indexes has, in order of time."""
    yield 'e."timestamp" >= %(since)s AND e."timestamp" < %(until)s'
    if filter_.application_id is not None:
        yield "e.application_id = %(application_id)s"
    if _among_violations(filter_):
        yield "e.violated_rules IS NOT NULL"
    elif filter_.category is not None and filter_.name is not None:
        yield "e.category = %(category)s AND e.name = %(name)s"
    if filter_.session_id is not None:
        yield "e.session_id = %(session_id)s"
