"""`the-eye up` as a process in a folder of its own, as a person would run it."""

import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

RULES = Path(__file__).parent.parent / "k8s" / "rules"
NOTHING: Mapping[str, str] = {}

START_SECONDS = 90.0
STOP_SECONDS = 60.0


def _ports(worker: str, workers: str) -> range:
    """Give a worker of pytest-xdist ports that no other one takes between finding and using them.

    All are below those of outgoing connections, one of which could otherwise take a port before the server that is
    meant to.
    """
    lowest, highest = 16_384, 32_768
    each = (highest - lowest) // int(workers)
    first = lowest + each * int(worker.removeprefix("gw"))
    return range(first, first + each)


PORTS = _ports(os.environ.get("PYTEST_XDIST_WORKER", "gw0"), os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))

EXPORT = re.compile(r"^export (\w+)=(.*)$", re.MULTILINE)

THE_EYE = [sys.executable, "-m", "the_eye_cli"]


def free_addresses(count: int) -> list[str]:
    """Find addresses that nothing listens on."""
    with ExitStack() as held:
        return [_free_address(held) for _ in range(count)]


def _free_address(held: ExitStack) -> str:
    while True:
        port = random.choice(PORTS)  # noqa: S311 - no secret
        with suppress(OSError):
            held.enter_context(socket.create_server(("127.0.0.1", port)))
            return f"127.0.0.1:{port}"


def environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Make an environment with addresses that are free and no other setting of The Eye's."""
    api, api_metrics, worker_metrics = free_addresses(3)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("THE_EYE_")}
    return {
        **inherited,
        "THE_EYE_API_LISTEN": api,
        "THE_EYE_API_METRICS_LISTEN": api_metrics,
        "THE_EYE_WORKER_METRICS_LISTEN": worker_metrics,
        **changes,
    }


def exported(data: Path) -> dict[str, str]:
    """Read where `the-eye up` has left its servers, for other commands; raises OSError where it has never run."""
    return {key: shlex.split(value)[0] for key, value in EXPORT.findall((data / "env").read_text())}


class Machine:
    """One run of `the-eye up`."""

    def __init__(self, folder: Path, rules: Path, environ: Mapping[str, str], *options: str) -> None:
        self.folder = folder
        self.data = folder / ".the-eye"
        self.environ = environ
        self.api = f"http://{environ['THE_EYE_API_LISTEN']}"
        self.worker = f"http://{environ['THE_EYE_WORKER_METRICS_LISTEN']}"
        self._out, self._err = folder / "up.out", folder / "up.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                [*THE_EYE, "up", "--rules", str(rules), *options],
                cwd=folder,
                env=environ,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        """Standard output so far."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """Standard error so far."""
        return self._err.read_text()

    @property
    def token(self) -> str:
        """The demo token."""
        return self.find(r"^  Token +(\S+)$")

    @property
    def database_url(self) -> str:
        """Where its database is."""
        return exported(self.data)["THE_EYE_DATABASE_URL"]

    @property
    def curl_lines(self) -> list[str]:
        """The commands that send an event and read it back."""
        return [line for line in self.out.splitlines() if line.startswith("curl ")]

    def find(self, pattern: str) -> str:
        """Find something in what was printed."""
        found = re.search(pattern, self.out, re.MULTILINE)
        assert found is not None, self.out + self.err
        return found[1]

    def wait_until_up(self) -> None:
        """Wait until it says how to use it."""
        until(lambda: self.process.poll() is not None or len(self.curl_lines) > 1, START_SECONDS)
        assert self.process.poll() is None, self.err

    def children(self) -> dict[str, int]:
        """Give the processes that it has started, by the command's last two words; Linux only."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        pids = [int(pid) for task in tasks for pid in task.read_text().split()]
        return {" ".join(Path(f"/proc/{pid}/cmdline").read_text().strip("\0").split("\0")[-2:]): pid for pid in pids}

    def wait_for_end(self) -> int:
        """Wait for its end; gives the exit status."""
        return self.process.wait(STOP_SECONDS)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; gives the exit status."""
        self.process.send_signal(number)
        return self.wait_for_end()


@contextmanager
def running(
    folder: Path, *options: str, rules: Path = RULES, changes: Mapping[str, str] = NOTHING
) -> Iterator[Machine]:
    """Run `the-eye up` until the end of the block; it is up when the block begins."""
    machine = Machine(folder, rules, environment(changes), *options)
    try:
        machine.wait_until_up()
        yield machine
    finally:
        if machine.process.poll() is None:
            machine.stop()


def until(condition: Callable[[], object], seconds: float) -> None:
    """Wait for a condition, and fail when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain"
        time.sleep(0.02)
