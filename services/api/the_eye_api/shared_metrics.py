"""What all processes of the edge could tell of the queue and the store, told by one of them at a time.

Told by each, it would be there as often as there are processes, and never the same. The one that tells holds a lease,
and asks in threads of its own, so that no request waits for it. What it cannot ask for is not told, rather than told as
it was.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec
import psycopg
import redis
import structlog
from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from the_eye.queue import QueueUnavailableError
from the_eye.queue.figures import QueueFigures, QueueObserver
from the_eye.queue.lease import RENEW_SECONDS, Lease
from the_eye.settings import QueueSettings, StoreSettings
from the_eye.store.connect import connect
from the_eye.store.figures import StoreFigures, read_figures

QUEUE_SECONDS = 2.0
"""How often the queue is asked."""

STORE_SECONDS = 30.0
"""How often the store is asked, whose answers cost it more."""

STORE_STATEMENT_SECONDS = 5.0

LOOK_SECONDS = 0.5
"""How often a thread looks whether there is anything to do."""

log = structlog.get_logger(__name__)


class Shared(msgspec.Struct, frozen=True):
    """A metric of which one process tells."""

    family: type[GaugeMetricFamily | CounterMetricFamily]
    name: str
    documentation: str
    label: str = ""

    def of(self, values: float | Mapping[str, float]) -> Metric:
        """Give the metric its value, or its values by the label."""
        family = self.family(self.name, self.documentation, labels=[self.label] if self.label else [])
        if isinstance(values, Mapping):
            for label, value in values.items():
                family.add_metric([label], value)
        else:
            family.add_metric([], values)
        return family


BACKLOG_MESSAGES = Shared(GaugeMetricFamily, "the_eye_backlog_messages", "Messages that the queue holds.", "state")
BACKLOG_EVENTS = Shared(
    GaugeMetricFamily,
    "the_eye_backlog_events",
    "Events in these messages; absent while there are too many messages, or some of an older version.",
)
BACKLOG_BYTES = Shared(
    GaugeMetricFamily, "the_eye_backlog_bytes", "Memory of these messages, estimated by the queue's server."
)
BACKLOG_AGE_SECONDS = Shared(
    GaugeMetricFamily,
    "the_eye_backlog_age_seconds",
    "Age of the oldest message that is not finished, wherever it is; 0 when there is none. While there are too many "
    "messages to look at each, of the oldest that is ready.",
)
LEDGER_EVENTS = Shared(
    CounterMetricFamily,
    "the_eye_ledger_events",
    "Events that were ever accepted into the queue, and how they ended, as the queue's server has counted them.",
    "state",
)
LEDGER_DIFFERENCE = Shared(
    GaugeMetricFamily,
    "the_eye_ledger_difference_events",
    "Accepted events that neither ended nor are queued: 0 when nothing is lost; absent while they cannot be counted.",
)
REDIS_MEMORY_USED = Shared(GaugeMetricFamily, "the_eye_redis_memory_used_bytes", "Memory that the queue's server uses.")
REDIS_MEMORY_MAX = Shared(GaugeMetricFamily, "the_eye_redis_memory_max_bytes", "Memory that it may use; 0 is no limit.")
REDIS_DELAYED_FSYNCS = Shared(
    CounterMetricFamily,
    "the_eye_redis_aof_delayed_fsyncs",
    "Times that the queue's server waited for its disk, since it was started.",
)
REDIS_CLIENTS = Shared(GaugeMetricFamily, "the_eye_redis_connected_clients", "Connections to the queue's server.")
REDIS_EVICTED_KEYS = Shared(
    CounterMetricFamily,
    "the_eye_redis_evicted_keys",
    "Keys that the queue's server has thrown away for want of memory, since it was started: events may be among them.",
)
DEAD_EVENTS = Shared(
    GaugeMetricFamily, "the_eye_dead_events", "Rows of dead_events that wait to be replayed or discarded.", "kind"
)
PARTITIONS_UNTIL = Shared(
    GaugeMetricFamily,
    "the_eye_partitions_until_timestamp_seconds",
    "Until when there are partitions of events; 0 while there is none.",
)
DATABASE_BYTES = Shared(GaugeMetricFamily, "the_eye_database_bytes", "Size of the database on disk.")
DATABASE_CONNECTIONS = Shared(
    GaugeMetricFamily, "the_eye_database_connections", "Connections to the database.", "state"
)

_OF_SERVER = {
    "used_memory": REDIS_MEMORY_USED,
    "maxmemory": REDIS_MEMORY_MAX,
    "aof_delayed_fsync": REDIS_DELAYED_FSYNCS,
    "connected_clients": REDIS_CLIENTS,
    "evicted_keys": REDIS_EVICTED_KEYS,
}
"""By the field of the server's ``INFO``."""


def queue_metrics(figures: QueueFigures) -> Iterator[Metric]:
    """Tell of the queue."""
    backlog, snapshot = figures.backlog, figures.snapshot
    yield BACKLOG_MESSAGES.of(
        {"ready": snapshot.ready, "delayed": snapshot.delayed, "unacknowledged": snapshot.unacknowledged}
    )
    yield BACKLOG_BYTES.of(backlog.bytes)
    yield BACKLOG_AGE_SECONDS.of(backlog.age_seconds if snapshot.age_seconds is None else snapshot.age_seconds)
    yield LEDGER_EVENTS.of(snapshot.ledger)
    if snapshot.events is not None:
        yield BACKLOG_EVENTS.of(snapshot.events)
    if snapshot.difference is not None:
        yield LEDGER_DIFFERENCE.of(snapshot.difference)
    for field, shared in _OF_SERVER.items():
        if field in figures.server:
            yield shared.of(figures.server[field])


def store_metrics(figures: StoreFigures) -> Iterator[Metric]:
    """Tell of the store."""
    yield DEAD_EVENTS.of(figures.dead)
    yield DATABASE_BYTES.of(figures.bytes)
    yield DATABASE_CONNECTIONS.of(figures.connections)
    yield PARTITIONS_UNTIL.of(0 if figures.partitions_until is None else figures.partitions_until.timestamp())


class SharedMetrics(Collector):
    """Holds the lease, asks and tells, as far as it is one process's turn."""

    def __init__(self, queue: QueueSettings, store: StoreSettings) -> None:
        self._lease = Lease(queue, "shared-metrics")
        self._observer = QueueObserver(queue)
        self._store = store
        self._stopping = threading.Event()
        self._sources = [
            _Source("queue", self._lease, self._read_queue, QUEUE_SECONDS),
            _Source("store", self._lease, self._read_store, STORE_SECONDS),
        ]
        self._threads = [
            threading.Thread(target=work, args=(self._stopping,), name=f"shared-metrics-{name}", daemon=True)
            for name, work in (("lease", self._hold), *((source.name, source.run) for source in self._sources))
        ]

    def start(self) -> None:
        """Begin to ask, and to tell whenever it is this process's turn."""
        REGISTRY.register(self)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Leave it to another process, at once if the queue's server answers."""
        REGISTRY.unregister(self)
        self._stopping.set()
        self._threads[0].join(2 * RENEW_SECONDS)

    def describe(self) -> Iterable[Metric]:
        """Say nothing in advance: what will be told is another process's now, perhaps."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Tell what is known, if it is this process that tells."""
        for source in self._sources:
            yield from source.metrics

    def _hold(self, stopping: threading.Event) -> None:
        held = failing = False
        while True:
            try:
                self._lease.take()
                failing = False
            except redis.RedisError as error:
                if not failing:
                    log.warning("shared_metrics_lease_unknown", error=str(error))
                failing = True
            except Exception:  # without this thread this process would never tell again
                log.exception("shared_metrics_lease_unknown")
            if held != self._lease.held:
                held = self._lease.held
                log.info("shared_metrics_taken" if held else "shared_metrics_left")
            if stopping.wait(RENEW_SECONDS):
                break
        try:
            self._lease.release()
        except redis.RedisError as error:
            log.warning("shared_metrics_lease_unknown", error=str(error))

    def _read_queue(self) -> Iterator[Metric]:
        return queue_metrics(self._observer.read())

    def _read_store(self) -> Iterator[Metric]:
        with connect(self._store, "the-eye shared metrics", STORE_STATEMENT_SECONDS) as connection:
            return store_metrics(read_figures(connection))


class _Source:
    """Something that is asked again and again while this process holds the lease."""

    def __init__(self, name: str, lease: Lease, read: Callable[[], Iterable[Metric]], every_seconds: float) -> None:
        self.name = name
        self._lease = lease
        self._read = read
        self._every_seconds = every_seconds
        self._read_at = 0.0
        self._metrics: list[Metric] = []
        self._failing = False

    @property
    def metrics(self) -> list[Metric]:
        """What was read last; nothing when that is too long ago, and while another process holds the lease."""
        old = time.monotonic() - self._read_at > 2 * self._every_seconds
        return [] if old or not self._lease.held else self._metrics

    def run(self, stopping: threading.Event) -> None:
        """Ask until told to stop."""
        due = 0.0
        while not stopping.wait(LOOK_SECONDS):
            if not self._lease.held:
                due = 0.0
            elif time.monotonic() >= due:
                due = time.monotonic() + self._every_seconds
                self._metrics = self._ask()
                self._read_at = time.monotonic()

    def _ask(self) -> list[Metric]:
        try:
            metrics = list(self._read())
        except (QueueUnavailableError, psycopg.Error) as error:
            if not self._failing:
                log.warning("shared_metrics_not_read", source=self.name, error=str(error).partition("\n")[0])
        except Exception:  # without this thread nothing would be told any more
            log.exception("shared_metrics_not_read", source=self.name)
        else:
            self._failing = False
            return metrics
        self._failing = True
        return []
