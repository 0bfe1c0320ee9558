"""A node on which the pods of a namespace are real processes of The Eye's: what controllers want comes and goes.

It does what the scheduler, a kubelet and its runtime do for a pod. It takes it, gives it an address, starts its
container's command with the environment that the pod has, asks its readiness probe until it answers, sends SIGTERM when
the pod is deleted, and lets it go when the process has ended. Left out: images, volumes, the Secrets that variables
come from, and `preStop`. When it is full, further pods stay Pending.
"""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import SystemRandom

import httpx2
import msgspec
import structlog
from lightkube import ApiError, Client
from lightkube.models.core_v1 import Container, PodCondition, PodIP, PodStatus
from lightkube.models.core_v1 import Pod as PodModel
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Pod
from lightkube.types import PatchType
from tests.cluster.control_plane.cluster import ControlPlane
from tests.cluster.control_plane.kubectl import Kubectl
from tests.cluster.rules import administrator
from tests.faults.processes import Process, clean_environment

NAME = "here"
LOOK_SECONDS = 0.25
"""How long a pod's change goes unseen; a kubelet, which watches, sees it sooner."""

_log = structlog.get_logger(__name__)


class _Pods(msgspec.Struct, frozen=True):
    """The pods of a namespace, as the API server has them."""

    client: Client
    kubectl: Kubectl
    namespace: str

    def all(self) -> dict[str, PodModel]:
        return {_metadata(pod).name or "": pod for pod in self.client.list(Pod, namespace=self.namespace)}

    def bind(self, name: str) -> None:
        """Say on which node a pod is. lightkube's method expects a Binding as the answer, and it is a Status."""
        target = {"apiVersion": "v1", "kind": "Node", "name": NAME}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}/binding"
        self.kubectl("create", "--raw", path, "-f", "-", input=msgspec.json.encode(binding).decode())

    def patch(self, name: str, status: PodStatus) -> None:
        change = {"status": status.to_dict()}
        self.client.patch(Pod.Status, name, change, namespace=self.namespace, patch_type=PatchType.STRATEGIC)

    def let_go(self, name: str) -> None:
        try:
            self.client.delete(Pod, name, namespace=self.namespace, grace_period=0)
        except ApiError as error:
            if error.status.code != httpx2.codes.NOT_FOUND:
                raise


class Node:
    """What runs."""

    def __init__(self, pods: _Pods, environ: Mapping[str, str], folder: Path, *, capacity: int) -> None:
        """``environ`` holds variables for all containers, which come before the pods' own."""
        self._pods = pods
        self._environ = environ
        self._folder = folder
        self._deleted: dict[str, threading.Event] = {}
        self._lives: list[Future[None]] = []
        net = SystemRandom().randrange(1, 255)
        self._hosts = (f"127.{net}.1.{number}" for number in range(1, 255))
        self._threads = ThreadPoolExecutor(capacity, "pod")
        self._stopping = threading.Event()
        self._looking = threading.Thread(target=self._run, name="node", daemon=True)

    def start(self) -> None:
        """Begin to take pods."""
        self._looking.start()

    def stop(self) -> None:
        """End all that runs, and fail if a process has ended that was not asked to."""
        self._stopping.set()
        self._looking.join()
        for deleted in self._deleted.values():
            deleted.set()
        self._threads.shutdown()
        for life in self._lives:
            life.result()

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                self._look()
            except (httpx2.HTTPError, OSError) as error:
                _log.warning("node_without_api_server", error=str(error))

    def _look(self) -> None:
        pods = self._pods.all()
        wanted = {name for name, pod in pods.items() if _metadata(pod).deletionTimestamp is None}
        for name in wanted - self._deleted.keys():
            deleted = self._deleted[name] = threading.Event()
            life = _Life(self._pods, pods[name], next(self._hosts), deleted)
            self._lives.append(self._threads.submit(life.run, self._environ, self._folder / f"{name}.log"))
        for name in self._deleted.keys() - wanted:
            self._deleted[name].set()


class _Life:
    """A pod from its binding to its end, in a thread of its own."""

    def __init__(self, pods: _Pods, pod: PodModel, host: str, deleted: threading.Event) -> None:
        self._pods = pods
        self._name = _metadata(pod).name or ""
        assert pod.spec is not None
        (self._container,) = pod.spec.containers
        self._host = host
        self._deleted = deleted

    def run(self, environ: Mapping[str, str], log: Path) -> None:
        if self._deleted.is_set():
            return
        process = self._process(environ, log)
        self._pods.bind(self._name)
        process.start()
        try:
            address = PodStatus(phase="Running", startTime=datetime.now(UTC), podIPs=[PodIP(ip=self._host)])
            self._pods.patch(self._name, address)
            process.wait_until_ready()
            self._pods.patch(self._name, PodStatus(conditions=[PodCondition(type="Ready", status="True")]))
            self._deleted.wait()
            assert process.terminate() == 0, f"{self._name} did not end in order"
        finally:
            process.clean_up()
            process.show_log()
        self._pods.let_go(self._name)

    def _process(self, environ: Mapping[str, str], log: Path) -> Process:
        command = self._container.command or []
        given = {each.name: each.value for each in self._container.env or () if each.value is not None}
        # The pod's address is one of many here, so that its process may not listen on all.
        own = {name: value.replace("0.0.0.0:", f"{self._host}:") for name, value in given.items()}
        return Process(command[-1], {**clean_environment(), **own, **environ}, log, self._ready_url())

    def _ready_url(self) -> str:
        probe = self._container.readinessProbe
        assert probe is not None
        assert probe.httpGet is not None
        return f"http://{self._host}:{_port(self._container, str(probe.httpGet.port))}{probe.httpGet.path}"


def _metadata(pod: PodModel) -> ObjectMeta:
    assert pod.metadata is not None
    return pod.metadata


def _port(container: Container, name: str) -> int:
    return next(port.containerPort for port in container.ports or () if port.name == name)


@contextmanager
def at_work(
    control_plane: ControlPlane, namespace: str, environ: Mapping[str, str], folder: Path, *, capacity: int
) -> Iterator[None]:
    """Have a node for the pods of a namespace, for a block."""
    with administrator(control_plane) as client:
        node = Node(_Pods(client, control_plane.kubectl, namespace), environ, folder, capacity=capacity)
        node.start()
        try:
            yield
        finally:
            node.stop()
