"""PostgreSQL and Valkey to be broken: each case has servers of its own."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from tests.servers import Postgres, Server, Valkey, wait_until

from the_eye.settings import StoreSettings
from the_eye.store.applications import create_application, create_token
from the_eye.store.connect import connect
from the_eye.tokens import Scope
from the_eye_cli.maintain import maintain
from the_eye_cli.migrate import migrate

APPLICATION = "faults"
CHUNK = b"\0" * (1024 * 1024)


class MigratedPostgres(Postgres):
    """A stopped server with the schema and an application, to be copied: that takes a tenth of making one anew."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.start()
        try:
            self.token = self._prepare()
        finally:
            self.stop()

    def _prepare(self) -> str:
        url = self.create_database("the_eye")
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("THE_EYE_DATABASE_URL", url)
            migrate.main([], standalone_mode=False)
            maintain.main([], standalone_mode=False)
        with connect(StoreSettings(database_url=url), "faults") as connection:
            create_application(connection, APPLICATION)
            return create_token(connection, APPLICATION, [Scope.INGEST]).text


class CopiedPostgres(Postgres):
    """A server with its own copy of a migrated one's data."""

    def __init__(self, folder: Path, original: MigratedPostgres, *options: str) -> None:
        Server.__init__(self, folder)
        self.token = original.token
        self.options = options
        shutil.copytree(original.folder / "data", folder / "data", dirs_exist_ok=True)

    def command(self) -> list[str]:
        """Run with this case's options."""
        return [*super().command(), *self.options]

    def kill(self) -> None:
        """Kill every process at once: left to themselves, the children would finish what they are doing."""
        processes = [self._running.pid, *_children(self._running.pid)]
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        super().kill()
        # Whoever starts the server while one of them still holds the shared memory is refused.
        wait_until(lambda: not any(map(_exists, processes)), 10, lambda: "PostgreSQL's children do not die")

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """All that it has logged."""
        return (self.folder / "log").read_text(errors="replace")

    def connect(self) -> psycopg.Connection[psycopg.rows.TupleRow]:
        """Connect as the administrator, to break things or to count."""
        return psycopg.connect(self.url(), autocommit=True, connect_timeout=10)


class BreakableValkey(Valkey):
    """A server whose end can be waited for and whose file can be looked at."""

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """All that it has logged."""
        return (self.folder / "log").read_text(errors="replace")

    @property
    def append_only_file(self) -> Path:
        """The file that grows with each write."""
        (file,) = self.folder.glob("appendonlydir/*.incr.aof")
        return file


def clean_up(server: CopiedPostgres | BreakableValkey) -> None:
    """End a server at once; its data is of no more use."""
    if server.runs:
        server.kill()


class SmallDisk:
    """A file system of a few MiB that can be filled up."""

    how = "a tmpfs of its own, filled to the last byte (ENOSPC)"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave no byte."""
        with suppress(OSError), self._ballast.open("wb", buffering=0) as ballast:
            while True:
                ballast.write(CHUNK)

    def free(self) -> None:
        """Give back what ``fill`` took."""
        self._ballast.unlink()


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[SmallDisk]:
    """Mount a small file system on ``folder``, which only root can."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system to be filled up")
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={mebibytes}m,mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)  # noqa: S603, S607 - ours
    try:
        yield SmallDisk(folder)
    finally:
        # Lazily: what was killed a moment ago may still hold a file.
        subprocess.run(["umount", "--lazy", folder], check=True)  # noqa: S603, S607 - ours


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _exists(pid: int) -> bool:
    """Whether a process is still there, and not only its entry for a parent that never asks."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
