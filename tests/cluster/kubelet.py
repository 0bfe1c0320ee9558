"""What a kubelet does for the workers' pods: it mounts ConfigMaps and refreshes them, and says that pods are ready.

There are no nodes here. This stand-in writes what a kubelet writes and when: at once when a pod changes, which is what
the operator's annotation is for, and otherwise about once a minute.
"""

import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

import httpx2
import msgspec
import structlog
from lightkube import Client
from lightkube.models.core_v1 import Container, ContainerPort, PodCondition, PodIP, PodSpec, PodStatus
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap, Pod
from lightkube.types import PatchType
from tests.cluster.chart import Release
from tests.cluster.control_plane.cluster import ControlPlane
from tests.cluster.rules import administrator

from the_eye.settings import Address

LOOK_SECONDS = 0.25
"""How long a pod's change goes unseen; a kubelet, which watches, sees it sooner."""

SYNC_SECONDS = 60.0
"""How often a kubelet looks at what is mounted when nothing has changed."""

_log = structlog.get_logger(__name__)


class _Mount(msgspec.Struct):
    folder: Path
    annotations: Mapping[str, str]
    refreshed_at: float
    asleep: bool = False


class Kubelet:
    """The kubelet of all pods that it is told to run."""

    def __init__(self, client: Client, release: Release, folder: Path) -> None:
        self._client = client
        self._namespace = release.namespace
        self._labels = dict(release.worker_labels)
        self._mounted = release.mounted
        self._folder = folder
        self._mounts: dict[str, _Mount] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kubelet", daemon=True)

    def run_pod(self, name: str, address: Address) -> Path:
        """Make a pod with a worker's labels, not ready yet; gives the folder in which its ConfigMaps are mounted."""
        self._create(name, address)
        folder = self._folder / name
        folder.mkdir(parents=True)
        write_mount(folder, self._payload())
        with self._lock:
            self._mounts[name] = _Mount(folder, {}, time.monotonic())
        return folder

    def _create(self, name: str, address: Address) -> None:
        port = ContainerPort(containerPort=address.port, name="metrics")
        container = Container(name="worker", image="none.invalid/none", ports=[port])
        metadata = ObjectMeta(name=name, namespace=self._namespace, labels=self._labels)
        spec = PodSpec(containers=[container], terminationGracePeriodSeconds=0)
        self._client.create(Pod(metadata=metadata, spec=spec))
        self._patch(name, PodStatus(podIP=address.host, podIPs=[PodIP(ip=address.host)]))

    def mark_ready(self, name: str) -> None:
        """Say that a pod is ready, as its probe would have it."""
        self._patch(name, PodStatus(conditions=[PodCondition(type="Ready", status="True")]))

    def _patch(self, name: str, status: PodStatus) -> None:
        change = {"status": status.to_dict()}
        self._client.patch(Pod.Status, name, change, namespace=self._namespace, patch_type=PatchType.STRATEGIC)

    def delete_pod(self, name: str) -> None:
        """Let a pod go."""
        self._client.delete(Pod, name, namespace=self._namespace, grace_period=0)
        with self._lock:
            del self._mounts[name]

    def sleep(self, name: str) -> None:
        """Refresh a pod's mount no more, until ``wake``."""
        self._mounts[name].asleep = True

    def wake(self, name: str) -> None:
        """Undo ``sleep``."""
        self._mounts[name].asleep = False

    def start(self) -> None:
        """Begin to look after the pods."""
        self._thread.start()

    def stop(self) -> None:
        """Leave them alone."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                self._look()
            except (httpx2.HTTPError, OSError) as error:
                _log.warning("kubelet_without_api_server", error=str(error))

    def _look(self) -> None:
        pods = self._client.list(Pod, namespace=self._namespace, labels={**self._labels})
        annotations = {_name(pod.metadata): _annotations(pod.metadata) for pod in pods}
        with self._lock:
            mounts = [(mount, annotations[name]) for name, mount in self._mounts.items() if name in annotations]
        now = time.monotonic()
        due = [(mount, seen) for mount, seen in mounts if _is_due(mount, seen, now)]
        payload = self._payload() if due else {}
        for mount, seen in due:
            write_mount(mount.folder, payload)
            mount.annotations, mount.refreshed_at = seen, now

    def _payload(self) -> dict[str, str]:
        listed = self._client.list(ConfigMap, namespace=self._namespace)
        mounted = [found.data or {} for found in listed if _name(found.metadata) in self._mounted]
        return {key: text for data in mounted for key, text in data.items()}


def _name(metadata: ObjectMeta | None) -> str:
    return "" if metadata is None else metadata.name or ""


def _annotations(metadata: ObjectMeta | None) -> Mapping[str, str]:
    return {} if metadata is None else metadata.annotations or {}


def _is_due(mount: _Mount, annotations: Mapping[str, str], now: float) -> bool:
    changed = annotations != mount.annotations or now - mount.refreshed_at > SYNC_SECONDS
    return changed and not mount.asleep


def write_mount(folder: Path, payload: Mapping[str, str]) -> None:
    """Write files as a kubelet does: all into a new folder, to which a link is then swapped (its AtomicWriter)."""
    data = folder / "..data"
    before = data.resolve() if data.is_symlink() else None
    if before is not None and payload == {path.name: path.read_text() for path in before.iterdir()}:
        return
    fresh = folder / f"..{time.strftime('%Y_%m_%d_%H_%M_%S')}.{token_hex(4)}"
    fresh.mkdir()
    for name, text in payload.items():
        (fresh / name).write_text(text)
    _swap(data, fresh.name)
    for name in payload:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("..data", name))
    for path in folder.iterdir():
        if not path.name.startswith("..") and path.name not in payload:
            path.unlink()
    if before is not None:
        shutil.rmtree(before)


def _swap(link: Path, target: str) -> None:
    fresh = link.with_name("..data_tmp")
    fresh.symlink_to(target)
    fresh.rename(link)


@contextmanager
def at_work(control_plane: ControlPlane, release: Release, folder: Path) -> Iterator[Kubelet]:
    """Have a kubelet for a block."""
    with administrator(control_plane) as client:
        kubelet = Kubelet(client, release, folder)
        kubelet.start()
        try:
            yield kubelet
        finally:
            kubelet.stop()
