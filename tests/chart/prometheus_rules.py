"""The rules of Prometheus in the chart, filled in as its template fills them in."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.chart.values import CHART, defaults

FOLDER = Path(__file__).parents[2] / "observability" / "prometheus" / "rules"
"""Where they stand filled in with the chart's defaults, for a Prometheus without Kubernetes."""

_MADE = "# Made of charts/the-eye/files/prometheus/{name} by python -m tests.chart.generate.\n"


def make() -> Iterator[tuple[Path, str]]:
    """Make the files for a Prometheus without Kubernetes."""
    for name, text in filled({}).items():
        yield FOLDER / name, _MADE.format(name=name) + text


def filled(changes: Mapping[str, Any]) -> dict[str, str]:
    """Fill in the chart's files, by name, with its default values and these changes to them."""
    given = defaults()["metrics"]["prometheusRule"]
    values = {**given, **given["objectives"], **given["thresholds"], **changes}
    return {path.name: _filled(path.read_text(), values) for path in sorted(CHART.glob("files/prometheus/*.yaml"))}


def _filled(text: str, values: Mapping[str, Any]) -> str:
    for key, value in values.items():
        text = text.replace(f"${{{key}}}", str(value))
    return text
