"""Debian's Prometheus, which scrapes the pods of a namespace as the chart's PodMonitor would have it."""

import re
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import msgspec
import structlog
import yaml
from lightkube import Client
from lightkube.models.core_v1 import Pod as PodModel
from lightkube.resources.core_v1 import Pod
from tests.cluster.control_plane.cluster import ControlPlane
from tests.cluster.control_plane.components import Component
from tests.cluster.rules import administrator
from tests.machine import free_addresses
from tests.observability.prometheus import Prometheus, Sample

PROGRAM = "prometheus"

SCRAPE_SECONDS = 2.0
DISCOVERY_SECONDS = 0.5
ANSWER_SECONDS = 10.0

_log = structlog.get_logger(__name__)


class _Discovery:
    """Tells a Prometheus of the pods of a namespace, in a file; Debian's is built without that of Kubernetes."""

    def __init__(self, client: Client, namespace: str, pod_monitor: Mapping[str, Any], file: Path) -> None:
        self._client = client
        self._namespace = namespace
        self._kept = pod_monitor["podTargetLabels"]
        (endpoint,) = pod_monitor["podMetricsEndpoints"]
        self._port = endpoint["port"]
        self._file = file
        self._told = b""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="discovery", daemon=True)

    def start(self) -> None:
        self._tell([])
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(DISCOVERY_SECONDS):
            try:
                self._tell(
                    [target for pod in self._client.list(Pod, namespace=self._namespace) for target in self._of(pod)]
                )
            except (httpx2.HTTPError, OSError) as error:
                _log.warning("discovery_without_api_server", error=str(error))

    def _tell(self, targets: list[dict[str, Any]]) -> None:
        telling = msgspec.json.encode(targets)
        if telling != self._told:
            fresh = self._file.with_suffix(".new")
            fresh.write_bytes(telling)
            fresh.rename(self._file)
            self._told = telling

    def _of(self, pod: PodModel) -> Iterator[dict[str, Any]]:
        """Give the targets of a pod, with the labels that the Prometheus Operator has Prometheus give them."""
        if pod.metadata is None or pod.spec is None or pod.status is None or pod.status.podIP is None:
            return
        labels = pod.metadata.labels or {}
        of_pod = {"namespace": self._namespace, "pod": pod.metadata.name or ""}
        of_pod |= {re.sub("[^a-zA-Z0-9_]", "_", label): labels[label] for label in self._kept}
        for container in pod.spec.containers:
            for port in container.ports or ():
                if port.name == self._port:
                    address = f"{pod.status.podIP}:{port.containerPort}"
                    yield {"targets": [address], "labels": of_pod | {"container": container.name}}


@contextmanager
def watching(
    control_plane: ControlPlane,
    namespace: str,
    pod_monitor: Mapping[str, Any],
    folder: Path,
    constant: Sequence[Sample] = (),
) -> Iterator[Prometheus]:
    """Scrape the pods of a namespace for a block, as the spec of a PodMonitor says.

    There are series that are ``constant`` beside theirs.
    """
    program = shutil.which(PROGRAM)
    assert program is not None, "it is installed before"
    folder.mkdir()
    written, rules, targets = (folder / name for name in ("prometheus.yaml", "rules.yaml", "targets.json"))
    job = {
        "job_name": "the-eye",
        "scrape_interval": f"{SCRAPE_SECONDS:g}s",
        "scrape_timeout": f"{SCRAPE_SECONDS:g}s",
        "file_sd_configs": [{"files": [str(targets)]}],
    }
    written.write_text(yaml.safe_dump({"scrape_configs": [job], "rule_files": [str(rules)]}))
    rules.write_text(yaml.safe_dump({"groups": [_recorded(constant)]}))
    (listen,) = free_addresses(1)
    flags = {
        "config.file": str(written),
        "storage.tsdb.path": str(folder / "data"),
        "web.listen-address": listen,
        "log.level": "warn",
    }
    component = Component(Path(program), flags, folder)
    url = f"http://{listen}"
    prometheus = Prometheus(url)
    with administrator(control_plane) as client:
        discovery = _Discovery(client, namespace, pod_monitor, targets)
        discovery.start()
        component.start()
        try:
            component.wait_until(lambda: _is_ready(url))
            yield prometheus
        finally:
            component.kill()
            prometheus.close()
            discovery.stop()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", timeout=ANSWER_SECONDS, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _recorded(constant: Sequence[Sample]) -> dict[str, Any]:
    """Write down rules that make series; their names are in the label that Prometheus has for it."""
    rules = [
        {
            "record": sample.labels["__name__"],
            "expr": f"vector({sample.value})",
            "labels": {name: value for name, value in sample.labels.items() if name != "__name__"},
        }
        for sample in constant
    ]
    return {"name": "constant", "interval": f"{SCRAPE_SECONDS:g}s", "rules": rules}
