"""From `kubectl apply` to a verdict in `GET /events`: operator, worker, API, PostgreSQL and Valkey are all real.

Left out: the image, and the kubelet that would run it; in its place is the one in kubelet.py.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.cluster import chart, kubelet, workers
from tests.cluster.chart import rule
from tests.cluster.control_plane.cluster import ControlPlane
from tests.cluster.kubelet import Kubelet
from tests.cluster.operator_process import Operator, operating
from tests.cluster.rules import BAD_EXPRESSION, Cluster, seen_in
from tests.faults.processes import Process, clean_environment
from tests.machine import free_addresses
from tests.servers import Postgres, Valkey, running

from the_eye.settings import Address, StoreSettings
from the_eye.store.applications import create_application, create_token
from the_eye.store.connect import connect
from the_eye.tokens import Scope
from the_eye_cli.maintain import maintain
from the_eye_cli.migrate import migrate

WORKERS = 2


class Eye:
    """All of The Eye."""

    def __init__(self, control_plane: ControlPlane, cluster: Cluster, operator: Operator, api: httpx.Client) -> None:
        self._kubectl = control_plane.kubectl
        self._cluster = cluster
        self.operator = operator
        self._api = api
        self.home = operator.release.namespace

    def apply(self, document: dict[str, Any]) -> None:
        """Apply a rule."""
        self._kubectl.apply(document, namespace=self.home)

    def wait_for(self, name: str, condition: str, status: str, generation: int) -> str:
        """Wait until a condition says something of a generation of a rule; gives its message."""

        def told() -> dict[str, Any]:
            return self._cluster.conditions(self.home, name).get(condition, {})

        self.operator.wait(lambda: (told().get("status"), told().get("observedGeneration")) == (status, generation))
        return str(told()["message"])

    def judge(self, element: str) -> tuple[bool, list[tuple[str, int, str]]]:
        """Send an event and read its verdict: whether it is valid, and which generation of which rule says no."""
        event = {
            "session_id": "e2085be5-9137-4e4e-80b5-f1ffddc25423",
            "category": "page interaction",
            "name": "cta click",
            "data": {"element": element},
            "timestamp": "2026-01-01T09:15:27Z",
        }
        accepted = self._api.post("/events", json=event)
        assert accepted.status_code == 202, accepted.text
        event_id = accepted.json()["event_id"]
        self.operator.wait(lambda: self._stored(event_id))
        (stored,) = self._stored(event_id)
        broken = [(told["rule"], told["generation"], told["path"]) for told in stored["violations"]]
        return stored["valid"], broken

    def _stored(self, event_id: str) -> list[dict[str, Any]]:
        events = self._api.get("/events").raise_for_status().json()["events"]
        return [event for event in events if event["event_id"] == event_id]


@pytest.fixture
def stores() -> Iterator[dict[str, str]]:
    """A database and a queue, as settings of The Eye's processes."""
    with running(Postgres) as postgres, running(Valkey) as valkey, pytest.MonkeyPatch.context() as environment:
        assert isinstance(postgres, Postgres)
        assert isinstance(valkey, Valkey)
        url = postgres.create_database("the_eye")
        environment.setenv("THE_EYE_DATABASE_URL", url)
        migrate.main([], standalone_mode=False)
        maintain.main([], standalone_mode=False)
        yield {"THE_EYE_DATABASE_URL": url, "THE_EYE_REDIS_URL": valkey.url()}


@pytest.fixture
def token(stores: dict[str, str]) -> str:
    """A token that may send events and read them."""
    with connect(StoreSettings(database_url=stores["THE_EYE_DATABASE_URL"]), "test") as connection:
        create_application(connection, "shop")
        return create_token(connection, "shop", [Scope.INGEST, Scope.READ]).text


@pytest.fixture
def eye(control_plane: ControlPlane, stores: dict[str, str], token: str, tmp_path: Path) -> Iterator[Eye]:
    """The Eye, whose workers came up before the operator did."""
    chart.install_definition(control_plane.kubectl)
    with ExitStack() as up:
        (home,) = up.enter_context(chart.namespaces(control_plane, 1))
        release = chart.render(home)
        node = up.enter_context(kubelet.at_work(control_plane, release, tmp_path / "pods"))
        api, url = an_api(stores, tmp_path)
        pods = {
            f"worker-{number}": a_worker(f"worker-{number}", address, node, stores, tmp_path)
            for number, address in enumerate(workers.addresses(WORKERS))
        }
        for process in (api, *pods.values()):
            process.start()
            up.callback(process.show_log)
            up.callback(process.clean_up)
        api.wait_until_ready()
        operator = up.enter_context(operating(control_plane, release, tmp_path / "operator"))
        for name, process in pods.items():
            process.wait_until_ready()
            node.mark_ready(name)
        cluster = up.enter_context(seen_in(control_plane))
        client = up.enter_context(httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}))
        yield Eye(control_plane, cluster, operator, client)


def an_api(stores: dict[str, str], folder: Path) -> tuple[Process, str]:
    """Make an API, not yet started; gives its URL too."""
    listen, metrics = free_addresses(2)
    settings = {**stores, "THE_EYE_API_LISTEN": listen, "THE_EYE_API_METRICS_LISTEN": metrics}
    process = Process("api", clean_environment() | settings, folder / "api.log", f"http://{listen}/readyz")
    return process, f"http://{listen}"


def a_worker(name: str, address: Address, node: Kubelet, stores: dict[str, str], folder: Path) -> Process:
    """Make a worker in a pod, not yet started."""
    settings = {
        **stores,
        "THE_EYE_RULES_DIR": str(node.run_pod(name, address)),
        "THE_EYE_WORKER_METRICS_LISTEN": str(address),
    }
    return Process("worker", clean_environment() | settings, folder / f"{name}.log", f"http://{address}/readyz")


def test_a_rule_that_is_applied_judges_events_and_one_that_breaks_goes_on_as_it_was(eye: Eye) -> None:
    """With the operator and without it."""
    only_a = (f"{eye.home}/element", 1, "$.data.element")

    eye.apply(rule("element", elements=["a"]))
    assert eye.wait_for("element", "Ready", "True", 1) == f"{WORKERS}/{WORKERS} workers run generation 1"
    assert eye.judge("a") == (True, [])
    assert eye.judge("b") == (False, [only_a])

    eye.apply(rule("element", elements=["b"], validations=BAD_EXPRESSION))
    eye.wait_for("element", "Accepted", "False", 2)
    told = f"{WORKERS}/{WORKERS} workers run generation 1"
    eye.operator.wait(lambda: eye.wait_for("element", "Programmed", "False", 2) == told)
    assert eye.judge("a") == (True, [])
    assert eye.judge("b") == (False, [only_a])

    eye.apply(rule("element", elements=["b"]))
    eye.wait_for("element", "Ready", "True", 3)
    assert eye.judge("b") == (True, [])
    assert eye.judge("a") == (False, [(f"{eye.home}/element", 3, "$.data.element")])

    eye.operator.kill()
    eye.apply(rule("element", elements=["a"]))
    assert eye.judge("b") == (True, [])
