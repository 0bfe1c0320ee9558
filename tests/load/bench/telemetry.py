"""What metrics and traces cost: the same services with more and more of it, side by side and in turns."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import msgspec
from tests.load.bench import services
from tests.load.bench.processes import Process, Usage, python
from tests.load.bench.services import SINGLES, THE_EYE, WIDE_LIMITS, Service
from tests.load.bench.stand import RATE, REST_SECONDS, Stand
from tests.machine import NOTHING
from tests.otlp import OtlpReceiver, receiving

SAMPLED = 0.01


class Variant(msgspec.Struct, frozen=True):
    """How much the services tell of themselves."""

    name: str
    program: tuple[str, ...]
    environ: Mapping[str, str]


class Measured(msgspec.Struct, frozen=True):
    """A variant with its API."""

    variant: Variant
    api: Service


@contextmanager
def measured(stand: Stand) -> Iterator[list[Measured]]:
    """Have an API of each variant; those that are not asked are idle."""
    with ExitStack() as ending:
        found = []
        for variant in _variants(ending.enter_context(receiving(_Sink()))):
            environ = {**WIDE_LIMITS, **variant.environ}
            api = ending.enter_context(services.api(stand.stores, environ, variant.program))
            found.append(Measured(variant, api))
        yield found


def _variants(collector: OtlpReceiver) -> list[Variant]:
    traced = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": str(SAMPLED),
    }
    return [
        Variant("nothing", tuple(python("uncounted")), NOTHING),
        Variant("metrics", THE_EYE, NOTHING),
        Variant("traces", THE_EYE, traced),
    ]


class _Sink(OtlpReceiver):
    """Takes spans and reads none: their reading would be on this machine's processors, too."""

    def take(self, body: bytes) -> None:
        pass


def accept(stand: Stand, one: Measured, connections: int, seconds: float) -> None:
    """Accept single POSTs with no worker."""
    name = f"telemetry_api_{one.variant.name}"
    stand.stores.clear()
    before = Usage.now([one.api.process])
    load = stand.checked(stand.generators.maximum(one.api.address, connections, seconds))
    stand.runs.add(name, load.per_second, RATE)
    _note_cpu(stand, name, before, [one.api.process], load.answers)


def store(stand: Stand, one: Measured, connections: int, seconds: float) -> None:
    """Send single POSTs and wait until all are stored."""
    name = f"telemetry_way_{one.variant.name}"
    variant = one.variant
    with services.workers(stand.stores, SINGLES, environ=variant.environ, program=variant.program) as workers:
        stand.stores.clear()
        processes = [one.api.process, *(worker.process for worker in workers)]
        before, begun = Usage.now(processes), time.monotonic()
        stand.checked(stand.generators.maximum(one.api.address, connections, seconds))
        stand.stores.wait_until_stored(REST_SECONDS)
        stored = stand.stores.rows
        stand.runs.add(name, stored / (time.monotonic() - begun), RATE)
        _note_cpu(stand, name, before, processes, stored)


def _note_cpu(stand: Stand, name: str, before: Usage, processes: list[Process], events: int) -> None:
    """Note what our own processes used: other load on the machine changes it less than it changes a rate."""
    used = before.until(Usage.now(processes))
    seconds = sum(used[process.name] for process in processes)
    stand.runs.add(f"{name}_cpu", seconds * 1e6 / max(events, 1), "ms/1000 events")
