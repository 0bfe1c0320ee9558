"""The table of what was broken and what came of it, on the screen and in the documentation."""

from collections.abc import Iterable
from pathlib import Path

import msgspec
from tests import provenance

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
MARK = "<!-- What follows is written by `make faults`. -->\n"

HEADINGS = (
    "fault",
    "what the sender saw",
    "longest without a 202",
    "slowest answer",
    "accepted",
    "lost",
    "doubled",
    "set aside",
    "first 202 after",
    "all stored after",
)


class Row(msgspec.Struct, frozen=True):
    """What came of a case."""

    fault: str
    how: str
    """What else has to be known, such as by which means a disk was filled."""
    saw: str
    outage: float
    slowest: float
    """Seconds, as the other times here; 0 where it was not measured."""
    accepted: int
    lost: int
    doubled: int
    dead: int
    accepting_after: float | None
    """From the end of the fault to the next 202."""
    stored_after: float | None
    """From the end of the fault until all that was accepted before was stored or set aside."""

    def cells(self) -> tuple[str, ...]:
        """Give the row's texts in the order of the headings."""
        return (
            f"{self.fault}: {self.how}" if self.how else self.fault,
            self.saw or "(nothing was sent)",
            _seconds(self.outage if self.saw else None),
            _seconds(self.slowest or None),
            f"{self.accepted:,}",
            f"{self.lost:,}",
            f"{self.doubled:,}",
            f"{self.dead:,}",
            _seconds(self.accepting_after),
            _seconds(self.stored_after),
        )


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def table(rows: Iterable[Row]) -> str:
    """Make a table in Markdown."""
    lines = [HEADINGS, ["---"] * 2 + ["--:"] * (len(HEADINGS) - 2), *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def write(rows: Iterable[Row]) -> None:
    """Replace what the documentation has below its mark."""
    text, mark, _ = DOCUMENT.read_text().partition(MARK)
    assert mark, f"{DOCUMENT} has no line {MARK}"
    DOCUMENT.write_text(f"{text}{MARK}\n{provenance.line()}\n\n{table(rows)}")
