"""The Eye with stores of its own, for one case: everything real, everything on 127.0.0.1 and Unix sockets."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from tests.faults.processes import Process, clean_environment
from tests.faults.stores import BreakableValkey, CopiedPostgres
from tests.machine import RULES, free_addresses

from the_eye.queue import EVENTS_QUEUE
from the_eye.queue.figures import QueueObserver
from the_eye.settings import QueueSettings

NAMESPACE = "the-eye"


class House:
    """Two stores, an API and a worker, and more of these when a case asks for them."""

    def __init__(self, folder: Path, postgres: CopiedPostgres, valkey: BreakableValkey) -> None:
        self.postgres = postgres
        self.valkey = valkey
        self._folder = folder
        self._numbers = itertools.count()
        self._processes: list[Process] = []
        (listen,) = free_addresses(1)
        self.url = f"http://{listen}"
        self.api = self.make_api(listen)
        self.worker = self.make_worker()

    @contextmanager
    def opened(self) -> Iterator["House"]:
        """Start the API and the worker, and in the end leave no process behind."""
        try:
            for process in (self.api, self.worker):
                process.start()
            for process in (self.api, self.worker):
                process.wait_until_ready()
            yield self
        finally:
            for process in self._processes:
                process.clean_up()
                process.show_log()

    def make_api(self, listen: str, **environ: str) -> Process:
        """Make an API, not yet started."""
        (metrics,) = free_addresses(1)
        settings = {"THE_EYE_API_LISTEN": listen, "THE_EYE_API_METRICS_LISTEN": metrics}
        return self._make("api", settings | environ, f"http://{listen}/readyz")

    def make_worker(self, **environ: str) -> Process:
        """Make a worker, not yet started."""
        (listen,) = free_addresses(1)
        settings = {"THE_EYE_WORKER_METRICS_LISTEN": listen}
        return self._make("worker", settings | environ, f"http://{listen}/readyz")

    def _make(self, command: str, environ: dict[str, str], ready_url: str) -> Process:
        settings = {
            "THE_EYE_DATABASE_URL": self.postgres.url(),
            "THE_EYE_REDIS_URL": self.valkey.url(),
            "THE_EYE_QUEUE_NAMESPACE": NAMESPACE,
            "THE_EYE_RULES_DIR": str(RULES),
            # What is tested is what happens to accepted events, not how many an application may send.
            "THE_EYE_RATE_LIMIT_EVENTS_PER_SECOND": "0",
            "THE_EYE_BACKLOG_MAX_BYTES": str(16 * 1024**3),
        }
        log = self._folder / f"{command}-{next(self._numbers)}.log"
        process = Process(command, clean_environment() | settings | environ, log, ready_url)
        self._processes.append(process)
        return process

    @property
    def queue_settings(self) -> QueueSettings:
        """How a test reaches the queue to put something there itself."""
        return QueueSettings(redis_url=self.valkey.url(), queue_namespace=NAMESPACE)

    def client(self) -> redis.Redis:
        """Connect to the queue's server."""
        return redis.Redis.from_url(self.valkey.url(), socket_timeout=10)

    def left(self) -> int:
        """Count the messages that no worker has finished, dead letters among them; -1 while nobody answers."""
        events = f"{NAMESPACE}:{EVENTS_QUEUE}"
        try:
            with self.client() as client:
                return int(client.hlen(f"{events}.msgs")) + int(client.zcard(f"{events}.XQ"))
        except redis.RedisError:
            return -1

    def queued(self) -> set[bytes] | None:
        """List the ids of the messages that ``left`` counts; None while nobody answers."""
        events = f"{NAMESPACE}:{EVENTS_QUEUE}"
        try:
            with self.client() as client:
                return {*client.hkeys(f"{events}.msgs"), *client.zrange(f"{events}.XQ", 0, -1)}
        except redis.RedisError:
            return None

    def difference(self) -> int | None:
        """Ask for the difference in the queue's own ledger."""
        observer = QueueObserver(self.queue_settings)
        try:
            return observer.snapshot().difference
        finally:
            observer.close()

    def waiting(self) -> int:
        """Count the messages that no worker has in hand."""
        with self.client() as client:
            return int(client.llen(f"{NAMESPACE}:{EVENTS_QUEUE}"))

    def claims(self) -> set[bytes]:
        """List the keys of the workers that have messages in hand."""
        with self.client() as client:
            return set(client.scan_iter(f"{NAMESPACE}:__acks__.*"))
