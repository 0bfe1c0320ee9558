"""What ``the-eye up`` tells the person who started it, on standard error."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TextIO

STILL_SECONDS = 10.0
"""How often a long step says that it is still going on."""


class Step:
    """Something that takes a while."""

    def __init__(self, title: str, done: str) -> None:
        self.title = title
        self.done = done
        """The word for its end; the block may change it."""
        self._started = time.monotonic()

    def line(self, word: str) -> str:
        """Say where it stands."""
        return f"{self.title} ... {word} {time.monotonic() - self._started:.1f} s"


class Console:
    """Lines for a person; a terminal that has gone away must not keep the stores from being stopped in order."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream

    @property
    def is_terminal(self) -> bool:
        """Whether a person reads along."""
        return self._stream.isatty()

    def line(self, text: str) -> None:
        """Show a line, or several."""
        with suppress(OSError):
            self._stream.write(f"{text}\n")
            self._stream.flush()

    @asynccontextmanager
    async def step(self, title: str, done: str) -> AsyncIterator[Step]:
        """Show how the block ended and how long it took, and meanwhile that it still goes on."""
        step = Step(title, done)
        ticking = asyncio.create_task(self._still(step))
        try:
            yield step
        except asyncio.CancelledError:
            raise
        except BaseException:
            self.line(step.line("failed"))
            raise
        finally:
            ticking.cancel()
        self.line(step.line(step.done))

    async def _still(self, step: Step) -> None:
        while True:
            await asyncio.sleep(STILL_SECONDS)
            self.line(step.line("still going on"))
