"""The operator as a process of its own, with the settings and the permissions that the chart gives it."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families
from tests.cluster.audit import Audit
from tests.cluster.chart import Release
from tests.cluster.control_plane.cluster import ControlPlane
from tests.machine import THE_EYE, free_addresses

START_SECONDS = 30.0
STOP_SECONDS = 20.0
ANSWER_SECONDS = 2.0

DEFAULTS: Mapping[str, str] = {}


class Operator:
    """One `the-eye operator`."""

    def __init__(
        self, folder: Path, release: Release, kubeconfig: Path, audit: Audit, changes: Mapping[str, str]
    ) -> None:
        self.release = release
        self.audit = audit
        """What this account has asked for since this was made."""
        self._log = folder / "operator.log"
        (listen,) = free_addresses(1)
        self.url = f"http://{listen}"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("THE_EYE_")}
        self._environ = {
            **inherited,
            **release.settings,
            "KUBECONFIG": str(kubeconfig),
            "THE_EYE_OPERATOR_LISTEN": listen,
            "THE_EYE_LOG_FORMAT": "json",
            **changes,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The process that was started last."""
        assert self._process is not None, "the operator was not started"
        return self._process

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start without waiting for anything."""
        assert not self.runs, "it runs already"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [*THE_EYE, "operator"], env=self._environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait_until_settled(self) -> None:
        """Wait until it has done all there is to do once."""
        self.wait(lambda: self.successes() > 0)

    def wait(self, condition: Callable[[], object], seconds: float = START_SECONDS, every: float = 0.05) -> None:
        """Wait for something to come about; what the operator has said is shown when it does not.

        ``every`` is how often to look, in seconds: what is measured should have the processors for itself.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds:g} s in vain:\n{self._log.read_text()[-4_000:]}"
            time.sleep(every)

    def memory(self) -> dict[str, float]:
        """Give its resident memory in MiB: now, and the most that it ever was; on Linux alone."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        found = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.endswith(" kB")}
        return {"now": round(found["VmRSS"]), "most": round(found["VmHWM"])}

    def kill(self) -> None:
        """End it with no chance to say a word."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def stop(self) -> int:
        """Ask it to end; gives the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def health(self) -> tuple[int, dict[str, Any]]:
        """Ask how it is."""
        answer = httpx.get(f"{self.url}/healthz", timeout=ANSWER_SECONDS)
        return answer.status_code, answer.json()

    def metric(self, name: str, **labels: str) -> float:
        """Read one of its metrics; 0 where it is not there yet."""
        try:
            text = httpx.get(f"{self.url}/metrics", timeout=ANSWER_SECONDS).text
        except httpx.TransportError:
            return 0.0
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    def successes(self) -> float:
        """Count the reconciles that succeeded."""
        return self.metric("the_eye_operator_reconciles_total", outcome="success")

    def said(self, event: str) -> list[dict[str, Any]]:
        """Give what it has logged of one kind."""
        return [entry for entry in self.log() if entry.get("event") == event]

    def log(self) -> list[dict[str, Any]]:
        """Give all it has logged; every line of it must be JSON."""
        return [msgspec.json.decode(line) for line in self._log.read_bytes().splitlines()]


@contextmanager
def operating(
    control_plane: ControlPlane, release: Release, folder: Path, changes: Mapping[str, str] = DEFAULTS
) -> Iterator[Operator]:
    """Install a release and run its operator for a block, with changes to its environment."""
    folder.mkdir(parents=True, exist_ok=True)
    release.apply(control_plane.kubectl)
    kubeconfig = control_plane.kubeconfig_of(release.namespace, release.account)
    audit = Audit(control_plane.audit_log, release.user)
    operator = Operator(folder, release, kubeconfig, audit, changes)
    operator.start()
    try:
        operator.wait(lambda: operator.said("operator_started"))
        yield operator
    finally:
        if operator.runs:
            operator.kill()
