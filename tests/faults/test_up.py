"""`the-eye up` goes wrong while it runs, or is ended; what it does when it cannot start: test_up_refused.py."""

import asyncio
import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest
from tests.machine import THE_EYE, Machine, free_addresses, running, until

PATIENCE = 30.0

EVENTS = 5_000
EVENTS_BEFORE_KILL = 1_500
CONNECTIONS = 32
STORED_BEFORE = "0f3d6f6e-6d0c-4c53-9d3e-6a3f2b7f2a11"


@pytest.fixture
def _heeding_hang_ups() -> Iterator[None]:
    """Children inherit it when SIGHUP is ignored, as it is where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("_heeding_hang_ups")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_in_order(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path) as machine:
        status = machine.stop(number)

    assert status == 0, machine.err
    stopped = [line.split()[0] for line in machine.err.splitlines() if " ... stopped " in line]
    assert stopped[:2] == ["api", "worker"]
    assert sorted(stopped[2:]) == ["postgres", "valkey"]
    assert "Traceback" not in machine.err


def test_a_child_that_dies_is_named_with_its_last_lines_and_the_others_are_stopped(tmp_path: Path) -> None:
    with running(tmp_path) as machine:
        children = machine.children()
        os.kill(children["the_eye_cli worker"], signal.SIGKILL)
        status = machine.wait_for_end()

    assert status == 1
    assert "Error: worker was killed by SIGKILL; its last lines in" in machine.err
    assert [line for line in machine.err.splitlines() if line.startswith("api ... stopped")]
    assert not [pid for pid in children.values() if is_alive(pid)]


def test_a_second_ctrl_c_ends_the_wait_for_a_child_that_does_not_stop(tmp_path: Path) -> None:
    with running(tmp_path, changes={"THE_EYE_WORKER_SHUTDOWN_SECONDS": "600"}) as machine:
        os.kill(machine.children()["the_eye_cli worker"], signal.SIGSTOP)
        machine.process.send_signal(signal.SIGINT)
        until(lambda: "api ... stopped" in machine.err, PATIENCE)

        def interrupt_again() -> bool:
            machine.process.send_signal(signal.SIGINT)
            return "SIGINT: hurrying" in machine.err

        # Again and again, because what comes within a second is taken for the same wish.
        until(interrupt_again, PATIENCE)
        status = machine.wait_for_end()

    assert status == 1
    assert "worker ... did not stop in time and was killed" in machine.err
    assert "postgres ... stopped" in machine.err


def test_after_up_itself_was_killed_nothing_is_left_and_the_next_start_goes_on(tmp_path: Path) -> None:
    with running(tmp_path) as machine:
        token = machine.token
        children = machine.children()
        assert len(children) == 4
        machine.process.kill()
        until(lambda: not [pid for pid in children.values() if is_alive(pid)], PATIENCE)
        assert machine.wait_for_end() == -signal.SIGKILL

    with running(tmp_path) as machine:
        assert machine.token == token
        assert machine.stop() == 0


def is_alive(pid: int) -> bool:
    """See whether a process runs; one that only waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_second_start_has_the_first_one_s_data_and_token_and_a_revoked_one_is_replaced(tmp_path: Path) -> None:
    with running(tmp_path) as machine:
        token = machine.token
        assert asyncio.run(send_all(machine, [STORED_BEFORE])) == {STORED_BEFORE}
        until(lambda: count(machine) == (1, 1), PATIENCE)
        assert machine.stop() == 0, machine.err
    with running(tmp_path) as machine:
        assert machine.token == token
        read = httpx.get(f"{machine.api}/events/{STORED_BEFORE}", headers={"Authorization": f"Bearer {token}"})
        assert read.json()["event_id"] == STORED_BEFORE
        environ = {**machine.environ, "THE_EYE_DATABASE_URL": machine.database_url}
        subprocess.run([*THE_EYE, "token", "revoke", "1"], env=environ, check=True)  # noqa: S603 - our own command
    with running(tmp_path) as machine:
        assert machine.token != token

    kept = tmp_path / ".the-eye" / "demo-token"
    assert kept.read_text().strip() == machine.token
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_more_workers_than_one_are_started_and_stopped(tmp_path: Path) -> None:
    """Each has metrics of its own, on ports that are known beforehand."""
    first, second = neighbours()
    changes = {"THE_EYE_WORKER_METRICS_LISTEN": f"127.0.0.1:{first}"}
    with running(tmp_path, "--workers", "2", changes=changes) as machine, ExitStack() as stack:
        stack.callback(machine.stop)
        assert [line for line in machine.err.splitlines() if line.startswith("2 workers ... ready")]
        assert machine.find(r"^  Worker metrics  .*, up to port (\d+)$") == str(second)
        until(lambda: ruleset_loaded(first) and ruleset_loaded(second), PATIENCE)
        assert ruleset_loaded(first) != ruleset_loaded(second)

    assert {"worker-1", "worker-2"} <= {line.split()[0] for line in machine.err.splitlines() if " ... stopped " in line}


def neighbours() -> tuple[int, int]:
    """Find a free port whose follower is free, too."""
    while True:
        port = int(free_addresses(1)[0].rpartition(":")[2])
        with suppress(OSError), socket.create_server(("127.0.0.1", port + 1)):
            return port, port + 1


def ruleset_loaded(port: int) -> str:
    """Read when the worker at a port has loaded its rules, to the microsecond; empty while none answers."""
    try:
        lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
    except httpx.TransportError:
        return ""
    return next(line for line in lines if line.startswith("the_eye_ruleset_loaded_timestamp_seconds "))


@pytest.mark.timeout(300)
def test_a_worker_that_is_killed_under_load_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """SIGKILL in the middle of 5,000 events: each accepted event is stored exactly once, by the next run."""
    ids = [str(uuid4()) for _ in range(EVENTS)]
    with running(tmp_path) as machine:
        accepted = asyncio.run(send_until_worker_is_killed(machine, ids))
        assert machine.wait_for_end() == 1
    assert "worker was killed by SIGKILL" in machine.err
    assert EVENTS_BEFORE_KILL <= len(accepted) < EVENTS

    with running(tmp_path) as machine:
        # A sender that was not answered sends the event again: that is free.
        again = [event_id for event_id in ids if event_id not in accepted]
        assert asyncio.run(send_all(machine, again)) == set(again)
        until(lambda: count(machine)[0] == EVENTS, PATIENCE)
        assert count(machine) == (EVENTS, EVENTS)


def event(event_id: str) -> dict[str, object]:
    """Make an event that a rule of the samples judges."""
    return {
        "event_id": event_id,
        "session_id": "e2085be5-9137-4e4e-80b5-f1ffddc25423",
        "category": "page interaction",
        "name": "cta click",
        "data": {"host": "www.consumeraffairs.com", "path": "/", "element": "chat bubble"},
        "timestamp": "2023-01-01 09:15:27.243860Z",
    }


async def send_until_worker_is_killed(machine: Machine, ids: list[str]) -> set[str]:
    """Send events, kill the worker when enough were accepted, and give the ids of all that were."""
    accepted: set[str] = set()
    worker = machine.children()["the_eye_cli worker"]

    async def kill() -> None:
        deadline = time.monotonic() + PATIENCE
        while len(accepted) < EVENTS_BEFORE_KILL:
            assert time.monotonic() < deadline, f"{len(accepted)} events were accepted"
            await asyncio.sleep(0.001)
        os.kill(worker, signal.SIGKILL)

    await asyncio.gather(kill(), send_all(machine, ids, accepted))
    return accepted


async def send_all(machine: Machine, ids: list[str], accepted: set[str] | None = None) -> set[str]:
    """Send an event of each id; give the ids of those that were answered with 202."""
    answered = set() if accepted is None else accepted
    waiting = iter(ids)

    async def sender(client: httpx.AsyncClient) -> None:
        for event_id in waiting:
            try:
                response = await client.post("/events", json=event(event_id))
            except httpx.TransportError:
                continue
            if response.status_code == 202:
                answered.add(event_id)

    headers = {"Authorization": f"Bearer {machine.token}"}
    async with httpx.AsyncClient(base_url=machine.api, headers=headers, timeout=30) as client:
        await asyncio.gather(*(sender(client) for _ in range(CONNECTIONS)))
    return answered


def count(machine: Machine) -> tuple[int, int]:
    """Count the rows, and the different events among them."""
    with psycopg.connect(machine.database_url) as connection:
        rows = connection.execute("SELECT count(*), count(DISTINCT event_id) FROM events").fetchall()
    return rows[0][0], rows[0][1]
