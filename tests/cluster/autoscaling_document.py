"""The course of an autoscaling as a plot and some figures, in the documentation."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import pytest
from tests import provenance
from tests.cluster.recording import Moment
from tests.load.bench import plots
from tests.load.bench.plots import Panel

DOCUMENT = Path(__file__).parents[2] / "docs" / "autoscaling.md"
PLOT = DOCUMENT.with_suffix(".svg")
MARK = "<!-- What follows is written by `make test-cluster ARGS='-k test_autoscaling.py --write-autoscaling'`. -->\n"
TITLE = "Backlog and workers over time"
KIB = 1024

Span = tuple[float, float]


class Course(msgspec.Struct, frozen=True):
    """A backlog that came and went, and the workers that it had; times are those of the moments, in seconds."""

    moments: Sequence[Moment]
    target: int
    """Bytes for each worker."""
    events: int
    sending: Span
    away: Span
    """When there were no metrics."""

    @property
    def most_replicas(self) -> int:
        """The largest number of workers that was wanted."""
        return max(moment.replicas for moment in self.moments)

    @property
    def while_away(self) -> list[Moment]:
        """The moments without metrics."""
        first, last = self.away
        return [moment for moment in self.moments if first <= moment.seconds <= last]

    def plot(self) -> str:
        """Draw it."""
        times = [moment.seconds for moment in self.moments]

        def course(values: Iterable[float]) -> list[tuple[float, float]]:
            return list(zip(times, values, strict=True))

        backlog = {
            "backlog": course(moment.backlog / KIB for moment in self.moments),
            "target": course(moment.replicas * self.target / KIB for moment in self.moments),
        }
        workers = {
            "wanted": course(moment.replicas for moment in self.moments),
            "ready": course(moment.ready for moment in self.moments),
        }
        spans = {"events are sent": self.sending, "no metrics": self.away}
        return plots.courses(TITLE, [Panel("KiB", backlog), Panel("workers", workers)], spans)

    def table(self) -> str:
        """Tell what it came to, in Markdown."""
        begun, sent = self.sending
        largest = max(self.moments, key=lambda moment: moment.backlog)
        first = next(moment for moment in self.moments if moment.backlog > self.target)
        rose = next(moment for moment in self.moments if moment.replicas > self.moments[0].replicas)
        most = next(moment for moment in self.moments if moment.ready == self.most_replicas)
        drained = next(m for m in self.moments if m.seconds > largest.seconds and m.backlog == 0)
        rows = {
            "events sent": f"{self.events:,} in {sent - begun:.0f} s",
            "target": f"{self.target / KIB:g} KiB for each worker",
            "largest backlog": f"{largest.backlog / KIB:.0f} KiB",
            "from a backlog above the target to more workers wanted": f"{max(rose.seconds - first.seconds, 0):.0f} s",
            f"until {self.most_replicas} workers were ready": f"{most.seconds - first.seconds:.0f} s",
            "until the backlog was gone": f"{drained.seconds - first.seconds:.0f} s",
            "from then to one worker": f"{self.moments[-1].seconds - drained.seconds:.0f} s, "
            f"{self.away[1] - self.away[0]:.0f} s of them without metrics",
        }
        return "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows.items())


COURSE = pytest.StashKey[Course]()
"""That of this run."""


def write(course: Course) -> None:
    """Replace the plot, and what the documentation has below its mark."""
    text, mark, _ = DOCUMENT.read_text().partition(MARK)
    assert mark, f"{DOCUMENT} has no line {MARK}"
    PLOT.write_text(course.plot())
    below = f"![{TITLE}]({PLOT.name})\n\n{provenance.line()}\n\n{course.table()}"
    DOCUMENT.write_text(f"{text}{MARK}\n{below}")
