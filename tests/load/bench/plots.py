"""Plots as SVG text: bars, lines and courses, readable in light and in dark."""

from collections.abc import Mapping, Sequence
from html import escape

import msgspec

WIDTH = 720
LEFT, RIGHT, TOP, BAR, GAP = 190, 80, 34, 20, 8
HEIGHT = 260
PANEL = 150
COLORS = ("#4878a8", "#d08030", "#58a05c", "#b05060", "#8068a8")

_STYLE = "<style>text{font:13px sans-serif;fill:#808080}.t{font-weight:bold}line,path{stroke:#808080;fill:none}</style>"


class Panel(msgspec.Struct, frozen=True):
    """Quantities of one unit, each with its values at their times in seconds; a value holds until the next."""

    unit: str
    courses: Mapping[str, Sequence[tuple[float, float]]]


def bars(title: str, values: Mapping[str, Sequence[float]], parts: Sequence[str] = ()) -> str:
    """Draw a bar for each name; several values are the parts of one bar, named in a legend."""
    most = max(sum(value) for value in values.values()) or 1.0
    height = TOP + len(values) * (BAR + GAP) + (GAP + BAR if parts else 0)
    drawn = [_text(8, 20, title, "t")]
    for row, (name, value) in enumerate(values.items()):
        y, x = TOP + row * (BAR + GAP), float(LEFT)
        drawn.append(_text(LEFT - 8, y + 15, name, anchor="end"))
        for part, color in zip(value, COLORS, strict=False):
            width = part / most * (WIDTH - LEFT - RIGHT)
            drawn.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{color}"/>')
            x += width
        drawn.append(_text(x + 6, y + 15, _number(sum(value))))
    for place, (name, color) in enumerate(zip(parts, COLORS, strict=False)):
        x = LEFT + place * 100.0
        drawn.append(f'<rect x="{x}" y="{height - BAR}" width="12" height="12" fill="{color}"/>')
        drawn.append(_text(x + 16, height - BAR + 11, name))
    return _svg(height, drawn)


def line(title: str, values: Sequence[float], below: str) -> str:
    """Draw values that follow one another, from zero."""
    most = max(values) * 1.1 or 1.0
    step = (WIDTH - LEFT / 2 - RIGHT) / max(len(values) - 1, 1)
    points = [
        (LEFT / 2 + place * step, HEIGHT - 30 - value / most * (HEIGHT - 70)) for place, value in enumerate(values)
    ]
    path = " ".join(f"{'L' if place else 'M'}{x:.1f} {y:.1f}" for place, (x, y) in enumerate(points))
    return _svg(
        HEIGHT,
        [
            _text(8, 20, title, "t"),
            f'<path d="{path}" style="stroke:{COLORS[0]};stroke-width:2"/>',
            f'<line x1="{LEFT / 2}" y1="{HEIGHT - 30}" x2="{WIDTH - RIGHT}" y2="{HEIGHT - 30}"/>',
            _text(LEFT / 2 - 8, points[0][1] + 4, _number(values[0]), anchor="end"),
            _text(WIDTH - RIGHT + 6, points[-1][1] + 4, _number(values[-1])),
            _text(LEFT / 2, HEIGHT - 10, below),
        ],
    )


def courses(title: str, panels: Sequence[Panel], spans: Mapping[str, tuple[float, float]]) -> str:
    """Draw panels one above the other, from zero and over one time; spans of it, in seconds, are shaded and named."""
    last = max(points[-1][0] for panel in panels for points in panel.courses.values())
    scale = (WIDTH - LEFT / 2 - RIGHT) / (last or 1.0)
    bottom = TOP + BAR + len(panels) * PANEL
    drawn = [_text(8, 20, title, "t")]
    for name, (begin, end) in spans.items():
        x, width = LEFT / 2 + begin * scale, (end - begin) * scale
        height = bottom - TOP - 2 * BAR
        drawn.append(f'<rect x="{x:.1f}" y="{TOP + BAR}" width="{width:.1f}" height="{height}" fill="#80808030"/>')
        drawn.append(_text(x, TOP + BAR - 4, name))
    for row, panel in enumerate(panels):
        drawn += _panel(panel, TOP + BAR + (row + 1) * PANEL - BAR, scale)
    drawn.append(_text(LEFT / 2, bottom + 4, "0 s"))
    drawn.append(_text(WIDTH - RIGHT, bottom + 4, f"{_number(last)} s", anchor="end"))
    return _svg(bottom + BAR, drawn)


def _panel(panel: Panel, base: int, scale: float) -> list[str]:
    """Draw a panel upwards from its base line."""
    most = max(value for points in panel.courses.values() for _, value in points) or 1.0
    room = PANEL - 2 * BAR
    drawn = [
        f'<line x1="{LEFT / 2}" y1="{base}" x2="{WIDTH - RIGHT}" y2="{base}"/>',
        _text(LEFT / 2 - 8, base - room + 8, f"{_number(most).removesuffix('.00')} {panel.unit}", anchor="end"),
        _text(LEFT / 2 - 8, base + 4, "0", anchor="end"),
    ]
    for place, ((name, points), color) in enumerate(zip(panel.courses.items(), COLORS, strict=False)):
        steps = [(LEFT / 2 + time * scale, base - value / most * room) for time, value in points]
        path = f"M{steps[0][0]:.1f} {steps[0][1]:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in steps[1:])
        drawn.append(f'<path d="{path}" style="stroke:{color};stroke-width:2"/>')
        y = base - room + 8 + place * BAR
        drawn.append(f'<text x="{WIDTH - RIGHT + 6}" y="{y}" style="fill:{color}">{escape(name)}</text>')
    return drawn


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"


def _svg(height: int, drawn: Sequence[str]) -> str:
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n{_STYLE}\n' + "\n".join(drawn) + "\n</svg>\n"
