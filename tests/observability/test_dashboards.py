"""Every query of the dashboards finds data in a real Prometheus that looks at all of The Eye under load."""

from collections.abc import Iterator
from contextlib import closing
from html import escape

import pytest
from observability.dashboards import overview
from observability.dashboards.__main__ import BOARDS, FOLDER
from observability.dashboards.reading import Target, read
from observability.dashboards.render import POINTS, Prometheus, Window, render
from tests.observability.stand import Stand

RATE_INTERVAL = "10s"
"""Prometheus looks once a second."""

WITHOUT_FAULT_EMPTY = {("the-eye-overview", 17)}
"""What has rows only while an alert fires."""

MEMORY_LIMIT = 2**30
"""Redis has none on one machine; a panel shows how much of it is used."""

SECONDS = 120.0

QUERIES = [
    pytest.param(target, values, id=f"{dashboard.uid}-{panel.id}-{place}")
    for dashboard in (read(FOLDER / f"{board.uid}.json") for board in BOARDS)
    for values in (dashboard.values() | {"__rate_interval": RATE_INTERVAL},)
    for panel in dashboard.shown()
    for place, target in enumerate(panel.targets)
    if (dashboard.uid, panel.id) not in WITHOUT_FAULT_EMPTY
]


@pytest.fixture(scope="module", autouse=True)
def _limited(stand: Stand) -> Iterator[None]:
    """Give Redis a limit."""
    with stand.redis() as redis:
        redis.config_set("maxmemory", MEMORY_LIMIT)
        yield
        redis.config_set("maxmemory", 0)


@pytest.mark.parametrize(("target", "values"), QUERIES)
def test_every_query_finds_data(stand: Stand, target: Target, values: dict[str, str]) -> None:
    found = stand.prometheus.wait(target.filled(values), SECONDS)

    assert all(target.named(sample.labels) for sample in found) or target.instant


def test_a_backlog_that_nobody_works_on_does_not_drain(stand: Stand) -> None:
    (panel,) = (panel for panel in read(FOLDER / "the-eye-overview.json").shown() if panel.title == "Time to drain")
    drains_in = panel.targets[0].filled({"namespace": ".*"})
    stand.prometheus.wait(f"({drains_in}) < 60", SECONDS)

    with stand.worker_frozen():
        stand.prometheus.wait(f"({drains_in}) == {overview.NEVER}", SECONDS)

    stand.prometheus.wait(f"({drains_in}) < 60", SECONDS)


def test_the_dashboards_can_be_drawn(stand: Stand) -> None:
    end = stand.prometheus.query("time()")[0].value
    window = Window(end - POINTS, end, RATE_INTERVAL)
    with closing(Prometheus(stand.prometheus.url)) as prometheus:
        for dashboard in (read(FOLDER / f"{board.uid}.json") for board in BOARDS):
            drawn = render(dashboard, prometheus, window)

            assert all(escape(panel.title) in drawn for panel in dashboard.panels)
