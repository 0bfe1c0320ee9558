"""Whose turn it is: while several applications send, none has more than a share of the event loop."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable

SHARE = 8
"""Requests of one application in work at a time while others send, too. Each further one would be one more before which
somebody else's request waits; that few still fill the time in which the queue writes."""

APPLICATIONS_WAITING = 4
"""How many applications there must be to use up all that may wait."""

MEMORY_SECONDS = 1.0
"""How long an application counts as sending after a request."""


class CrowdedError(Exception):
    """Raised when no more requests may wait for their turn."""


class Turns:
    """Lets requests in, each application's in order; belongs to one event loop.

    An application that is alone has all turns it wants.
    """

    def __init__(self, *, waiting_max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        """``waiting_max_bytes`` bounds the bodies that wait, a quarter of it those of one application."""
        self._waiting_max_bytes = waiting_max_bytes
        self._waiting_bytes = 0
        self._clock = clock
        self._lines: dict[int, _Line] = {}
        self._last: int | None = None
        """The application of the last request."""
        self._changed_at = -math.inf
        """When that was another one than before."""

    async def take(self, application_id: int, size: int) -> None:
        """Wait for a turn to work on a body of ``size`` bytes; ``give_back`` must follow.

        Raises CrowdedError.
        """
        if not self.take_at_once(application_id):
            await self._wait(self._lines[application_id], size)

    def take_at_once(self, application_id: int) -> bool:
        """Take a turn if there is no need to wait for it; only then ``give_back`` must follow."""
        if application_id != self._last:
            if self._last is not None:
                self._changed_at = self._clock()
            self._last = application_id
        line = self._lines.get(application_id)
        if line is None:
            line = self._lines[application_id] = _Line()
        if line.in_work >= SHARE and self._shared():
            return False
        line.in_work += 1
        return True

    async def _wait(self, line: "_Line", size: int) -> None:
        of_all, of_one = self._waiting_bytes + size, line.waiting_bytes + size
        if of_all > self._waiting_max_bytes or of_one > self._waiting_max_bytes / APPLICATIONS_WAITING:
            raise CrowdedError
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.waiting.append(turn)
        self._waiting_bytes += size
        line.waiting_bytes += size
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given the turn just before
                self._pass_on(line)
            raise
        finally:
            self._waiting_bytes -= size
            line.waiting_bytes -= size

    def give_back(self, application_id: int) -> None:
        """End a turn, so that the next in line has it, or all while the application is alone."""
        line = self._lines[application_id]
        self._pass_on(line)
        if line.waiting and not self._shared():
            while line.waiting:
                _give(line)
        if not line.in_work and not line.waiting:
            del self._lines[application_id]

    def _pass_on(self, line: "_Line") -> None:
        line.in_work -= 1
        if line.waiting:
            _give(line)

    def _shared(self) -> bool:
        return self._clock() - self._changed_at < MEMORY_SECONDS


class _Line:
    __slots__ = ("in_work", "waiting", "waiting_bytes")

    def __init__(self) -> None:
        self.in_work = 0
        self.waiting_bytes = 0
        self.waiting: deque[asyncio.Future[None]] = deque()


def _give(line: _Line) -> None:
    """Give a turn to the first that still waits."""
    while line.waiting:
        turn = line.waiting.popleft()
        if not turn.done():
            line.in_work += 1
            turn.set_result(None)
            return
