"""The Eye as its users meet it: `the-eye up` in a folder of its own, and nothing but HTTP and signals from outside."""

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.machine import RULES, Machine, running
from tests.servers import wait_until

STORED_SECONDS = 30.0

Json = dict[str, Any]


class Up:
    """A running `the-eye up`, and one who sends events to it."""

    def __init__(self, machine: Machine, rules: Path) -> None:
        self.machine = machine
        self.rules = rules

    @property
    def client(self) -> httpx.Client:
        """A client with the demo application's token."""
        headers = {"Authorization": f"Bearer {self.machine.token}"}
        return httpx.Client(base_url=self.machine.api, headers=headers, timeout=10)

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

        wait_until(look, STORED_SECONDS, lambda: f"event {event_id} was not stored\n{self.machine.err[-2000:]}")
        return found[0]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """The Eye, running by a copy of the sample rules."""
    folder = tmp_path_factory.mktemp("up")
    rules = Path(shutil.copytree(RULES, folder / "rules"))
    with running(folder, rules=rules) as machine:
        yield Up(machine, rules)


def click(**data: str) -> Json:
    """Make the predecessor's event, with changes to its data."""
    return {
        "session_id": "e2085be5-9137-4e4e-80b5-f1ffddc25423",
        "category": "page interaction",
        "name": "cta click",
        "data": {"host": "www.consumeraffairs.com", "path": "/", "element": "chat bubble"} | data,
        "timestamp": "2023-01-01 09:15:27.243860Z",
    }


def test_an_event_is_accepted_judged_stored_and_read_back(up: Up) -> None:
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

    rule = up.rules / "cta-click-element.yaml"
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
    answer: Json = httpx.get(f"{up.machine.worker}{path}").json()
    return answer


def test_what_up_prints_works_when_pasted(up: Up) -> None:
    """The two curl lines, taken apart as a shell does."""
    send, read = map(shlex.split, up.machine.curl_lines)

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
