"""Processes that fork and end: each event arrives once, from the process that tracked it."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from tests.client.conftest import TOKEN
from tests.client.scripted import WAIT_SECONDS, Call, ScriptedServer, accept
from tests.machine import free_addresses
from tests.servers import wait_until

from the_eye_client._spool import CLAIM_SECONDS

ROOT = Path(__file__).parents[2]
PROGRAM_SECONDS = 60.0


def environment(server: ScriptedServer, **changes: str) -> dict[str, str]:
    """Make the environment of a program that sends to the server."""
    return {**os.environ, "THE_EYE_URL": server.url, "THE_EYE_TOKEN": TOKEN, **changes}


def start(name: str, server: ScriptedServer, **changes: str) -> "subprocess.Popen[str]":
    """Start a program."""
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-W", "error::ResourceWarning", "-m", "tests.client.programs", name],
        cwd=ROOT,
        env=environment(server, **changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(name: str, server: ScriptedServer, status: int = 0, **changes: str) -> list[str]:
    """Run a program to its end; gives the lines that it has printed."""
    with start(name, server, **changes) as process:
        out, err = process.communicate(timeout=PROGRAM_SECONDS)
    assert process.returncode == status, err
    assert "Traceback" not in err
    return out.split()


@pytest.mark.parametrize(("name", "status"), [("end_at_once", 0), ("end_by_exception", 3), ("track_at_exit", 0)])
def test_the_end_of_a_process_waits_for_its_events(name: str, status: int, server: ScriptedServer) -> None:
    ids = run(name, server, status, BATCH_SECONDS="3600")
    assert len(ids) == 20
    assert server.stored == dict.fromkeys(ids, 1)


def test_the_end_of_a_process_does_not_wait_for_ever(server: ScriptedServer) -> None:
    """The server takes the request and never answers."""
    ended = threading.Event()
    server.otherwise = lambda _call: ended.wait(PROGRAM_SECONDS)
    run("end_at_once", server, CLOSE_SECONDS="0.5")
    ended.set()


@pytest.mark.parametrize(
    ("name", "spool"),
    [
        ("fork", ""),
        ("fork", "spool"),
        ("fork_without_a_word", ""),
        ("fork_while_threads_track", ""),
        ("fork_while_threads_track", "spool"),
        ("multiprocess_fork", ""),
        ("multiprocess_fork", "spool"),
        ("multiprocess_forkserver", ""),
        ("multiprocess_spawn", "spool"),
    ],
)
def test_after_a_fork_each_process_sends_its_own(name: str, spool: str, server: ScriptedServer, tmp_path: Path) -> None:
    """None is lost, and none is sent by two."""
    ids = run(name, server, SPOOL=str(tmp_path / spool) if spool else "")
    assert len(set(ids)) == len(ids)
    server.wait_for_events(len(ids))
    assert server.stored == dict.fromkeys(ids, 1)


@pytest.mark.parametrize("spool", ["", "spool"], ids=["memory", "spool"])
def test_a_preforking_server_that_loads_the_application_first(
    spool: str, server: ScriptedServer, tmp_path: Path
) -> None:
    """Gunicorn, with a client that was in use before the workers were forked; ended by SIGTERM."""
    (listen,) = free_addresses(1)
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "3", "--bind", listen, "--no-control-socket"]
    environ = environment(server, SPOOL=str(tmp_path / spool) if spool else "")
    with (
        httpx.Client(base_url=f"http://{listen}") as client,
        subprocess.Popen(  # noqa: S603 - our own application
            [*command, "tests.client.wsgi"], cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True
        ) as gunicorn,
    ):
        wait_until(lambda: answers(client) or gunicorn.poll() is not None, WAIT_SECONDS, lambda: "no answer")
        ids = {word for _ in range(60) for word in client.get("/").text.split()}
        gunicorn.send_signal(signal.SIGTERM)
        _, err = gunicorn.communicate(timeout=PROGRAM_SECONDS)
    assert gunicorn.returncode == 0, err
    assert len(ids) == 61
    assert set(server.stored) >= ids
    assert set(server.stored.values()) == {1}


def answers(client: httpx.Client) -> bool:
    """Whether somebody listens."""
    try:
        return client.get("/").is_success
    except httpx.TransportError:
        return False


def pass_time(spool: str, seconds: float) -> None:
    """Make the claims in a spool older."""
    with closing(sqlite3.connect(spool, isolation_level=None)) as connection:
        connection.execute("UPDATE events SET claimed_at = claimed_at - ?", (seconds,))


def test_what_was_spooled_survives_a_crash(server: ScriptedServer, tmp_path: Path) -> None:
    """The server is away, the process is killed, and another one sends what it left."""
    spool = str(tmp_path / "spool")
    server.stop()
    ids = run("be_killed", server, -signal.SIGKILL, SPOOL=spool)
    assert len(ids) == 20
    server.start()
    pass_time(spool, CLAIM_SECONDS)
    run("deliver", server, SPOOL=spool, WANTED="21")
    server.wait_for_events(21)
    assert set(server.stored) > set(ids)
    assert set(server.stored.values()) == {1}


def test_processes_share_a_spool(server: ScriptedServer, tmp_path: Path) -> None:
    """No event is lost, and none is sent twice while all of them live."""

    def slowly(call: Call) -> None:
        wait_until(lambda: len(server.requests) > 3, WAIT_SECONDS, lambda: "only one of them sends")
        accept(call)

    server.otherwise = slowly
    processes = [start("share_a_spool", server, SPOOL=str(tmp_path / "spool")) for _ in range(4)]
    outcomes = [process.communicate(timeout=PROGRAM_SECONDS) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outcomes
    ids = [line for out, _ in outcomes for line in out.split()]
    assert len(ids) == 800
    assert server.stored == dict.fromkeys(ids, 1)
