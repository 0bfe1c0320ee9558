"""What was measured: figures with their noise, the targets they are held against, and the file they are kept in."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec


class Figure(msgspec.Struct, frozen=True):
    """One figure as bench.json holds it."""

    figure: str
    value: float
    unit: str
    ratio_to: str | None = None
    """The figure of the same run that this one is divided by."""
    runs: tuple[float, ...] = ()
    """What each run gave; the value is their median."""

    @property
    def spread(self) -> float:
        """How far the runs lie apart, as a share of the median."""
        return (max(self.runs) - min(self.runs)) / abs(self.value) if self.value and self.runs else 0.0


class Target(msgspec.Struct, frozen=True):
    """What a figure has to reach."""

    figure: str
    meaning: str
    must: float
    aim: float | None
    more_is_better: bool = True

    def verdict(self, value: float) -> str:
        """Say how a value stands: ``aim``, ``must`` or ``missed``."""
        if self.aim is not None and self._reaches(value, self.aim):
            return "aim"
        return "must" if self._reaches(value, self.must) else "missed"

    def _reaches(self, value: float, bound: float) -> bool:
        return value >= bound if self.more_is_better else value <= bound


TARGETS = (
    Target("single_vs_bare", "single POSTs, whole way, stored / bare ASGI accepted", 0.22, 0.30),
    Target("api_vs_bare", "API and Valkey without a worker, accepted / bare ASGI accepted", 0.40, 0.50),
    Target("batch_vs_copy", "batches of 500, whole way, stored with nothing waiting / COPY, 1 connection", 0.75, 1.0),
    Target("drain_vs_copy2", "drain of a backlog / COPY, 2 connections", 0.45, 0.60),
    Target("p99_half_ms", "p99 of single POSTs at half of the maximum, ms", 25.0, 10.0, more_is_better=False),
    Target(
        "flooded_p99_vs_alone",
        "p99 of a quiet application beside one that floods / alone",
        2.0,
        None,
        more_is_better=False,
    ),
    Target(
        "stored_p99_ms", "accepted to stored, p99, the worse of 100/s and half, ms", 1e3, 250.0, more_is_better=False
    ),
    Target("rules_1000_vs_1", "throughput with 1,000 rules of which one matches / with one", 0.90, 0.97),
    Target(
        "metrics_cost",
        "throughput without metrics / with them, the worse of API and whole way",
        1.05,
        None,
        more_is_better=False,
    ),
    Target(
        "tracing_1pct_cost",
        "throughput without traces / with one request in a hundred traced, the worse of API and whole way",
        1.05,
        None,
        more_is_better=False,
    ),
    Target("rows_50m_vs_1m", "stored a second at 50 million rows / at 1 million", 0.85, 0.95),
    Target("rss_api_mb", "peak memory of the API, MB", 150.0, None, more_is_better=False),
    Target("rss_worker_mb", "peak memory of a worker, MB", 300.0, None, more_is_better=False),
)


RATIOS = {
    "single_vs_bare": ("single_64", "bare_64"),
    "api_vs_bare": ("api_64", "bare_64"),
    "batch_vs_copy": ("batch_500", "copy_1"),
    "drain_vs_copy2": ("drain", "copy_2"),
    "rules_1000_vs_1": ("rules_1000", "rules_1"),
    "rows_50m_vs_1m": ("rows_50m", "rows_1m"),
    "beside_singles_p99_vs_alone": ("quiet_beside_singles_p99_ms", "quiet_alone_p99_ms"),
    "beside_batches_p99_vs_alone": ("quiet_beside_batches_p99_ms", "quiet_alone_p99_ms"),
    "metrics_cost_api": ("telemetry_api_nothing", "telemetry_api_metrics"),
    "metrics_cost_way": ("telemetry_way_nothing", "telemetry_way_metrics"),
    "tracing_1pct_cost_api": ("telemetry_api_metrics", "telemetry_api_traces"),
    "tracing_1pct_cost_way": ("telemetry_way_metrics", "telemetry_way_traces"),
    "metrics_cost_api_cpu": ("telemetry_api_metrics_cpu", "telemetry_api_nothing_cpu"),
    "metrics_cost_way_cpu": ("telemetry_way_metrics_cpu", "telemetry_way_nothing_cpu"),
    "tracing_1pct_cost_api_cpu": ("telemetry_api_traces_cpu", "telemetry_api_metrics_cpu"),
    "tracing_1pct_cost_way_cpu": ("telemetry_way_traces_cpu", "telemetry_way_metrics_cpu"),
}
WORST = {
    "metrics_cost": ("ratio", ("metrics_cost_api", "metrics_cost_way")),
    "tracing_1pct_cost": ("ratio", ("tracing_1pct_cost_api", "tracing_1pct_cost_way")),
    "p99_half_ms": ("ms", ("half_p99_ms",)),
    "stored_p99_ms": ("ms", ("half_stored_p99_ms", "low_stored_p99_ms")),
    "flooded_p99_vs_alone": ("ratio", ("beside_singles_p99_vs_alone", "beside_batches_p99_vs_alone")),
    "rss_api_mb": ("MB", ("peak_api",)),
    "rss_worker_mb": ("MB", ("peak_worker",)),
}
"""Figures that are the worst of others."""

PEAKS = frozenset({"peak_api", "peak_worker", "rss_api_mb", "rss_worker_mb"})
"""Figures of all sections."""


class Runs:
    """Collects what each run gives until figures are made of it."""

    def __init__(self) -> None:
        self._runs: dict[str, list[float]] = {}
        self._units: dict[str, str] = {}
        self._others: list[Figure] = []

    def add(self, figure: str, value: float, unit: str) -> None:
        """Note one run's value."""
        self._runs.setdefault(figure, []).append(value)
        self._units[figure] = unit

    @contextmanager
    def as_one_run(self) -> Iterator[None]:
        """Note the mean of what each figure is given meanwhile as one run of it."""
        before, self._runs = self._runs, {}
        try:
            yield
        finally:
            parts, self._runs = self._runs, before
        for figure, values in parts.items():
            self.add(figure, statistics.fmean(values), self._units[figure])

    def put(self, figure: Figure) -> None:
        """Keep a figure that is no median."""
        self._others.append(figure)

    def __getitem__(self, figure: str) -> float:
        return statistics.median(self._runs[figure])

    def __contains__(self, figure: str) -> bool:
        return figure in self._runs

    def figures(self) -> list[Figure]:
        """Make the figures, each the median of its runs, and those that are held against targets."""
        medians = [
            Figure(name, statistics.median(runs), self._units[name], None, tuple(runs))
            for name, runs in self._runs.items()
        ]
        ratios = list(self._ratios())
        return [*medians, *self._others, *ratios, *_worst(by_name((*medians, *ratios)))]

    def _ratios(self) -> Iterator[Figure]:
        for name, (figure, to) in RATIOS.items():
            if figure in self and to in self:
                yield self._ratio(name, figure, to)

    def _ratio(self, name: str, figure: str, to: str) -> Figure:
        """Divide two figures run by run, so that what slowed both in one run counts in neither."""
        pairs = zip(self._runs[figure], self._runs[to], strict=False)
        runs = tuple(one / other for one, other in pairs)
        return Figure(name, statistics.median(runs), "ratio", to, runs)


def _worst(known: Mapping[str, Figure]) -> Iterator[Figure]:
    for name, (unit, candidates) in WORST.items():
        found = [known[one] for one in candidates if one in known]
        if found:
            worst = max(found, key=lambda one: one.value)
            # Memory is held against its peak, all else against the median of three.
            value = max(worst.runs) if unit == "MB" else worst.value
            yield Figure(name, value, unit, worst.ratio_to, worst.runs)


def merged(old: Iterable[Figure], new: Iterable[Figure]) -> list[Figure]:
    """Replace the figures that were measured again; of the peaks the highest stays, in whatever section it was."""
    kept = {figure.figure: figure for figure in old}
    for figure in new:
        before = kept.get(figure.figure)
        if before is None or figure.figure not in PEAKS or figure.value > before.value:
            kept[figure.figure] = figure
    return list(kept.values())


def read(path: Path) -> list[Figure]:
    """Read a file of figures; there is none before the first run."""
    return msgspec.json.decode(path.read_bytes(), type=list[Figure]) if path.exists() else []


def write(path: Path, figures: Sequence[Figure]) -> None:
    """Write the file."""
    rounded = [
        msgspec.structs.replace(one, value=_short(one.value), runs=tuple(map(_short, one.runs))) for one in figures
    ]
    lines = b",\n".join(msgspec.json.encode(one) for one in rounded)
    path.write_bytes(b"[\n" + lines + b"\n]\n")


def _short(value: float) -> float:
    """Four digits say more than the noise allows."""
    return float(f"{value:.4g}")


def by_name(figures: Iterable[Figure]) -> Mapping[str, Figure]:
    """Index figures."""
    return {figure.figure: figure for figure in figures}
