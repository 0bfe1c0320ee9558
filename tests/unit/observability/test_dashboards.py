"""The dashboards ask for what there is, say what it means, and hang together.

Whether Prometheus has data for all of it is tried with a real one in ``tests/observability``.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import promql_parser
import pytest
import yaml
from observability.dashboards import overview
from observability.dashboards.__main__ import BOARDS, FOLDER, make
from observability.dashboards.drawing import Series, draw
from observability.dashboards.panels import Board
from observability.dashboards.reading import Dashboard, Grid, Panel, read
from observability.dashboards.units import shown
from promql_parser import MatchOp, VectorSelector

from the_eye_api import shared_metrics
from the_eye_api.shared_metrics import Shared

HOME = Path(__file__).parents[3]

RULES = FOLDER.parent / "prometheus"

ELSEWHERE = re.compile("ALERTS.*|kube_horizontalpodautoscaler_.+|certmanager_.+|process_.+|python_gc_.+")
"""Metrics that are Prometheus' own, other programs' or prometheus_client's."""

LARGEST = 200_000
"""Bytes of a file: kubectl keeps what it applied in an annotation, and all of those have 256 KiB at most."""


@pytest.fixture(params=BOARDS, ids=[board.uid for board in BOARDS])
def board(request: pytest.FixtureRequest) -> Board:
    """Each dashboard as it is declared."""
    found: Board = request.param
    return found


@pytest.fixture
def dashboard(board: Board) -> Dashboard:
    """The same as Grafana reads it."""
    return read(FOLDER / f"{board.uid}.json")


def rules(file: str) -> list[dict[str, Any]]:
    """Rules of Prometheus."""
    return [rule for group in yaml.safe_load((RULES / file).read_text())["groups"] for rule in group["rules"]]


def selectors(dashboard: Dashboard) -> Iterator[VectorSelector]:
    """All that the queries select."""
    for panel in dashboard.shown():
        for target in panel.targets:
            yield from selected(target.filled(dashboard.values()))


def selected(expression: str) -> list[VectorSelector]:
    """What a query selects; raises ValueError where it is no PromQL."""
    found: list[VectorSelector] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def test_the_files_are_those_that_the_code_makes(board: Board) -> None:
    assert (FOLDER / f"{board.uid}.json").read_text() == make(board), "run: python -m observability.dashboards"


def test_there_is_no_file_that_the_code_does_not_make() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {board.uid for board in BOARDS}


def test_the_files_are_also_where_people_look_for_them() -> None:
    assert (HOME / "observability" / "grafana").resolve() == FOLDER.resolve()


def test_a_file_fits_into_a_config_map_that_kubectl_applies(board: Board) -> None:
    assert (FOLDER / f"{board.uid}.json").stat().st_size < LARGEST


def test_every_query_is_promql(dashboard: Dashboard) -> None:
    for panel in dashboard.shown():
        assert panel.targets or panel.type == "text", panel.title
        for target in panel.targets:
            assert selected(target.filled(dashboard.values())), target.expr


def test_every_metric_is_one_that_the_catalogue_has(dashboard: Dashboard) -> None:
    catalogue = set(re.findall(r"`(the_eye_\w+)`", (HOME / "docs" / "metrics.md").read_text()))
    catalogue |= {rule["record"] for rule in rules("recording-rules.yaml")}

    def known(name: str) -> bool:
        return not {name, re.sub("_(bucket|sum|count)$", "", name)}.isdisjoint(catalogue)

    used = {selector.name for selector in selectors(dashboard) if selector.name is not None}
    assert {name for name in used if not ELSEWHERE.fullmatch(name) and not known(name)} == set()


def test_of_series_with_a_label_none_is_taken_for_all(dashboard: Dashboard) -> None:
    """The maximum over dead events and dead messages would be the larger of the two numbers."""
    labels = {
        name: made.label
        for made in vars(shared_metrics).values()
        if isinstance(made, Shared) and made.label
        for name in (made.name, f"{made.name}_total")
    }
    for panel in dashboard.shown():
        for target in panel.targets:
            for name, matchers in re.findall(r"max by \(namespace\) \((\w+){(.*?)}\)", target.expr):
                assert name not in labels or f'{labels[name]}="' in matchers, target.expr


def test_every_query_follows_the_namespaces_that_are_chosen(dashboard: Dashboard) -> None:
    values = dashboard.values() | {"namespace": "shop"}
    queries = [target.filled(values) for panel in dashboard.shown() for target in panel.targets]
    for selector in (selector for query in queries for selector in selected(query)):
        chosen = [(m.op, m.value) for m in selector.matchers.matchers if m.name == "namespace"]
        without = "|" if str(selector.name).startswith("ALERTS") else ""
        assert chosen == [(MatchOp.Re, f"shop{without}")], str(selector)


def test_every_variable_is_used_and_every_used_one_exists(dashboard: Dashboard) -> None:
    text = (FOLDER / f"{dashboard.uid}.json").read_text()
    for variable in dashboard.templating.list:
        assert re.search(rf"\$({variable.name}\b|{{{variable.name}}})", text), variable.name
    for panel in dashboard.shown():
        for target in panel.targets:
            target.filled(dashboard.values())  # raises for an unknown one


def test_everything_chosen_includes_what_has_no_such_label(dashboard: Dashboard) -> None:
    chosen = [variable.all_value for variable in dashboard.templating.list if variable.type == "query"]
    assert chosen
    assert all(re.fullmatch(value, "") for value in chosen)


def test_every_panel_says_what_it_means_and_in_which_unit(dashboard: Dashboard) -> None:
    for panel in dashboard.shown():
        assert len(panel.description) > 40, panel.title
        assert panel.type == "text" or shown(1.0, panel.field_config.defaults.unit)


def test_every_series_of_a_graph_has_a_name(dashboard: Dashboard) -> None:
    for panel in dashboard.shown():
        if panel.type == "timeseries":
            names = [target.legend_format for target in panel.targets]
            assert all(names), panel.title
            assert len(names) == len(set(names)), panel.title


def test_every_runbook_is_there(board: Board) -> None:
    named = {panel.runbook for row in board.rows for panel in row.panels if panel.runbook}
    assert named <= {path.stem for path in (HOME / "docs" / "runbooks").glob("*.md")}


def test_ids_are_unique(dashboard: Dashboard) -> None:
    ids = [panel.id for panel in dashboard.panels]
    assert len(ids) == len(set(ids))


def test_every_alert_leads_to_a_panel_that_leads_to_a_runbook() -> None:
    panels = {
        f"{board.uid}?viewPanel={panel.id}": panel for board in BOARDS for row in board.rows for panel in row.panels
    }
    for alert in rules("alerts.yaml"):
        link = alert["annotations"]["dashboard"].removeprefix("${grafanaUrl}/d/")
        assert panels[link].runbook, alert["alert"]


def test_panels_fill_the_rows_and_never_overlap(dashboard: Dashboard) -> None:
    cells = [
        (panel.grid_pos.x + x, panel.grid_pos.y + y)
        for panel in dashboard.panels
        for x in range(panel.grid_pos.w)
        for y in range(panel.grid_pos.h)
    ]
    assert len(cells) == len(set(cells))
    assert len(cells) == 24 * (1 + max(y for _, y in cells))


def test_the_first_row_answers_whether_anything_is_lost_and_how_late_it_is() -> None:
    first = [panel.title for panel in overview.BOARD.rows[0].panels]
    assert first[:5] == ["Events lost", "Dead events", "Requests answered", "Stored after (p99)", "Oldest waiting"]


def test_a_number_that_is_missing_is_never_shown_as_a_good_one(dashboard: Dashboard) -> None:
    for panel in dashboard.shown():
        if panel.type == "stat":
            assert panel.field_config.defaults.thresholds.color(None) != "green", panel.title
            assert panel.field_config.defaults.no_value != "No data", panel.title


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "short", "0"),
        (12_345, "short", "12.3 K"),
        (0.9995, "percentunit", "100%"),
        (0.004, "s", "4 ms"),
        (90, "s", "1.5 mins"),
        (3 * 2**20, "bytes", "3 MiB"),
        (1_500, "eps", "1.5 K evt/s"),
        (1, "bool_yes_no", "Yes"),
    ],
)
def test_numbers_are_written_as_people_read_them(value: float, unit: str, text: str) -> None:
    assert shown(value, unit) == text


def test_a_drawing_shows_the_panels_and_escapes_what_is_in_them() -> None:
    panel = Panel(id=1, type="timeseries", title="a < b", grid_pos=Grid(x=0, y=0, w=12, h=8))
    gap = Series("line & co", [(0.0, 1.0), (60.0, None), (120.0, 3.0)])

    root = ET.fromstring(draw("Title", [(panel, [gap])]))  # noqa: S314 - our own

    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"Title", "a < b", "line & co"} <= texts
    assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) == 2, "a line on each side of the gap"
