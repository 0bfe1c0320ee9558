"""Child processes of the benchmark and what they use of the machine, from Linux's /proc."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from the_eye_cli import leash

START_SECONDS = 60.0
STOP_SECONDS = 40.0

_TICKS = os.sysconf("SC_CLK_TCK")
_MB = 1_000_000
_AFTER_NAME = 2  # fields of /proc/PID/stat that stand before the state
_RESET_PEAK = "5"
"""What clears VmHWM when it is written to /proc/PID/clear_refs (proc_pid_clear_refs(5))."""


class BenchError(Exception):
    """Raised when something stands in the way of a measurement; its text is for people."""


class Process:
    """A child process; it dies with the benchmark."""

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._log = log
        leashed = [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *command]
        with log.open("ab") as out:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                leashed, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        self.pid = self._process.pid

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Wait until it is as far.

        Raises BenchError when it ends or takes too long.
        """
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                message = f"{self.name} ended or took too long:\n{self._log.read_text(errors='replace')[-2_000:]}"
                raise BenchError(message)
            time.sleep(0.02)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop it in order, and kill it when that takes too long."""
        self._process.send_signal(number)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_SECONDS)

    @property
    def cpu_seconds(self) -> float:
        """Processor time used so far, by its children too."""
        return _cpu(self.pid, reaped=True) + sum(_cpu(child, reaped=False) for child in _children(self.pid))

    def reset_peak(self) -> None:
        """Measure the peak of memory anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text(_RESET_PEAK)

    @property
    def peak_mb(self) -> float:
        """Most resident memory since the last reset, in MB of a million bytes; of the process alone."""
        return self._memory("VmHWM")

    @property
    def memory_mb(self) -> float:
        """Resident memory now."""
        return self._memory("VmRSS")

    def _memory(self, field: str) -> float:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 / _MB for line in lines if line.startswith(field))


def _cpu(pid: int, *, reaped: bool) -> float:
    """Sum up user and system time; with ``reaped`` that of the children that have ended, too."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    first = 13 - _AFTER_NAME
    return sum(map(int, fields[first : first + (4 if reaped else 2)])) / _TICKS


def _children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]


class Usage(msgspec.Struct, frozen=True):
    """Processor seconds used up to a moment, by process."""

    seconds: dict[str, float]

    @classmethod
    def now(cls, processes: Sequence[Process]) -> "Usage":
        """Read the clocks of ``processes`` and of the generators, which are processes that have ended."""
        used: dict[str, float] = {}
        for process in processes:
            used[process.name] = used.get(process.name, 0.0) + process.cpu_seconds
        return cls({**used, "generator": _ended()})

    def until(self, later: "Usage") -> dict[str, float]:
        """Give what was used from here to ``later``."""
        return {name: seconds - self.seconds.get(name, 0.0) for name, seconds in later.seconds.items()}


def _ended() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def python(module: str) -> list[str]:
    """Run one of the benchmark's own modules."""
    return [sys.executable, "-m", f"tests.load.bench.{module}"]


def finish(children: Sequence["subprocess.Popen[str]"], seconds: float) -> list[str]:
    """Wait for generators to end by themselves and give what they print.

    Raises BenchError when one fails or does not end.
    """
    printed: list[str] = []
    try:
        for child in children:
            out, _ = child.communicate(timeout=seconds)
            if child.returncode != 0:
                message = f"{child.args!r} failed:\n{out[-2_000:]}"
                raise BenchError(message)
            printed.append(out)
    except subprocess.TimeoutExpired as error:
        message = f"{error.cmd!r} did not end in {seconds:g} s"
        raise BenchError(message) from error
    finally:
        for child in children:
            child.kill()
            child.wait()
    return printed


def start(command: Sequence[str]) -> "subprocess.Popen[str]":
    """Start a generator whose output is read when it ends."""
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
