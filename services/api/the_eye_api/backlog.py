"""A bound on what may be queued: accepting more than the workers will ever store helps nobody."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

import structlog

from the_eye.queue import Backlog, QueueUnavailableError
from the_eye_api import metrics
from the_eye_api.problems import unavailable

LOOK_SECONDS = 1.0
RESUME_BELOW = 0.9
"""Part of the bound below which events are accepted again: at the bound itself every other request would be refused."""

FIRST_RETRY_SECONDS = 5
LONGEST_RETRY_SECONDS = 300

log = structlog.get_logger(__name__)


class BacklogBound:
    """Looks at the backlog every second and refuses events while it is beyond its bound.

    Bytes are bounded for the queue's memory, age for the promise that what was accepted is stored soon.
    """

    def __init__(self, look: Callable[[], Awaitable[Backlog]], *, max_bytes: int, max_age_seconds: float) -> None:
        self._look = look
        self._max_bytes = max_bytes
        self._max_age_seconds = max_age_seconds
        self._seen = Backlog(0, 0, 0.0)
        self._seen_at = time.monotonic()
        self._drained_bytes_per_second = 0.0
        self._full = False
        metrics.BACKLOG_MAX_BYTES.set(max_bytes)

    def check(self) -> None:
        """Let a request in. Raises ProblemError: 503 with the seconds until there is room at the present rate."""
        if self._full:
            raise unavailable("queue_full", "The workers are too far behind.", retry_after=self.retry_after)

    @property
    def retry_after(self) -> int:
        """Seconds until the backlog is below its bound if it goes on to shrink as it does."""
        if self._drained_bytes_per_second <= 0:
            return FIRST_RETRY_SECONDS
        seconds = (self._seen.bytes - RESUME_BELOW * self._max_bytes) / self._drained_bytes_per_second
        return max(1, min(LONGEST_RETRY_SECONDS, math.ceil(seconds)))

    async def keep_looking(self) -> None:
        """Look until cancelled; a queue that is away refuses events by itself."""
        while True:
            try:
                self.note(await self._look(), time.monotonic())
            except QueueUnavailableError as error:
                log.warning("backlog_not_seen", error=str(error))
            except Exception:  # without this task a full queue would not be noticed, or never be over
                log.exception("backlog_not_seen")
            await asyncio.sleep(LOOK_SECONDS)

    def note(self, backlog: Backlog, now: float) -> None:
        """Take in what was seen at ``now``, in seconds of a monotonic clock."""
        if self._full:  # nobody adds to it, so what is gone was drained
            self._drained_bytes_per_second = (self._seen.bytes - backlog.bytes) / max(now - self._seen_at, 0.001)
        self._seen, self._seen_at = backlog, now
        share = max(backlog.bytes / self._max_bytes, backlog.age_seconds / self._max_age_seconds)
        full = share >= (RESUME_BELOW if self._full else 1.0)
        if full != self._full:
            log.warning("queue_full" if full else "queue_has_room", messages=backlog.messages, bytes=backlog.bytes)
        self._full = full
        metrics.BACKLOG_FULL.set(full)
