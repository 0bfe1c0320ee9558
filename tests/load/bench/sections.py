"""The parts of the benchmark, each of which can be run alone."""

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import click
import msgspec
from tests.load.bench import filling, telemetry
from tests.load.bench.figures import Figure
from tests.load.bench.generators import Generators
from tests.load.bench.rules import write_rules
from tests.load.bench.services import BATCHES, SINGLES, Layout, Service
from tests.load.bench.stand import RATE, Stand

CONNECTIONS = 64
MANY_CONNECTIONS = 256
LOW_RATE = 100.0
LOW_CONNECTIONS = 16
FLOOD_BATCH = 1_000
MOST_WORKERS = 4
RULE_COUNTS = (1, 100, 1_000)
ROWS = (0, 1_000_000, 10_000_000, 50_000_000)
BYTES_A_ROW = 700
SPARE_BYTES = 10_000_000_000
MANY_ROWS_SECONDS = 15 * 60.0
"""How long filling in the next number of rows may take, as far as can be foreseen."""

BACKLOG = 10_000_000
BACKLOG_SECONDS = 900.0
SOAK_SECONDS = 600.0
SAMPLES = 60


class Plan(msgspec.Struct, frozen=True):
    """How long things take."""

    rounds: int
    slice_seconds: float
    """What is measured of a limit in a round."""
    turns: int
    """Into how many parts the API and the bare application divide theirs, to take turns."""
    single_seconds: float
    batch_seconds: float
    latency_seconds: float
    fairness_rounds: int
    rules_rounds: int
    telemetry_rounds: int
    telemetry_seconds: float
    drain_events: int
    begin_until: float
    """Seconds after which no further round begins."""
    whole: bool


QUICK = Plan(3, 0.6, 1, 1.5, 1.2, 1.2, 1, 1, 1, 1.5, 20_000, 25.0, whole=False)
FULL = Plan(3, 8.0, 4, 60.0, 20.0, 20.0, 3, 7, 21, 5.0, 300_000, 3600.0, whole=True)


def throughput(stand: Stand, plan: Plan) -> None:
    """What is accepted and stored, beside the limits of the parts, each round close together in time."""
    begun = time.monotonic()
    for number in range(plan.rounds):
        if time.monotonic() - begun > plan.begin_until:
            click.echo(f"only {number} rounds: this machine is slow", err=True)
            break
        _progress(f"throughput, round {number + 1} of {plan.rounds}")
        with stand.runs.as_one_run():
            for _ in range(plan.turns):
                stand.bare_rate(CONNECTIONS, plan.slice_seconds / plan.turns)
                stand.api_rate(CONNECTIONS, plan.slice_seconds / plan.turns)
        with stand.working(SINGLES) as workers:
            stand.single_rate(CONNECTIONS, plan.single_seconds, workers)
            if plan.whole:
                stand.single_rate(MANY_CONNECTIONS, plan.batch_seconds, workers)
        stand.copy_rate(1, plan.slice_seconds)
        stand.copy_rate(2, plan.slice_seconds)
        stand.drain_rate("drain", plan.drain_events, BATCHES, and_then=lambda workers: _batches(stand, plan, workers))
        if plan.whole:
            _limits(stand, plan)


def _batches(stand: Stand, plan: Plan, workers: list[Service]) -> None:
    stand.batch_rate(500, plan.batch_seconds, workers)
    if plan.whole:
        stand.batch_rate(100, plan.batch_seconds, workers)


def _limits(stand: Stand, plan: Plan) -> None:
    stand.bare_rate(MANY_CONNECTIONS, plan.slice_seconds)
    for connections in (1, 2):
        stand.copy_rate(connections, plan.slice_seconds, encoded=True)
    for size in (1, 30, 500):
        stand.valkey_rate(size, 1, plan.slice_seconds / 2)


def latency(stand: Stand, plan: Plan) -> None:
    """How long an answer takes, and how long until an event is stored, at half of the maximum and at 100/s."""
    with stand.working(SINGLES) as workers:
        if "single_64" not in stand.runs:
            stand.single_rate(CONNECTIONS, plan.slice_seconds * 3, workers)
        half = stand.runs["single_64"] / 2
        for number in range(plan.rounds if plan.whole else 1):
            _progress(f"latency, round {number + 1}")
            stand.fixed_rate("half", CONNECTIONS, half, plan.latency_seconds, workers)
            stand.fixed_rate("low", LOW_CONNECTIONS, LOW_RATE, plan.latency_seconds, workers)


def fairness(stand: Stand, plan: Plan) -> None:
    """How long a quiet application waits for its answers while another one floods an API with its default limits.

    Each flood begins with the burst that an application is allowed.
    """
    quiet, flooding = map(stand.stores.another_token, ("quiet", "flooding"))
    flooder = Generators(stand.stores.folder, flooding)
    with stand.limited(quiet) as fair, fair.working(SINGLES) as workers:
        address = fair.api.address
        floods: dict[str, Callable[[], AbstractContextManager[None]]] = {
            "alone": nullcontext,
            "beside_singles": lambda: flooder.flood_of_singles(address, CONNECTIONS),
            "beside_batches": lambda: flooder.flood_of_batches(address, FLOOD_BATCH),
        }
        for number in range(plan.fairness_rounds):
            for name, flood in floods.items():
                _progress(f"fairness, {name.replace('_', ' ')}, round {number + 1} of {plan.fairness_rounds}")
                fair.fixed_rate_beside(
                    f"quiet_{name}", flood(), LOW_CONNECTIONS, LOW_RATE, plan.latency_seconds, workers=workers
                )


def cost_of_telemetry(stand: Stand, plan: Plan) -> None:
    """What metrics cost, and traces of one request in a hundred beside them, all at the same time.

    What else the machine does slows all alike, as it would not if they had turns.
    """
    with telemetry.variants(stand) as variants:
        for number in range(plan.telemetry_rounds):
            _progress(f"telemetry, round {number + 1} of {plan.telemetry_rounds}")
            with telemetry.running(stand, variants) as together:
                telemetry.accept(stand, together, CONNECTIONS, plan.telemetry_seconds)
                telemetry.store(stand, together, CONNECTIONS, plan.telemetry_seconds)


def rules(stand: Stand, plan: Plan) -> None:
    """How the number of rules slows the workers, when one of them matches.

    Rounds have turns in their order: a machine that grows slower or faster meanwhile favours no number.
    """
    for number in range(plan.rules_rounds):
        for count in RULE_COUNTS if number % 2 == 0 else reversed(RULE_COUNTS):
            _progress(f"{count} rules, round {number + 1} of {plan.rules_rounds}")
            folder = write_rules(stand.stores.folder, count)
            stand.drain_rate(f"rules_{count}", plan.drain_events, BATCHES, folder)


def workers(stand: Stand, plan: Plan) -> None:
    """What more worker processes give."""
    for number in range(plan.rounds):
        for count in range(1, MOST_WORKERS + 1):
            for threads in (1, 4):
                _progress(f"{count} workers of {threads} threads, round {number + 1} of {plan.rounds}")
                stand.drain_rate(f"workers_{count}x{threads}", plan.drain_events, Layout(count, threads))


def backlog(stand: Stand, _: Plan) -> None:
    """What memory the workers take while an hour's events drain."""
    _progress(f"queueing {BACKLOG:,} events")
    stand.fill_queue(BACKLOG, BACKLOG_SECONDS)
    with stand.working(BATCHES) as workers:
        _progress("draining them")
        begun, memory = time.monotonic(), []
        while stand.stores.messages and time.monotonic() - begun < BACKLOG_SECONDS:
            memory.append(max(worker.process.memory_mb for worker in workers))
            time.sleep(1.0)
        stand.stores.wait_until_stored(1.0)
        stand.runs.add("backlog_drain", BACKLOG / (time.monotonic() - begun), RATE)
        stand.note_peaks(workers)
    stand.runs.put(Figure("backlog_worker_mb", max(memory), "MB", None, _thinned(memory)))


def soak(stand: Stand, plan: Plan) -> None:
    """Whether memory grows in ten minutes at half of the maximum."""
    with stand.working(SINGLES) as workers:
        if "single_64" not in stand.runs:
            stand.single_rate(CONNECTIONS, plan.slice_seconds * 3, workers)
        rate = stand.runs["single_64"] / 2
        _progress(f"{SOAK_SECONDS:.0f} s at {rate:.0f}/s")
        parts: dict[str, list[float]] = {"api": [], "worker": []}
        for _ in range(10):
            stand.fixed_rate("soak", CONNECTIONS, rate, SOAK_SECONDS / 10, workers)
            parts["api"].append(stand.api.process.memory_mb)
            parts["worker"].append(max(worker.process.memory_mb for worker in workers))
    for name, memory in parts.items():
        stand.runs.put(Figure(f"soak_growth_{name}_mb", memory[-1] - memory[1], "MB", None, tuple(memory)))


def rows(stand: Stand, plan: Plan) -> None:
    """How the events that are stored already slow the storing of more."""
    for before, count in zip((0, *ROWS), ROWS, strict=False):
        if not _fits(stand.stores.folder, count - before):
            click.echo(f"{count:,} rows are left out: the disk has no room for them", err=True)
            break
        _progress(f"filling in {count - before:,} rows")
        begun = time.monotonic()
        filling.fill(stand.stores, count - before)
        for number in range(plan.rounds):
            _progress(f"{count:,} rows, round {number + 1} of {plan.rounds}")
            stand.drain_rate(f"rows_{count // 1_000_000}m", plan.drain_events, BATCHES)
        following = next((more for more in ROWS if more > count), count) - count
        foreseen = (time.monotonic() - begun) / max(count - before, 1) * following
        if before and foreseen > MANY_ROWS_SECONDS:
            click.echo(f"more than {count:,} rows are left out: filling in takes too long here", err=True)
            break


def _fits(folder: Path, more: int) -> bool:
    return shutil.disk_usage(folder).free > more * BYTES_A_ROW + SPARE_BYTES


def _thinned(samples: list[float]) -> tuple[float, ...]:
    return tuple(samples[:: max(1, len(samples) // SAMPLES)])


def _progress(text: str) -> None:
    click.echo(f"{time.strftime('%H:%M:%S')}  {text}", err=True)


Section = Callable[[Stand, Plan], None]
SECTIONS: dict[str, Section] = {
    "throughput": throughput,
    "latency": latency,
    "fairness": fairness,
    "telemetry": cost_of_telemetry,
    "rules": rules,
    "workers": workers,
    "backlog": backlog,
    "soak": soak,
    "rows": rows,
}
