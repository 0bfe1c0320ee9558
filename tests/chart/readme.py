"""The table of values in the chart's README, made of values.yaml."""

import json
from collections.abc import Iterator

from tests.chart import values
from tests.chart.values import CHART, Value

FILE = CHART / "README.md"

BEGIN = "<!-- Made of values.yaml by python -m tests.chart.generate -->"
END = "<!-- the end of what is made of values.yaml -->"

LONG = 60
"""A default with more characters is only in values.yaml."""


def make() -> str:
    """Make the file: what is written by hand with the table in its place."""
    before, _, rest = FILE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    table = "\n".join(_table())
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def _table() -> Iterator[str]:
    yield "| key | default | |"
    yield "|---|---|---|"
    for value in values.read():
        if value.is_section and not value.comment:
            continue
        name = ".".join(value.path)
        if value.is_section:
            yield f"| **`{name}`** | | {_cell(value.comment)} |"
        else:
            yield f"| `{name}` | {_default(value)} | {_cell(value.comment)} |"


def _default(value: Value) -> str:
    shown = json.dumps(value.default)
    return f"`{_cell(shown)}`" if len(shown) <= LONG else "in values.yaml"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
