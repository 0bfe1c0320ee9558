"""What is asked of the API server, and how its failures are told; the rest the tests of the whole operator show."""

from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from kmock import KubernetesScaffold
from lightkube.models.core_v1 import ObjectReference
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Event
from prometheus_client import REGISTRY
from tests.unit.operator.api_server import NAMESPACE, RULES, ApiServer
from tests.unit.rules.making import cel

from the_eye.settings import SettingsError
from the_eye_operator.cluster import DEFAULT_PORT, Cluster, ClusterError, WorkerPod, connect

pytestmark = pytest.mark.kmock(cls=KubernetesScaffold)

LABELS = {"app": "worker", "tier": "back"}
READY = [{"type": "Initialized", "status": "False"}, {"type": "Ready", "status": "True"}]


@pytest.fixture
def server(kmock: KubernetesScaffold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ApiServer:
    """An API server that ``connect`` finds."""
    server = ApiServer(kmock)
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))
    return server


@pytest.fixture
async def cluster(server: ApiServer) -> AsyncIterator[Cluster]:
    """What is tested."""
    del server
    cluster = connect("")
    yield cluster
    await cluster.close()


def pod(name: str, *, metadata: dict[str, Any] | None = None, ports: Any = (), **status: Any) -> dict[str, Any]:
    """A worker's pod that is ready, unless its status says otherwise."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": LABELS, **(metadata or {})},
        "spec": {"containers": [{"name": "worker", "ports": list(ports)}]},
        "status": {"podIP": "10.0.0.1", "conditions": READY, **status},
    }


async def pods(cluster: Cluster) -> list[WorkerPod]:
    return await cluster.worker_pods("app=worker,tier=back", "metrics", "the-eye.io/ruleset")


async def test_the_namespace_is_that_of_the_credentials_unless_another_is_given(cluster: Cluster) -> None:
    other = connect("elsewhere")
    await other.close()

    assert (cluster.namespace, other.namespace) == (NAMESPACE, "elsewhere")


def test_without_credentials_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))

    with pytest.raises(SettingsError, match="no credentials for the Kubernetes API"):
        connect("")


async def test_a_pod_is_found_by_all_its_labels(server: ApiServer, cluster: Cluster) -> None:
    server.create_pod(pod("a", metadata={"annotations": {"the-eye.io/ruleset": "sha256:x"}}))
    server.create_pod(pod("b", metadata={"labels": {"app": "worker"}}))

    assert await pods(cluster) == [WorkerPod("a", f"10.0.0.1:{DEFAULT_PORT}", "sha256:x", is_ready=True)]


async def test_a_pod_is_asked_at_the_port_with_the_name(server: ApiServer, cluster: Cluster) -> None:
    server.create_pod(pod("a", ports=[{"containerPort": 1}, {"name": "metrics", "containerPort": 9999}]))

    assert [found.address for found in await pods(cluster)] == ["10.0.0.1:9999"]


async def test_an_address_of_ipv6_is_in_brackets(server: ApiServer, cluster: Cluster) -> None:
    server.create_pod(pod("a", podIP="fd00::1"))

    assert [found.address for found in await pods(cluster)] == [f"[fd00::1]:{DEFAULT_PORT}"]


@pytest.mark.parametrize(
    "status",
    [{"conditions": []}, {"conditions": None}, {"conditions": [{"type": "Ready", "status": "False"}]}, {"podIP": None}],
)
async def test_a_pod_that_is_not_ready_is_found_as_such(
    server: ApiServer, cluster: Cluster, status: dict[str, Any]
) -> None:
    server.create_pod(pod("a", **status))

    assert [found.is_ready for found in await pods(cluster)] == [False]


async def test_a_pod_that_is_about_to_end_is_not_looked_at(server: ApiServer, cluster: Cluster) -> None:
    server.create_pod(pod("a", metadata={"deletionTimestamp": "2026-03-01T12:00:00Z"}))

    assert await pods(cluster) == []


async def test_a_config_map_that_is_not_there_is_none(server: ApiServer, cluster: Cluster) -> None:
    assert await cluster.config_map("a") is None
    await cluster.change_config_map("a", {"x": "1", "gone": None}, {"l": "m"})
    assert await cluster.config_map("a") == {"x": "1"}
    await cluster.change_config_map("a", {"x": None}, {"l": "m"})
    assert await cluster.config_map("a") == {}
    assert [found["metadata"]["labels"] for found in server.objects("configmaps")] == [{"l": "m"}]


async def test_other_keys_of_a_config_map_stay(cluster: Cluster) -> None:
    await cluster.change_config_map("a", {"x": "1", "y": "2"}, {})
    await cluster.change_config_map("a", {"x": "3"}, {})

    assert await cluster.config_map("a") == {"x": "3", "y": "2"}


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("", 0.0)])
async def test_how_long_to_wait_is_what_the_server_asks(
    server: ApiServer, cluster: Cluster, header: str, seconds: float
) -> None:
    server.fail(HTTPStatus.TOO_MANY_REQUESTS, retry_after=header)

    with pytest.raises(ClusterError, match="429") as caught:
        await cluster.rules(NAMESPACE)
    assert (caught.value.status, caught.value.retry_after) == (429, seconds)


async def test_a_time_of_day_to_come_back_at_is_passed_over(server: ApiServer, cluster: Cluster) -> None:
    server.fail(HTTPStatus.SERVICE_UNAVAILABLE, retry_after="Wed, 21 Oct 2026 07:28:00 GMT")

    with pytest.raises(ClusterError) as caught:
        await cluster.rules(NAMESPACE)
    assert caught.value.retry_after == 0.0


async def test_a_failure_says_what_was_asked_and_never_with_what_credentials(
    server: ApiServer, cluster: Cluster
) -> None:
    server.apply("a", **cel("true"))
    server.fail(HTTPStatus.FORBIDDEN)

    with pytest.raises(ClusterError) as caught:
        await cluster.patch_status(NAMESPACE, "a", {})
    assert str(caught.value) == f"patch the status of {NAMESPACE}/a: 403 Forbidden"
    assert caught.value.concerns_one_object


async def test_without_the_definition_the_kind_is_missing(server: ApiServer, cluster: Cluster) -> None:
    server.undefine()

    with pytest.raises(ClusterError) as caught:
        await cluster.rules(NAMESPACE)
    assert caught.value.missing


async def test_a_server_that_is_not_there_is_a_failure_without_a_status(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = server.kubeconfig(tmp_path)
    path.write_text(path.read_text().replace("http://127.0.0.1:", "http://127.0.0.1:1/"))
    monkeypatch.setenv("KUBECONFIG", str(path))
    nowhere = connect("")

    with pytest.raises(ClusterError) as caught:
        await nowhere.rules(NAMESPACE)
    assert caught.value.status is None
    assert not caught.value.concerns_one_object
    await nowhere.close()


async def test_a_status_is_merged_and_nothing_else(server: ApiServer, cluster: Cluster) -> None:
    server.apply("a", **cel("true"))
    await cluster.patch_status(NAMESPACE, "a", {"x": 1, "y": 2})
    patched = await cluster.patch_status(NAMESPACE, "a", {"x": None, "z": [3]})

    assert patched["status"] == server.status("a") == {"y": 2, "z": [3]}
    assert [write.subresource for write in server.writes() if write.plural == RULES] == ["status", "status"]


async def test_an_event_that_is_there_already_will_do(server: ApiServer, cluster: Cluster) -> None:
    event = Event(
        metadata=ObjectMeta(name="a", namespace=NAMESPACE), involvedObject=ObjectReference(name="rule"), message="news"
    )
    await cluster.create_event(event)
    await cluster.create_event(event)
    assert [found["message"] for found in server.objects("events")] == ["news"]

    server.fail(HTTPStatus.FORBIDDEN, plural="events")
    with pytest.raises(ClusterError, match="create an event: 403"):
        await cluster.create_event(event)


@pytest.mark.parametrize("status", [HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS])
async def test_whatever_the_server_refuses_is_counted_by_its_status(
    server: ApiServer, cluster: Cluster, status: HTTPStatus
) -> None:
    def count() -> float:
        return REGISTRY.get_sample_value("the_eye_operator_api_errors_total", {"status": str(status.value)}) or 0.0

    before = count()
    server.fail(status, plural=RULES, action="list")
    with pytest.raises(ClusterError):
        await cluster.rules(NAMESPACE)

    assert count() == before + 1


async def test_an_answer_that_never_comes_is_counted_too(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def count() -> float:
        return REGISTRY.get_sample_value("the_eye_operator_api_errors_total", {"status": "none"}) or 0.0

    before = count()
    monkeypatch.setattr("httpx2.AsyncClient.send", _away)
    with pytest.raises(ClusterError):
        await cluster.rules(NAMESPACE)

    assert count() == before + 1


async def _away(*_: Any, **__: Any) -> None:
    message = "no route"
    raise OSError(message)
