"""An operator as a process of its own, an API server for it to talk to, and a kubelet that is told when to deliver."""

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from kmock import KubernetesScaffold, Server
from tests.cluster.kubelet import write_mount
from tests.machine import THE_EYE, until
from tests.unit.operator.api_server import ApiServer
from tests.unit.operator.operating import RULESET, worker_pod

from the_eye.rules.shards import INDEX, MAX_SHARDS

START_SECONDS = 60.0
STOP_SECONDS = 30.0

T = TypeVar("T")


class Kubernetes:
    """An API server in an event loop of its own, and the operator that works with it."""

    def __init__(self, folder: Path, operator_listen: str) -> None:
        self._folder = folder
        self._operator_listen = operator_listen
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: ApiServer | None = None
        self._operator: subprocess.Popen[bytes] | None = None

    def call(self, act: Callable[[ApiServer], T]) -> T:
        """Do something with the API server, where its objects live."""

        async def acting() -> T:
            assert self._server is not None
            return act(self._server)

        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(acting(), self._loop).result(START_SECONDS)

    def apply(self, name: str, **spec: Any) -> None:
        """Apply a rule, as ``kubectl apply`` would."""
        self.call(lambda server: server.apply(name, **spec))

    def published(self) -> dict[str, str]:
        """Give the files of the ruleset's ConfigMaps; none while nothing is published."""

        def files(server: ApiServer) -> dict[str, str]:
            names = (RULESET, *(f"{RULESET}-{slot}" for slot in range(MAX_SHARDS)))
            return {name: text for config_map in names for name, text in server.data(config_map).items()}

        return self.call(files)

    def deliver(self, directory: Path) -> None:
        """Write what is published into a worker's directory, as a kubelet does."""
        directory.mkdir(exist_ok=True)
        write_mount(directory, self.published())

    def run_pod(self, metrics_listen: str) -> None:
        """Say that a worker's pod is there and ready."""
        port = int(metrics_listen.rpartition(":")[2])
        self.call(lambda server: server.create_pod(worker_pod("worker", port)))

    def start_operator(self) -> None:
        """Start the operator and wait until it has published."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("THE_EYE_")}
        kubeconfig = self.call(lambda server: server.kubeconfig(self._folder))
        settings = {"KUBECONFIG": str(kubeconfig), "THE_EYE_OPERATOR_LISTEN": self._operator_listen}
        with (self._folder / "operator.log").open("ab") as log:
            self._operator = subprocess.Popen(  # noqa: S603 - our own command
                [*THE_EYE, "operator"], env={**inherited, **settings}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until(lambda: INDEX in self.published(), START_SECONDS)

    def stop_operator(self) -> None:
        """Stop it in order."""
        assert self._operator is not None
        self._operator.send_signal(signal.SIGTERM)
        self._operator.wait(STOP_SECONDS)

    @contextmanager
    def running(self) -> Iterator["Kubernetes"]:
        """Answer for as long as the block lasts."""
        ready, done = threading.Event(), asyncio.Event()

        async def serve() -> None:
            async with KubernetesScaffold() as kmock, Server(kmock):
                self._loop, self._server = asyncio.get_running_loop(), ApiServer(kmock)
                ready.set()
                await done.wait()

        thread = threading.Thread(target=asyncio.run, args=(serve(),), name="kubernetes", daemon=True)
        thread.start()
        assert ready.wait(START_SECONDS)
        try:
            yield self
        finally:
            if self._operator is not None and self._operator.poll() is None:
                self.stop_operator()
            self.call(lambda _: done.set())
            thread.join(STOP_SECONDS)
