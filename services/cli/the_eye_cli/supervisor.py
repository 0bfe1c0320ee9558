"""Child processes: started, watched, their output shown, and stopped in order.

A child lives in a session of its own, so that Ctrl-C reaches only the supervisor, and on Linux it dies with the
supervisor, so that a killed one leaves nothing behind. Both need the supervisor to run in the main thread: what Linux
calls a child's parent is the thread that started it.
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from signal import Signals

import msgspec

from the_eye_cli import leash
from the_eye_cli.child_logs import LogFile
from the_eye_cli.console import Console

LAST_LINES = 15
POLL_SECONDS = 0.05
OUTPUT_SECONDS = 1.0
"""How long the output of a child that has ended is waited for; a grandchild may hold it open."""

KILLED_SECONDS = 5.0
"""How long a killed child is waited for; one that hangs in the kernel goes when that lets it."""

MAX_LINE_BYTES = 64 * 1024

Probe = Callable[[], Awaitable[str]]
"""Says why a child is not ready yet; an empty text says that it is."""


class ChildFailureError(Exception):
    """Raised when a child ended by itself, failed or did not get ready; its text names it, with its last lines."""


class Stage(IntEnum):
    """In which order children are stopped."""

    TASK = 0
    EDGE = 1
    WORKER = 2
    STORE = 3
    OBSERVER = 4


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """A child process to be."""

    name: str
    command: Sequence[str]
    environ: Mapping[str, str]
    stage: Stage
    stop_signal: Signals = Signals.SIGTERM
    stop_seconds: float = 10.0
    """How long it may take to end after its stop signal; then it is killed."""
    hurried_seconds: float = 0.0
    """The same once the person at the terminal is in a hurry."""
    shown: bool = False
    """Show its output with its name in front; otherwise it is in the log file only."""


class Child:
    """A child process that was started."""

    def __init__(self, spec: Spec, process: asyncio.subprocess.Process, log: LogFile, console: Console) -> None:
        self.spec = spec
        self.log = log
        self.pid = process.pid
        self.stopping = False
        """Its end is expected."""
        self.ended = asyncio.create_task(self._watch(process, console))
        """Done when it has ended and its output is in the log file; gives its exit status."""

    async def _watch(self, process: asyncio.subprocess.Process, console: Console) -> int:
        output = asyncio.create_task(self._copy(process.stdout, console))
        status = await process.wait()
        await asyncio.wait({output}, timeout=OUTPUT_SECONDS)
        output.cancel()
        self.log.close()
        return status

    async def _copy(self, output: asyncio.StreamReader | None, console: Console) -> None:
        rest = b""
        while output is not None and (chunk := await output.read(MAX_LINE_BYTES)):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._copy_line(line, console)
        if rest:
            self._copy_line(rest, console)

    def _copy_line(self, line: bytes, console: Console) -> None:
        # A full disk must not end the supervisor: the line is on the terminal still.
        with suppress(OSError):
            self.log.write(line + b"\n")
        console.line(f"{self.spec.name} | {line.decode(errors='replace')}")

    def signal(self, number: Signals) -> None:
        """Send a signal to the child and to what it has started in its process group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def failure(self, what: str) -> ChildFailureError:
        """Make the error that says ``what`` the child did, with its last lines."""
        lines = "".join(f"\n  {line}" for line in self.log.last_lines(LAST_LINES))
        text = f"its last lines in {self.log.path}:{lines}" if lines else f"{self.log.path} is empty"
        return ChildFailureError(f"{self.spec.name} {what}; {text}")


def describe_status(status: int) -> str:
    """Say how a process ended, from asyncio's ``returncode``."""
    return f"was killed by {Signals(-status).name}" if status < 0 else f"ended with exit status {status}"


class Supervisor:
    """Starts children and stops them in order."""

    def __init__(self, console: Console, logs: Path) -> None:
        """Make a supervisor whose children's output goes to files in ``logs``, which exists."""
        self._console = console
        self._logs = logs
        self._children: list[Child] = []
        self.failed: asyncio.Future[ChildFailureError] = asyncio.get_running_loop().create_future()
        """Done when a child has ended that was to go on."""

    async def start(self, spec: Spec) -> Child:
        """Start a child that is to go on until it is stopped."""
        child = await self._spawn(spec)
        child.ended.add_done_callback(lambda _: self._notice(child))
        return child

    def _notice(self, child: Child) -> None:
        if not (child.stopping or child.ended.cancelled() or self.failed.done()):
            self.failed.set_result(child.failure(describe_status(child.ended.result())))

    async def run(self, spec: Spec, seconds: float) -> None:
        """Run a child to its end.

        Raises ChildFailureError when its exit status is not 0, or when it takes longer than ``seconds``.
        """
        child = await self._spawn(spec)
        try:
            status = await asyncio.wait_for(asyncio.shield(child.ended), seconds)
        except TimeoutError:
            child.signal(Signals.SIGKILL)
            await asyncio.wait({child.ended}, timeout=KILLED_SECONDS)
            failure = child.failure(f"did not end within {seconds:g} s")
            raise failure from None
        self._children.remove(child)
        if status != 0:
            raise child.failure(describe_status(status))

    async def ready(self, child: Child, probe: Probe, seconds: float) -> None:
        """Wait until ``probe`` is content.

        Raises ChildFailureError when that takes longer than ``seconds``, or when the child ends.
        """
        deadline = time.monotonic() + seconds
        while reason := await probe():
            if child.ended.done():
                raise child.failure(describe_status(child.ended.result()))
            if time.monotonic() > deadline:
                failure = child.failure(f"was not ready within {seconds:g} s ({reason})")
                raise failure
            await asyncio.wait({child.ended}, timeout=POLL_SECONDS)

    async def _spawn(self, spec: Spec) -> Child:
        try:
            log = LogFile(self._logs / f"{spec.name}.log")
            process = await asyncio.create_subprocess_exec(
                *_leashed(spec.command),
                env=dict(spec.environ),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if spec.shown else log.fileno(),
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            message = f"{spec.name} cannot be started: {error}"
            raise ChildFailureError(message) from error
        child = Child(spec, process, log, self._console)
        self._children.append(child)
        return child

    async def stop(self, hurry: asyncio.Event) -> bool:
        """Stop all children, stage after stage; each waits for the one before it to have ended.

        Once ``hurry`` is set, deadlines shrink to the children's ``hurried_seconds``. Returns False when a child had
        to be killed.
        """
        for child in self._children:
            child.stopping = True
        clean = True
        for stage in Stage:
            running = [child for child in self._children if child.spec.stage is stage and not child.ended.done()]
            ends = await asyncio.gather(*(self._stop(child, hurry) for child in running))
            clean = clean and all(ends)
        return clean

    async def _stop(self, child: Child, hurry: asyncio.Event) -> bool:
        async with self._console.step(child.spec.name, "stopped") as step:
            child.signal(child.spec.stop_signal)
            if await _ended_in_time(child, hurry):
                return True
            child.signal(Signals.SIGKILL)
            await asyncio.wait({child.ended}, timeout=KILLED_SECONDS)
            step.done = "did not stop in time and was killed"
            return False


async def _ended_in_time(child: Child, hurry: asyncio.Event) -> bool:
    hurried = asyncio.create_task(hurry.wait())
    try:
        await asyncio.wait({child.ended, hurried}, timeout=child.spec.stop_seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        hurried.cancel()
    if hurry.is_set():
        await asyncio.wait({child.ended}, timeout=child.spec.hurried_seconds)
    return child.ended.done()


def _leashed(command: Sequence[str]) -> list[str]:
    """Make a command die with this process, where the system can do that."""
    if sys.platform != "linux":
        return [*command]
    return [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *command]
