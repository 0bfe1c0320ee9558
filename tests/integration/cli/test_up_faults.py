"""What `the-eye up` does when something is in its way or goes wrong; that it works at all is tested elsewhere."""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest
from tests.machine import NOTHING, RULES, THE_EYE, environment, free_addresses, running, until

from the_eye_cli.preflight import data_folder

PATIENCE = 30.0

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")


def refused(
    folder: Path, *options: str, rules: Path = RULES, changes: Mapping[str, str] = NOTHING
) -> "subprocess.CompletedProcess[str]":
    """Run `the-eye up` where it cannot start; what it says is one line, and nothing was started."""
    ran = subprocess.run(  # noqa: S603 - our own command
        [*THE_EYE, "up", "--rules", str(rules), *options],
        cwd=folder,
        env=environment(changes),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ran.stdout == ""
    assert ran.stderr.count("\n") == 1, ran.stderr
    assert not list(folder.glob("**/*.log"))
    return ran


@pytest.mark.parametrize("key", ["THE_EYE_API_LISTEN", "THE_EYE_API_METRICS_LISTEN", "THE_EYE_WORKER_METRICS_LISTEN"])
def test_a_port_in_use_is_named_with_its_setting(tmp_path: Path, key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        ran = refused(tmp_path, changes={key: address})

    assert (ran.returncode, ran.stderr) == (1, f"Error: {address} ({key}) is in use\n")


def test_where_prometheus_is_missing_it_says_how_to_install_it(tmp_path: Path) -> None:
    ran = refused(tmp_path, "--observe", changes={"PATH": str(tmp_path)})

    expected = (
        "Error: --observe needs the program prometheus, which is not installed; on Debian: apt install prometheus\n"
    )
    assert (ran.returncode, ran.stderr) == (1, expected)


def test_two_services_at_one_address_are_refused(tmp_path: Path) -> None:
    (address,) = free_addresses(1)

    ran = refused(tmp_path, changes={"THE_EYE_API_LISTEN": address, "THE_EYE_API_METRICS_LISTEN": address})

    assert (ran.returncode, ran.stderr) == (1, f"Error: {address} (THE_EYE_API_METRICS_LISTEN) is in use\n")


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("127.0.0.1:0", "Error: THE_EYE_API_LISTEN=127.0.0.1:0: `the-eye up` needs a port that is known beforehand\n"),
        ("192.0.2.1:80", "Error: 192.0.2.1:80 (THE_EYE_API_LISTEN) cannot be used: Cannot assign requested address\n"),
    ],
)
@on_linux
def test_an_address_that_cannot_be_had_is_named_with_its_setting(tmp_path: Path, address: str, text: str) -> None:
    ran = refused(tmp_path, changes={"THE_EYE_API_LISTEN": address})

    assert (ran.returncode, ran.stderr) == (1, text)


@pytest.mark.parametrize(("data", "reason"), [("file", "File exists"), ("file/data", "Not a directory")])
def test_a_data_folder_that_cannot_be_written_is_named(tmp_path: Path, data: str, reason: str) -> None:
    (tmp_path / "file").touch()

    ran = refused(tmp_path, "--data", data)

    assert ran.returncode == 1
    assert ran.stderr == (
        f"Error: the data folder {tmp_path}/{data} cannot be written ({reason}): choose another with --data\n"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_data_folder_of_someone_else_s_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    ran = refused(tmp_path)

    assert ran.returncode == 1
    assert "cannot be written (Permission denied)" in ran.stderr


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("THE_EYE_API_LISTEN", "8000"),
        ("THE_EYE_WORKER_THREADS", "many"),
        ("THE_EYE_RETENTION_DAYS", "0"),
        ("THE_EYE_DATABASE_URL", "mysql://localhost/db"),
    ],
)
def test_a_broken_setting_is_named_whichever_process_it_is_for(tmp_path: Path, key: str, value: str) -> None:
    ran = refused(tmp_path, changes={key: value})

    assert ran.returncode == 2
    assert ran.stderr.startswith(f"Error: {key}=")


def test_a_rules_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    ran = refused(tmp_path, rules=tmp_path / "rules")

    assert ran.returncode == 1
    assert ran.stderr == (
        f"Error: the rules directory {tmp_path}/rules cannot be read (No such file or directory): "
        "name another with --rules\n"
    )


def test_another_up_on_the_same_data_is_named(tmp_path: Path) -> None:
    with data_folder(tmp_path / ".the-eye"):
        ran = refused(tmp_path)

    assert ran.returncode == 1
    assert f"another `the-eye up` (process {os.getpid()}) uses {tmp_path}/.the-eye" in ran.stderr


@pytest.mark.parametrize("key", ["THE_EYE_DATABASE_URL", "THE_EYE_REDIS_URL"])
def test_a_server_of_the_user_s_own_that_does_not_answer_is_named_without_its_password(
    tmp_path: Path, key: str
) -> None:
    (address,) = free_addresses(1)
    scheme = "postgresql" if key == "THE_EYE_DATABASE_URL" else "redis"

    ran = subprocess.run(  # noqa: S603 - our own command
        [*THE_EYE, "up", "--rules", str(RULES)],
        cwd=tmp_path,
        env=environment({key: f"{scheme}://user:secret@{address}/0"}),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert ran.returncode == 1
    assert f"Error: the server of {key} does not answer: " in ran.stderr
    assert not {"secret", "Traceback"} & set(ran.stderr.replace(":", " ").replace("@", " ").split())


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


@on_linux
def test_a_child_that_dies_is_named_with_its_last_lines_and_the_others_are_stopped(tmp_path: Path) -> None:
    with running(tmp_path) as machine:
        children = machine.children()
        os.kill(children["the_eye_cli worker"], signal.SIGKILL)
        status = machine.wait_for_end()

    assert status == 1
    assert "Error: worker was killed by SIGKILL; its last lines in" in machine.err
    assert [line for line in machine.err.splitlines() if line.startswith("api ... stopped")]
    assert not [pid for pid in children.values() if is_alive(pid)]


@on_linux
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


@on_linux
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


def test_a_second_start_has_the_first_one_s_token_and_a_revoked_one_is_replaced(tmp_path: Path) -> None:
    with running(tmp_path) as machine:
        token = machine.token
    with running(tmp_path) as machine:
        assert machine.token == token
        environ = {**machine.environ, "THE_EYE_DATABASE_URL": machine.find("(postgresql://[^']+)'")}
        subprocess.run([*THE_EYE, "token", "revoke", "1"], env=environ, check=True)  # noqa: S603 - our own command
    with running(tmp_path) as machine:
        assert machine.token != token

    kept = tmp_path / ".the-eye" / "demo-token"
    assert kept.read_text().strip() == machine.token
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


@on_linux
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
