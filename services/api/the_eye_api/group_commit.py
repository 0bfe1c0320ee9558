"""Group commit: while one write to the queue is in flight, the events of other requests gather for the next.

There is no timer: at low load nothing waits, at high load hundreds of events share one fsync.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence

import msgspec

from the_eye.queue import QueuedEvent, QueueUnavailableError
from the_eye_api import metrics

Write = Callable[[Sequence[QueuedEvent]], Awaitable[None]]
"""Puts events on disk in the queue, or raises QueueUnavailableError."""

SHARED_BYTES = 32 * 1024
"""Payload of one write while several applications send: about a hundred events, which are on disk in little more time
than one is. A write of 1,000 events would keep the others waiting for several milliseconds."""


class _Waiting(msgspec.Struct, frozen=True, eq=False):
    """What a request has to write, or a piece of it."""

    events: Sequence[QueuedEvent]
    size: int
    """Payload bytes."""
    done: asyncio.Future[None]
    """Of the request."""
    last: bool
    """Whether the request has no further piece: an application's pieces are written in order."""


class GroupCommit:
    """Writes the events of many requests together; belongs to one event loop."""

    def __init__(
        self, write: Write, shared: Callable[[], bool], *, max_events: int, max_bytes: int, pending_max_bytes: int
    ) -> None:
        """``shared`` tells whether several applications send."""
        self._write = write
        self._shared = shared
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
        size = sum(len(event.body) for event in events)
        if self._pending_bytes + size > self._pending_max_bytes:
            message = "too many events wait for the queue"
            raise QueueUnavailableError(message)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line = self._waiting.setdefault(events[0].application_id, deque())
        if size <= SHARED_BYTES or not self._shared():
            line.append(_Waiting(events, size, done, last=True))
        else:
            line.extend(_pieces(events, done))
        self._pending_bytes += size
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        try:
            await done
        finally:
            del done  # an error's traceback would hold it, and it the error

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
        """Take as many requests as fit, or pieces of them, and one at least.

        Applications take turns, and those that were served go to the end: however much one has waiting, another's
        request is in the next group or in the one after it.
        """
        group: list[_Waiting] = []
        max_bytes = SHARED_BYTES if self._shared() else self._max_bytes
        count = size = 0
        while self._waiting:
            application_id, line = next(iter(self._waiting.items()))
            head = line[0]
            count += len(head.events)
            size += head.size
            if group and (count > self._max_events or size > max_bytes):
                break
            group.append(line.popleft())
            del self._waiting[application_id]
            if line:
                self._waiting[application_id] = line
        return group

    async def _write_group(self, group: list[_Waiting]) -> None:
        events = [event for waiting in group for event in waiting.events]
        try:
            with metrics.GROUP_SECONDS.time():
                await self._write(events)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            metrics.QUEUE_ERRORS.inc()
            self._answer(group, error.with_traceback(None))  # which would keep the group for as long as the error
        except BaseException:  # the process stops: nobody must wait for ever
            self._answer(group, QueueUnavailableError("stopping"))
            raise
        else:
            metrics.ACCEPTED.inc(len(events))
            metrics.GROUP_EVENTS.observe(len(events))
            self._answer(group, None)

    def _answer(self, group: list[_Waiting], error: Exception | None) -> None:
        for waiting in group:
            self._pending_bytes -= waiting.size
            if waiting.done.done():  # its request was cancelled, or a piece of it failed
                continue
            if error is not None:
                waiting.done.set_exception(error)
            elif waiting.last:
                waiting.done.set_result(None)


def _pieces(events: Sequence[QueuedEvent], done: asyncio.Future[None]) -> Iterator[_Waiting]:
    """Divide a large request, so that others need not wait for all of it."""
    begin = size = 0
    for end, event in enumerate(events):
        if size + len(event.body) > SHARED_BYTES and end > begin:
            yield _Waiting(events[begin:end], size, done, last=False)
            begin, size = end, 0
        size += len(event.body)
    yield _Waiting(events[begin:], size, done, last=True)
