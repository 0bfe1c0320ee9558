"""Whose turn it is: while several applications send, none has more than a share of the event loop."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from functools import partial

import msgspec

SHARE = 8
"""Requests of one application in work at a time while others send, too. Each further one would be one more before which
somebody else's request waits; that few still fill the time in which the queue writes."""

APPLICATIONS_WAITING = 4
"""How many applications there must be to use up all that may wait."""

MEMORY_SECONDS = 1.0
"""How long an application counts as sending after a request."""

Begin = Callable[[], bool]
"""Begins to work, or gives False and does not."""


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

    def at_turn(self, application_id: int, size: int, begin: Begin) -> None:
        """Call ``begin`` when a body of ``size`` bytes may be worked on, now or later.

        If it begins, ``give_back`` must follow. Raises CrowdedError.
        """
        if application_id != self._last:
            if self._last is not None:
                self._changed_at = self._clock()
            self._last = application_id
        line = self._lines.get(application_id)
        if line is None:
            line = self._lines[application_id] = _Line()
        if line.in_work >= SHARE and self._shared():
            self._line_up(line, _Waiting(size, begin))
        else:
            line.in_work += 1
            if not begin():
                self.give_back(application_id)

    async def take(self, application_id: int, size: int) -> None:
        """Wait for a turn to work on a body of ``size`` bytes; ``give_back`` must follow.

        Raises CrowdedError.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.at_turn(application_id, size, partial(_tell, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was given the turn just before
                self.give_back(application_id)
            raise

    def give_back(self, application_id: int) -> None:
        """End a turn, so that the next in line has it, or all while the application is alone."""
        line = self._lines[application_id]
        line.in_work -= 1
        if line.waiting:
            self._pass_on(line)
            if not self._shared():
                while line.waiting:
                    self._pass_on(line)
        if not line.in_work and not line.waiting:
            del self._lines[application_id]

    def _line_up(self, line: "_Line", waiting: "_Waiting") -> None:
        of_all, of_one = self._waiting_bytes + waiting.size, line.waiting_bytes + waiting.size
        if of_all > self._waiting_max_bytes or of_one > self._waiting_max_bytes / APPLICATIONS_WAITING:
            raise CrowdedError
        line.waiting.append(waiting)
        self._waiting_bytes, line.waiting_bytes = of_all, of_one

    def _pass_on(self, line: "_Line") -> None:
        """Give a turn to the first that still wants it."""
        while line.waiting:
            waiting = line.waiting.popleft()
            self._waiting_bytes -= waiting.size
            line.waiting_bytes -= waiting.size
            if waiting.begin():
                line.in_work += 1
                return

    def _shared(self) -> bool:
        return self._clock() - self._changed_at < MEMORY_SECONDS


class _Waiting(msgspec.Struct, frozen=True, eq=False):
    size: int
    begin: Begin


class _Line:
    __slots__ = ("in_work", "waiting", "waiting_bytes")

    def __init__(self) -> None:
        self.in_work = 0
        self.waiting_bytes = 0
        self.waiting: deque[_Waiting] = deque()


def _tell(turn: asyncio.Future[None]) -> bool:
    if turn.done():  # whoever waited was cancelled
        return False
    turn.set_result(None)
    return True
