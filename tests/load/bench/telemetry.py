"""What metrics and traces cost: the same services with more and more of it, beside one another."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import msgspec
from tests.load.bench import services
from tests.load.bench.generators import Generators, maxima
from tests.load.bench.processes import Process, Usage, python
from tests.load.bench.services import SINGLES, THE_EYE, WIDE_LIMITS, Service
from tests.load.bench.stand import RATE, REST_SECONDS, Stand
from tests.machine import NOTHING
from tests.otlp import OtlpReceiver, receiving

SAMPLED = 0.01


class Variant(msgspec.Struct, frozen=True):
    """How much the services tell of themselves; each has a queue, an application and a generator of its own."""

    name: str
    program: tuple[str, ...]
    environ: Mapping[str, str]
    generators: Generators

    @property
    def queue(self) -> str:
        """The namespace of its queue."""
        return self.environ["THE_EYE_QUEUE_NAMESPACE"]


Running = tuple[Variant, Service]
"""A variant and its API."""


@contextmanager
def variants(stand: Stand) -> Iterator[list[Variant]]:
    """Make the variants, and what takes their spans."""
    with receiving(_Sink()) as collector:
        traced = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": str(SAMPLED),
        }
        yield [
            _variant(stand, "nothing", python("uncounted")),
            _variant(stand, "metrics", THE_EYE),
            _variant(stand, "traces", THE_EYE, traced),
        ]


def _variant(stand: Stand, name: str, program: Sequence[str], environ: Mapping[str, str] = NOTHING) -> Variant:
    generators = Generators(stand.stores.folder, stand.stores.another_token(name))
    return Variant(name, tuple(program), {**environ, "THE_EYE_QUEUE_NAMESPACE": f"bench-{name}"}, generators)


class _Sink(OtlpReceiver):
    """Takes spans and reads none: their reading would be on this machine's processors, too."""

    def take(self, body: bytes) -> None:
        pass


@contextmanager
def running(stand: Stand, measured: Sequence[Variant]) -> Iterator[list[Running]]:
    """Have an API of each variant, started anew: one process is never quite as fast as the next."""
    with ExitStack() as ending:
        yield [
            (one, ending.enter_context(services.api(stand.stores, {**WIDE_LIMITS, **one.environ}, one.program)))
            for one in measured
        ]


def accept(stand: Stand, together: Sequence[Running], connections: int, seconds: float) -> None:
    """Have all of them accept single POSTs at the same time, with no worker."""
    stand.stores.clear()
    processes = {one.name: [api.process] for one, api in together}
    before = {name: Usage.now(of_one) for name, of_one in processes.items()}
    loads = maxima([(one.generators, api.address) for one, api in together], connections, seconds)
    for (one, _), load in zip(together, loads, strict=True):
        name = f"telemetry_api_{one.name}"
        stand.runs.add(name, stand.checked(load).per_second, RATE)
        _note_cpu(stand, name, before[one.name], processes[one.name], load.answers)


def store(stand: Stand, together: Sequence[Running], connections: int, seconds: float) -> None:
    """Send single POSTs to all of them at the same time, count what is stored meanwhile, and wait for the rest."""
    with ExitStack() as ending:
        processes = {one.name: [api.process] for one, api in together}
        for one, _ in together:
            started = services.workers(stand.stores, SINGLES, environ=one.environ, program=one.program)
            processes[one.name] += [worker.process for worker in ending.enter_context(started)]
        stand.stores.clear()
        before = {name: Usage.now(of_one) for name, of_one in processes.items()}
        loads = maxima([(one.generators, api.address) for one, api in together], connections, seconds)
        stored = stand.stores.rows_by_application()
        for one, _ in together:
            stand.stores.wait_until_stored(REST_SECONDS, one.queue)
        in_the_end = stand.stores.rows_by_application()
        for (one, _), load in zip(together, loads, strict=True):
            name = f"telemetry_way_{one.name}"
            stand.runs.add(name, stored.get(one.name, 0) / stand.checked(load).seconds, RATE)
            _note_cpu(stand, name, before[one.name], processes[one.name], in_the_end.get(one.name, 0))


def _note_cpu(stand: Stand, name: str, before: Usage, processes: list[Process], events: int) -> None:
    """Note what our own processes used: other load on the machine changes it less than it changes a rate."""
    used = before.until(Usage.now(processes))
    seconds = sum(used[process.name] for process in processes)
    stand.runs.add(f"{name}_cpu", seconds * 1e6 / max(events, 1), "ms/1000 events")
