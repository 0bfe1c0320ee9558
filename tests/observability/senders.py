"""A little of everything that senders do, all the time: enough for every series to move."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from uuid import uuid4

import httpx

PAUSE_SECONDS = 0.1

Event = dict[str, object]

HOST = "www.consumeraffairs.com"


def event(name: str = "pageview", **data: object) -> Event:
    """Make an event that happens now."""
    return {
        "event_id": str(uuid4()),
        "session_id": str(uuid4()),
        "category": "page interaction",
        "name": name,
        "data": data,
        "timestamp": datetime.now(UTC).isoformat(),
    }


class Sender:
    """Sends with an application's token."""

    def __init__(self, api: str, token: str) -> None:
        self._client = httpx.Client(base_url=api, headers={"Authorization": f"Bearer {token}"}, timeout=30.0)
        self._stopping = threading.Event()

    def send(self, *events: Event) -> int:
        """Send a batch; gives the status."""
        return self._client.post("/events/batch", json=list(events)).status_code

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Send in a thread for as long as the block lasts. Faults are made: what is not answered is passed over."""
        thread = threading.Thread(target=self._keep_sending, name="sender", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            thread.join()
            self._client.close()

    def _keep_sending(self) -> None:
        for number in count():
            try:
                self._round(number)
            except httpx.TransportError:
                continue
            finally:
                self._stopping.wait(PAUSE_SECONDS)
            if self._stopping.is_set():
                return

    def _round(self, number: int) -> None:
        valid, wrong_host = event(host=HOST), event(host="elsewhere.example.com")
        self.send(valid, wrong_host, event("cta click", element="banner"), event("scroll"))
        self._client.post("/events", json=event(host=HOST))
        if number % 5 == 0:
            self.send(valid)  # a duplicate
            self._client.post("/events", json={"name": ""})
            self._client.post("/events", json=valid, headers=NOBODY)
            self._client.get("/events", params={"limit": 1})


NOBODY: Mapping[str, str] = {"Authorization": "Bearer nobody"}
