"""Draws the dashboards from what a Prometheus holds: ``python -m observability.dashboards.render URL FOLDER``.

For looking at them without Grafana, and for the images in docs/.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import httpx
import msgspec
from observability.dashboards.__main__ import FOLDER
from observability.dashboards.drawing import Rows, Series, Shown, draw
from observability.dashboards.reading import Dashboard, Panel, Target, read
from observability.dashboards.units import shown

POINTS = 150
"""Of a graph's width."""

ANSWER_SECONDS = 30.0


class Window(msgspec.Struct, frozen=True):
    """The time that is shown, in seconds since 1970, and the time that rates are taken over."""

    begin: float
    end: float
    rate_interval: str

    @property
    def step(self) -> float:
        """Seconds from one point to the next."""
        return max((self.end - self.begin) / POINTS, 1.0)


class Prometheus:
    """What is asked of a Prometheus over HTTP."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=f"{url}/api/v1", timeout=ANSWER_SECONDS)

    def at(self, expression: str, when: float) -> list[dict[str, Any]]:
        """Evaluate at an instant."""
        return self._get("query", query=expression, time=when)

    def over(self, expression: str, window: Window) -> list[dict[str, Any]]:
        """Evaluate over a time."""
        return self._get("query_range", query=expression, start=window.begin, end=window.end, step=window.step)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _get(self, path: str, **params: str | float) -> list[dict[str, Any]]:
        answer = self._client.get(path, params=params)
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found


def render(dashboard: Dashboard, prometheus: Prometheus, window: Window) -> str:
    """Draw a dashboard, with everything chosen that can be chosen."""
    values = dashboard.values() | {"__rate_interval": window.rate_interval}
    return draw(dashboard.title, [(panel, _answer(panel, prometheus, window, values)) for panel in dashboard.panels])


def _answer(panel: Panel, prometheus: Prometheus, window: Window, values: dict[str, str]) -> Shown:
    if panel.type == "table":
        (target,) = panel.targets
        return _rows(panel, prometheus.at(target.filled(values), window.end))
    return [series for target in panel.targets for series in _series(target, prometheus, window, values)]


def _series(target: Target, prometheus: Prometheus, window: Window, values: dict[str, str]) -> list[Series]:
    expression = target.filled(values)
    if target.instant:
        found = prometheus.at(expression, window.end)
        return [Series("", [(window.end, float(each["value"][1]))]) for each in found]
    return [
        Series(target.named(each["metric"]), _points(each["values"], window))
        for each in prometheus.over(expression, window)
    ]


def _points(values: Sequence[tuple[float, str]], window: Window) -> list[tuple[float, float | None]]:
    """Put None where there is no value."""
    known = {round((when - window.begin) / window.step): float(value) for when, value in values}
    return [(window.begin + place * window.step, known.get(place)) for place in range(POINTS + 1)]


def _rows(panel: Panel, found: list[dict[str, Any]]) -> Rows:
    (arranged,) = (each["options"] for each in panel.transformations)
    fields = sorted(arranged["indexByName"], key=arranged["indexByName"].__getitem__)
    unit = panel.field_config.defaults.unit

    def cell(each: dict[str, Any], field: str) -> str:
        return shown(float(each["value"][1]), unit) if field == "Value" else str(each["metric"].get(field, ""))

    titles = [arranged["renameByName"][field] for field in fields]
    return Rows(titles, [[cell(each, field) for field in fields] for each in found])


def write(folder: Path, prometheus: Prometheus, window: Window) -> None:
    """Draw all dashboards into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(FOLDER.glob("*.json")):
        drawn = render(read(file), prometheus, window)
        (folder / f"{file.stem.removeprefix('the-eye-')}.svg").write_text(drawn)


@click.command()
@click.argument("url")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--minutes", default=60, show_default=True, help="How far back.")
@click.option("--rate-interval", default="1m", show_default=True, help="Four times Prometheus' scrape interval.")
def main(url: str, folder: Path, minutes: int, rate_interval: str) -> None:
    """Draw all dashboards from the Prometheus at URL into FOLDER."""
    end = time.time()
    with closing(Prometheus(url)) as prometheus:
        write(folder, prometheus, Window(end - minutes * 60, end, rate_interval))


if __name__ == "__main__":
    main()
