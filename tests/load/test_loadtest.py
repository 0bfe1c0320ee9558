"""The load test against The Eye, for seconds: what it says is held against the rows.

How much can be sent is no question here; ``make bench`` measures that.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml
from tests.load.loadtest.__main__ import LOCUST
from tests.machine import THE_EYE, Machine, exported, free_addresses, until

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "k8s" / "loadtest.yaml"
SECONDS = 90.0

pytestmark = pytest.mark.timeout(240, func_only=True)

FAST = ("--users=30", "--spawn-rate=30", "--pace=5", "--run-time=5s")
"""For machines: people would send too little in some seconds."""


class Loaded:
    """A run of the load test that has ended."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.out, self.err = process.communicate(timeout=SECONDS)
        self.status = process.returncode

    def line(self, name: str) -> str:
        """Give what the summary says of something."""
        found = re.findall(rf"^{name} {{2,}}(.*)$", self.out, re.MULTILINE)
        assert len(found) == 1, self.out + self.err
        return str(found[0])

    def numbers(self, name: str) -> list[int]:
        """Give the numbers in a line of the summary."""
        return [int(number.replace(",", "")) for number in re.findall(r"[\d,]*\d", self.line(name))]


def start(*arguments: str, machine: Machine | None = None) -> "subprocess.Popen[str]":
    """Start the command of ``make loadtest``."""
    here = [f"--data={machine.data}"] if machine else []
    return subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "tests.load.loadtest", *here, *arguments],
        cwd=ROOT,
        env=machine.environ if machine else {**os.environ, "THE_EYE_API_LISTEN": free_addresses(1)[0]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def load(*arguments: str, machine: Machine | None = None) -> Loaded:
    """Run it to its end."""
    return Loaded(start(*arguments, machine=machine))


def the_eye(machine: Machine, *arguments: str) -> str:
    """Run a command of The Eye's."""
    environ = {**machine.environ, **exported(machine.data)}
    ended = subprocess.run([*THE_EYE, *arguments], env=environ, capture_output=True, text=True, check=True)  # noqa: S603
    return ended.stdout


def rows(machine: Machine) -> dict[bool, int]:
    """Count the rows of the load test's applications by their verdict."""
    query = """SELECT valid, count(*) FROM events JOIN applications a ON a.id = application_id
                WHERE a.name LIKE 'loadtest-%' GROUP BY 1"""
    with psycopg.connect(exported(machine.data)["THE_EYE_DATABASE_URL"]) as connection:
        return {True: 0, False: 0} | dict(connection.execute(query).fetchall())


def check(loaded: Loaded, before: dict[bool, int], after: dict[bool, int]) -> None:
    """Hold a summary against the rows that have come in between."""
    assert loaded.status == 0, loaded.out + loaded.err
    valid, invalid = after[True] - before[True], after[False] - before[False]
    assert loaded.numbers("stored") == [valid + invalid, valid, invalid]
    assert loaded.numbers("by the samples")[:2] == [valid, invalid]
    assert loaded.numbers("accepted")[0] == valid + invalid
    assert loaded.numbers("sent")[0] == sum(loaded.numbers(name)[0] for name in ("accepted", "refused", "unanswered"))
    assert [loaded.line(name) for name in ("missing", "failed")] == ["0", "0"]
    assert min(valid, invalid) > 0


def test_the_summary_agrees_with_the_rows(machine: Machine) -> None:
    """Of several applications, in a first run that makes them and in a second that has their tokens."""
    before = rows(machine)
    first = load("--headless", "--applications=3", *FAST, machine=machine)
    between = rows(machine)
    second = load("--headless", "--applications=3", "--day", *FAST, machine=machine)

    check(first, before, between)
    check(second, between, rows(machine))
    assert [run.line("unanswered") for run in (first, second)] == ["0", "0"]
    assert " by 3 applications " in first.line("sent")
    assert re.search(r"p50 \d+ ms, p95 \d+ ms, p99 \d+ ms", first.line("answered in"))
    assert first.numbers("sent")[1] > 30, "each user has had a session, and some a second one"
    tokens = the_eye(machine, "token", "list", "--application", "loadtest-1").splitlines()
    assert len(tokens) == 2, "the heading and the one that both runs have used"
    assert "difference  0" in the_eye(machine, "ledger", "show")


def test_who_is_asked_to_wait_waits_and_sends_again(machine: Machine) -> None:
    """An application that may send little is no failure, and loses nothing."""
    load("--headless", "--applications=1", "--users=1", "--run-time=1s", machine=machine)
    the_eye(machine, "application", "limit", "loadtest-1", "--events-per-second", "300", "--burst", "1")
    try:
        before = rows(machine)
        loaded = load("--headless", "--applications=1", *FAST, machine=machine)
        check(loaded, before, rows(machine))
    finally:
        the_eye(machine, "application", "limit", "loadtest-1", "--default")

    assert re.fullmatch(r"(\d+) \(429 rate_limited \1\)", loaded.line("asked to wait"))
    assert ", asked to wait" in loaded.err, "they have a line of their own in Locust's table"


def test_what_is_accepted_and_not_stored_is_missed(machine: Machine) -> None:
    """The worker stands still, and so nothing is stored."""
    worker = machine.children()["the_eye_cli worker"]
    before = rows(machine)
    os.kill(worker, signal.SIGSTOP)
    try:
        loaded = load("--headless", "--settle-seconds=2", *FAST, machine=machine)
    finally:
        os.kill(worker, signal.SIGCONT)

    assert loaded.status == 1
    assert loaded.numbers("missing") == [loaded.numbers("accepted")[0] - loaded.numbers("stored")[0]]
    assert loaded.numbers("missing")[0] > 0
    accepted = loaded.numbers("accepted")[0]
    until(lambda: sum(rows(machine).values()) - sum(before.values()) >= accepted, SECONDS)


def test_without_anything_to_load_it_says_what_to_do(machine: Machine, tmp_path: Path) -> None:
    nothing_runs = load("--headless")
    assert nothing_runs.status == 2
    assert "start it with make up, or give HOST and TOKENS" in nothing_runs.err

    half = load(f"--host={machine.api}", "--headless")
    assert half.status == 2
    assert "HOST and TOKENS go together" in half.err

    (tmp_path / "tokens").write_text(f"{machine.token}\neye_unknown\n")
    unknown = load(f"--host={machine.api}", f"--tokens={tmp_path / 'tokens'}", "--headless")
    assert unknown.status == 2
    assert f"{machine.api} does not know the token" in unknown.err
    assert "(token 2 of 2)" in unknown.err
    assert "eye_unknown" not in unknown.err

    (nowhere,) = free_addresses(1)
    silent = load(f"--host=http://{nowhere}", f"--tokens={tmp_path / 'tokens'}", "--headless")
    assert silent.status == 2
    assert f"http://{nowhere} does not answer" in silent.err


def test_the_page_starts_a_test_and_needs_no_other_server(machine: Machine) -> None:
    """It listens on this machine alone, and sends to no other API than the one it was started for."""
    (listen,) = free_addresses(1)
    before = rows(machine)
    process = start(f"--web-port={listen.rpartition(':')[2]}", "--pace=5", machine=machine)
    try:
        with httpx.Client(base_url=f"http://{listen}", timeout=30) as page:
            until(lambda: process.poll() is not None or answers(page), SECONDS)
            assert process.poll() is None, process.communicate()
            index = page.get("/").text
            loaded = re.findall(r'(?:src|href)="([^"]+)"', index)
            assert loaded
            assert not [address for address in loaded if "//" in address]
            assert all(page.get(address).status_code == 200 for address in loaded)
            assert machine.api in index

            form = {"user_count": "20", "spawn_rate": "20", "host": "http://events.example.com"}
            assert page.post("/swarm", data=form).json()["success"]
            until(lambda: requests(page) > 100, SECONDS)
            assert page.get("/stats/requests").json()["fail_ratio"] == 0
            assert page.post("/stop").json()["success"]
        process.send_signal(signal.SIGINT)
        ended = Loaded(process)
    finally:
        process.kill()

    check(ended, before, rows(machine))
    assert ended.numbers("accepted")[0] >= 100


def answers(page: httpx.Client) -> bool:
    """Whether the page is there."""
    try:
        return page.get("/").status_code == 200
    except httpx.TransportError:
        return False


def requests(page: httpx.Client) -> int:
    """Ask the page how many requests there were."""
    stats = page.get("/stats/requests").json()["stats"]
    return int(next((one["num_requests"] for one in stats if one["name"] == "Aggregated"), 0))


def test_pods_as_the_manifest_has_them_load_a_cluster(machine: Machine, tmp_path: Path) -> None:
    """Processes with the manifest's arguments, files and nothing but Locust: a master and two workers."""
    load("--headless", "--users=1", "--run-time=1s", machine=machine)  # makes the applications
    mnt = tmp_path / "mnt"
    shutil.copytree(ROOT / "tests" / "load" / "loadtest", mnt / "tests" / "load" / "loadtest")
    bind, port = free_addresses(1)[0].split(":")
    changes = {
        "--host": machine.api,
        "--tokens": str(machine.data / "loadtest-tokens"),
        "--users": "30",
        "--pace": "5",
        "--run-time": "8s",
        "--master-host": bind,
        "--settle-seconds": "60",
    }
    before = rows(machine)
    master = [*arguments("loadtest-master", changes), f"--master-bind-host={bind}", f"--master-bind-port={port}"]
    worker = [*arguments("loadtest-worker", changes), f"--master-port={port}"]
    with (
        locust(mnt, *master, "--headless", "--expect-workers=2") as counting,
        locust(mnt, *worker) as first,
        locust(mnt, *worker) as second,
    ):
        loaded = Loaded(counting)
        workers = [Loaded(first), Loaded(second)]

    check(loaded, before, rows(machine))
    assert [one.status for one in workers] == [0, 0]


def arguments(deployment: str, changes: dict[str, str]) -> list[str]:
    """Take the arguments of a Deployment's container, with values for this machine."""
    documents: list[dict[str, Any]] = list(yaml.safe_load_all(MANIFEST.read_text()))
    (found,) = [one for one in documents if one["metadata"]["name"] == deployment]
    (container,) = found["spec"]["template"]["spec"]["containers"]
    given = [argument.partition("=") for argument in container["args"]]
    return [f"{name}{equals}{changes.get(name, value)}" for name, equals, value in given]


@contextmanager
def locust(folder: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Run Locust alone, as its image does."""
    command = [str(LOCUST), "-m", "locust", *arguments]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # noqa: S603
    try:
        yield process
    finally:
        process.kill()
        process.wait()
