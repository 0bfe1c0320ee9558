"""What a dashboard consists of, and how Grafana is told of it."""

from collections.abc import Mapping, Sequence

import msgspec
from grafana_foundation_sdk.builders import common as options
from grafana_foundation_sdk.builders import dashboard, prometheus, stat, table, text, timeseries
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

DATASOURCE = model.DataSourceRef("prometheus", "${datasource}")

RUNBOOKS = "${runbooks}"

ALL = ".*"
"""What `All` stands for: also what has no such label."""

UNKNOWN, NEUTRAL = "orange", "text"
"""Colors of a number that is missing: where that is itself a worry, and where it is none."""


class Query(msgspec.Struct, frozen=True):
    """What one asks of Prometheus."""

    expr: str
    legend: str = ""
    """Name of its series in the legend, with labels in double braces."""


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """What all panels have. Alerts and pages link to the id, which is never given to another panel."""

    id: int
    title: str
    description: str
    """What it means, and what to do."""
    runbook: str = ""
    """Name of its page in docs/runbooks."""
    width: int
    """Of 24."""
    height: int = 8


class Stat(Panel, frozen=True, kw_only=True):
    """A number as it is now, asked for at one instant: over a time, a series that has ended would go on being shown."""

    query: str
    unit: str
    steps: Mapping[float, str]
    """Colors from these values on."""
    missing: str
    """Shown when there is no such series."""
    missing_color: str = UNKNOWN
    texts: Mapping[float, str] = {}
    """What is shown from these values on in place of the number."""
    decimals: int | None = None
    height: int = 4


class Graph(Panel, frozen=True, kw_only=True):
    """Lines over time."""

    queries: Sequence[Query]
    unit: str
    stacked: bool = False
    limits: Mapping[float, str] = {}
    """Dashed lines by value, with their colors."""
    colors: Mapping[str, str] = {}
    """Colors of series by their name in the legend; those of others are Grafana's."""
    least: float | None = 0
    most: float | None = None
    """The smallest and the largest value that there can be."""


class Table(Panel, frozen=True, kw_only=True):
    """A row for each series, with its value now."""

    query: str
    unit: str
    columns: Mapping[str, str]
    """Titles of the labels that are shown, from left to right."""
    value: str
    """Title of the value's column."""
    runbook_of: str
    """Title of the column whose cells link to the runbooks of their names."""
    missing: str


class Text(Panel, frozen=True, kw_only=True):
    """Markdown."""

    content: str


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Panels under a heading."""

    id: int
    title: str
    panels: Sequence[Panel]


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A variable: values of a label, any number of which are chosen; all at first."""

    name: str
    title: str
    description: str
    metric: str
    label: str


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """A dashboard."""

    uid: str
    title: str
    description: str
    choices: Sequence[Choice]
    rows: Sequence[Row]


NAMESPACE = Choice(
    name="namespace",
    title="Namespace",
    description="Of the release. On one machine there is none: leave it at All.",
    metric="the_eye_http_requests_in_flight",
    label="namespace",
)

TAG = "the-eye"


def build(board: Board) -> model.Dashboard:
    """Make Grafana's model of a dashboard; panels fill each row from left to right."""
    builder = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([TAG])
        .time("now-1h", "now")
        .refresh("30s")
        .timezone(common.TimeZoneBrowser)
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("The Eye")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .keep_time(True)
            .include_vars(True)
        )
    )
    builder.variables([_datasource(), *map(_choice, board.choices), _runbooks()])
    for row in board.rows:
        builder.with_row(dashboard.Row(row.title).id(row.id))
        for panel in row.panels:
            builder.with_panel(_panel(panel))
    return builder.build()


def _datasource() -> dashboard.DatasourceVariable:
    return (
        dashboard.DatasourceVariable("datasource")
        .label("Prometheus")
        .description("Where it is read.")
        .type("prometheus")
    )


def _runbooks() -> dashboard.TextBoxVariable:
    return (
        dashboard.TextBoxVariable("runbooks")
        .label("Runbooks")
        .description("Address at which docs/runbooks/ is read; the panels' links begin with it.")
        .default_value("docs/runbooks")
    )


def _choice(choice: Choice) -> dashboard.QueryVariable:
    everything = model.VariableOption(selected=True, text="All", value="$__all")
    return (
        dashboard.QueryVariable(choice.name)
        .label(choice.title)
        .description(choice.description)
        .datasource(DATASOURCE)
        .query({"query": f"label_values({choice.metric}, {choice.label})", "refId": "values"})
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.NATURAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(ALL)
        .current(everything)
    )


_Builder = stat.Panel | timeseries.Panel | table.Panel | text.Panel


def _panel(panel: Panel) -> _Builder:
    builder = _kind(panel)
    builder.id(panel.id).title(panel.title).description(panel.description).datasource(DATASOURCE)
    if panel.runbook:
        builder.links([dashboard.DashboardLink("Runbook").url(f"{RUNBOOKS}/{panel.runbook}.md").target_blank(True)])
    return builder.span(panel.width).height(panel.height)


def _kind(panel: Panel) -> _Builder:
    match panel:
        case Stat():
            return _stat(panel)
        case Graph():
            return _graph(panel)
        case Table():
            return _table(panel)
        case Text():
            return text.Panel().mode(TextMode.MARKDOWN).content(panel.content)
    message = f"no such kind of panel: {panel!r}"
    raise TypeError(message)


def _stat(panel: Stat) -> stat.Panel:
    builder = (
        stat.Panel()
        .unit(panel.unit)
        .thresholds(_thresholds(panel.missing_color, panel.steps))
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .mappings([_replaced(value, shown) for value, shown in panel.texts.items()])
        .no_value(panel.missing)
        .color_mode(common.BigValueColorMode.BACKGROUND_SOLID)
        .graph_mode(common.BigValueGraphMode.NONE)
        .text_mode(common.BigValueTextMode.VALUE)
        .reduce_options(options.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(_target(Query(panel.query), "A").instant())
    )
    return builder if panel.decimals is None else builder.decimals(panel.decimals)


def _replaced(value: float, shown: str) -> model.RangeMap:
    result = model.ValueMappingResult(text=shown)
    return model.RangeMap(model.DashboardRangeMapOptions(from_val=value, result=result))


def _graph(panel: Graph) -> timeseries.Panel:
    builder = (
        timeseries.Panel()
        .unit(panel.unit)
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC))
        .legend(
            options.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.TABLE)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(options.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
        .show_points(common.VisibilityMode.NEVER)
        .fill_opacity(40 if panel.stacked else 0)
        .no_value("nothing in this time")
    )
    if panel.stacked:
        builder.stacking(options.StackingConfig().mode(common.StackingMode.NORMAL))
    if panel.limits:
        dashed = options.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        builder.thresholds(_thresholds("transparent", panel.limits)).thresholds_style(dashed)
    if panel.least is not None:
        builder.min(panel.least)
    if panel.most is not None:
        builder.max(panel.most)
    for name, color in panel.colors.items():
        fixed = {"mode": "fixed", "fixedColor": color}
        builder.override_by_name(name, [model.DynamicConfigValue("color", fixed)])
    for place, query in enumerate(panel.queries):
        builder.with_target(_target(query, chr(ord("A") + place)).range())
    return builder


def _table(panel: Table) -> table.Panel:
    titles = {**panel.columns, "Value": panel.value}
    order = {field: place for place, field in enumerate(titles)}
    arranged = {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": titles}
    link = {"title": "Runbook", "url": f"{RUNBOOKS}/${{__value.raw}}.md"}
    return (
        table.Panel()
        .unit(panel.unit)
        .no_value(panel.missing)
        .override_by_name(panel.runbook_of, [model.DynamicConfigValue("links", [link])])
        .with_target(_target(Query(panel.query), "A").instant().format(PromQueryFormat.TABLE))
        .with_transformation(model.DataTransformerConfig("organize", options=arranged))
    )


def _target(query: Query, name: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().datasource(DATASOURCE).ref_id(name).expr(query.expr).legend_format(query.legend)


def _thresholds(base: str, steps: Mapping[float, str]) -> dashboard.ThresholdsConfig:
    """Make the steps; the one without a value is also the color of what is missing."""
    made = [model.Threshold(value=None, color=base), *(model.Threshold(value, color) for value, color in steps.items())]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(made)
