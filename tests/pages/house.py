"""What the tests of pages need of The Eye: events that were sent and stored, and someone who may see them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import UUID, uuid4

import httpx
from playwright.sync_api import Page
from tests.machine import Machine, until

STORED_SECONDS = 60.0
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

    def send(self, *events: dict[str, Any]) -> list[UUID]:
        """Send events and wait until they are stored."""
        answer = self.client.post("/events/batch", json=list(events))
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
