"""A dashboard's JSON, read as Grafana reads it: what each panel asks, and how it is shown."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

BUILT_IN = {"__rate_interval": "1m"}
"""Grafana's own variables, as they are with a scrape every 15 seconds."""


class _Camel(msgspec.Struct, frozen=True, rename="camel"):
    """Grafana's way of writing names."""


class Target(_Camel, frozen=True):
    """A query."""

    expr: str
    legend_format: str = ""
    instant: bool = False

    def filled(self, values: Mapping[str, str]) -> str:
        """Put the variables' values in; `$1` is label_replace's. Raises KeyError for a variable without a value."""
        return re.sub(r"\$([a-z_]\w*)", lambda found: values[found[1]], self.expr)

    def named(self, labels: Mapping[str, str]) -> str:
        """Make a series' name in the legend."""
        name = re.sub(r"{{(.+?)}}", lambda found: labels.get(found[1], ""), self.legend_format)
        return " ".join(name.split())


class Grid(_Camel, frozen=True):
    """Where a panel is: columns of 24, and units of height."""

    x: int
    y: int
    w: int
    h: int


class Step(_Camel, frozen=True):
    """A threshold; None is below all others."""

    color: str
    value: float | None = None


class Thresholds(_Camel, frozen=True):
    """From which values on which color counts."""

    steps: tuple[Step, ...] = ()

    def color(self, value: float | None) -> str:
        """Choose a value's color; that of a missing one is the base."""
        if value is None:
            return self.steps[0].color
        return [step.color for step in self.steps if step.value is None or value >= step.value][-1]


class Defaults(_Camel, frozen=True):
    """How a field is shown."""

    unit: str = "short"
    decimals: int | None = None
    min: float | None = None
    max: float | None = None
    no_value: str = "No data"
    thresholds: Thresholds = Thresholds()
    mappings: tuple[dict[str, Any], ...] = ()
    custom: dict[str, Any] = {}

    def replaced(self, value: float) -> str | None:
        """What is shown in place of a value; None: the value itself."""
        for mapping in self.mappings:
            options = mapping["options"]
            if value >= options["from"]:
                return str(options["result"]["text"])
        return None


class FieldConfig(_Camel, frozen=True):
    """How all fields are shown, and some of them otherwise."""

    defaults: Defaults = Defaults()
    overrides: tuple[dict[str, Any], ...] = ()

    def color(self, name: str) -> str | None:
        """Look for the fixed color of a series."""
        for override in self.overrides:
            if override["matcher"] == {"id": "byName", "options": name}:
                return str(override["properties"][0]["value"]["fixedColor"])
        return None


class Panel(_Camel, frozen=True):
    """A panel, or the heading of a row."""

    id: int
    type: str
    title: str
    grid_pos: Grid
    description: str = ""
    targets: tuple[Target, ...] = ()
    field_config: FieldConfig = FieldConfig()
    options: dict[str, Any] = {}
    transformations: tuple[dict[str, Any], ...] = ()

    @property
    def stacked(self) -> bool:
        """Whether its series stand on one another."""
        return bool(self.field_config.defaults.custom.get("stacking"))


class Variable(_Camel, frozen=True):
    """A variable of the dashboard."""

    name: str
    type: str
    query: Any
    all_value: str = ""


class Templating(_Camel, frozen=True):
    """All variables."""

    list: tuple[Variable, ...]


class Dashboard(_Camel, frozen=True):
    """A dashboard."""

    uid: str
    title: str
    panels: tuple[Panel, ...]
    templating: Templating

    def shown(self) -> Iterator[Panel]:
        """Give the panels, without the rows' headings."""
        return (panel for panel in self.panels if panel.type != "row")

    def values(self) -> dict[str, str]:
        """What the variables stand for when everything is chosen."""
        return BUILT_IN | {variable.name: variable.all_value for variable in self.templating.list}


def read(file: Path) -> Dashboard:
    """Read a dashboard's file."""
    return msgspec.json.decode(file.read_bytes(), type=Dashboard)
