"""Rows of `events` for tests that read."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from psycopg.types.json import Jsonb

from the_eye.store.connect import Connection

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
SESSION = UUID("e2085be5-9137-4e4e-80b5-f1ffddc25423")
RULESET = bytes(range(32))

INSERT = """INSERT INTO events ("timestamp", event_id, received_at, stored_at, session_id, application_id, valid,
                                category, name, data, ruleset, violations, violated_rules, trace_id)
            VALUES (%(timestamp)s, %(event_id)s, %(received_at)s, %(stored_at)s, %(session_id)s, %(application_id)s,
                    %(valid)s, %(category)s, %(name)s, %(data)s, %(ruleset)s, %(violations)s, %(violated_rules)s,
                    %(trace_id)s)"""


def event(**changes: object) -> dict[str, Any]:
    """Make a valid event, but for the changes."""
    return {
        "timestamp": NOON,
        "event_id": uuid4(),
        "received_at": NOON + timedelta(seconds=1),
        "stored_at": NOON + timedelta(seconds=2),
        "session_id": SESSION,
        "application_id": 1,
        "valid": True,
        "category": "page interaction",
        "name": "cta click",
        "data": '{"element": "chat bubble"}',
        "ruleset": RULESET,
        "violations": None,
        "violated_rules": None,
        "trace_id": None,
        **changes,
    }


def violating(*rules: str, action: str = "Enforce") -> dict[str, Any]:
    """Make the changes of an event that breaks rules."""
    broken = [
        {"rule": rule, "generation": 1, "action": action, "path": "$.data", "code": "schema.type", "message": "wrong"}
        for rule in rules
    ]
    return {"valid": action == "Audit", "violations": Jsonb(broken), "violated_rules": list(rules)}


def insert(connection: Connection, *events: dict[str, Any]) -> list[UUID]:
    """Store events and return their ids."""
    for one in events:
        connection.execute(INSERT, one)
    return [one["event_id"] for one in events]
