"""What ``docs/operator.md`` names is what there is: conditions with their reasons, metrics and permissions.

Left out is what was measured: ``tests/cluster/test_operator_figures.py`` prints that.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase
from tests.chart.rendering import Manifest, render

from the_eye.rules import manifest
from the_eye_operator import metrics, status

DOCS = (Path(__file__).parents[3] / "docs" / "operator.md").read_text()
STATUS = ast.parse(Path(status.__file__).read_text())
RULES = [ast.parse(path.read_text()) for path in sorted(Path(manifest.__file__).parent.glob("*.py"))]

OF_FILES = {"Duplicate", "InvalidFile", "InvalidSyntax"}
"""Reasons for which files are refused. An API server has no text, and no two objects of a name."""

WORKERS, OF_RULES = "workers' namespace", "rules' namespaces"


def rows(title: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    section = DOCS.partition(f"## {title}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\|(.+)\|$", section, re.MULTILINE)
    return [[cell.strip() for cell in line.split(" | ")] for line in lines[2:]]


def arguments(tree: ast.AST, function: str, place: int) -> Iterator[ast.expr]:
    """What is given for a parameter in each call of a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function:
            yield node.args[place]


def texts(trees: Iterable[ast.AST]) -> set[str]:
    """The texts that stand there as such, also where it is one or the other."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_the_table_of_the_status_has_every_condition() -> None:
    types = texts(arguments(STATUS, "Condition", 0))

    assert sorted(type_ for type_, _, _ in rows("Status")) == sorted(f"`{type_}`" for type_ in types)


def test_the_table_of_the_status_names_exactly_the_reasons_that_there_are() -> None:
    """For a condition that is true the reason is its type."""
    said = texts([*arguments(STATUS, "Condition", 2), *arguments(STATUS, "_not_programmed", 0)])
    refusals = texts(reason for tree in RULES for reason in arguments(tree, "FieldError", 1))
    assert refusals > OF_FILES

    named = {word for row in rows("Status") for word in re.findall(r"`([A-Z]\w+)`", " ".join(row))}

    assert sorted(named) == sorted(said | (refusals - OF_FILES))


def test_every_metric_that_is_named_exists() -> None:
    counted = [found for found in vars(metrics).values() if isinstance(found, MetricWrapperBase)]
    families = [family for each in counted for family in each.describe()]
    names = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}

    named = set(re.findall(r"\bthe_eye_operator_\w+", DOCS))

    assert named
    assert named - names == set()


def test_the_table_of_permissions_has_exactly_those_of_the_charts_roles() -> None:
    rendered = render({"operator": {"ruleNamespaces": ["shop", "blog"]}}, namespace="eye")
    places = {"eye": WORKERS, "shop": OF_RULES, "blog": OF_RULES}
    roles = [role for role in rendered.of("Role") if is_operators(role)]
    assert [role for role in rendered.of("ClusterRole") if is_operators(role)] == []
    assert {role["metadata"]["namespace"] for role in roles} == places.keys()

    granted = [(places[role["metadata"]["namespace"]], rule) for role in roles for rule in role["rules"]]

    assert sorted(set(documented())) == sorted({told for place, rule in granted for told in in_words(place, rule)})


def is_operators(role: Manifest) -> bool:
    component: str = role["metadata"]["labels"]["app.kubernetes.io/component"]
    return component == "operator"


def documented() -> Iterator[tuple[str, str, str]]:
    """Each row of the table of permissions; an empty first cell is as the one above it."""
    place = ""
    for where, what, verbs in rows("Permissions"):
        place = where or place
        yield place, what, verbs


def in_words(place: str, rule: Manifest) -> Iterator[tuple[str, str, str]]:
    """A Role's rule as the page puts it."""
    for resource in rule["resources"]:
        yield place, f"`{resource}`{', by name' if 'resourceNames' in rule else ''}", ", ".join(rule["verbs"])
