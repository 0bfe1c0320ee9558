"""The processes that are measured: the bare application, the API and the workers, as their commands start them."""

import http.client
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from prometheus_client.parser import text_string_to_metric_families
from tests.load.bench.processes import Process, python
from tests.load.bench.stores import Stores
from tests.machine import NOTHING, free_addresses

RULES = Path("k8s/rules")
ANSWER_SECONDS = 10.0
WIDE_LIMITS = {
    "THE_EYE_RATE_LIMIT_EVENTS_PER_SECOND": "1000000",
    "THE_EYE_RATE_LIMIT_BURST": "100000000",
    "THE_EYE_BACKLOG_MAX_BYTES": "64000000000",
}
"""Limits that are checked as ever and never reached: one application sends all there is."""

DEFAULT_LIMITS = NOTHING

THE_EYE = (sys.executable, "-m", "the_eye_cli")

Samples = dict[str, float]
"""Values of metrics, summed over labels."""


class Layout(msgspec.Struct, frozen=True):
    """How many workers there are and how many threads each has."""

    processes: int
    threads: int

    def __str__(self) -> str:
        return f"{self.processes} x {self.threads}"


SINGLES = Layout(1, 2)
BATCHES = Layout(2, 1)


class Service:
    """A process with a port for metrics."""

    def __init__(self, process: Process, address: str, metrics: str) -> None:
        self.process = process
        self.address = address
        self._metrics = metrics

    def samples(self) -> Samples:
        """Read its metrics."""
        found: Samples = {}
        for family in text_string_to_metric_families(_get(self._metrics, "/metrics")[1]):
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
        return found


def _get(address: str, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def _answers(address: str, path: str) -> bool:
    try:
        return _get(address, path)[0] == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False


def _environ(stores: Stores, changes: Mapping[str, str]) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("THE_EYE_")}
    return {
        **inherited,
        "THE_EYE_DATABASE_URL": stores.database_url,
        "THE_EYE_REDIS_URL": stores.redis_url,
        "THE_EYE_LOG_LEVEL": "warning",
        **changes,
    }


@contextmanager
def bare(stores: Stores) -> Iterator[str]:
    """Run the bare application; gives its address."""
    (address,) = free_addresses(1)
    process = Process("bare", [*python("bare"), address], os.environ, stores.folder / "bare.log")
    try:
        host, _, port = address.partition(":")
        process.wait_until(lambda: _connects(host, int(port)))
        yield address
    finally:
        process.stop()


def _connects(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS)
    try:
        connection.connect()
    except OSError:
        return False
    connection.close()
    return True


@contextmanager
def api(
    stores: Stores, environ: Mapping[str, str] = WIDE_LIMITS, program: Sequence[str] = THE_EYE
) -> Iterator[Service]:
    """Run ``the-eye api``."""
    address, metrics = free_addresses(2)
    changes = {**environ, "THE_EYE_API_LISTEN": address, "THE_EYE_API_METRICS_LISTEN": metrics}
    process = Process("api", [*program, "api"], _environ(stores, changes), stores.folder / "api.log")
    try:
        process.wait_until(lambda: _answers(address, "/readyz"))
        yield Service(process, address, metrics)
    finally:
        process.stop()


@contextmanager
def workers(
    stores: Stores,
    layout: Layout,
    rules: Path = RULES,
    environ: Mapping[str, str] = NOTHING,
    program: Sequence[str] = THE_EYE,
) -> Iterator[list[Service]]:
    """Run workers."""
    started: list[Service] = []
    try:
        for metrics in free_addresses(layout.processes):
            changes = {
                **environ,
                "THE_EYE_WORKER_METRICS_LISTEN": metrics,
                "THE_EYE_WORKER_THREADS": str(layout.threads),
                "THE_EYE_RULES_DIR": str(rules),
            }
            log = stores.folder / "worker.log"
            process = Process("worker", [*program, "worker"], _environ(stores, changes), log)
            started.append(Service(process, metrics, metrics))
        for service in started:
            service.process.wait_until(lambda address=service.address: _answers(address, "/readyz"))  # type: ignore[misc]
        yield started
    finally:
        for service in started:
            service.process.stop()


def total(services: list[Service], name: str) -> float:
    """Sum up a metric over processes."""
    return sum(service.samples().get(name, 0.0) for service in services)
