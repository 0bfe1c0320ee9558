"""``docs/metrics.md`` has every metric that the code makes, and no other.

That the processes tell what the page says is shown in ``tests/integration/test_metrics_page.py``.
"""

import re
from pathlib import Path

from docs import list_metrics

ROOT = Path(__file__).parents[3]
SOURCES = [path for folder in ("services", "operator") for path in (ROOT / folder).rglob("*.py")]
PACKAGES = {"the_eye_api", "the_eye_cli", "the_eye_operator", "the_eye_worker"}


def test_the_page_is_as_the_code_makes_it() -> None:
    assert list_metrics.PAGE.read_text() == list_metrics.page(), "run: python -m docs.list_metrics"


def test_no_metric_is_made_elsewhere() -> None:
    """A name in the code that the page does not have is one of a module that it does not list."""
    named = {name for path in SOURCES for name in re.findall(r'"(the_eye_[a-z_]+)"', path.read_text())} - PACKAGES
    listed = {each.name for module in list_metrics.PROCESSES.values() for each in list_metrics.listed(module)}

    assert named == {name.removesuffix("_total") for name in listed}


def test_what_bounds_each_label_is_said() -> None:
    labels = {
        label
        for module in list_metrics.PROCESSES.values()
        for each in list_metrics.listed(module)
        for label in each.labels
    }

    assert labels == set(list_metrics.BOUNDS)
