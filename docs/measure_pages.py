"""Measures the queries of every page on ten million events: writes the figures into docs/pages.md.

Run from the root of the repository: ``.venv/bin/python -m docs.measure_pages``. It starts a PostgreSQL of its own,
which takes 6 GB in a temporary folder, and a quarter of an hour. ``--url`` measures a database that is filled already.
"""

import asyncio
import os
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import psycopg
from psycopg import sql
from tests.servers import Postgres, running
from tests.traffic import fill

from the_eye.settings import StoreSettings
from the_eye.store.applications import list_applications, list_tokens
from the_eye.store.audit_log import latest_acts
from the_eye.store.connect import AsyncConnection, make_async_pool
from the_eye.store.dead_events import list_dead
from the_eye.store.event_histogram import read_histogram
from the_eye.store.event_query import EventFilter, Position, find_text, list_summaries, read_event
from the_eye.store.new_events import Watch
from the_eye.store.partitions import partition_name
from the_eye.store.problems import read_problems
from the_eye.store.rule_counts import count_rules, judged_last
from the_eye_api.pages.viewers import LOOK_SECONDS
from the_eye_cli.migrate import migrate

DOCUMENT = Path(__file__).with_name("pages.md")
MARK = "<!-- What follows is written by docs/measure_pages.py. -->\n"
END = "<!-- Until here. -->\n"

MADE = 1_030_000
DAYS = 9
COPIES = 9
"""A million events are made of nine days, and copied nine times to the days before: 90 are kept by default."""

ROUNDS = 40
BARS = 48

LIVE_EVENTS = 1_000
"""Events that are stored between two looks."""

_STORE_NEW = f"""INSERT INTO events ("timestamp", event_id, received_at, session_id, application_id, valid, category,
                                    name, data, ruleset, violations, violated_rules)
    SELECT clock_timestamp(), gen_random_uuid(), now(), session_id, application_id, valid, category, name, data,
           ruleset, violations, violated_rules FROM events ORDER BY "timestamp" DESC LIMIT {LIVE_EVENTS}""".encode()  # noqa: S608 - a number

Query = Callable[[AsyncConnection], Awaitable[Any]]


@contextmanager
def filled() -> Iterator[str]:
    """A database with ten million events."""
    with running(Postgres) as server:
        assert isinstance(server, Postgres)  # noqa: S101 - for the type checker
        url = server.create_database("the_eye")
        os.environ["THE_EYE_DATABASE_URL"] = url
        migrate.main([], standalone_mode=False)
        with psycopg.connect(url, autocommit=True) as connection:
            fill(connection, MADE, DAYS, datetime.now(UTC).date())
            multiply(connection)
            forget_the_future(connection)
        yield url


def forget_the_future(connection: psycopg.Connection[Any]) -> None:
    """Delete what this day does not have yet, as if it had never been there."""
    connection.execute("DELETE FROM events WHERE stored_at > now()")
    today = sql.Identifier(partition_name(datetime.now(UTC).date()))
    connection.execute(sql.SQL("VACUUM FULL {}").format(today))
    connection.execute("VACUUM ANALYZE events")


def multiply(connection: psycopg.Connection[Any]) -> None:
    """Copy each day's events to earlier days, with ids of their own; indexes are built afterwards."""
    connection.execute("SET maintenance_work_mem = '512MB'")
    today = datetime.now(UTC).date()
    for back in range(DAYS):
        for copy in range(1, COPIES + 1):
            source, day = today - timedelta(back), today - timedelta(back + copy * DAYS)
            names = {
                "source": sql.Identifier(partition_name(source)),
                "target": sql.Identifier(partition_name(day)),
                "shift": sql.Literal(timedelta(copy * DAYS)),
                "copy": sql.Literal(str(copy)),
                "first": sql.Literal(f"{day}T00:00:00Z"),
                "end": sql.Literal(f"{day + timedelta(1)}T00:00:00Z"),
            }
            for statement in (
                "CREATE TABLE {target} (LIKE events INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STATISTICS)",
                """INSERT INTO {target}
                   SELECT "timestamp" - {shift}, gen_random_uuid(), received_at - {shift}, stored_at - {shift},
                          md5({copy} || session_id)::uuid, application_id, valid, category, name, data, ruleset,
                          violations, violated_rules FROM {source}""",
                "ALTER TABLE events ATTACH PARTITION {target} FOR VALUES FROM ({first}) TO ({end})",
            ):
                connection.execute(sql.SQL(statement).format(**names))
    connection.execute("INSERT INTO event_kinds SELECT DISTINCT category, name FROM events ON CONFLICT DO NOTHING")


def queries(session: UUID, event: UUID, deep: Position) -> Iterator[tuple[str, str, Query]]:
    """Give each query with its page and its name."""
    now = datetime.now(UTC)
    day: dict[str, Any] = {"since": now - timedelta(1)}
    month: dict[str, Any] = {"since": now - timedelta(30)}

    def listed(**fields: Any) -> Query:
        return lambda connection: list_summaries(connection, EventFilter(**fields))

    async def of_text(connection: AsyncConnection, text: str) -> Any:
        return await list_summaries(connection, EventFilter(text=await find_text(connection, text), **month))

    def counted(days: int, **fields: Any) -> Query:
        since = now - timedelta(days)
        return lambda connection: read_histogram(connection, EventFilter(**fields), since, now, BARS)

    yield "Events", "last 24 hours", listed(**day)
    yield "Events", "all time", listed()
    yield "Events", "all time, the next page", lambda connection: list_summaries(connection, EventFilter(), deep)
    yield "Events", "30 days, a large application", listed(application_id=1, **month)
    yield "Events", "30 days, a small application", listed(application_id=6, **month)
    yield "Events", "30 days, a frequent kind", listed(category="page interaction", name="pageview", **month)
    yield "Events", "30 days, a rare kind", listed(category="account", name="deletion", **month)
    yield "Events", "30 days, invalid", listed(valid=False, **month)
    yield "Events", "30 days, a frequent rule", listed(rule="shop/pageview-host", **month)
    yield "Events", "30 days, a rare rule", listed(rule="shop/rare", **month)
    yield "Events", "30 days, text of frequent kinds", lambda connection: of_text(connection, "click")
    yield "Events", "30 days, text of a rare kind", lambda connection: of_text(connection, "crash")
    yield "Events", "30 days, the beginning of an id", lambda connection: of_text(connection, str(event)[:8])
    yield "Events, histogram", "24 hours", counted(1)
    yield "Events, histogram", "7 days", counted(7)
    yield "Events, histogram", "90 days", counted(90)
    yield "Events, histogram", "7 days, a large application", counted(7, application_id=1)
    yield "Events, histogram", "30 days, a category", counted(30, category="account")
    yield "Events, histogram", "30 days, a frequent rule", counted(30, rule="shop/pageview-host")
    yield "Event", "one", lambda connection: read_event(connection, event)
    yield "Session", "its events", listed(session_id=session, oldest_first=True)
    yield "Problems", "last 24 hours", lambda connection: read_problems(connection, day["since"])
    yield "Problems", "all time", lambda connection: read_problems(connection, None)
    yield "Rules", "counts, last 24 hours", lambda connection: count_rules(connection, day["since"])
    yield "Rules", "counts, all time", lambda connection: count_rules(connection, None)
    yield "Rules", "which ruleset judged last", judged_last
    yield "Rules", "a frequent rule, 30 days", lambda it: read_problems(it, month["since"], rule="shop/pageview-host")
    yield "Rules", "a rare rule, all time", lambda it: read_problems(it, None, rule="shop/rare")


async def measure(url: str) -> list[tuple[str, str, list[float]]]:
    """Run each query many times, alone, after once that does not count; seconds."""
    async with make_async_pool(StoreSettings(database_url=url), "measure", 1) as pool, pool.connection() as connection:
        newest = (await list_summaries(connection, EventFilter(), None, 1)).events[0]
        page = await list_summaries(connection, EventFilter(until=newest.timestamp - timedelta(20)), None, 1)
        deep = Position(page.events[0].timestamp, page.events[0].event_id)
        found = []
        for title, name, query in queries(newest.session_id, newest.event_id, deep):
            found.append((title, name, [await timed(query, connection) for _ in range(ROUNDS + 1)][1:]))
        name = f"a look each second, {LIVE_EVENTS:,} new events"
        found.append(("Live", name, [seconds async for seconds in _looks(connection)]))
        return found


async def _looks(connection: AsyncConnection) -> AsyncIterator[float]:
    """Look for new events once a second, while some come; seconds."""
    watch = Watch()
    await watch.look(connection)
    for _ in range(ROUNDS):
        await connection.execute(_STORE_NEW)
        yield await timed(watch.look, connection)
        await asyncio.sleep(LOOK_SECONDS)


async def timed(query: Query, connection: AsyncConnection) -> float:
    """Run a query; seconds."""
    began = time.perf_counter()
    await query(connection)
    return time.perf_counter() - began


def measure_acts(url: str) -> list[tuple[str, str, list[float]]]:
    """The same for what admins look at."""
    with psycopg.connect(url, autocommit=True) as connection:
        reads: dict[str, Callable[[Any], Any]] = {
            "applications, tokens and the audit log": lambda it: (
                list_applications(it),
                list_tokens(it),
                latest_acts(it, 50),
            ),
            "dead events": lambda it: list_dead(it, 100),
        }
        found = []
        for name, read in reads.items():
            seconds = []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                read(connection)
                seconds.append(time.perf_counter() - began)
            found.append(("Problems" if name == "dead events" else "Applications", name, seconds))
        return found


def written(url: str, found: list[tuple[str, str, list[float]]]) -> str:
    """Write the figures as a table."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            """SELECT current_setting('server_version'), count(*), pg_size_pretty(pg_database_size(current_database())),
                      (SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass) FROM events"""
        ).fetchall()
    version, events, size, partitions = rows[0]
    machine = (
        f"PostgreSQL {version.split()[0]} with its own defaults, {os.cpu_count()} processors, {events:,} events in "
        f"{partitions} partitions: {size}. Each query ran {ROUNDS} times, planning and reading the answer included.\n"
    )
    lines = [
        machine,
        "| Page | Query | p50, ms | p95, ms |",
        "|---|---|--:|--:|",
    ]
    for title, name, seconds in found:
        cuts = statistics.quantiles(seconds, n=20)
        lines.append(f"| {title} | {name} | {statistics.median(seconds) * 1000:.1f} | {cuts[18] * 1000:.1f} |")
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--url", help="A database that is filled already.")
def main(url: str | None) -> None:
    """Fill, measure and write."""
    if url is None:
        with filled() as made:
            _measure_into_document(made)
    else:
        _measure_into_document(url)


def _measure_into_document(url: str) -> None:
    figures = written(url, asyncio.run(measure(url)) + measure_acts(url))
    replace_in_document(MARK, figures)


def replace_in_document(mark: str, text: str) -> None:
    """Replace what stands between a mark and the end of what is written by a program."""
    before, _, rest = DOCUMENT.read_text().partition(mark)
    DOCUMENT.write_text(f"{before}{mark}\n{text}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
