"""Group commit: while one write to the queue is in flight, the events of other requests gather for the next.

There is no timer: at low load nothing waits, at high load hundreds of events share one fsync.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from functools import cache, partial
from typing import TYPE_CHECKING

import msgspec
import prometheus_client
import structlog

from the_eye.queue import QueuedEvent, QueueUnavailableError
from the_eye.telemetry import telemetry
from the_eye_api import metrics

if TYPE_CHECKING:
    from the_eye.spans import Creation

Write = Callable[[Sequence[QueuedEvent], Sequence[Mapping[str, str]]], Awaitable[None]]
"""Puts events on disk in the queue with the contexts of their traced requests, or raises QueueUnavailableError."""

Settle = Callable[[Exception | None], None]
"""Takes in that events are on disk in the queue, or why that is not certain."""

log = structlog.get_logger(__name__)


class _Waiting(msgspec.Struct, frozen=True, eq=False):
    events: Sequence[QueuedEvent]
    size: int
    """Payload bytes."""
    settle: Settle
    creation: "Creation | None"
    """None where the request is not traced."""


class GroupCommit:
    """Writes the events of many requests together; belongs to one event loop."""

    def __init__(self, write: Write, *, max_events: int, max_bytes: int, pending_max_bytes: int) -> None:
        self._write = write
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._pending_max_bytes = pending_max_bytes
        self._waiting: dict[int, deque[_Waiting]] = {}
        """By application, the one whose turn it is first."""
        self._pending_bytes = 0
        self._flushing: asyncio.Task[None] | None = None

    async def commit(self, events: Sequence[QueuedEvent]) -> None:
        """Return when ``events`` are on disk in the queue.

        Raises QueueUnavailableError when that is not certain: they may have been queued all the same.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.add(events, partial(_tell, done), telemetry.creation(len(events)))
        try:
            await done
        finally:
            del done  # an error's traceback would hold it, and it the error

    def add(self, events: Sequence[QueuedEvent], settle: Settle, creation: "Creation | None" = None) -> None:
        """Have ``events`` written, and ``settle`` called when they are; without ``creation`` they are not traced.

        Raises QueueUnavailableError when too many wait; ``settle`` is not called then.
        """
        size = sum([len(event.body) for event in events])
        if self._pending_bytes + size > self._pending_max_bytes:
            message = "too many events wait for the queue"
            raise QueueUnavailableError(message)
        waiting = _Waiting(events, size, settle, creation)
        self._waiting.setdefault(events[0].application_id, deque()).append(waiting)
        self._pending_bytes += size
        if self._flushing is None:
            # In a context of its own: it goes on for others when the request that has begun it is answered.
            self._flushing = asyncio.create_task(self._flush(), context=Context())

    async def drain(self) -> None:
        """Return when nothing waits any more."""
        while self._flushing is not None:
            await self._flushing

    async def _flush(self) -> None:
        try:
            while self._waiting:
                await self._write_group(self._next_group())
        finally:
            self._flushing = None

    def _next_group(self) -> list[_Waiting]:
        """Take as many requests as fit, and one at least: a request's events are never torn apart.

        Applications take turns, and those that were served go to the end: however much one has waiting, another's
        request is in the next group or in the one after it.
        """
        group: list[_Waiting] = []
        count = size = 0
        while self._waiting:
            application_id, line = next(iter(self._waiting.items()))
            head = line[0]
            count += len(head.events)
            size += head.size
            if group and (count > self._max_events or size > self._max_bytes):
                break
            group.append(line.popleft())
            del self._waiting[application_id]
            if line:
                self._waiting[application_id] = line
        return group

    async def _write_group(self, group: list[_Waiting]) -> None:
        events = [event for waiting in group for event in waiting.events]
        try:
            sending = telemetry.sending([waiting.creation for waiting in group], len(events))
            with sending as trace_contexts, metrics.GROUP_SECONDS.time():
                await self._write(events, trace_contexts)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            metrics.QUEUE_ERRORS.inc()
            self._answer(group, error.with_traceback(None))  # which would keep the group for as long as the error
        except BaseException:  # the process stops: nobody must wait for ever
            self._answer(group, QueueUnavailableError("stopping"))
            raise
        else:
            self._answer(group, None)
            _count(group)
            metrics.GROUP_EVENTS.observe(len(events))

    def _answer(self, group: list[_Waiting], error: Exception | None) -> None:
        for waiting in group:
            self._pending_bytes -= waiting.size
            try:
                waiting.settle(error)
            except Exception:  # the others must hear of it all the same
                log.exception("request_not_settled")


def _count(group: Sequence[_Waiting]) -> None:
    """Count what was accepted, once for each application; a request's events are all of one."""
    accepted: dict[str, int] = {}  # a Counter would cost several times as much
    for waiting in group:
        application = waiting.events[0].application
        accepted[application] = accepted.get(application, 0) + len(waiting.events)
    for application, events in accepted.items():
        _accepted(application).inc(events)


@cache
def _accepted(application: str) -> prometheus_client.Counter:
    """Find an application's counter once; there are as many as there are applications."""
    return metrics.ACCEPTED.labels(application)


def _tell(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():  # its request was cancelled
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
