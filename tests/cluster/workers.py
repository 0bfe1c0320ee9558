"""Many workers in one process: each watches its own mount as a worker does, and tells what it runs as a worker does."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from random import SystemRandom

from tests.cluster.kubelet import Kubelet
from tests.machine import free_addresses

from the_eye.diagnostics import DiagnosticsServer
from the_eye.rules.directory import RuleDirectory
from the_eye.settings import Address, RuleSettings
from the_eye_worker.command import _ruleset, _ruleset_rules


class StandIn:
    """A worker without a queue and a database."""

    def __init__(self, kubelet: Kubelet, name: str, address: Address) -> None:
        self._kubelet = kubelet
        self.name = name
        self._rules = RuleDirectory(
            kubelet.run_pod(name, address),
            poll_seconds=RuleSettings().rules_poll_seconds,
            future_tolerance=timedelta(minutes=5),
        )
        self.address = address
        self._diagnostics: DiagnosticsServer | None = None
        self._stopping = threading.Event()
        self._starting = threading.Thread(target=self._start, name=name, daemon=True)
        self._starting.start()

    def _start(self) -> None:
        if self._rules.load(self._stopping):
            self._rules.start()
            self._diagnostics = DiagnosticsServer(
                self.address,
                {"/ruleset": lambda: _ruleset(self._rules), "/ruleset/rules": lambda: _ruleset_rules(self._rules)},
                key="address",
            )
            self._diagnostics.start()
            self._kubelet.mark_ready(self.name)

    @property
    def is_ready(self) -> bool:
        """Whether it has a ruleset, and its pod is said to be ready."""
        return self._diagnostics is not None and not self._starting.is_alive()

    @property
    def revision(self) -> str:
        """The ruleset that it runs."""
        return self._rules.current.revision

    def generation(self, rule: str) -> int | None:
        """Tell which generation of a rule it runs."""
        return next((found.generation for found in self._rules.current.rules if found.id == rule), None)

    def stop(self) -> None:
        """End it, and its pod."""
        self._stopping.set()
        self._starting.join()
        self._kubelet.delete_pod(self.name)
        self._rules.stop()
        if self._diagnostics is not None:
            self._diagnostics.stop()


def addresses(count: int) -> list[Address]:
    """Make loopback addresses, on one port, that differ from those of other runs on this machine."""
    port = int(free_addresses(1)[0].rpartition(":")[2])
    net = SystemRandom().randrange(1, 255)
    return [Address(f"127.{net}.0.{number}", port) for number in range(1, count + 1)]


@contextmanager
def standing_in(kubelet: Kubelet, count: int) -> Iterator[list[StandIn]]:
    """Have workers for a block."""
    workers = [StandIn(kubelet, f"worker-{number}", address) for number, address in enumerate(addresses(count))]
    try:
        yield workers
    finally:
        with ThreadPoolExecutor(len(workers)) as threads:  # each takes up to half a second
            list(threads.map(StandIn.stop, workers))
