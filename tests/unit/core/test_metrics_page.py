"""``docs/metrics.md`` has every metric that the code makes, and no other.

That the processes tell what the page says is shown in ``tests/integration/test_metrics_page.py``.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from docs import list_metrics
from prometheus_client import Counter, Enum, Gauge, Histogram, Info, Summary

from the_eye.batch_histogram import BatchHistogram

ROOT = Path(__file__).parents[3]
SOURCES = [path for folder in ("services", "operator") for path in (ROOT / folder).rglob("*.py")]
KINDS = {kind.__name__ for kind in (Counter, Enum, Gauge, Histogram, Info, Summary, BatchHistogram)}


def test_the_page_is_as_the_code_makes_it() -> None:
    assert list_metrics.PAGE.read_text() == list_metrics.page(), "run: python -m docs.list_metrics"


def test_no_metric_is_made_elsewhere() -> None:
    """A metric in the code that the page does not have is one of a module that it does not list."""
    made = {name for path in SOURCES for name in made_in(path.read_text())}
    listed = {each.name for module in list_metrics.PROCESSES.values() for each in list_metrics.listed(module)}

    assert made == {name.removesuffix("_total") for name in listed}


def made_in(source: str) -> Iterator[str]:
    """Name the metrics that a module makes: the first argument of a call, or the second after the metric's class."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(
                func=ast.Name(id=made) | ast.Attribute(attr=made), args=[ast.Constant(value=str(name)), *_]
            ) if made in KINDS:
                yield name
            case ast.Call(func=ast.Name(id="Shared"), args=[_, ast.Constant(value=str(name)), *_]):
                yield name


def test_what_bounds_each_label_is_said() -> None:
    labels = {
        label
        for module in list_metrics.PROCESSES.values()
        for each in list_metrics.listed(module)
        for label in each.labels
    }

    assert labels == set(list_metrics.BOUNDS)
