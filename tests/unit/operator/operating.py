"""A whole operator, wired as ``the_eye_operator.command`` wires it, and a worker for it to look at."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

import httpx2
import kmock
import msgspec
from tests.unit.operator.api_server import NAMESPACE, ApiServer

from the_eye.rules.assembly import Problem
from the_eye.rules.manifest import ValidatorRule
from the_eye.rules.shards import INDEX, MAX_SHARDS, RuleSetIndex, Shard, manifests_of, read_index, read_shards
from the_eye.settings import OperatorSettings
from the_eye_operator.cluster import connect
from the_eye_operator.decision import compiled
from the_eye_operator.observing import Observer
from the_eye_operator.publishing import Publisher
from the_eye_operator.reconciling import Reconciler
from the_eye_operator.watch import Watch
from the_eye_operator.workers import Workers

RULESET = "the-eye-ruleset"
PATIENCE = 10.0

BRISK = OperatorSettings(operator_debounce_seconds=0.05, operator_resync_seconds=2.0, operator_worker_poll_seconds=0.2)
WITHOUT_RESYNC = msgspec.structs.replace(BRISK, operator_resync_seconds=3600.0)
"""What comes to light is what the watch told."""


@asynccontextmanager
async def operating(
    server: ApiServer, settings: OperatorSettings = BRISK, namespaces: Sequence[str] = (NAMESPACE,)
) -> AsyncIterator[Reconciler]:
    """Run an operator against the server, which ``KUBECONFIG`` names; it must not end by itself."""
    loop = asyncio.get_running_loop()
    cluster = connect(settings.operator_namespace)
    reconciler = Reconciler(cluster, namespaces, settings, Publisher(cluster, settings.operator_ruleset_name))
    watch = Watch(
        namespaces,
        on_event=lambda type_, body: loop.call_soon_threadsafe(reconciler.on_event, type_, body),
        on_lost=lambda: loop.call_soon_threadsafe(reconciler.on_lost),
    )
    async with httpx2.AsyncClient() as client:
        observer = Observer(cluster, Workers(client), settings, on_change=reconciler.wake, health=reconciler.health)
        tasks = [asyncio.create_task(reconciler.run(watch, observer)), asyncio.create_task(observer.run())]
        watch.start()
        try:
            yield reconciler
            await until(lambda: server.watching > 0)  # kopf takes 5 seconds to stop while it starts
            ended = [task for task in tasks if task.done()]
        finally:
            reconciler.wake()  # the moment at which it is hardest to stop
            for task in tasks:
                task.cancel()
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.to_thread(watch.stop)
            await cluster.close()
    assert not [task.exception() for task in ended]


class Worker:
    """A worker's pod that mounts the ConfigMaps, and says over HTTP what it runs."""

    def __init__(self, server: ApiServer, name: str) -> None:
        self._server = server
        self.name = name
        self.frozen = False
        """Whether its kubelet sleeps."""
        self._index: RuleSetIndex | None = None
        self._shards: tuple[Shard, ...] = ()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Worker"]:
        """Answer for as long as the block lasts; the pod stays."""
        async with kmock.RawHandler() as handler, kmock.Server(handler) as http:
            _ = handler["get /ruleset"] << self._ruleset
            _ = handler["get /ruleset/rules"] << self._rules
            self._server.create_pod(worker_pod(self.name, http.port))
            yield self

    def _ruleset(self) -> dict[str, str]:
        if not self.frozen:
            self._index, self._shards = published(self._server)
        return self._revision()

    def _rules(self) -> dict[str, object]:
        rules = compiled(_rules_in(self._shards)).rules
        return {**self._revision(), "rules": [{"rule": rule.id, "digest": rule.digest} for rule in rules]}

    def _revision(self) -> dict[str, str]:
        return {"revision": self._index.revision if self._index else "sha256:none"}


def worker_pod(name: str, port: int) -> dict[str, object]:
    """Make the pod of a worker that answers on this machine."""
    labels = {"app.kubernetes.io/name": "the-eye", "app.kubernetes.io/component": "worker"}
    ports = [{"name": "http", "containerPort": 1}, {"name": "metrics", "containerPort": port}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"name": "worker", "ports": ports}]},
        "status": {"podIP": "127.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
    }


def published(server: ApiServer) -> tuple[RuleSetIndex, tuple[Shard, ...]]:
    """Read the published ruleset as a worker does; it must be whole."""
    index = read_index(server.data(RULESET)[INDEX].encode())
    assert isinstance(index, RuleSetIndex), index
    shards = _shards(server, index)
    assert isinstance(shards, tuple), shards
    return index, shards


def whole(server: ApiServer) -> bool:
    """Whether a worker could read what is published; between the writes of two operators it keeps what it has."""
    index = read_index(server.data(RULESET).get(INDEX, "").encode())
    return isinstance(index, RuleSetIndex) and isinstance(_shards(server, index), tuple)


def _shards(server: ApiServer, index: RuleSetIndex) -> tuple[Shard, ...] | Problem:
    slots = [server.data(f"{RULESET}-{slot}") for slot in range(MAX_SHARDS)]
    return read_shards(index, {name: text.encode() for slot in slots for name, text in slot.items()})


def in_force(server: ApiServer) -> dict[str, int]:
    """The generation of each published rule by its name, nothing while nothing is published."""
    if not server.data(RULESET):
        return {}
    _, shards = published(server)
    return {rule.metadata.name: rule.metadata.generation for rule in _rules_in(shards)}


def _rules_in(shards: Iterable[Shard]) -> list[ValidatorRule]:
    manifests = [manifest for shard in shards for manifest in manifests_of(shard)]
    return [manifest for manifest in manifests if isinstance(manifest, ValidatorRule)]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, and fail when it does not come."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for happens over HTTP and in threads
            await asyncio.sleep(0.01)
