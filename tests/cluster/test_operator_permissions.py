"""The chart gives the operator the permissions that it needs, and not one more.

The API server has written down what the operator asked for. What a Role allows that nothing asks for is found by that,
and so is what is asked for that no Role allows. It is a Role for each namespace that is tested, and no ClusterRole.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from tests.cluster import chart, kubelet, workers
from tests.cluster.chart import Permission, Release, rule
from tests.cluster.control_plane.cluster import ControlPlane
from tests.cluster.kubelet import Kubelet
from tests.cluster.operator_process import Operator, operating
from tests.cluster.rules import BAD_EXPRESSION, Cluster, seen_in
from tests.cluster.workers import StandIn

SECONDS = 60.0

ALL = {"published", "told", "announced", "observed", "annotated", "watched"}
"""What becomes of a rule: it is in the ruleset, its author is told in its status and by an Event, also what the workers
run, the worker's kubelet is told, and changes are seen without a list."""

MISSING: dict[Permission, set[str]] = {
    ("the-eye.io", "validatorrules", "list"): ALL,
    ("the-eye.io", "validatorrules", "watch"): {"watched"},
    ("the-eye.io", "validatorrules/status", "patch"): {"told", "observed"},
    ("", "events", "create"): {"announced"},
    ("", "configmaps", "get"): ALL - {"watched"},
    ("", "configmaps", "create"): {"published", "observed", "annotated"},
    ("", "configmaps", "patch"): {"published", "observed", "annotated"},
    ("", "pods", "list"): {"observed", "annotated"},
    ("", "pods", "patch"): {"annotated"},
}
"""What cannot be without a permission. All else can."""


@pytest.fixture
def audited(audited_control_plane: ControlPlane) -> ControlPlane:
    """A control plane that writes down what it is asked for, with the definition of ValidatorRules."""
    chart.install_definition(audited_control_plane.kubectl)
    return audited_control_plane


@pytest.fixture
def cluster(audited: ControlPlane) -> Iterator[Cluster]:
    """What an administrator sees."""
    with seen_in(audited) as cluster:
        yield cluster


def test_everything_it_does_takes_exactly_the_permissions_of_its_roles(
    audited: ControlPlane, cluster: Cluster, tmp_path: Path
) -> None:
    """Over a life in which all happens that can happen to rules and workers, and which begins twice."""
    with chart.namespaces(audited, 2) as (home, other), ExitStack() as life:
        release = chart.render(home, [home, other])
        node = life.enter_context(kubelet.at_work(audited, release, tmp_path / "pods"))
        operator = life.enter_context(operating(audited, release, tmp_path / "operator"))
        run = life.enter_context(workers.standing_in(node, 2))

        live_a_life(audited, cluster, operator, run)
        operator.stop()
        operator.start()
        audited.kubectl.apply(rule("late"), namespace=home)
        operator.wait(lambda: cluster.settled(home, "late", 1))

        assert operator.audit.denied() == []
        assert operator.audit.permissions() == release.permissions()
        assert {found["kind"] for found in release.objects} == {"ServiceAccount", "Role", "RoleBinding"}


def live_a_life(control_plane: ControlPlane, cluster: Cluster, operator: Operator, run: list[StandIn]) -> None:
    """Let rules be made, edited, broken, repaired and deleted in all namespaces, with workers that run them."""
    home, other = operator.release.rule_namespaces
    kubectl = control_plane.kubectl
    for namespace in (home, other):
        kubectl.apply(rule("edited"), rule("broken"), rule("deleted"), namespace=namespace)
        broken = rule("broken", validations=BAD_EXPRESSION)
        kubectl.apply(rule("edited", elements=["b"]), broken, namespace=namespace)
        operator.wait(partial(cluster.settled, namespace, "broken", 2))
        kubectl.apply(rule("broken", elements=["c"]), namespace=namespace)
        kubectl("delete", "vrule", "deleted", namespace=namespace)
        operator.wait(partial(cluster.settled, namespace, "broken", 3))
    revision = published(cluster, operator.release)
    operator.wait(lambda: all(worker.revision == revision for worker in run))
    operator.wait(lambda: cluster.conditions(other, "edited")["Ready"]["status"] == "True")


def published(cluster: Cluster, release: Release) -> str:
    """Give the revision of the published ruleset."""
    found = cluster.published(release.namespace, release.ruleset)
    assert found is not None
    return found.index.revision


def test_one_permission_too_few_is_noticed_and_mended_without_a_restart(
    audited: ControlPlane, cluster: Cluster, tmp_path: Path
) -> None:
    """An operator for each permission, which lacks that one: what it is for is missing, and all else is done.

    Given the permission, each does all of its work for the next edit.
    """
    permissions = sorted((group, resource, verb) for _, group, resource, verb in chart.render("any").permissions())
    assert permissions == sorted(MISSING)
    with chart.namespaces(audited, len(permissions)) as homes, ExitStack() as life:
        lives = [
            lacking(audited, life, permission, home, tmp_path)
            for permission, home in zip(permissions, homes, strict=True)
        ]

        for permission, operator, _ in lives:
            operator.wait(operator.audit.denied, SECONDS)
            operator.wait(partial(has_done, cluster, operator, 1, ALL - MISSING[permission]), SECONDS)
        for permission, operator, _ in lives:
            assert {found.permission for found in operator.audit.denied()} == {permission}
            assert done(cluster, operator, 1) == ALL - MISSING[permission], permission

        for _, operator, _ in lives:
            chart.render(operator.release.namespace).apply(audited.kubectl)
            audited.kubectl.apply(rule("one", elements=["b"]), namespace=operator.release.namespace)
        for _, operator, _ in lives:
            operator.wait(partial(has_done, cluster, operator, 2, ALL), SECONDS)


def lacking(
    control_plane: ControlPlane, life: ExitStack, permission: Permission, home: str, folder: Path
) -> tuple[Permission, Operator, Kubelet]:
    """Start an operator without a permission, with a rule to publish and a worker to tell."""
    release = chart.render(home)
    node = life.enter_context(kubelet.at_work(control_plane, release, folder / home / "pods"))
    (address,) = workers.addresses(1)
    node.run_pod("worker", address)
    node.mark_ready("worker")
    control_plane.kubectl.apply(rule("one"), namespace=home)
    operator = life.enter_context(operating(control_plane, release.without(permission), folder / home / "operator"))
    return permission, operator, node


def done(cluster: Cluster, operator: Operator, generation: int) -> set[str]:
    """Name what has become of a generation of the rule."""
    home = operator.release.namespace
    found = cluster.published(home, operator.release.ruleset)
    programmed = cluster.conditions(home, "one").get("Programmed", {})
    announced = [event.message for event in cluster.events(home, "one")]
    watches = [request for request in operator.audit.requests() if request.verb == "watch"]
    parts = {
        "published": found is not None and found.generations == {f"{home}/one": generation},
        "told": cluster.settled(home, "one", generation),
        "announced": f"generation {generation}: the rule compiles" in announced,
        "observed": (programmed.get("reason"), programmed.get("observedGeneration")) == ("WorkersBehind", generation),
        "annotated": found is not None and annotation(cluster, home) == found.index.revision,
        "watched": any(request.response_status.code == 200 for request in watches),
    }
    return {part for part, is_done in parts.items() if is_done}


def annotation(cluster: Cluster, namespace: str) -> str | None:
    """Give what the worker's kubelet is told."""
    return cluster.pod_annotations(namespace, "worker").get("the-eye.io/ruleset")


def has_done(cluster: Cluster, operator: Operator, generation: int, parts: set[str]) -> bool:
    """Whether just these parts have become of a generation of the rule."""
    return done(cluster, operator, generation) == parts
