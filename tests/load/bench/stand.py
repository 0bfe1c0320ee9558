"""The machine under test: how each figure is taken."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.load.bench import raw, services
from tests.load.bench.answers import Load
from tests.load.bench.figures import Runs
from tests.load.bench.generators import Generators
from tests.load.bench.processes import BenchError, Process, Usage
from tests.load.bench.services import RULES, Layout, Service
from tests.load.bench.stores import Stores

WAITING_MESSAGES = 4
"""With batches, the next is sent while fewer messages wait for a worker: next to nothing."""

REST_SECONDS = 120.0
BATCH = 500
STORED = "the_eye_events_total"
ACCEPTED = "the_eye_events_accepted_total"
IN_FLIGHT = "the_eye_http_requests_in_flight"
RATE = "events/s"


OnWorkers = Callable[[list[Service]], None]


class Stand:
    """Servers that run throughout, and the ways to put load on them."""

    def __init__(self, stores: Stores, bare: str, api: Service, runs: Runs, token: str) -> None:
        self.stores = stores
        self.bare = bare
        self.api = api
        self.runs = runs
        self.generators = Generators(stores.folder, token)

    @contextmanager
    def limited(self, token: str) -> Iterator["Stand"]:
        """Have an API with the limits that it has by default, and send with another token."""
        with services.api(self.stores, services.DEFAULT_LIMITS) as api:
            yield Stand(self.stores, self.bare, api, self.runs, token)

    def bare_rate(self, connections: int, seconds: float) -> None:
        """Take the limit of the HTTP server."""
        load = self.checked(self.generators.maximum(self.bare, connections, seconds))
        self.runs.add(f"bare_{connections}", load.per_second, RATE)

    def api_rate(self, connections: int, seconds: float) -> None:
        """Accept single POSTs with no worker: the API and Valkey, each write on disk before its 202."""
        self.stores.clear()
        before = self.api.samples()
        with self._used(f"api_{connections}", lambda: self._accepted(before)):
            load = self.checked(self.generators.maximum(self.api.address, connections, seconds))
        self.runs.add(f"api_{connections}", load.per_second, RATE)
        self._note_groups(f"api_{connections}", before)

    def _note_groups(self, figure: str, before: services.Samples) -> None:
        now = self.api.samples()
        groups, events = (
            now[f"the_eye_group_events_{end}"] - before.get(f"the_eye_group_events_{end}", 0.0)
            for end in ("count", "sum")
        )
        self.runs.add(f"{figure}_events_per_fsync", events / max(groups, 1.0), "events")

    def _accepted(self, before: services.Samples) -> float:
        return self.api.samples().get(ACCEPTED, 0.0) - before.get(ACCEPTED, 0.0)

    @contextmanager
    def working(self, layout: Layout, rules: Path = RULES) -> Iterator[list[Service]]:
        """Have workers."""
        with services.workers(self.stores, layout, rules) as workers:
            yield workers

    def single_rate(self, connections: int, seconds: float, workers: list[Service]) -> None:
        """Send single POSTs the whole way; counts what is stored while they are sent."""
        name = f"single_{connections}"
        self._from_rest(workers)
        before = self.api.samples()
        with self._stored(name, workers), self._used(name, lambda: self._accepted(before), workers):
            load = self.checked(self.generators.maximum(self.api.address, connections, seconds))
        self.runs.add(f"{name}_accepted", load.per_second, RATE)
        self._note_groups(name, before)
        self._see_all_stored(before)

    def batch_rate(self, size: int, seconds: float, workers: list[Service]) -> None:
        """Send batches the whole way, as fast as they are stored; counts the middle four fifths, as ``drain_rate``."""
        name = f"batch_{size}"
        self._from_rest(workers)
        before = self.api.samples()
        backlog = (self.stores.redis_url, self.stores.waiting, WAITING_MESSAGES)
        with self._used(name, lambda: self._accepted(before), workers):
            self.checked(self.generators.batches(self.api.address, size, seconds, backlog=backlog))
        self.note_peaks(workers)
        self._see_all_stored(before)
        self.runs.add(name, self.stores.middle_rate(), RATE)
        self._note_lag(name)

    def fixed_rate(self, name: str, connections: int, rate: float, seconds: float, workers: list[Service]) -> None:
        """Send single POSTs at a fixed rate: how long an answer takes, and how long until the event is stored."""
        self._from_rest(workers)
        before = self.api.samples()
        with self._used(name, lambda: self._accepted(before), workers):
            self._fixed_rate(name, connections, rate, seconds)
        self._see_all_stored(before)
        self._note_lag(name)

    def _fixed_rate(self, name: str, connections: int, rate: float, seconds: float) -> None:
        load = self.checked(self.generators.fixed(self.api.address, connections, rate, seconds))
        self.runs.add(f"{name}_rate", load.per_second, "requests/s")
        self.runs.add(f"{name}_p50_ms", load.p50_ms, "ms")
        self.runs.add(f"{name}_p99_ms", load.p99_ms, "ms")
        self.runs.add(f"{name}_generator_late_p99_ms", load.late_p99_ms, "ms")

    def fixed_rate_beside(  # noqa: PLR0913 - a fixed rate and what is beside it
        self,
        name: str,
        flood: AbstractContextManager[None],
        connections: int,
        rate: float,
        seconds: float,
        *,
        workers: list[Service],
    ) -> None:
        """Send single POSTs at a fixed rate, of which none may fail, while another application floods the API.

        The flood may be refused; what of it is accepted is stored as all else is.
        """
        self._from_rest(workers)
        before = self.api.samples()
        begun = time.monotonic()
        with flood:
            self._fixed_rate(name, connections, rate, seconds)
            self.runs.add(f"{name}_accepted", self._accepted(before) / (time.monotonic() - begun), RATE)
        self._wait_until_answered()
        self._see_all_stored(before)

    def _wait_until_answered(self) -> None:
        """Wait for requests whose sender has gone: their events may be accepted yet.

        Raises BenchError when that takes too long.
        """
        self.api.process.wait_until(lambda: self.api.samples()[IN_FLIGHT] == 0)

    def fill_queue(self, events: int, seconds: float = REST_SECONDS) -> None:
        """Queue a backlog through the API, with no worker there."""
        self.stores.clear()
        self.checked(self.generators.batches(self.api.address, BATCH, seconds, most=events // BATCH))

    def drain_rate(
        self, name: str, events: int, layout: Layout, rules: Path = RULES, and_then: OnWorkers | None = None
    ) -> None:
        """Queue a backlog, then let workers have it; counts the middle four fifths, when all of them work.

        ``and_then`` may use the workers further.
        """
        self.fill_queue(events)
        with self.working(layout, rules) as workers:
            with self._used(name, lambda: float(events), workers):
                self.stores.wait_until_stored(REST_SECONDS)
            self.note_peaks(workers)
            self._see_stored(events)
            self.runs.add(name, self.stores.middle_rate(), RATE)
            if and_then is not None:
                and_then(workers)

    def copy_rate(self, connections: int, seconds: float, *, encoded: bool = False) -> None:
        """Take the limit of PostgreSQL."""
        self.stores.clear()
        rate = raw.copy_rate(self.stores.database_url, connections, seconds, encoded=encoded)
        self.runs.add(f"copy_{connections}{'_encoded' if encoded else ''}", rate, RATE)

    def valkey_rate(self, size: int, connections: int, seconds: float) -> None:
        """Take the limit of Valkey."""
        self.stores.clear()
        rate = raw.valkey_rate(self.stores.redis_url, connections, seconds, size)
        self.runs.add(f"valkey_{size}_events_{connections}_connections", rate, RATE)

    def _from_rest(self, workers: Sequence[Service]) -> None:
        self.stores.wait_until_stored(REST_SECONDS)
        self.stores.clear()
        for service in (self.api, *workers):
            service.process.reset_peak()

    @contextmanager
    def _stored(self, name: str, workers: list[Service]) -> Iterator[None]:
        begun, before = time.monotonic(), services.total(workers, STORED)
        yield
        stored = services.total(workers, STORED) - before
        self.runs.add(name, stored / (time.monotonic() - begun), RATE)
        self.note_peaks(workers)

    @contextmanager
    def _used(self, name: str, events: Callable[[], float], workers: Sequence[Service] = ()) -> Iterator[None]:
        """Note the processor time of each process for a thousand events."""
        processes: list[Process] = [self.api.process, self.stores.valkey, self.stores.postgres]
        processes += [worker.process for worker in workers]
        before = Usage.now(processes)
        yield
        thousands = max(events(), 1.0) / 1_000
        for process, seconds in before.until(Usage.now(processes)).items():
            self.runs.add(f"{name}_cpu_{process}", seconds * 1e3 / thousands, "ms/1000 events")

    def note_peaks(self, workers: Sequence[Service]) -> None:
        """Note the most memory since the last rest."""
        self.runs.add("peak_api", self.api.process.peak_mb, "MB")
        self.runs.add("peak_worker", max(worker.process.peak_mb for worker in workers), "MB")

    def _note_lag(self, name: str) -> None:
        lag = self.stores.lag()
        self.runs.add(f"{name}_stored_p50_ms", lag[0], "ms")
        self.runs.add(f"{name}_stored_p99_ms", lag[1], "ms")

    def _see_all_stored(self, before: services.Samples) -> None:
        self.stores.wait_until_stored(REST_SECONDS)
        self._see_stored(self._accepted(before))

    def _see_stored(self, events: float) -> None:
        """See that each accepted event became a row: a fast way that loses some is none.

        Raises BenchError.
        """
        if (rows := self.stores.rows) != events:
            message = f"{events:.0f} events were accepted and {rows} are stored"
            raise BenchError(message)

    @staticmethod
    def checked(load: Load) -> Load:
        """Give the load back. Raises BenchError when any request of it failed."""
        if load.failed:
            message = f"{load.failed} of {load.answers} requests failed"
            raise BenchError(message)
        return load


@contextmanager
def stand(stores: Stores, runs: Runs) -> Iterator[Stand]:
    """Have the servers up."""
    with stores.connect() as connection:
        raw.prepare(connection, stores.application_id, RULES)
    with services.bare(stores) as bare, services.api(stores) as api:
        yield Stand(stores, bare, api, runs, stores.token)
