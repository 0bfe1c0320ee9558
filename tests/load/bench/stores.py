"""PostgreSQL and Valkey of the benchmark: wheels and settings as of ``the-eye up``, in a folder that is removed."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import redis
from psycopg import sql
from tests.load.bench.processes import BenchError, Process

from the_eye.queue import EVENTS_QUEUE
from the_eye.settings import QueueSettings
from the_eye.store import partitions
from the_eye.store.applications import create_application, create_token
from the_eye.tokens import Scope
from the_eye_cli.embedded import EmbeddedPostgres, EmbeddedValkey

APPLICATION = "bench"
FSYNCS = 300
REWRITE_BYTES = 30_000_000
"""Below 64 MB Valkey does not rewrite its file by itself."""

_TIMES = """CREATE VIEW bench_times AS SELECT received_at, pg_xact_commit_timestamp(xmin) AS committed FROM events
             WHERE "timestamp" > now() - interval '6 hours'"""
"""Events of the last hours: what is filled in beforehand is older."""
BLOCK = b"\0" * 4096


class Stores:
    """Both servers, with the schema and one application in place."""

    def __init__(self, folder: Path) -> None:
        sockets, data = folder / "s", folder / "d"
        for path in (sockets, data):
            path.mkdir(mode=0o700)
        self.folder = folder
        postgres, valkey = EmbeddedPostgres(data, sockets), EmbeddedValkey(data, sockets)
        self.database_url, self.redis_url = postgres.url, valkey.url
        subprocess.run(postgres.initdb_command(), check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - ours
        postgres.adopt()
        valkey.check()
        # The one setting beyond those of `the-eye up`: with it the time of each row's commit is known afterwards.
        commit_times = ["-c", "track_commit_timestamp=on"]
        environ = dict(os.environ)
        self.postgres = Process("postgres", [*postgres.command, *commit_times], environ, folder / "postgres.log")
        self.valkey = Process("valkey", valkey.command, environ, folder / "valkey.log")
        self.postgres.wait_until(lambda: not _now(postgres.why_not_ready))
        self.valkey.wait_until(lambda: not _now(valkey.why_not_ready))
        asyncio.run(postgres.create_database())
        self._prepare()
        self.client = redis.Redis.from_url(self.redis_url, socket_timeout=30)
        self.waiting = f"{QueueSettings(redis_url=self.redis_url).queue_namespace}:{EVENTS_QUEUE}"

    def _prepare(self) -> None:
        environ = {**os.environ, "THE_EYE_DATABASE_URL": self.database_url}
        for command in ("migrate", "maintain"):
            done = subprocess.run(  # noqa: S603 - our own command
                [sys.executable, "-m", "the_eye_cli", command], env=environ, capture_output=True, text=True, check=False
            )
            if done.returncode:
                message = f"the-eye {command} failed:\n{done.stdout}{done.stderr}"
                raise BenchError(message)
        with self.connect() as connection:
            self.application_id, self.token = _application(connection, APPLICATION)
            connection.execute(_TIMES)

    def another_token(self, application: str) -> str:
        """Make another application; gives its token, which an API that runs knows some seconds later."""
        with self.connect() as connection:
            return _application(connection, application)[1]

    def connect(self) -> psycopg.Connection[Any]:
        """Open a connection."""
        return psycopg.connect(self.database_url, autocommit=True)

    def one(self, query: str) -> Any:
        """Ask for a single row."""
        with self.connect() as connection:
            return connection.execute(query.encode()).fetchall()[0]

    @property
    def rows(self) -> int:
        """Events stored in the last hours."""
        return int(self.one("SELECT count(*) FROM bench_times")[0])

    def rows_by_application(self) -> dict[str, int]:
        """Events stored in the last hours, of those applications that have any."""
        with self.connect() as connection:
            return dict(
                connection.execute(
                    """SELECT applications.name, count(*)
                         FROM events JOIN applications ON applications.id = events.application_id
                        WHERE "timestamp" > now() - interval '6 hours' GROUP BY applications.name"""
                ).fetchall()
            )

    @property
    def messages(self) -> int:
        """Messages that are not done: waiting or in the hands of a worker."""
        return self._messages(self.waiting)

    def _messages(self, queue: str) -> int:
        return int(self.client.hlen(f"{queue}.msgs"))

    def middle_rate(self) -> float:
        """Rows committed a second, without the first and the last tenth of them."""
        count, first, last = self.one(
            """SELECT count(*), percentile_disc(0.1) WITHIN GROUP (ORDER BY committed),
                       percentile_disc(0.9) WITHIN GROUP (ORDER BY committed) FROM bench_times"""
        )
        return 0.8 * float(count) / float((last - first).total_seconds())

    def lag(self) -> tuple[float, float]:
        """Milliseconds from accepting an event to its commit: median and 99th percentile."""
        p50, p99 = self.one(
            """SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY committed - received_at),
                       percentile_cont(0.99) WITHIN GROUP (ORDER BY committed - received_at) FROM bench_times"""
        )
        return p50.total_seconds() * 1e3, p99.total_seconds() * 1e3

    def clear(self) -> None:
        """Empty the queue and the partitions of these days, and start from a checkpoint."""
        self.client.flushall()
        if self.client.info("persistence")["aof_current_size"] > REWRITE_BYTES:
            self.client.bgrewriteaof()  # now, not during a measurement
        with self.connect() as connection:
            yesterday = partitions.clock(connection).date() - timedelta(days=1)
            for day in partitions.list_partitions(connection):
                if day >= yesterday:
                    name = sql.Identifier(partitions.partition_name(day))
                    connection.execute(sql.SQL("TRUNCATE {}").format(name))
            connection.execute("CHECKPOINT")
        self._wait(lambda: self.client.info("persistence")["aof_rewrite_in_progress"] == 0, 60.0)

    def wait_until_stored(self, seconds: float, namespace: str | None = None) -> None:
        """Wait until nothing is queued, in the queue of a namespace of its own if one is given.

        Raises BenchError when that takes too long.
        """
        queue = f"{namespace}:{EVENTS_QUEUE}" if namespace else self.waiting
        self._wait(lambda: self._messages(queue) == 0, seconds)

    @staticmethod
    def _wait(condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                message = f"the stores did not come to rest within {seconds:g} s"
                raise BenchError(message)
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop both; their data is not needed any more."""
        self.client.close()
        self.valkey.stop()
        self.postgres.stop(EmbeddedPostgres.stop_signal)


def _application(connection: psycopg.Connection[Any], name: str) -> tuple[int, str]:
    created = create_application(connection, name)
    return created.id, create_token(connection, name, [Scope.INGEST]).text


def _now(probe: Callable[[], Coroutine[Any, Any, str]]) -> str:
    return asyncio.run(probe())


@contextmanager
def temporary_stores(parent: Path) -> Iterator[Stores]:
    """Run the servers in a folder of their own beneath ``parent`` and remove it afterwards.

    Raises BenchError where the folder is in memory: an fsync there is none.
    """
    folder = Path(tempfile.mkdtemp(prefix="eye-bench-", dir=parent))
    try:
        kind = _file_system(folder)
        if kind in {"tmpfs", "ramfs"}:
            message = f"{parent} is in memory ({kind}), where nothing is ever on disk: choose a folder with --folder"
            raise BenchError(message)
        stores = Stores(folder)
        try:
            yield stores
        finally:
            stores.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _file_system(folder: Path) -> str:
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    return max((mount for mount in mounts if folder.is_relative_to(mount[0])), key=lambda mount: len(mount[0]))[1]


def fdatasync_seconds(folder: Path) -> float:
    """Measure what putting 4 KiB on disk takes here: the median of some hundred."""
    path = folder / "fdatasync"
    taken: list[float] = []
    with path.open("wb", buffering=0) as file:
        for _ in range(FSYNCS):
            file.write(BLOCK)
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - start)
    path.unlink()
    return sorted(taken)[FSYNCS // 2]
