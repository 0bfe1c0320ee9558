"""What the processes tell of themselves is what ``docs/metrics.md`` lists, in both directions."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from docs.list_metrics import Listed, listed
from prometheus_client.parser import text_string_to_metric_families
from tests.faults.processes import Process, clean_environment
from tests.integration.test_storing import RULES
from tests.machine import free_addresses
from tests.servers import wait_until

from the_eye.settings import QueueSettings, RetentionSettings, StoreSettings
from the_eye.store.applications import create_application, create_token
from the_eye.store.connect import Connection
from the_eye.store.partitions import maintain
from the_eye.tokens import Scope
from the_eye_api import metrics as api_metrics
from the_eye_api import shared_metrics
from the_eye_worker import metrics as worker_metrics

DEADLINE = 60.0
EVENT = (
    '{"session_id": "e2085be5-9137-4e4e-80b5-f1ffddc25423", "category": "page interaction", "name": "cta click",'
    ' "data": {"element": "banner"}, "timestamp": "2026-01-01T09:15:27Z"}'
)


class House:
    """An API and a worker."""

    def __init__(self, queue: QueueSettings, store: StoreSettings, folder: Path) -> None:
        (folder / "rules.yaml").write_text(RULES)
        self.listen, self.api_metrics, self.worker_metrics = free_addresses(3)
        self._environ = clean_environment() | {
            "THE_EYE_DATABASE_URL": store.database_url,
            "THE_EYE_REDIS_URL": queue.redis_url,
            "THE_EYE_QUEUE_NAMESPACE": queue.queue_namespace,
            "THE_EYE_RULES_DIR": str(folder),
            "THE_EYE_API_LISTEN": self.listen,
            "THE_EYE_API_METRICS_LISTEN": self.api_metrics,
            "THE_EYE_WORKER_METRICS_LISTEN": self.worker_metrics,
        }
        self.processes = [
            self._make("api", folder, f"http://{self.listen}/readyz"),
            self._make("worker", folder, f"http://{self.worker_metrics}/readyz"),
        ]

    def _make(self, command: str, folder: Path, ready_url: str) -> Process:
        return Process(command, self._environ, folder / f"{command}.log", ready_url)


@pytest.fixture
def house(
    queue_settings: QueueSettings, store_settings: StoreSettings, connection: Connection, tmp_path: Path
) -> Iterator[House]:
    """Both, ready."""
    list(maintain(connection, RetentionSettings(), datetime.now(UTC)))
    house = House(queue_settings, store_settings, tmp_path)
    try:
        for process in house.processes:
            process.start()
        for process in house.processes:
            process.wait_until_ready()
        yield house
    finally:
        for process in house.processes:
            process.clean_up()


def told(address: str) -> dict[str, tuple[str, str, set[str]]]:
    """Read type, help and labels of each metric, by its name."""
    text = httpx.get(f"http://{address}/metrics").text
    found = {}
    for family in text_string_to_metric_families(text):
        if family.name.startswith("the_eye_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            found[name] = (family.type, family.documentation, labels)
    return found


def expected(*modules: ModuleType) -> dict[str, Listed]:
    """Give what the page lists, by its name."""
    return {each.name: each for module in modules for each in listed(module)}


def test_the_processes_tell_what_the_page_lists(house: House, connection: Connection) -> None:
    """Once they have had something to do."""
    create_application(connection, "demo")
    token = create_token(connection, "demo", [Scope.INGEST]).text

    def send(body: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.post(f"http://{house.listen}/events", content=body, headers=headers).status_code

    wait_until(lambda: send(EVENT) == 202, DEADLINE, lambda: "the token is not known")
    assert send("{") == 400
    of_api, of_worker = expected(api_metrics, shared_metrics), expected(worker_metrics)
    wait_until(lambda: told(house.api_metrics).keys() == of_api.keys(), DEADLINE, lambda: missing(house, of_api))
    wait_until(
        lambda: "rule" in told(house.worker_metrics)["the_eye_violations_total"][2], DEADLINE, lambda: "not stored"
    )

    for address, listed_ in ((house.api_metrics, of_api), (house.worker_metrics, of_worker)):
        seen = told(address)
        assert seen.keys() == listed_.keys()
        for name, (type_, documentation, labels) in seen.items():
            assert (type_, documentation) == (listed_[name].type, listed_[name].documentation)
            assert labels in (set(), set(listed_[name].labels)), name
    assert told(house.api_metrics)["the_eye_events_accepted_total"][2] == {"application"}


def missing(house: House, of_api: dict[str, Listed]) -> str:
    """Say what is not told, or should not be."""
    return str(told(house.api_metrics).keys() ^ of_api.keys())
