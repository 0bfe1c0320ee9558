"""The benchmark: ``make bench``, or ``python -m tests.load.bench`` from the root of the repository."""

import time
from pathlib import Path

import click
from tests.load.bench import figures, report
from tests.load.bench.figures import Figure, Runs
from tests.load.bench.generators import require_wrk
from tests.load.bench.processes import BenchError
from tests.load.bench.sections import FULL, QUICK, SECTIONS
from tests.load.bench.stand import stand
from tests.load.bench.stores import fdatasync_seconds, temporary_stores

from the_eye.logs import configure_logging
from the_eye.settings import LogSettings

QUICK_SECTIONS = ("throughput", "latency", "fairness")


@click.command()
@click.option("--quick", is_flag=True, help="The central figures only, in about a minute.")
@click.option("--only", metavar="SECTION,...", default="", help=f"Some of: {', '.join(SECTIONS)}.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("bench.json"), show_default=True)
@click.option("--folder", type=click.Path(path_type=Path, exists=True), default=Path("/tmp"), show_default=True)  # noqa: S108 - a folder of its own is made in it
def main(quick: bool, only: str, out: Path, folder: Path) -> None:  # noqa: FBT001 - click's way
    """Measure The Eye beside the limits of its parts, and hold the figures against the targets.

    With --only the figures are merged into those of earlier runs: of OUT, or in a fresh clone of the docs. A full run
    writes docs/performance.md too.
    """
    chosen = [name for name in only.split(",") if name] or list(QUICK_SECTIONS if quick else SECTIONS)
    if unknown := set(chosen).difference(SECTIONS):
        message = f"no such section: {', '.join(sorted(unknown))}"
        raise click.UsageError(message)
    configure_logging(LogSettings(log_level="warning"))
    begun = time.monotonic()
    try:
        require_wrk()
        measured = measure(chosen, folder, quick=quick)
    except BenchError as error:
        raise click.ClickException(str(error)) from error
    earlier = (figures.read(out) or figures.read(report.FIGURES)) if only else []
    kept = figures.merged(earlier, measured)
    figures.write(out, kept)
    if not quick:
        figures.write(report.FIGURES, kept)
        report.write(kept)
    click.echo("\n".join((*report.rates(measured), "", *report.table(measured))))
    click.echo(f"\n{time.monotonic() - begun:.0f} s; all figures are in {out}")


def measure(chosen: list[str], folder: Path, *, quick: bool) -> list[Figure]:
    """Run sections, in the order they are listed in; the stores live as long."""
    runs = Runs()
    with temporary_stores(folder) as stores:
        runs.add("fdatasync_us", fdatasync_seconds(stores.folder) * 1e6, "µs")
        with stand(stores, runs) as machine:
            for name in chosen:
                SECTIONS[name](machine, QUICK if quick else FULL)
    return runs.figures()


if __name__ == "__main__":
    main()
