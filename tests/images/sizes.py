"""The table of the images' sizes, on the screen and in the documentation."""

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from tests.images import base
from tests.images.layers import Sizes

DOCUMENT = Path(__file__).parents[2] / "docs" / "images.md"
MARK = "<!-- What follows is written by `make images ARGS=--write-sizes`. -->\n"

HEADING = "| image | size | to pull | its dependencies | its code |\n|---|--:|--:|--:|--:|\n"


def table(measured: Mapping[str, Sizes]) -> str:
    """Make a table in Markdown."""
    rows = {name: map(_megabytes, msgspec.structs.astuple(sizes)) for name, sizes in measured.items()}
    return HEADING + "".join(f"| `{name}` | {' | '.join(cells)} |\n" for name, cells in rows.items())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def write(measured: Mapping[str, Sizes]) -> None:
    """Replace what the documentation has below its mark."""
    text, mark, _ = DOCUMENT.read_text().partition(MARK)
    assert mark, f"{DOCUMENT} has no line {MARK}"
    DOCUMENT.write_text(f"{text}{MARK}\n{_provenance(measured)}\n\n{table(measured)}")


def _provenance(measured: Mapping[str, Sizes]) -> str:
    (of_base,) = {sizes.whole - sizes.dependencies - sizes.project for sizes in measured.values()}
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, over a base of {_megabytes(of_base)} that "
        f"debootstrap makes of {base.release()}."
    )
