"""A worker in a pod begins before the operator has written a ruleset: it waits, says so, and judges nothing."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.machine import free_addresses
from tests.servers import wait_until
from tests.unit.rules.making import rule, ruleset

from the_eye.rules.shards import INDEX, Layout, pack

DEADLINE = 30.0


class WaitingWorker:
    """A worker whose rules are mounted as a kubelet mounts them, and whose stores are out of reach."""

    def __init__(self, folder: Path) -> None:
        self.mount = folder / "rules"
        self._versions = 0
        self.mount.mkdir()
        self.put({})
        (listen,) = free_addresses(1)
        self.url = f"http://{listen}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "the_eye_cli", "worker"],
            env={
                "THE_EYE_RULES_DIR": str(self.mount),
                "THE_EYE_WORKER_METRICS_LISTEN": listen,
                "THE_EYE_REDIS_URL": f"unix://{folder}/no-valkey",
                "THE_EYE_DATABASE_URL": f"postgresql://nobody@/none?host={folder}",
            },
            stderr=subprocess.DEVNULL,
        )

    def put(self, files: dict[str, bytes]) -> None:
        """Swap what is mounted, in one step."""
        self._versions += 1
        version = self.mount / f"..{self._versions}"
        version.mkdir()
        for name, content in files.items():
            (version / name).write_bytes(content)
            link = self.mount / name
            if not link.is_symlink():
                link.symlink_to(f"..data/{name}")
        (self.mount / "..data_tmp").symlink_to(version.name)
        (self.mount / "..data_tmp").rename(self.mount / "..data")

    def status(self, path: str) -> int:
        """Ask a probe's question; 0 while nobody answers."""
        try:
            return httpx.get(self.url + path, timeout=5).status_code
        except httpx.TransportError:
            return 0


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WaitingWorker]:
    """A worker that has just been started."""
    started = WaitingWorker(tmp_path)
    yield started
    started.process.kill()
    started.process.wait()


def test_a_worker_lives_without_a_ruleset_and_is_ready_once_there_is_one(worker: WaitingWorker) -> None:
    """Its pod is not restarted meanwhile, and the operator does not count it."""
    wait_until(lambda: worker.status("/healthz") == 200, DEADLINE, lambda: "the worker did not answer")
    assert worker.status("/readyz") == 503

    layout = pack(ruleset(rule(schema={"type": "object"})), Layout())
    worker.put({shard.name: shard.content for shard in layout.slots.values()} | {INDEX: layout.index})

    wait_until(lambda: worker.status("/readyz") == 200, DEADLINE, lambda: "the worker did not get ready")
    assert len(httpx.get(f"{worker.url}/ruleset/rules").json()["rules"]) == 1


def test_a_worker_that_waits_for_a_ruleset_stops_when_it_is_asked_to(worker: WaitingWorker) -> None:
    wait_until(lambda: worker.status("/healthz") == 200, DEADLINE, lambda: "the worker did not answer")

    worker.process.terminate()

    assert worker.process.wait(DEADLINE) == 0
