"""Child processes under the supervisor: small real ones."""

import asyncio
import functools
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from the_eye_cli import child_logs, leash
from the_eye_cli.child_logs import LogFile
from the_eye_cli.console import Console
from the_eye_cli.supervisor import Child, ChildFailureError, Spec, Stage, Supervisor

PATIENCE = 10.0

WAIT = "import signal; print('waiting', flush=True); signal.pause()"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: {WAIT}"

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")


class Watched:
    """A supervisor, and what it shows."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.stream = io.StringIO()
        self.supervisor = Supervisor(Console(self.stream), logs)
        self.hurry = asyncio.Event()

    @property
    def shown(self) -> str:
        """What a person has seen so far."""
        return self.stream.getvalue()

    def shows(self, line: str) -> bool:
        """See whether a person has seen a line."""
        return line in self.shown

    async def start(self, code: str, **changes: Any) -> Child:
        """Start a child that waits, and see it waiting."""
        child = await self.supervisor.start(spec(code, **changes))
        await until(lambda: f"{child.spec.name} | waiting" in self.shown)
        return child


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    """A supervisor that leaves nothing behind."""
    watched = Watched(tmp_path)
    yield watched
    watched.hurry.set()
    await watched.supervisor.stop(watched.hurry)


def spec(code: str, **changes: Any) -> Spec:
    """Describe a child that runs Python code."""
    given: dict[str, Any] = {"name": "child", "environ": os.environ, "stage": Stage.EDGE, "shown": True, **changes}
    return Spec(command=[sys.executable, "-c", code], **given)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, and fail when it does not come."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.01)


async def test_a_child_s_lines_are_shown_with_its_name_and_kept_in_its_log(watched: Watched) -> None:
    await watched.supervisor.run(spec("import sys; print('one'); sys.stdout.flush(); print('two', file=sys.stderr)"), 9)

    assert watched.shown == "child | one\nchild | two\n"
    assert (watched.logs / "child.log").read_text() == "one\ntwo\n"


async def test_a_last_line_without_an_end_and_bytes_that_are_no_text_are_shown_too(watched: Watched) -> None:
    await watched.supervisor.run(spec(r"import os; os.write(1, b'caf\xff')"), 9)

    assert watched.shown == "child | caf\N{REPLACEMENT CHARACTER}\n"


async def test_a_child_that_is_not_shown_is_in_its_log_only(watched: Watched) -> None:
    await watched.supervisor.run(spec("print('one')", shown=False), 9)

    assert watched.shown == ""
    assert (watched.logs / "child.log").read_text() == "one\n"


async def test_a_child_that_ends_unasked_is_named_with_its_status_and_its_last_lines(watched: Watched) -> None:
    await watched.supervisor.start(spec("for n in range(20): print('line', n)\nraise SystemExit(3)"))

    failure = str(await asyncio.wait_for(watched.supervisor.failed, PATIENCE))

    assert failure.startswith("child ended with exit status 3")
    assert failure.splitlines()[1:] == [f"  line {number}" for number in range(5, 20)]


async def test_a_child_that_is_killed_is_named_with_the_signal(watched: Watched) -> None:
    child = await watched.start(WAIT)

    os.kill(child.pid, signal.SIGKILL)

    assert str(await asyncio.wait_for(watched.supervisor.failed, PATIENCE)).startswith("child was killed by SIGKILL")


async def test_a_program_that_does_not_exist_is_named(watched: Watched) -> None:
    missing = Spec(name="child", command=["/no/such/program"], environ=os.environ, stage=Stage.TASK)

    with pytest.raises(ChildFailureError, match=r"child [^$]*\n  /no/such/program: No such file or directory"):
        await watched.supervisor.run(missing, 9)


async def test_a_task_that_fails_is_named_with_its_last_lines(watched: Watched) -> None:
    with pytest.raises(ChildFailureError, match=r"child ended with exit status 1; .*\n  no such table"):
        await watched.supervisor.run(spec("raise SystemExit('no such table')"), 9)


async def test_a_task_that_takes_too_long_is_killed(watched: Watched) -> None:
    with pytest.raises(ChildFailureError, match=r"child did not end within 0\.5 s"):
        await watched.supervisor.run(spec("import os, signal; print(os.getpid(), flush=True); signal.pause()"), 0.5)

    assert not is_alive(int((watched.logs / "child.log").read_text()))


async def test_a_child_is_ready_once_its_probe_is_content(watched: Watched) -> None:
    answers = ["not yet", "not yet", ""]

    async def probe() -> str:
        return answers.pop(0)

    await watched.supervisor.ready(await watched.start(WAIT), probe, PATIENCE)

    assert answers == []


async def test_a_child_that_does_not_get_ready_is_named_with_the_reason(watched: Watched) -> None:
    child = await watched.start(WAIT)

    with pytest.raises(ChildFailureError, match=r"child was not ready within 0\.1 s \(GET /readyz: 503\).*\n  waiting"):
        await watched.supervisor.ready(child, lambda: say("GET /readyz: 503"), 0.1)


async def test_a_child_that_ends_before_it_is_ready_is_not_waited_for(watched: Watched) -> None:
    child = await watched.supervisor.start(spec("raise SystemExit(4)"))

    with pytest.raises(ChildFailureError, match="child ended with exit status 4"):
        await watched.supervisor.ready(child, lambda: say("no answer"), PATIENCE)


async def say(reason: str) -> str:
    """Answer a probe."""
    return reason


async def test_a_stage_is_stopped_only_when_the_one_before_has_ended(watched: Watched, tmp_path: Path) -> None:
    order = tmp_path / "order"
    code = (
        "import signal, time; end = {signal.SIGTERM}; signal.pthread_sigmask(signal.SIG_BLOCK, end); "
        "print('waiting', flush=True); signal.sigwait(end); "
        f"log = open({str(order)!r}, 'a'); print('begin NAME', file=log, flush=True); "
        "time.sleep(0.1); print('end NAME', file=log, flush=True)"
    )
    for stage in (Stage.STORE, Stage.WORKER, Stage.EDGE):
        await watched.supervisor.start(spec(code.replace("NAME", stage.name), name=stage.name, stage=stage))
        await until(functools.partial(watched.shows, f"{stage.name} | waiting"))

    clean = await watched.supervisor.stop(watched.hurry)

    assert clean
    assert order.read_text().split("\n")[:-1] == [
        f"{what} {stage}" for stage in ("EDGE", "WORKER", "STORE") for what in ("begin", "end")
    ]
    assert not watched.supervisor.failed.done()


async def test_a_child_that_does_not_stop_is_killed_and_that_is_said(watched: Watched) -> None:
    child = await watched.start(STUBBORN, stop_seconds=0.1)

    clean = await watched.supervisor.stop(watched.hurry)

    assert not clean
    assert "child ... did not stop in time and was killed" in watched.shown
    assert child.ended.result() == -signal.SIGKILL


async def test_hurry_ends_the_wait_for_a_child_that_does_not_stop(watched: Watched) -> None:
    child = await watched.start(STUBBORN, stop_seconds=60.0)
    started = time.monotonic()

    stopping = asyncio.create_task(watched.supervisor.stop(watched.hurry))
    watched.hurry.set()
    await stopping

    assert child.ended.done()
    assert time.monotonic() - started < PATIENCE


async def test_what_a_child_has_started_in_its_group_is_stopped_with_it(watched: Watched) -> None:
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WAIT!r} + '#'])"
    await watched.start(code.replace("'waiting'", "'waiting', __import__('os').getpid()"))
    grandchild = int(watched.shown.split()[-1])

    await watched.supervisor.stop(watched.hurry)

    await until(lambda: not is_alive(grandchild))


async def test_a_child_has_a_session_of_its_own_that_ctrl_c_does_not_reach(watched: Watched) -> None:
    child = await watched.start(WAIT)

    assert os.getsid(child.pid) == os.getpgid(child.pid) == child.pid


@on_linux
async def test_nothing_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    script = f"""
import asyncio, os, signal, sys
from pathlib import Path
from the_eye_cli.console import Console
from the_eye_cli.supervisor import Spec, Stage, Supervisor

async def main():
    supervisor = Supervisor(Console(), Path({str(tmp_path)!r}))
    child = await supervisor.start(Spec(name="child", command=[sys.executable, "-c", {STUBBORN!r}], environ=os.environ,
                                        stage=Stage.EDGE))
    while "waiting" not in child.log.path.read_text():
        await asyncio.sleep(0.01)
    print(child.pid, flush=True)
    await supervisor.failed

asyncio.run(main())
"""
    supervisor = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    assert supervisor.stdout is not None
    child = int(await supervisor.stdout.readline())
    assert is_alive(child)

    supervisor.kill()

    await until(lambda: not is_alive(child))
    await supervisor.wait()


@on_linux
def test_a_child_whose_parent_died_before_it_could_ask_does_not_start() -> None:
    someone_else = str(os.getppid())
    command = [sys.executable, leash.__file__, someone_else, "echo", "started"]

    ran = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - this interpreter

    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", "the parent has died\n")


def is_alive(pid: int) -> bool:
    """See whether a process runs; one that only waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_log_begins_anew_and_keeps_the_one_of_the_run_before(tmp_path: Path) -> None:
    for line in (b"first\n", b"second\n"):
        log = LogFile(tmp_path / "child.log")
        log.write(line)
        log.close()

    assert (tmp_path / "child.log").read_text() == "second\n"
    assert (tmp_path / "child.log.1").read_text() == "first\n"


def test_a_log_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_logs, "ROTATE_BYTES", 10)
    log = LogFile(tmp_path / "child.log")

    for _ in range(100):
        log.write(b"1234567\n")

    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 4 * 8
    log.close()
