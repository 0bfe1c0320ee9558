"""The Eye as its users meet it: `the-eye up` in a folder of its own, and nothing but HTTP and signals from outside."""

import asyncio
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from tests.machine import free_addresses
from tests.servers import wait_until

pytestmark = pytest.mark.timeout(300)

RULES = Path(__file__).parents[2] / "k8s" / "rules"
START_SECONDS = 120.0
STORED_SECONDS = 30.0
EVENTS = 5_000
EVENTS_BEFORE_KILL = 1_500
CONNECTIONS = 32

Json = dict[str, Any]


class Up:
    """A running `the-eye up`."""

    def __init__(self, folder: Path, rules: Path) -> None:
        self._folder = folder
        addresses = free_addresses(3)
        self.url = f"http://{addresses[0]}"
        self.worker_url = f"http://{addresses[2]}"
        names = ("THE_EYE_API_LISTEN", "THE_EYE_API_METRICS_LISTEN", "THE_EYE_WORKER_METRICS_LISTEN")
        self._environ = {key: value for key, value in os.environ.items() if not key.startswith("THE_EYE_")}
        self._environ |= dict(zip(names, addresses, strict=True))
        self._command = [
            sys.executable,
            "-m",
            "the_eye_cli",
            "up",
            "--data",
            str(folder / "data"),
            "--rules",
            str(rules),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and return once it has said how to use it."""
        output = (self._folder / "output").open("wb")
        errors = (self._folder / "errors").open("wb")
        with output, errors:
            self._process = subprocess.Popen(  # noqa: S603 - this project's own command
                self._command, stdout=output, stderr=errors, env=self._environ, cwd=self._folder
            )
        wait_until(lambda: "Read it back" in self.output or self.ended, START_SECONDS, lambda: self.errors)
        assert not self.ended, self.errors

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The command's process."""
        assert self._process is not None
        return self._process

    @property
    def ended(self) -> bool:
        """Whether the command has come to its end."""
        return self.process.poll() is not None

    @property
    def output(self) -> str:
        """What it has printed."""
        return (self._folder / "output").read_text()

    @property
    def errors(self) -> str:
        """What it has said beside that: progress and logs."""
        return (self._folder / "errors").read_text()

    @property
    def token(self) -> str:
        """The token that it has printed."""
        match = re.search(r"Token\s+(\S+)", self.output)
        assert match is not None, self.output
        return match[1]

    @property
    def database_url(self) -> str:
        """Where it has said that its database is."""
        match = re.search(r"postgresql://[^'\s]+", self.output)
        assert match is not None, self.output
        return match[0]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop and give its exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def child(self, name: str) -> int:
        """Find the process of one of its services."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        wanted = f"the_eye_cli\0{name}\0".encode()
        (pid,) = [pid for pid in children if Path(f"/proc/{pid}/cmdline").read_bytes().endswith(wanted)]
        return int(pid)

    @property
    def client(self) -> httpx.Client:
        """A client with the demo application's token."""
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=10)

    def send(self, event: Json) -> str:
        """Send an event as the predecessor's senders do and give its id."""
        with self.client as client:
            response = client.post("/events/", json=event)
        assert response.status_code == 202, response.text
        return str(response.json()["event_id"])

    def stored(self, event_id: str) -> Json:
        """Wait until an event can be read back."""
        found: list[Json] = []

        def look() -> bool:
            with self.client as client:
                response = client.get(f"/events/{event_id}")
            if response.status_code == 200:
                found.append(response.json())
            return bool(found)

        wait_until(look, STORED_SECONDS, lambda: f"event {event_id} was not stored\n{self.errors[-2000:]}")
        return found[0]


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """A copy of the sample rules."""
    return Path(shutil.copytree(RULES, tmp_path / "rules"))


@pytest.fixture
def up(tmp_path: Path, rules: Path) -> Iterator[Up]:
    """The Eye, running."""
    running = Up(tmp_path, rules)
    running.start()
    yield running
    if not running.ended:
        running.stop()


def click(**data: str) -> Json:
    """Make the predecessor's event, with changes to its data."""
    return {
        "session_id": "e2085be5-9137-4e4e-80b5-f1ffddc25423",
        "category": "page interaction",
        "name": "cta click",
        "data": {"host": "www.consumeraffairs.com", "path": "/", "element": "chat bubble"} | data,
        "timestamp": "2023-01-01 09:15:27.243860Z",
    }


def test_an_event_is_accepted_judged_stored_and_read_back(up: Up, rules: Path) -> None:
    """By the rules that are in force, and by others once these change."""
    assert {**worker_tells(up, "/ruleset"), "revision": "", "loaded_at": "", "age_seconds": 0} == {
        "revision": "",
        "declared": None,
        "loaded_at": "",
        "age_seconds": 0,
        "problems": [],
    }
    good = up.stored(up.send(click()))
    assert (good["valid"], good["violations"]) == (True, [])
    assert good["data"] == click()["data"]
    assert good["timestamp"] == "2023-01-01T09:15:27.243860Z"

    bad = up.stored(up.send(click(element="banner")))
    assert bad["valid"] is False
    assert [(violation["rule"], violation["path"]) for violation in bad["violations"]] == [
        ("default/cta-click-element", "$.data.element")
    ]
    assert bad["ruleset"] == good["ruleset"]

    rule = rules / "cta-click-element.yaml"
    rule.write_text(rule.read_text().replace("buy button", "banner"))
    wait_until(
        lambda: ruleset(up) != bad["ruleset"], STORED_SECONDS, lambda: "the changed rule did not come into force"
    )

    changed = up.stored(up.send(click(element="banner")))
    assert changed["valid"] is True
    assert changed["ruleset"] == ruleset(up)
    running = worker_tells(up, "/ruleset/rules")
    assert running["revision"] == changed["ruleset"]
    told = {rule.pop("rule"): rule for rule in running["rules"]}["default/cta-click-element"]
    assert len(told.pop("digest")) == 64
    assert told == {"generation": 1, "action": "Enforce"}
    assert up.stored(up.send(click(element="buy button")))["valid"] is False


def ruleset(up: Up) -> str:
    """Ask the worker for the revision it runs."""
    return str(worker_tells(up, "/ruleset")["revision"])


def worker_tells(up: Up, path: str) -> Json:
    """Ask the worker for what it tells operators."""
    answer: Json = httpx.get(f"{up.worker_url}{path}").json()
    return answer


def test_what_up_prints_works_when_pasted(up: Up) -> None:
    """The two curl lines, taken apart as a shell does."""
    send, read = [shlex.split(line) for line in up.output.replace("\\\n", " ").splitlines() if line.startswith("curl ")]

    accepted = request(send)
    assert accepted.status_code == 202, accepted.text
    up.stored(accepted.json()["event_id"])

    events = request(read).json()["events"]
    assert [event["event_id"] for event in events] == [accepted.json()["event_id"]]


def request(curl: list[str]) -> httpx.Response:
    """Do what a curl command line says."""
    headers = dict(curl[i + 1].split(": ", 1) for i, part in enumerate(curl) if part in {"-H", "--header"})
    body = next((curl[i + 1] for i, part in enumerate(curl) if part in {"-d", "--data", "--data-raw", "--json"}), None)
    (url,) = [part for part in curl if part.startswith("http")]
    return httpx.request("POST" if body else "GET", url, headers=headers, content=body)


def test_a_second_start_keeps_data_and_token(up: Up) -> None:
    """And a stop by SIGTERM is no failure."""
    event_id = up.send(click())
    up.stored(event_id)
    token = up.token
    assert up.stop() == 0, up.errors

    up.start()

    assert up.token == token
    assert up.stored(event_id)["event_id"] == event_id


def test_a_killed_worker_loses_and_doubles_nothing(up: Up) -> None:
    """SIGKILL in the middle of 5,000 events: each accepted event is stored exactly once."""
    ids = [str(uuid4()) for _ in range(EVENTS)]
    accepted = asyncio.run(send_until_worker_is_killed(up, ids))

    assert up.process.wait(60) == 1
    assert "worker" in up.errors
    assert "SIGKILL" in up.errors
    assert EVENTS_BEFORE_KILL <= len(accepted) < EVENTS

    up.start()
    # A sender that was not answered sends the event again: that is free.
    again = [event_id for event_id in ids if event_id not in accepted]
    assert asyncio.run(send_all(up, again)) == set(again)

    wait_until(lambda: count(up)[0] == EVENTS, STORED_SECONDS, lambda: f"rows and distinct ids: {count(up)}")
    assert count(up) == (EVENTS, EVENTS)


async def send_until_worker_is_killed(up: Up, ids: list[str]) -> set[str]:
    """Send events, kill the worker when enough were accepted, and give the ids of all that were."""
    accepted: set[str] = set()
    worker = up.child("worker")

    async def kill() -> None:
        deadline = time.monotonic() + STORED_SECONDS
        while len(accepted) < EVENTS_BEFORE_KILL:
            assert time.monotonic() < deadline, f"{len(accepted)} events were accepted"
            await asyncio.sleep(0.001)
        os.kill(worker, signal.SIGKILL)

    await asyncio.gather(kill(), send_all(up, ids, accepted))
    return accepted


async def send_all(up: Up, ids: list[str], accepted: set[str] | None = None) -> set[str]:
    """Send an event of each id; give the ids of those that were answered with 202."""
    answered = set() if accepted is None else accepted
    waiting = iter(ids)

    async def sender(client: httpx.AsyncClient) -> None:
        for event_id in waiting:
            try:
                response = await client.post("/events", json=click() | {"event_id": event_id})
            except httpx.TransportError:
                continue
            if response.status_code == 202:
                answered.add(event_id)

    headers = {"Authorization": f"Bearer {up.token}"}
    async with httpx.AsyncClient(base_url=up.url, headers=headers, timeout=30) as client:
        await asyncio.gather(*(sender(client) for _ in range(CONNECTIONS)))
    return answered


def count(up: Up) -> tuple[int, int]:
    """Count the rows, and the different events among them."""
    with psycopg.connect(up.database_url) as connection:
        rows = connection.execute("SELECT count(*), count(DISTINCT event_id) FROM events").fetchall()
    return rows[0][0], rows[0][1]
