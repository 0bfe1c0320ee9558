"""Back-tests that authors ask for with the annotation ``the-eye.io/backtest``, one after the other.

Each runs in a process of its own, at the lowest priority, and reads the store by itself: neither the reconciling here
nor the workers' fresh events wait for it.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from the_eye.durations import parse_duration
from the_eye.rules.backtest import EVENT_IDS, MAX_SECONDS, BacktestResult, Request, State
from the_eye.rules.manifest import RefusedManifest
from the_eye_operator.backing_off import BackOff
from the_eye_operator.cluster import Cluster, ClusterError
from the_eye_operator.declared import Declared, DeclaredRules
from the_eye_operator.status import rfc3339

LOOK_SECONDS = 1.0
"""How soon a wish is noticed."""

TELL_SECONDS = 5.0
"""How often the status says how far a back-test is."""

END_SECONDS = MAX_SECONDS + 60.0
"""When a process that does not end is ended."""

MAX_MESSAGE = 1024
MAX_REQUESTED = 63
"""Characters of what the status repeats; the definition's bounds."""

ENDED = (State.DONE, State.FAILED)

PROGRAM = (sys.executable, "-m", "the_eye.rules.backtest")
"""A Request on its standard input, BacktestResults on its standard output."""

_log = structlog.get_logger(__name__)


class Backtests:
    """Runs what is asked for and not done yet, and tells of it in the rule's status."""

    def __init__(self, cluster: Cluster, declared: DeclaredRules, program: Sequence[str] = PROGRAM) -> None:
        self._cluster = cluster
        self._declared = declared
        self._program = program
        self._refused: ClusterError | None = None

    async def run(self) -> None:
        """Run what is asked for, until cancelled."""
        back_off = BackOff()
        while True:
            try:
                await self.run_due()
                back_off.succeeded()
                pause = LOOK_SECONDS
            except ClusterError as error:
                pause = back_off.failed(error)
                _log.warning("backtest_not_told", error=str(error), again_in_seconds=round(pause, 1))
            await asyncio.sleep(pause)

    async def run_due(self) -> None:
        """Run all that is due.

        Raises ClusterError when a status could not be patched; that back-test is due again. When it is that of one
        rule, the others have their turn first.
        """
        self._refused = None
        for rule in self._declared.all():
            if not rule.backtest and rule.status.get("backtest"):
                await self._forget(rule)
        due = [rule for rule in self._declared.all() if is_due(rule)]
        for rule in due[1:]:
            await self._tell(rule, {"state": "Pending"})
        for rule in due:
            current = self._declared.get(rule.uid)
            if current is not None and is_due(current):  # still, for others took their time
                await self._backtest(current)
        if self._refused is not None:
            raise self._refused

    async def _backtest(self, rule: Declared) -> None:
        request = request_for(rule, datetime.now(UTC))
        if isinstance(request, str):
            await self._tell(rule, failed(request))
            return
        _log.info("backtest_started", rule=rule.id, window=rule.backtest, generation=rule.generation)
        result = await self._follow(rule, request)
        if result is not None and self._is_wanted(rule):
            await self._tell(rule, result)
            _log.info("backtest_ended", rule=rule.id, state=result["state"], examined=result.get("examined"))

    async def _follow(self, rule: Declared, request: Request) -> dict[str, Any] | None:
        """Run it and tell how far it is; returns how it ended, and None as soon as nobody wants it any more."""
        told_at = 0.0
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(END_SECONDS), _process(self._program) as process:
                async for line in _lines(process, request):
                    result = msgspec.json.decode(line, type=BacktestResult)
                    if not self._is_wanted(rule):
                        return None
                    if result.state is State.FAILED:
                        return failed(result.message)  # for what was counted until then says nothing
                    if result.state is State.DONE:
                        return fields_of(result)
                    if loop.time() - told_at >= TELL_SECONDS:
                        await self._tell(rule, fields_of(result))
                        told_at = loop.time()
                return failed(f"its process ended by itself, with status {await process.wait()}")
        except TimeoutError:
            return failed(f"it did not end within {END_SECONDS:g} seconds")
        except (ValueError, OSError) as error:  # no process, no result of a back-test, no end of a line, no pipe
            return failed(f"its process cannot be started or talked to: {error}")

    def _is_wanted(self, rule: Declared) -> bool:
        current = self._declared.get(rule.uid)
        return current is not None and (current.backtest, current.generation) == (rule.backtest, rule.generation)

    async def _tell(self, rule: Declared, fields: Mapping[str, Any]) -> None:
        said = {"requested": rule.backtest[:MAX_REQUESTED], "generation": rule.generation}
        await self._patch(rule, {"backtest": {**NOTHING, **said, **fields}})

    async def _forget(self, rule: Declared) -> None:
        await self._patch(rule, {"backtest": None})

    async def _patch(self, rule: Declared, status: Mapping[str, Any]) -> None:
        try:
            self._declared.patched(await self._cluster.patch_status(rule.namespace, rule.name, status))
        except ClusterError as error:
            if not error.concerns_one_object:
                raise
            if not error.missing:
                self._refused = error


NOTHING: Mapping[str, Any] = dict.fromkeys(
    ("from", "to", "examined", "violations", "share", "eventIds", "truncated", "message", "finishedAt")
)
"""Every field that a back-test may have, so that none stays from the one before."""


def is_due(rule: Declared) -> bool:
    """Whether a back-test is asked for that the status does not tell the end of: each window, and each generation."""
    told = rule.status.get("backtest") or {}
    done = told.get("requested") == rule.backtest[:MAX_REQUESTED] and told.get("generation") == rule.generation
    return bool(rule.backtest) and not (done and told.get("state") in ENDED)


def request_for(rule: Declared, now: datetime) -> Request | str:
    """Say what to run, or why nothing can be."""
    try:
        window = parse_duration(rule.backtest)
    except ValueError as error:
        return f"the annotation the-eye.io/backtest: {error}"
    if isinstance(rule.manifest, RefusedManifest):
        return "; ".join(map(str, rule.manifest.errors))
    return Request(rule=msgspec.to_builtins(rule.manifest), from_=now - window, to=now)


def failed(message: str) -> dict[str, Any]:
    """Say in a status why there is no result."""
    return {"state": State.FAILED.value, "message": message[:MAX_MESSAGE], "finishedAt": rfc3339(datetime.now(UTC))}


def fields_of(result: BacktestResult) -> dict[str, Any]:
    """Say what was found as the status does."""
    return {
        "state": result.state.value,
        "from": rfc3339(result.from_),
        "to": rfc3339(result.to),
        "examined": result.examined,
        "violations": result.violations,
        "share": round(result.share, 6),
        "eventIds": [str(event_id) for event_id in result.event_ids[:EVENT_IDS]],
        "truncated": result.truncated,
        "message": result.message[:MAX_MESSAGE] or None,
        "finishedAt": rfc3339(datetime.now(UTC)) if result.state is State.DONE else None,
    }


@asynccontextmanager
async def _process(program: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start the process, and see to its end however the block ends."""
    process = await asyncio.create_subprocess_exec(
        *program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _lines(process: asyncio.subprocess.Process, request: Request) -> AsyncIterator[bytes]:
    assert process.stdin is not None  # noqa: S101 - a pipe was asked for
    assert process.stdout is not None  # noqa: S101 - as above
    process.stdin.write(msgspec.json.encode(request))
    process.stdin.close()
    async for line in process.stdout:
        yield line
