"""Shows how PostgreSQL runs each query of ``GET /events`` on a million events: writes the plans into docs/queries.md.

Run from the root of the repository: ``.venv/bin/python -m docs.explain_queries``. It starts a PostgreSQL of its own and
takes about a minute.
"""

import os
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import click
import psycopg
from click.testing import CliRunner
from tests.servers import Postgres, running
from tests.traffic import fill

from the_eye.store.event_query import DEFAULT_LIMIT, EventFilter, Position, event_query, page_query
from the_eye_cli.migrate import migrate

DOCUMENT = Path(__file__).with_name("queries.md")
PLANS = Path(__file__).with_name("query-plans.md")
PLANS_TEXT = (
    "`EXPLAIN (ANALYZE, BUFFERS)` of each query in [queries.md](queries.md), written by docs/explain_queries.py. "
    "Of the partitions that are read in the same way, one is shown.\n"
)
MARK = "<!-- What follows is written by docs/explain_queries.py. -->\n"

ROWS = 1_000_000
DAYS = 10
LAST_DAY = date(2026, 6, 30)
ROUNDS = 5
MOST_PAGES = 1_000

SINCE, UNTIL = datetime(2026, 6, 27, 6, tzinfo=UTC), datetime(2026, 6, 28, 18, tzinfo=UTC)
RANGE = {"since": SINCE, "until": UNTIL}
LARGE, SMALL = {"application_id": 1}, {"application_id": 6}

ALONE: list[dict[str, Any]] = [
    {},
    LARGE,
    SMALL,
    {"session_id": "SESSION"},
    {"category": "page interaction"},
    {"category": "account"},
    {"category": "diagnostics"},
    {"category": "unknown"},
    {"name": "pageview"},
    {"name": "crash"},
    {"valid": True},
    {"valid": False},
    {"rule": "shop/pageview-host"},
    {"rule": "shop/rare"},
    {"rule": "shop/unknown"},
    RANGE,
]
TOGETHER: list[dict[str, Any]] = [
    {"category": "page interaction", "name": "cta click"},
    {"category": "account", "name": "deletion"},
    {**LARGE, "session_id": "SESSION"},
    {**LARGE, "valid": False},
    {**SMALL, "valid": False},
    {**LARGE, "rule": "shop/pageview-host"},
    {**SMALL, "rule": "shop/pageview-host"},
    {**SMALL, "category": "search"},
    {**SMALL, "category": "page interaction", "name": "pageview"},
    {**LARGE, "category": "account", "name": "deletion"},
    {"category": "page interaction", "name": "cta click", "valid": False},
    {**LARGE, **RANGE},
    {**RANGE, "valid": False},
    {**RANGE, "category": "page interaction", "name": "cta click"},
]


class Case(NamedTuple):
    """A query and how it is asked for."""

    request: str
    query: str
    parameters: dict[str, Any]


class Plan(NamedTuple):
    """How PostgreSQL ran a query."""

    case: Case
    lines: list[str]
    planning: float
    execution: float

    @property
    def indexes(self) -> str:
        """The indexes of events it used, as they are called on the partitioned table."""
        found = {_index(name) for line in self.lines for name in _INDEX.findall(line)}
        return ", ".join(f"`{name}`" for name in sorted(found) if name)

    @property
    def pages(self) -> int:
        """Pages of 8 KiB it looked at, all of them in memory already."""
        return sum(map(int, re.findall(r"(?:hit|read)=(\d+)", next(line for line in self.lines if "Buffers" in line))))


_INDEX = re.compile(r"(?:Scan|Backward) (?:using|on) (events_(?:p\d+|default)_\w+)")
_NAMES = {
    "pkey": "events_pkey",
    "event_id_idx": "events_event_id",
    "session_id_timestamp_event_id_idx": "events_session",
    "application_id_timestamp_event_id_idx": "events_application",
    "application_id_timestamp_event_id_idx1": "events_application_violations",
    "category_name_timestamp_event_id_idx": "events_kind",
    "timestamp_event_id_idx": "events_violations",
    "violated_rules_idx": "events_violated_rules",
}


def _index(name: str) -> str:
    return _NAMES[re.sub(r"^events_(?:p\d+|default)_", "", name)]


def cases(connection: psycopg.Connection[Any]) -> Iterator[Case]:
    """List the queries: each filter alone and the likely ones together, in both orders, from the top and onwards."""
    at, event_id, session_id = connection.execute(
        """SELECT "timestamp", event_id, session_id FROM events
            WHERE "timestamp" > '2026-06-27 12:00Z' ORDER BY "timestamp" LIMIT 1"""
    ).fetchall()[0]
    for fields in (*ALONE, *TOGETHER):
        known = {**fields, "session_id": session_id} if "session_id" in fields else fields
        for oldest_first in (False, True):
            for position in (None, Position(at, event_id)):
                filter_ = EventFilter(**known, oldest_first=oldest_first)
                request = _request(fields, oldest_first=oldest_first, paged=position is not None)
                yield Case(request, *page_query(filter_, position, DEFAULT_LIMIT + 1))
    yield Case("GET /events/ID", *event_query(event_id, None))
    yield Case("GET /events/ID (own application)", *event_query(event_id, 1))


_SPELT = {"application_id": "application", "session_id": "session_id", "since": "from", "until": "to"}
_APPLICATIONS = {1: "shop", 6: "pilot"}


def _request(fields: dict[str, Any], *, oldest_first: bool, paged: bool) -> str:
    spelt = {
        _SPELT.get(field, field): _APPLICATIONS[value] if field == "application_id" else _text(value)
        for field, value in fields.items()
    }
    spelt |= {"order": "oldest"} if oldest_first else {}
    spelt |= {"cursor": "..."} if paged else {}
    return f"GET /events?{urlencode(spelt, safe='/:.')}".rstrip("?")


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%MZ}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def explain(connection: psycopg.Connection[Any], case: Case) -> Plan:
    """Run a query several times and keep its fastest run."""
    statement = f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) {case.query}".encode()
    return min(
        (_plan(case, connection.execute(statement, case.parameters, prepare=False).fetchall()) for _ in range(ROUNDS)),
        key=lambda plan: plan.execution,
    )


def _plan(case: Case, rows: list[tuple[str]]) -> Plan:
    lines = [row[0] for row in rows]
    planning, execution = (
        float(next(line for line in lines if line.startswith(f"{phase} Time")).split()[2])
        for phase in ("Planning", "Execution")
    )
    end = next(number for number, line in enumerate(lines) if line.startswith("Planning"))
    return Plan(case, [line for line in lines[:end] if "Index Searches" not in line], planning, execution)


def folded(lines: list[str]) -> list[str]:
    """Leave out the partitions that are read in the same way as one that is shown."""
    shown: list[str] = []
    seen: set[tuple[str, ...]] = set()
    for branch in _branches(lines):
        shape = tuple(re.sub(r"\d+", "", node) for line in branch for node in re.findall(r"->  (.+?) +\(", line))
        if shape not in seen:
            shown += branch
        elif not shown[-1].endswith("the same way"):
            shown.append(" " * (len(branch[0]) - len(branch[0].lstrip())) + "...  other partitions the same way")
        seen.add(shape)
    return shown


def _branches(lines: list[str]) -> Iterator[list[str]]:
    """Split a plan where a child of an Append begins."""
    depths = [len(line) - len(line.lstrip()) for line in lines]
    append = next((number for number, line in enumerate(lines) if re.search(r"Append +\(", line)), None)
    if append is None:
        yield lines
        return
    child = next(depth for depth, line in zip(depths[append + 1 :], lines[append + 1 :], strict=True) if "->" in line)
    branch: list[str] = []
    for number, line in enumerate(lines):
        if number > append and depths[number] <= child and "->" in line:
            yield branch
            branch = []
        branch.append(line)
    yield branch


def write(plans: list[Plan], facts: str) -> None:
    """Put the figures at the end of the document, and the plans into a document of their own."""
    text = DOCUMENT.read_text().partition(MARK)[0] + MARK + facts
    text += "\n| Query | Indexes | Pages | Planning, ms | Execution, ms |\n|---|---|--:|--:|--:|\n"
    for plan in plans:
        figures = f"{plan.indexes} | {plan.pages} | {plan.planning:.1f} | {plan.execution:.1f}"
        text += f"| `{plan.case.request}` | {figures} |\n"
    DOCUMENT.write_text(text)
    shown = [f"## `{plan.case.request}`\n\n```\n" + "\n".join(folded(plan.lines)) + "\n```\n" for plan in plans]
    PLANS.write_text("\n".join(["# The plans of the queries\n\n" + PLANS_TEXT, *shown]))


def check(plans: list[Plan]) -> None:
    """Fail when a query became slow."""
    for plan in plans:
        if re.search(r"Seq Scan on events_p", "\n".join(plan.lines)) or plan.pages > MOST_PAGES:
            message = f"{plan.case.request} reads too much: see {PLANS}"
            raise click.ClickException(message)


@click.command()
def main() -> None:
    """Write the plans into docs/queries.md."""
    with running(Postgres) as server:
        assert isinstance(server, Postgres)  # noqa: S101 - tells mypy
        url = server.create_database("the_eye")
        CliRunner().invoke(migrate, env={"THE_EYE_DATABASE_URL": url}, catch_exceptions=False)
        with psycopg.connect(url, autocommit=True) as connection:
            click.echo(f"storing {ROWS} events ...", err=True)
            fill(connection, ROWS, DAYS, LAST_DAY)
            plans = [explain(connection, case) for case in cases(connection)]
            facts = _facts(connection)
    write(plans, facts)
    check(plans)
    slowest = max(plans, key=lambda plan: plan.execution)
    click.echo(f"{len(plans)} plans; the slowest, {slowest.case.request}, took {slowest.execution:.1f} ms", err=True)


def _facts(connection: psycopg.Connection[Any]) -> str:
    version, size, table = connection.execute(
        """SELECT current_setting('server_version'), pg_size_pretty(sum(pg_total_relation_size(relid))),
                  pg_size_pretty(sum(pg_relation_size(relid))) FROM pg_partition_tree('events')"""
    ).fetchall()[0]
    return (
        f"\nPostgreSQL {version} with its own defaults, {os.cpu_count()} processors, {ROWS:,} events in {DAYS} daily "
        f"partitions and the default one: {size}, of which {table} are the rows. Each query ran {ROUNDS} times with "
        "all that it needs in memory; the fastest run is shown.\n"
    )


if __name__ == "__main__":
    main()
