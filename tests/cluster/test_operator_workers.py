"""What the operator says of twenty workers, and how it gets a ruleset to them."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from tests.cluster import chart, kubelet, workers
from tests.cluster.chart import rule
from tests.cluster.control_plane.cluster import ControlPlane
from tests.cluster.kubelet import Kubelet
from tests.cluster.operator_process import Operator, operating
from tests.cluster.rules import BAD_EXPRESSION, Cluster, seen_in
from tests.cluster.workers import StandIn

WORKERS = 20


class Fleet:
    """Workers, their kubelet and their operator."""

    def __init__(
        self, control_plane: ControlPlane, cluster: Cluster, operator: Operator, node: Kubelet, run: list[StandIn]
    ) -> None:
        self._kubectl = control_plane.kubectl
        self.cluster = cluster
        self.operator = operator
        self.node = node
        self.workers = run
        self.home = operator.release.namespace

    def apply(self, document: dict[str, Any]) -> None:
        """Apply a rule."""
        self._kubectl.apply(document, namespace=self.home)

    def wait_for_programmed(self, name: str, generation: int, *told: str) -> None:
        """Wait until the condition Programmed of a generation has this status, reason and message."""

        def says() -> bool:
            found = self.cluster.conditions(self.home, name).get("Programmed", {})
            said = (found.get("status"), found.get("reason"), found.get("message"))
            return found.get("observedGeneration") == generation and said == told

        self.operator.wait(says, 40)

    def generations(self, name: str) -> set[int | None]:
        """Tell which generations of a rule the workers run."""
        return {worker.generation(f"{self.home}/{name}") for worker in self.workers}


@pytest.fixture(scope="module")
def fleet(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Twenty workers that came up before their operator."""
    chart.install_definition(control_plane.kubectl)
    folder = tmp_path_factory.mktemp("fleet")
    with ExitStack() as up:
        (home,) = up.enter_context(chart.namespaces(control_plane, 1))
        release = chart.render(home)
        node = up.enter_context(kubelet.at_work(control_plane, release, folder / "pods"))
        run = up.enter_context(workers.standing_in(node, WORKERS))
        operator = up.enter_context(operating(control_plane, release, folder / "operator"))
        # They wait for their first ruleset, and not for a kubelet that looks once a minute.
        operator.wait(lambda: all(worker.is_ready for worker in run), kubelet.SYNC_SECONDS / 2)
        yield Fleet(control_plane, up.enter_context(seen_in(control_plane)), operator, node, run)


def test_a_rule_is_programmed_once_every_worker_runs_it(fleet: Fleet) -> None:
    fleet.apply(rule("everywhere"))

    fleet.wait_for_programmed("everywhere", 1, "True", "Programmed", "20/20 workers run generation 1")

    assert fleet.generations("everywhere") == {1}
    assert fleet.cluster.conditions(fleet.home, "everywhere")["Ready"]["status"] == "True"
    found = fleet.cluster.published(fleet.home, fleet.operator.release.ruleset)
    assert found is not None
    annotations = [fleet.cluster.pod_annotations(fleet.home, worker.name) for worker in fleet.workers]
    assert {told["the-eye.io/ruleset"] for told in annotations} == {found.index.revision}
    answered = [httpx.get(f"http://{worker.address}/ruleset").json()["revision"] for worker in fleet.workers]
    assert answered == [found.index.revision] * WORKERS


def test_a_worker_whose_kubelet_sleeps_is_said_to_be_behind(fleet: Fleet) -> None:
    fleet.apply(rule("slow", elements=["a"]))
    fleet.wait_for_programmed("slow", 1, "True", "Programmed", "20/20 workers run generation 1")
    fleet.node.sleep("worker-7")

    fleet.apply(rule("slow", elements=["b"]))

    fleet.wait_for_programmed("slow", 2, "False", "WorkersBehind", "19/20 workers run generation 2")
    assert fleet.operator.metric("the_eye_operator_workers", state="behind") == 1

    fleet.node.wake("worker-7")
    fleet.wait_for_programmed("slow", 2, "True", "Programmed", "20/20 workers run generation 2")


def test_workers_go_on_with_the_last_good_version_of_a_rule_that_breaks(fleet: Fleet) -> None:
    fleet.apply(rule("breaks"))
    fleet.wait_for_programmed("breaks", 1, "True", "Programmed", "20/20 workers run generation 1")

    fleet.apply(rule("breaks", validations=BAD_EXPRESSION))

    fleet.wait_for_programmed("breaks", 2, "False", "LastGoodVersion", "20/20 workers run generation 1")
    assert fleet.generations("breaks") == {1}


def test_a_worker_that_ends_is_waited_for_no_more(fleet: Fleet) -> None:
    fleet.apply(rule("fewer"))
    fleet.wait_for_programmed("fewer", 1, "True", "Programmed", "20/20 workers run generation 1")

    fleet.workers.pop().stop()

    fleet.wait_for_programmed("fewer", 1, "True", "Programmed", "19/19 workers run generation 1")
