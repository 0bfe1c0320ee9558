"""A dashboard as an SVG image, panel by panel, in its own grid: close to what Grafana shows, without Grafana."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from math import isfinite

import msgspec
from observability.dashboards.reading import Grid, Panel, Step
from observability.dashboards.scale import Box, Scale
from observability.dashboards.units import shown

WIDTH = 1_440
COLUMN = WIDTH / 24
UNIT = 38
"""Height of one of the grid's units."""
GAP = 8

TITLE = 26
LINE = 16
AXIS = 62
"""Room for the values beside a graph."""

BIG = 30
LEGEND_LINES = 6
CHARACTER = 6.4
"""Width of one, on average."""

HUES = {
    "green": "#56a64b",
    "yellow": "#e0b400",
    "orange": "#ff780a",
    "red": "#e02f44",
    "dark-red": "#8f1022",
    "blue": "#3274d9",
    "purple": "#a352cc",
    "text": "#8e8e96",
}
"""What Grafana's names of colors stand for."""

PALETTE = ("#3274d9", "#56a64b", "#e0b400", "#a352cc", "#ff780a", "#37872d", "#1f60c4", "#e02f44", "#7c2ea3", "#705da0")

STYLE = (
    "<style>text{font-family:sans-serif;fill:#24292e}.title{font-weight:bold;font-size:13px}.row{font-size:16px}"
    ".faint{fill:#6e7681;font-size:11px}.light{fill:#fff}.big{font-weight:bold;fill:#fff}.code{font-family:monospace}"
    ".strong{font-weight:bold}.grid{stroke:#e4e7eb}</style>"
)


class Series(msgspec.Struct, frozen=True):
    """A line: its name, and its values by time; a value is missing where there was none."""

    name: str
    points: Sequence[tuple[float, float | None]]

    def values(self) -> list[float]:
        """Give the values that there are."""
        return [value for _, value in self.points if value is not None]

    @property
    def last(self) -> float | None:
        """The value at the end, missing or not."""
        return self.points[-1][1] if self.points else None


class Rows(msgspec.Struct, frozen=True):
    """What a table shows."""

    titles: Sequence[str]
    cells: Sequence[Sequence[str]]


Shown = Sequence[Series] | Rows
"""What Prometheus answered."""


def draw(title: str, panels: Sequence[tuple[Panel, Shown]]) -> str:
    """Draw a dashboard; the row headings are among the panels."""
    height = max(panel.grid_pos.y + panel.grid_pos.h for panel, _ in panels) * UNIT + 2 * UNIT
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    drawn = [_text(12, 28, title, "title row")]
    for panel, found in panels:
        drawn += _panel(panel, found)
    background = f'<rect width="{WIDTH}" height="{height}" fill="#f4f5f5"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" font-size="12" {size}>\n{STYLE}{background}\n'
        + "\n".join(drawn)
        + "\n</svg>\n"
    )


def _box(grid: Grid) -> Box:
    return Box(grid.x * COLUMN + GAP / 2, grid.y * UNIT + UNIT + GAP / 2, grid.w * COLUMN - GAP, grid.h * UNIT - GAP)


def _panel(panel: Panel, found: Shown) -> Iterator[str]:
    box = _box(panel.grid_pos)
    if panel.type == "row":
        yield _text(box.x + 8, box.y + 20, panel.title, "title row")
        return
    yield _filled(box, "#fff")
    if isinstance(found, Rows):
        yield _heading(panel, box)
        yield from _rows(found, panel.field_config.defaults.no_value, box)
    elif panel.type == "stat":
        yield from _stat(panel, found, box)
    elif panel.type == "text":
        yield _heading(panel, box)
        yield from _markdown(str(panel.options["content"]), box)
    else:
        yield _heading(panel, box)
        yield from _graph(panel, found, box)


def _filled(box: Box, color: str) -> str:
    size = f'width="{box.width:.1f}" height="{box.height:.1f}"'
    return f'<rect x="{box.x:.1f}" y="{box.y:.1f}" {size} fill="{color}" stroke="#dce1e6"/>'


def _heading(panel: Panel, box: Box) -> str:
    return _text(box.x + 10, box.y + 18, panel.title, "title")


def _stat(panel: Panel, found: Sequence[Series], box: Box) -> Iterator[str]:
    defaults = panel.field_config.defaults
    value = found[0].last if found else None
    color = HUES[defaults.thresholds.color(value)]
    yield _filled(box, color)
    yield _text(box.x + 10, box.y + 18, panel.title, "title light")
    if value is None:
        text = defaults.no_value
    else:
        text = defaults.replaced(value) or shown(value, defaults.unit, defaults.decimals)
    size = min(BIG, 1.6 * box.width / max(len(text), 1))
    place = f'x="{box.x + box.width / 2:.1f}" y="{box.y + box.height / 2 + 20:.1f}" font-size="{size:.0f}"'
    yield f'<text {place} class="big" text-anchor="middle">{escape(text)}</text>'


def _rows(table: Rows, missing: str, box: Box) -> Iterator[str]:
    width = (box.width - 20) / len(table.titles)
    for place, title in enumerate(table.titles):
        yield _text(box.x + 10 + place * width, box.y + 44, title, "strong")
    for line, row in enumerate(table.cells):
        for place, cell in enumerate(row):
            yield _text(box.x + 10 + place * width, box.y + 66 + line * 20, cell)
    if not table.cells:
        yield _text(box.x + box.width / 2, box.y + box.height / 2 + 10, missing, "faint", "middle")


def _markdown(content: str, box: Box) -> Iterator[str]:
    """Draw a table of two columns, the first in a third of the width."""
    lines = [line for line in content.splitlines() if not set(line) <= set("|- ")]
    for place, line in enumerate(lines):
        y = box.y + 44 + place * 26
        for x, cell in zip((box.x + 10, box.x + 10 + box.width * 0.27), line.strip("| ").split(" | "), strict=True):
            yield f'<text x="{x:.1f}" y="{y:.1f}">{_marked(cell)}</text>'


def _marked(text: str) -> str:
    for pattern, kind in ((r"\*\*(.+?)\*\*", "strong"), (r"`(.+?)`", "code"), (r"\*(.+?)\*", "strong")):
        text = re.sub(pattern, rf'<tspan class="{kind}">\1</tspan>', text)
    return text


def _graph(panel: Panel, found: Sequence[Series], box: Box) -> Iterator[str]:
    defaults = panel.field_config.defaults
    if not any(series.values() for series in found):
        yield _text(box.x + box.width / 2, box.y + box.height / 2, defaults.no_value, "faint", "middle")
        return
    legend = found[:LEGEND_LINES]
    plot = Box(
        box.x + AXIS, box.y + TITLE + 8, box.width - AXIS - 14, box.height - TITLE - 38 - LINE * (len(legend) + 1)
    )
    lines = list(_stacked(found)) if panel.stacked else [(series.points, None) for series in found]
    values = [value for points, _ in lines for _, value in points if value is not None]
    bounds = (
        min(values) if defaults.min is None else defaults.min,
        max(values) if defaults.max is None else defaults.max,
    )
    times = [time for series in found for time, _ in series.points]
    scale = Scale.of(plot, (min(times), max(times)), bounds, defaults.unit)
    yield from _axes(scale, defaults.unit)
    for place, (series, (points, below)) in reversed(list(enumerate(zip(found, lines, strict=True)))):
        yield from _line(scale, points, below, _color(panel, series, place))
    yield from _limits(scale, defaults.thresholds.steps)
    yield from _legend(panel, found, Box(box.x + 12, plot.y + plot.height + 34, box.width - 24, 0))


def _color(panel: Panel, series: Series, place: int) -> str:
    fixed = panel.field_config.color(series.name)
    return HUES[fixed] if fixed else PALETTE[place % len(PALETTE)]


Points = Sequence[tuple[float, float | None]]


def _stacked(found: Sequence[Series]) -> Iterator[tuple[Points, Points]]:
    """Give each line's points with those of the line below it."""
    below: Points = ()
    for series in found:
        base = dict(below)
        points = [(time, (value or 0.0) + (base.get(time) or 0.0)) for time, value in series.points]
        yield points, below
        below = points


def _axes(scale: Scale, unit: str) -> Iterator[str]:
    plot = scale.plot
    for value in scale.ticks():
        y = scale.y(value)
        yield f'<line class="grid" x1="{plot.x:.1f}" y1="{y:.1f}" x2="{plot.x + plot.width:.1f}" y2="{y:.1f}"/>'
        yield _text(plot.x - 6, y + 4, shown(value, unit), "faint", "end")
    for time in scale.minutes():
        clock = datetime.fromtimestamp(time, UTC).strftime("%H:%M")
        yield _text(scale.x(time), plot.y + plot.height + 16, clock, "faint", "middle")


def _line(scale: Scale, points: Points, below: Points | None, color: str) -> Iterator[str]:
    """Draw a line, and fill what lies between it and the one below, if there is one."""
    for part in _unbroken(points):
        pixels = [f"{scale.x(time):.1f} {scale.y(value):.1f}" for time, value in part]
        if below is not None:
            base = dict(below)
            back = [f"{scale.x(time):.1f} {scale.y(base.get(time) or 0.0):.1f}" for time, _ in reversed(part)]
            yield f'<path d="M{" L".join(pixels + back)}Z" fill="{color}" fill-opacity="0.4"/>'
        yield f'<path d="M{" L".join(pixels)}" fill="none" stroke="{color}" stroke-width="1.5"/>'


def _unbroken(points: Points) -> Iterator[list[tuple[float, float]]]:
    part: list[tuple[float, float]] = []
    for time, value in points:
        if value is not None and isfinite(value):
            part.append((time, value))
        elif part:
            yield part
            part = []
    if part:
        yield part


def _limits(scale: Scale, steps: Sequence[Step]) -> Iterator[str]:
    plot = scale.plot
    for step in steps:
        if step.value is not None and step.value <= scale.most:
            y = scale.y(step.value)
            yield (
                f'<line x1="{plot.x:.1f}" y1="{y:.1f}" x2="{plot.x + plot.width:.1f}" y2="{y:.1f}" '
                f'stroke="{HUES[step.color]}" stroke-dasharray="6 4"/>'
            )


def _legend(panel: Panel, found: Sequence[Series], box: Box) -> Iterator[str]:
    unit = panel.field_config.defaults.unit
    last, most = box.x + box.width - 90, box.x + box.width
    yield _text(last, box.y, "last", "faint", "end")
    yield _text(most, box.y, "max", "faint", "end")
    for place, series in enumerate(found[:LEGEND_LINES]):
        y = box.y + (place + 1) * LINE
        yield f'<rect x="{box.x:.1f}" y="{y - 5:.1f}" width="14" height="4" fill="{_color(panel, series, place)}"/>'
        hidden = len(found) - LEGEND_LINES
        more = f" (and {hidden} more)" if place == LEGEND_LINES - 1 and hidden > 0 else ""
        room = int((box.width - 200) / CHARACTER)
        yield _text(box.x + 20, y, (series.name + more)[:room])
        values = series.values()
        yield _text(last, y, "" if series.last is None else shown(series.last, unit), "", "end")
        yield _text(most, y, shown(max(values), unit) if values else "", "", "end")


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
