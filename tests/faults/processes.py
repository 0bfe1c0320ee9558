"""The Eye's own processes, started as containers start them, and ended in every way there is."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
from tests.servers import wait_until

START_SECONDS = 60.0
STOP_SECONDS = 60.0


class Process:
    """One `the-eye` process, which can be started again after its end."""

    def __init__(self, command: str, environ: Mapping[str, str], log: Path, ready_url: str) -> None:
        self._command = command
        self._environ = environ
        self._log = log
        self._ready_url = ready_url
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start without waiting until it is ready."""
        assert self._process is None or self._process.poll() is not None, f"the {self._command} runs already"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - this project's own command
                [sys.executable, "-m", "the_eye_cli", self._command],
                env=self._environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Wait until it says that it can do its work."""
        wait_until(self._is_ready, START_SECONDS, lambda: f"the {self._command} is not ready:\n{self.log[-2_000:]}")

    def _is_ready(self) -> bool:
        assert self._running.poll() is None, f"the {self._command} ended:\n{self.log[-2_000:]}"
        try:
            return httpx.get(self._ready_url, timeout=5).is_success
        except httpx.TransportError:
            return False

    @property
    def log(self) -> str:
        """All that it has logged, over all its starts."""
        return self._log.read_text(errors="replace")

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"the {self._command} was not started"
        return self._process

    @property
    def peak_memory(self) -> int:
        """The most memory it has had at once, in bytes."""
        status = Path(f"/proc/{self._running.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))

    def metric(self, name: str) -> float:
        """Read one of its metrics, summed over its labels; 0 while it does not answer."""
        listen = self._environ[f"THE_EYE_{self._command.upper()}_METRICS_LISTEN"]
        try:
            lines = httpx.get(f"http://{listen}/metrics", timeout=5).text.splitlines()
        except httpx.TransportError:
            return 0.0
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    def clock(self) -> float:
        """Seconds that its clock is ahead of the true one, to within a few."""
        date = httpx.get(self._ready_url, timeout=5).headers["date"]
        return parsedate_to_datetime(date).timestamp() - time.time()

    def kill(self) -> None:
        """End it with no chance to say a word."""
        self._running.kill()
        self._running.wait(STOP_SECONDS)

    def terminate(self) -> int:
        """Ask it to stop, as a rolling update does, and give its exit status."""
        self._running.terminate()
        return self._running.wait(STOP_SECONDS)

    def pause(self) -> None:
        """Freeze it."""
        self._running.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after ``pause``."""
        self._running.send_signal(signal.SIGCONT)

    def show_log(self) -> None:
        """Print the end of its log, which pytest shows when the test has failed."""
        if self._log.exists():
            print(f"--- {self._log.name}\n{self.log[-4_000:]}")  # noqa: T201 - for whoever reads the failure

    def clean_up(self) -> None:
        """End it, whatever state it is in."""
        if self.runs:
            with suppress(ProcessLookupError):
                self.kill()


def clean_environment() -> dict[str, str]:
    """Give this process's environment without any of The Eye's settings."""
    return {key: value for key, value in os.environ.items() if not key.startswith("THE_EYE_")}
