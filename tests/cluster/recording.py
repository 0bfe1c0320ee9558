"""What an autoscaler sees and does, second by second."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import httpx2
import msgspec
import structlog
from lightkube import Client
from lightkube.resources.apps_v1 import Deployment
from tests.observability.prometheus import Prometheus

LOOK_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class Moment(msgspec.Struct, frozen=True):
    """One look."""

    seconds: float
    """Since the recording began."""
    backlog: float
    """In bytes, as Prometheus has it."""
    replicas: int
    """Pods that are wanted."""
    ready: int
    """Pods that are ready."""


class Recording:
    """A series of moments."""

    def __init__(self, prometheus: Prometheus, backlog: str, client: Client, namespace: str, deployment: str) -> None:
        """``backlog`` is the expression."""
        self._prometheus = prometheus
        self._backlog = backlog
        self._client = client
        self._namespace = namespace
        self._deployment = deployment
        self._begun = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self.moments: list[Moment] = []

    @contextmanager
    def running(self) -> Iterator["Recording"]:
        """Record during the block."""
        self._thread.start()
        try:
            yield self
        finally:
            self._stopping.set()
            self._thread.join()

    @property
    def seconds(self) -> float:
        """The time now, as that of moments."""
        return time.monotonic() - self._begun

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                self._look()
            except (httpx.HTTPError, httpx2.HTTPError) as error:
                _log.warning("moment_missed", error=str(error))

    def _look(self) -> None:
        told = self._prometheus.query(self._backlog)
        found = self._client.get(Deployment, self._deployment, namespace=self._namespace)
        if told and found.status is not None:
            replicas, ready = found.spec.replicas or 0, found.status.readyReplicas or 0
            self.moments.append(Moment(self.seconds, told[0].value, replicas, ready))
