"""Events as real senders make them, as many as wanted and the same each time: skewed, overlapping, partly wrong."""

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from the_eye.store import partitions

APPLICATIONS = {"shop": 60, "blog": 25, "mobile": 10, "billing": 4, "intranet": 0.9, "pilot": 0.1}
KINDS = {
    ("page interaction", "pageview"): 55,
    ("page interaction", "cta click"): 20,
    ("form interaction", "submit"): 10,
    ("form interaction", "abandon"): 5,
    ("search", "query"): 6,
    ("search", "result click"): 3,
    ("account", "login"): 0.9,
    ("account", "deletion"): 0.01,
    ("diagnostics", "crash"): 0.02,
}
RULES = {"shop/pageview-host": 60, "shop/cta-element": 35, "shop/first-name-length": 4.9, "shop/rare": 0.1}
VIOLATED = 0.03
AUDITED = 0.3
"""Share of the violated that only an auditing rule found: they stay valid, and 2 % are invalid."""

EVENTS_PER_SESSION = 20
STRAYS = 0.01
STRAY = timedelta(days=1000)

COPY = """COPY events ("timestamp", event_id, received_at, stored_at, session_id, application_id, valid, category, name,
                          data, ruleset, violations, violated_rules) FROM STDIN (FORMAT BINARY)"""
TYPES = (
    "timestamptz",
    "uuid",
    "timestamptz",
    "timestamptz",
    "uuid",
    "int4",
    "bool",
    "text",
    "text",
    "text",
    "bytea",
    "jsonb",
    "text[]",
)


def fill(connection: psycopg.Connection[Any], rows: int, days: int, last_day: date) -> None:
    """Store ``rows`` events, spread evenly over the days up to ``last_day``, in daily partitions.

    One in a hundred claims to be years old and goes to the default partition.
    """
    for name in APPLICATIONS:
        connection.execute("INSERT INTO applications (name) VALUES (%s)", (name,))
    for back in range(days):
        with connection.transaction():
            partitions.create(connection, last_day - timedelta(days=back))
    first = datetime.combine(last_day - timedelta(days=days - 1), datetime.min.time(), UTC)
    with connection.cursor() as cursor, cursor.copy(COPY) as copy:
        copy.set_types(TYPES)
        for row in generate(rows, first, timedelta(days=days) / rows):
            copy.write_row(row)
    connection.execute("VACUUM (ANALYZE) events")


def generate(rows: int, first: datetime, step: timedelta) -> Iterator[tuple[Any, ...]]:
    """Make the same events each time: ids grow with time, sessions overlap, few kinds make up most events."""
    chance = random.Random(1)  # noqa: S311 - no secret
    applications = chance.choices(range(1, len(APPLICATIONS) + 1), [*APPLICATIONS.values()], k=rows)
    kinds = chance.choices([*KINDS], [*KINDS.values()], k=rows)
    ruleset = chance.randbytes(32)
    for number in range(rows):
        timestamp = first + step * number + timedelta(milliseconds=chance.randrange(-500, 0))
        timestamp = max(timestamp, first) - (STRAY if chance.random() < STRAYS else timedelta())
        received = timestamp + timedelta(milliseconds=chance.randrange(5, 3_000))
        session = number // (EVENTS_PER_SESSION * 50) * 50 + chance.randrange(50)
        violation = chance.random() < VIOLATED
        rules = chance.choices([*RULES], [*RULES.values()]) if violation else None
        valid = rules is None or chance.random() < AUDITED
        yield (
            timestamp,
            uuid7(timestamp, chance.getrandbits(74)),
            received,
            received + timedelta(milliseconds=20),
            UUID(bytes=random.Random(session).randbytes(16), version=4),  # noqa: S311
            applications[number],
            valid,
            *kinds[number],
            f'{{"host": "www.example.com", "path": "/products/{number}", "element": "chat bubble", "width": 1280.50}}',
            ruleset,
            Jsonb([violation_of(rule) for rule in rules]) if rules else None,
            rules,
        )


def violation_of(rule: str) -> dict[str, Any]:
    """Make a violation as rules make them."""
    return {
        "rule": rule,
        "generation": 3,
        "action": "Enforce",
        "path": "$.data.element",
        "code": "schema.enum",
        "message": "must be one of 'chat bubble', 'buy button'",
    }


def uuid7(at: datetime, bits: int) -> UUID:
    """Make a UUIDv7 of a given time."""
    milliseconds = int(at.timestamp() * 1_000)
    return UUID(int=milliseconds << 80 | 7 << 76 | (bits >> 62) << 64 | 2 << 62 | (bits & (1 << 62) - 1))
