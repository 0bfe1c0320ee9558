"""What the tests of pages need of The Eye: events that were sent and stored, and someone who may see them."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import UUID, uuid4

import httpx
import psycopg
from playwright.sync_api import Page
from tests.machine import Machine, exported, until

from the_eye.store.dead_events import DeadEvent, set_aside

STORED_SECONDS = 60.0
TRACE = "0af7651916cd43dd8448eb211c80319c"
LONG = "a value that goes on and on without a place to break it " + "x" * 400


class House:
    """A running machine and its admin."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        found = re.search(r"sign in as (\S+) with (\S+)\)", machine.out)
        assert found is not None, machine.out
        self.user, self.password = found.groups()
        self.client = httpx.Client(
            base_url=machine.api, headers={"Authorization": f"Bearer {machine.token}"}, timeout=30.0
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def sign_in(self, page: Page) -> None:
        """Fill in the form."""
        page.goto("/ui/sign-in")
        page.get_by_label("Name").fill(self.user)
        page.get_by_label("Password").fill(self.password)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/ui/events")

    def sends(self, token: str) -> bool:
        """Whether an event can be sent with a token."""
        headers = {"Authorization": f"Bearer {token}"}
        return self.client.post("/events", json=event(), headers=headers).status_code == 202

    def put_to_death(self, made: dict[str, Any]) -> str:
        """Set an event aside as a worker would that could not store it; give its id."""
        with psycopg.connect(self._database(), autocommit=True) as connection:
            row = connection.execute("SELECT id FROM applications WHERE name = 'demo'").fetchone()
            assert row is not None
            body = json.dumps({name: value for name, value in made.items() if name != "event_id"}).encode()
            dead = DeadEvent(
                kind="event",
                code="22P02",
                error="it could not be stored just then",
                original=body,
                event_id=UUID(made["event_id"]),
                application_id=row[0],
                received_at=datetime.now(UTC),
            )
            set_aside(connection, [dead])
        return str(made["event_id"])

    def _database(self) -> str:
        return exported(self.machine.data)["THE_EYE_DATABASE_URL"]

    def send(self, *events: dict[str, Any]) -> list[UUID]:
        """Send events and wait until they are stored."""
        headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
        answer = self.client.post("/events/batch", json=list(events), headers=headers)
        assert answer.status_code == 202, answer.text
        ids = [one["event_id"] for one in events]
        until(lambda: self.client.get(f"/events/{ids[-1]}").status_code == 200, STORED_SECONDS)
        return [UUID(one) for one in ids]


def event(seconds_ago: float = 0.0, **changes: Any) -> dict[str, Any]:
    """Make an event that fits the sample rules, but for the changes."""
    return {
        "event_id": str(uuid4()),
        "session_id": str(uuid4()),
        "category": "page interaction",
        "name": "cta click",
        "data": {"host": "www.consumeraffairs.com", "path": "/", "element": "chat bubble"},
        "timestamp": f"{datetime.now(UTC) - timedelta(seconds=seconds_ago):%Y-%m-%dT%H:%M:%S.%fZ}",
        **changes,
    }


def broken_event(seconds_ago: float = 0.0, **changes: Any) -> dict[str, Any]:
    """Make an event that breaks a sample rule."""
    data = {"host": "www.consumeraffairs.com", "path": "/", "element": "banner"}
    return event(seconds_ago, **{"data": data, **changes})
