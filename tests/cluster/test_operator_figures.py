"""How fast and how frugal the operator is: figures for the documentation, and bounds that are part of what is asked.

All parts share the processors of one machine here: the API server with its store, the operator, kubectl, and twenty
workers in the process of the tests. What a kubelet does is stood in for, and takes a quarter of a second at most.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from lightkube import Client
from tests.cluster import chart, kubelet, workers
from tests.cluster.chart import rule
from tests.cluster.control_plane.cluster import ControlPlane
from tests.cluster.operator_process import Operator, operating
from tests.cluster.rules import Cluster, ValidatorRules, conditions, seen_in
from tests.cluster.workers import StandIn

WORKERS = 20
SOME = 500
"""Rules of a big installation."""
MANY = 5_000
EDITS = 24

MAX_EDIT_P95 = 5.0
"""Seconds from `kubectl apply` until every worker runs the rule, in 95 of 100 cases."""

CREATING_AT_ONCE = 12


def create(client: Client, namespace: str, count: int) -> None:
    """Create rules, many at a time."""

    def make(number: int) -> None:
        document = rule(f"rule-{number:04}", elements=["buy button", f"element {number}"])
        client.create(ValidatorRules(**document), namespace=namespace)

    with ThreadPoolExecutor(CREATING_AT_ONCE) as threads:
        list(threads.map(make, range(count)))


def seconds_until(operator: Operator, condition: Callable[[], object], begun: float) -> float:
    """Wait for a condition, and give how long it took."""
    operator.wait(condition, 60, every=0.02)
    return time.monotonic() - begun


def in_words(times: list[float]) -> dict[str, float]:
    """Sum times up."""
    percentiles = statistics.quantiles(times, n=20, method="inclusive")
    return {
        "p50_seconds": round(statistics.median(times), 2),
        "p95_seconds": round(percentiles[-1], 2),
        "most_seconds": round(max(times), 2),
    }


@pytest.mark.timeout(180, func_only=True)
def test_an_edit_runs_on_all_of_twenty_workers_within_five_seconds(
    control_plane: ControlPlane, tmp_path: Path, figures: dict[str, Any]
) -> None:
    """With 500 rules; from the start of `kubectl apply` to the last worker."""
    chart.install_definition(control_plane.kubectl)
    with ExitStack() as up:
        (home,) = up.enter_context(chart.namespaces(control_plane, 1))
        cluster = up.enter_context(seen_in(control_plane))
        create(cluster.client, home, SOME)
        release = chart.render(home)
        operator = up.enter_context(operating(control_plane, release, tmp_path / "operator"))
        operator.wait_until_settled()
        node = up.enter_context(kubelet.at_work(control_plane, release, tmp_path / "pods"))
        run = up.enter_context(workers.standing_in(node, WORKERS))
        operator.wait(lambda: all(worker.is_ready for worker in run), 60)
        control_plane.kubectl.apply(rule("edited", elements=["none"]), namespace=home)
        wait_until_told(operator, lambda: cluster.conditions(home, "edited"), 1)

        times = [edit(control_plane, operator, run, rule("edited", elements=[str(n)])) for n in range(EDITS - 1)]
        wait_until_told(operator, lambda: cluster.conditions(home, "edited"), EDITS)
        operator.audit.forget()
        times.append(edit(control_plane, operator, run, rule("edited", elements=["last"])))
        wait_until_told(operator, lambda: cluster.conditions(home, "edited"), EDITS + 1)

        assert {worker.generation(f"{home}/edited") for worker in run} == {EDITS + 1}
        figures[f"edit_with_{SOME}_rules_to_{WORKERS}_workers"] = {
            **in_words(times),
            "requests": dict(operator.audit.count()),
            "operator_mib": operator.memory(),
        }
        assert in_words(times)["p95_seconds"] < MAX_EDIT_P95


def edit(control_plane: ControlPlane, operator: Operator, run: list[StandIn], document: dict[str, Any]) -> float:
    """Apply an edit, and give the time until all workers run another ruleset than before."""
    (before,) = {worker.revision for worker in run}
    begun = time.monotonic()
    control_plane.kubectl.apply(document, namespace=operator.release.namespace)
    return seconds_until(operator, lambda: all(worker.revision != before for worker in run), begun)


def wait_until_told(operator: Operator, look: Callable[[], dict[str, dict[str, Any]]], generation: int) -> None:
    """Wait until the rule's author is told that all workers run it."""

    def told() -> bool:
        ready = look().get("Ready", {})
        return (ready.get("status"), ready.get("observedGeneration")) == ("True", generation)

    operator.wait(told, 60)


@pytest.fixture
def many(control_plane: ControlPlane, figures: dict[str, Any]) -> Iterator[str]:
    """A namespace with thousands of rules."""
    chart.install_definition(control_plane.kubectl)
    with chart.namespaces(control_plane, 1) as (home,), seen_in(control_plane) as cluster:
        begun = time.monotonic()
        create(cluster.client, home, MANY)
        figures[f"creating_{MANY}_rules_seconds"] = round(time.monotonic() - begun, 1)
        yield home


@pytest.mark.large
@pytest.mark.timeout(360, func_only=True)
def test_thousands_of_rules_are_accepted_by_an_operator_that_starts(
    control_plane: ControlPlane, many: str, tmp_path: Path, figures: dict[str, Any]
) -> None:
    release = chart.render(many)
    with seen_in(control_plane) as cluster:
        release.apply(control_plane.kubectl)
        begun = time.monotonic()
        with operating(control_plane, release, tmp_path / "operator") as operator:
            operator.wait(lambda: operator.said("ruleset_published"), 120, every=0.2)
            published = time.monotonic() - begun
            # They are told in order and eight at a time; looking at all of them each time would be work for all parts.
            operator.wait(lambda: cluster.settled(many, f"rule-{MANY - 1:04}", 1), 300, every=0.5)
            operator.wait(lambda: accepted(cluster, many) == MANY, 10, every=0.5)
            told = time.monotonic() - begun

            assert len(cluster.published(many, release.ruleset).generations) == MANY  # type: ignore[union-attr]
            start = operator.audit.count()
            times, requests = edits(control_plane, operator)

            figures[f"start_with_{MANY}_rules"] = {
                "published_seconds": round(published, 1),
                "all_accepted_seconds": round(told, 1),
                "requests": dict(start),
            }
            figures[f"edit_with_{MANY}_rules_to_published"] = {
                **in_words(times),
                "requests": requests,
                "operator_mib": operator.memory(),
            }


def accepted(cluster: Cluster, namespace: str) -> int:
    """Count the rules whose authors are told that they are accepted."""
    rules = cluster.rules(namespace)
    return sum(conditions(found).get("Accepted", {}).get("status") == "True" for found in rules)


def edits(control_plane: ControlPlane, operator: Operator) -> tuple[list[float], dict[str, int]]:
    """Edit a rule some times; gives the times until it is published, and the requests of the last one."""
    times = []
    for number in range(5):
        operator.audit.forget()
        another_publication = exceeds(lambda: len(operator.said("ruleset_published")))
        another_round = exceeds(operator.successes)
        begun = time.monotonic()
        edited = rule("rule-0000", elements=[str(number)])
        control_plane.kubectl.apply(edited, namespace=operator.release.namespace)
        times.append(seconds_until(operator, another_publication, begun))
        operator.wait(another_round, 60)
    return times, dict(operator.audit.count())


def exceeds(count: Callable[[], float]) -> Callable[[], bool]:
    """Make a condition: that a count is greater than it is now."""
    now = count()
    return lambda: count() > now
