"""Each image's process, confined as a pod's, against a real PostgreSQL and a real Valkey.

The operator has kmock for an API server; with the real one it runs in the cluster tests, though not in a container.
"""

import asyncio
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from kmock import KubernetesScaffold
from tests.images.conftest import ROOT
from tests.images.containers import Container, Containers
from tests.machine import free_addresses
from tests.servers import wait_until
from tests.unit.operator.api_server import ApiServer
from tests.unit.operator.operating import in_force
from tests.unit.rules.making import cel

START_SECONDS = 60.0
STORED_SECONDS = 30.0
WAIT_SECONDS = 5.0

SAMPLE_RULES = ROOT / "k8s" / "rules"
RULES_DIR = "/etc/the-eye/rules"
"""Where the chart mounts the ruleset."""

KUBECONFIG = "/etc/the-eye/kubeconfig"


@pytest.fixture(scope="module")
def token(containers: Mapping[str, Containers], stores: Mapping[str, str]) -> str:
    """A token that may send and read, on a store that was made ready by the image for such tasks."""
    tasks = (
        ("migrate",),
        ("maintain",),
        ("application", "create", "shop"),
        ("token", "create", "--application", "shop", "--scope", "ingest", "--scope", "read"),
    )
    out = ""
    for task in tasks:
        done = containers["all"].run("the-eye", *task, environment=stores)
        assert done.returncode == 0, (task, done.stdout, done.stderr)
        out = done.stdout
    return out.split()[-1]


@pytest.fixture(scope="module")
def api(containers: Mapping[str, Containers], stores: Mapping[str, str], token: str) -> Iterator[str]:
    """The URL of an API; it is ready, and ends in order."""
    del token  # it knows those that were there when it started
    listen, metrics = free_addresses(2)
    environment = {**stores, "THE_EYE_API_LISTEN": listen, "THE_EYE_API_METRICS_LISTEN": metrics}
    with containers["api"].running(environment) as container:
        _wait_for(container, f"http://{listen}/readyz")
        assert httpx.get(f"http://{metrics}/metrics").status_code == HTTPStatus.OK
        yield f"http://{listen}"
        assert container.stop() == 0, container.err


@pytest.fixture(scope="module")
def worker(containers: Mapping[str, Containers], stores: Mapping[str, str], token: str) -> Iterator[str]:
    """The URL of a worker with the sample rules; it is ready, and ends in order."""
    del token  # without a schema it waits
    (listen,) = free_addresses(1)
    environment = {**stores, "THE_EYE_WORKER_METRICS_LISTEN": listen, "THE_EYE_RULES_DIR": RULES_DIR}
    with containers["worker"].running(environment, {RULES_DIR: SAMPLE_RULES}) as container:
        _wait_for(container, f"http://{listen}/readyz")
        yield f"http://{listen}"
        assert container.stop() == 0, container.err


def _wait_for(container: Container, url: str) -> None:
    wait_until(lambda: _answers(container, url), START_SECONDS, lambda: f"{url} is not 200:\n{container.err}")


def _answers(container: Container, url: str) -> bool:
    assert container.process.poll() is None, container.err
    try:
        return httpx.get(url, timeout=WAIT_SECONDS).status_code == HTTPStatus.OK
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    ("element", "codes"), [("buy button", []), ("banner", ["schema.enum"])], ids=["valid", "invalid"]
)
def test_an_event_is_accepted_judged_and_read_back(
    api: str, worker: str, token: str, element: str, codes: list[str]
) -> None:
    event_id = str(uuid4())
    event = {
        "event_id": event_id,
        "session_id": str(uuid4()),
        "category": "page interaction",
        "name": "cta click",
        "data": {"host": "www.consumeraffairs.com", "path": "/", "element": element},
        "timestamp": "2026-01-01T09:15:27.243860Z",
    }
    with httpx.Client(base_url=api, headers={"Authorization": f"Bearer {token}"}, timeout=WAIT_SECONDS) as client:
        assert client.post("/events", json=event).status_code == HTTPStatus.ACCEPTED
        path = f"/events/{event_id}"
        wait_until(lambda: client.get(path).status_code == HTTPStatus.OK, STORED_SECONDS, lambda: client.get(path).text)
        stored = client.get(path).json()
    assert stored["valid"] == (not codes)
    assert [violation["code"] for violation in stored["violations"]] == codes
    assert stored["ruleset"] == httpx.get(f"{worker}/ruleset").json()["revision"]


@pytest.mark.parametrize(
    ("target", "missing"),
    [
        ("api", "THE_EYE_REDIS_URL is not set"),
        ("worker", "THE_EYE_REDIS_URL is not set"),
        ("operator", "no credentials for the Kubernetes API"),
    ],
)
def test_a_process_without_settings_says_in_a_line_what_it_lacks(
    containers: Mapping[str, Containers], target: str, missing: str
) -> None:
    result = containers[target].run(*containers[target].image.command)
    assert result.returncode == 2
    assert missing in result.stderr.splitlines()[-1]


@pytest.mark.kmock(cls=KubernetesScaffold)
async def test_the_operator_publishes_rules(
    kmock: KubernetesScaffold, containers: Mapping[str, Containers], tmp_path: Path
) -> None:
    server = ApiServer(kmock)
    server.apply("a", **cel("true"))
    (listen,) = free_addresses(1)
    environment = {"THE_EYE_OPERATOR_LISTEN": listen, "KUBECONFIG": KUBECONFIG}
    with containers["operator"].running(environment, {KUBECONFIG: server.kubeconfig(tmp_path)}) as container:
        try:
            async with asyncio.timeout(START_SECONDS), httpx.AsyncClient() as client:
                while not in_force(server):  # noqa: ASYNC110 - what is waited for happens in the container
                    await asyncio.sleep(0.02)
                healthy = await client.get(f"http://{listen}/healthz")
        except TimeoutError:
            pytest.fail(container.err)
        status = await asyncio.to_thread(container.stop)
    assert healthy.status_code == HTTPStatus.OK
    assert in_force(server) == {"a": 1}
    assert status == 0, container.err
