"""What people read: the table at the end of a run, and ``docs/performance.md`` with its plots."""

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.load.bench import plots
from tests.load.bench.figures import TARGETS, Figure, by_name

DOCUMENT = Path("docs/performance.md")
FIGURES = Path("docs/performance.json")
PLOTS = Path("docs/performance")
MARK = "<!-- What follows is written by `make bench`. -->\n"

PROCESSES = ("api", "valkey", "worker", "postgres", "generator")
RATES = {
    "bare_64": "bare ASGI application, 64 connections",
    "api_64": "API and Valkey, no worker, 64",
    "single_64": "whole way, single POSTs, 64",
    "single_256": "whole way, single POSTs, 256",
    "batch_100": "whole way, batches of 100",
    "batch_500": "whole way, batches of 500",
    "drain": "drain of a backlog",
    "copy_1": "COPY, 1 connection",
    "copy_2": "COPY, 2 connections",
}
GROWTH = {
    "rows stored already": "rows_",
    "rules": "rules_",
    "workers x threads": "workers_",
}


def table(figures: Sequence[Figure]) -> Iterator[str]:
    """Hold the figures against the targets."""
    known = by_name(figures)
    yield f"{'figure':<20} {'must':>7} {'aim':>7} {'value':>8} {'spread':>7}  verdict"
    for target in TARGETS:
        bounds = f"{target.must:>7g} {'' if target.aim is None else f'{target.aim:g}':>7}"
        if (found := known.get(target.figure)) is None:
            yield f"{target.figure:<20} {bounds} {'-':>8} {'':>7}  not measured"
        else:
            verdict = target.verdict(found.value)
            yield f"{target.figure:<20} {bounds} {found.value:>8.4g} {found.spread:>7.0%}  {verdict}"


def rates(figures: Sequence[Figure]) -> Iterator[str]:
    """List what the ratios are made of."""
    known = by_name(figures)
    for name, words in RATES.items():
        if name in known:
            yield f"{words:<38} {known[name].value:>9,.0f}/s {known[name].spread:>6.0%}"


def write(figures: Sequence[Figure]) -> None:
    """Write the generated part of the document, and the plots."""
    text = DOCUMENT.read_text() if DOCUMENT.exists() else "# Performance\n\n"
    PLOTS.mkdir(exist_ok=True)
    for path in PLOTS.glob("*.svg"):
        path.unlink()
    drawn = dict(_plots(figures))
    for name, svg in drawn.items():
        (PLOTS / f"{name}.svg").write_text(svg)
    DOCUMENT.write_text(text.partition(MARK)[0] + MARK + "\n".join(_page(figures, list(drawn))) + "\n")


def _page(figures: Sequence[Figure], drawn: list[str]) -> Iterator[str]:
    yield f"\n## Figures\n\n{_facts(figures)}\n"
    yield "| figure | what | must | aim | value | spread | verdict |\n|---|---|--:|--:|--:|--:|---|"
    known = by_name(figures)
    for target in TARGETS:
        if found := known.get(target.figure):
            aim = "" if target.aim is None else f"{target.aim:g}"
            measured = f"{found.value:.3g} | {found.spread:.0%} | {target.verdict(found.value)}"
        else:
            aim, measured = "" if target.aim is None else f"{target.aim:g}", "- | | not measured"
        yield f"| `{target.figure}` | {target.meaning} | {target.must:g} | {aim} | {measured} |"
    yield ""
    yield from (f"![{name}](performance/{name}.svg)\n" for name in drawn)
    yield "All figures; the spread is that between the highest and the lowest run, as a share of the median.\n"
    yield "| figure | value | unit | spread |\n|---|--:|---|--:|"
    yield from (f"| `{one.figure}` | {_shown(one.value)} | {one.unit} | {one.spread:.0%} |" for one in figures)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def _facts(figures: Sequence[Figure]) -> str:
    sync = by_name(figures).get("fdatasync_us")
    disk = f"; putting 4 KiB on its disk took {sync.value:.0f} µs" if sync else ""
    return (
        f"Measured on {os.cpu_count()} processors with everything, the load generator included, on them; "
        f"Python {platform.python_version()}{disk}. Each value is the median of its runs."
    )


def _plots(figures: Sequence[Figure]) -> Iterator[tuple[str, str]]:
    known = by_name(figures)
    found = {words: [known[name].value] for name, words in RATES.items() if name in known}
    if found:
        yield "rates", plots.bars("Events a second", found)
    cpu = {name: _cpu(known, name) for name in ("api_64", "single_64", "single_256", "batch_100", "batch_500", "drain")}
    if any(map(sum, cpu.values())):
        used = {name: parts for name, parts in cpu.items() if sum(parts)}
        yield "processors", plots.bars("Processor time, ms for 1,000 events", used, PROCESSES)
    for words, prefix in GROWTH.items():
        grown = {name.removeprefix(prefix): [one.value] for name, one in known.items() if _is_level(name, prefix)}
        if grown:
            yield prefix.strip("_"), plots.bars(f"Events stored a second, by {words}", grown)
    if memory := known.get("backlog_worker_mb"):
        yield "memory", plots.line("Memory of a worker, MB", memory.runs, "while 10 million events drain")


def _cpu(known: Mapping[str, Figure], name: str) -> list[float]:
    figures = (known.get(f"{name}_cpu_{process}") for process in PROCESSES)
    return [figure.value if figure else 0.0 for figure in figures]


def _is_level(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and "_" not in name.removeprefix(prefix)
