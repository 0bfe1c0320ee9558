"""What applications use: ``Eye``, and ``AsyncEye`` for those that run an event loop."""

import asyncio
import atexit
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID
from weakref import WeakSet

from the_eye_client._courier import Courier, Spooler
from the_eye_client._event import TrackedEvent, new_event_id
from the_eye_client._memory import Memory
from the_eye_client._outcomes import Counters, Fault, Lost, Tally
from the_eye_client._settings import MAX_EVENT_BYTES, Server, Settings
from the_eye_client._spool import Spool, SpoolError

FLUSH_SECONDS = 10.0


class _Core:
    """All that belongs to one process: a child made by a fork has another one."""

    def __init__(self, server: Server, settings: Settings) -> None:
        self.memory = Memory(settings)
        self.spool = None if settings.spool is None else Spool(Path(settings.spool), settings)
        self.tally = Tally(settings.on_lost)
        self.closed = False
        self._ended = False
        self._courier = Courier(server, settings, self.memory, self.spool, self.tally)
        self._spooler = None if self.spool is None else Spooler(self.memory, self.spool, self.tally, self._courier)
        self._first = self._courier if self._spooler is None else self._spooler
        """Who is to be woken when there are events in memory."""
        self._unstarted: list[Callable[[Callable[[], bool]], None]] = [self._courier.run]
        if self._spooler is not None:
            self._unstarted.append(self._spooler.run)
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads, unless they run. Raises RuntimeError when the interpreter starts no thread.

        Each is taken from the list by one caller alone, also when a signal's handler comes here in the middle.
        """
        while self._unstarted:
            with suppress(IndexError):
                self._start_one(self._unstarted.pop())

    def _start_one(self, run: Callable[[Callable[[], bool]], None]) -> None:
        thread = threading.Thread(target=run, args=(lambda: self._ended,), name="the-eye-client", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._unstarted.append(run)
            raise
        self._threads.append(thread)

    def put(self, event_id: str, body: bytes) -> bool:
        """Take an event; false when there is no room."""
        wake = self.memory.put(event_id, body)
        if wake:
            self._first.bell.ring()
        return wake is not None

    def flush(self) -> "Future[bool]":
        """Have everything sent that was tracked before."""
        if not self._threads and not self.memory:
            nothing: Future[bool] = Future()
            nothing.set_result(True)
            return nothing
        done = self._courier.flush()
        self._first.bell.ring()
        return done

    def close(self, seconds: float) -> None:
        """Send and write what there is time for, count the rest as dropped, and end the threads."""
        deadline = time.monotonic() + seconds
        self.closed = True
        self._courier.deadline = deadline
        done = self.flush()
        self._finish(done, deadline)
        self._ended = True
        self._courier.bell.ring()
        if self._spooler is not None:
            self._spooler.bell.ring()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(deadline - time.monotonic(), 0.1))
        self._leave()

    def _finish(self, done: "Future[bool]", deadline: float) -> None:
        """Wait for the threads, or do the work of those that did not start: an ending interpreter starts none."""
        while self._spooler is not None and self._spooler.run in self._unstarted and self._spooler.write():
            pass
        if self._courier.run in self._unstarted:
            self._courier.run(lambda: done.done() or time.monotonic() >= deadline)
            return
        with suppress(TimeoutError):
            done.result(max(deadline - time.monotonic(), 0.0))

    def _leave(self) -> None:
        for event in self.memory.clear():
            fault = Fault("$", "closed", "the client was closed before the server had the event")
            self.tally.lose(Lost("dropped", (fault,), event.event_id, event.body))
        if self.spool is not None:
            with suppress(SpoolError):  # whose claims then end by themselves
                self.spool.close()


class _Client:
    """What both clients have in common."""

    def __init__(self, url: str | None = None, token: str | None = None, settings: Settings | None = None) -> None:
        """Without ``url`` and ``token`` those of THE_EYE_URL and THE_EYE_TOKEN are taken.

        Raises ValueError when either is missing or cannot be one.
        """
        self._settings = settings or Settings()
        self._server = Server.of(url, token)
        self._core = _Core(self._server, self._settings)
        self._unregister: tuple[Callable[[], object], ...] = ()
        self._registered_in = 0
        if self._core.spool is not None:
            self._start(self._core)  # another process may have left events
        _clients.add(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._server!r})"

    @property
    def counters(self) -> Counters:
        """What this process's client has done so far."""
        return self._core.tally.read(queued=len(self._core.memory))

    def track(  # noqa: PLR0913 - these are an event's fields
        self,
        session_id: UUID | str,
        category: str,
        name: str,
        data: Mapping[str, Any],
        *,
        timestamp: datetime | None = None,
        event_id: UUID | None = None,
    ) -> UUID | None:
        """Have an event sent, and return at once; never raises, and never waits for disk or network.

        ``timestamp`` is when it occurred, now by default; without a zone it is taken for UTC. Gives the event's id, or
        None when it was not taken: it is counted then, logged, and given to ``Settings.on_lost``.
        """
        try:
            return self._put(TrackedEvent(event_id or new_event_id(), session_id, category, name, data, timestamp))
        except Exception as error:  # noqa: BLE001 - no fault of tracking may become one of the application
            with suppress(Exception):
                self._core.tally.fail(type(error).__name__)
            return None

    def _put(self, event: TrackedEvent) -> UUID | None:
        core = self._core
        event_id = None
        try:
            event_id = str(event.event_id)
            body = event.encode(self._settings.json_default)
        except Exception as error:  # noqa: BLE001 - what is tracked may raise anything
            fault = Fault("$", "unserializable", f"no JSON can be made of it: {type(error).__name__}")
            core.tally.lose(Lost("refused", (fault,), event_id, b""))
            return None
        if len(body) > MAX_EVENT_BYTES:
            fault = Fault("$", "too_large", f"an event has at most {MAX_EVENT_BYTES} bytes")
            core.tally.lose(Lost("refused", (fault,), event_id, body))
            return None
        if core.closed:
            fault = Fault("$", "closed", "the client is closed")
        elif core.put(event_id, body):
            self._start(core)
            return event.event_id
        else:
            fault = Fault("$", "memory_full", "too many events wait already")
        core.tally.lose(Lost("dropped", (fault,), event_id, body))
        return None

    def _start(self, core: _Core) -> None:
        """Start what sends; where that cannot be done the events are sent at the end."""
        if self._registered_in != os.getpid():
            self._registered_in = os.getpid()
            self._register()
        with suppress(RuntimeError):  # no thread can be started: too many, or the interpreter is ending
            core.start()

    def _register(self) -> None:
        """See that the end of the process waits a little for what is not sent."""
        atexit.register(self._close_now)
        # Up to Python 3.14 a child of multiprocessing ends without what atexit has.
        util = sys.modules.get("multiprocessing.util")
        self._unregister = (lambda: atexit.unregister(self._close_now),)
        if util is not None:
            finalize = util.Finalize(None, self._close_now, exitpriority=10)
            self._unregister += (finalize.cancel,)

    def _close_now(self, seconds: float | None = None) -> None:
        core = self._core
        if not core.closed:
            core.close(self._settings.close_seconds if seconds is None else seconds)
        for unregister in self._unregister:
            unregister()
        self._unregister = ()

    def _after_fork(self) -> None:
        """Begin anew in the child: the events in memory are the parent's, which sends them."""
        closed = self._core.closed
        self._core = _Core(self._server, self._settings)
        self._core.closed = closed


class Eye(_Client):
    """Sends events to The Eye. One for the whole application; all of its methods may be called by any thread.

    Used as a context manager it is closed at the end of the block; otherwise at the end of the process.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def flush(self, timeout: float = FLUSH_SECONDS) -> bool:
        """Have everything sent that was tracked before, and wait for it at most ``timeout`` seconds.

        True when each of these events is sent, refused or dropped. False when the time is over, and at once while the
        server refuses the token; nothing is lost by it.
        """
        done = self._core.flush()
        try:
            return done.result(timeout)
        except TimeoutError:
            done.cancel()
            return False

    def close(self, timeout: float | None = None) -> None:
        """Send what there is time for, ``Settings.close_seconds`` by default, and end.

        What is not sent then stays in the spool; without one it is dropped, which may concern events that have arrived
        although the answer has not.
        """
        self._close_now(timeout)


class AsyncEye(_Client):
    """The same for an event loop: ``track`` is an ordinary function that never waits, the others are awaited.

    What it does it does in threads of its own, so that neither a busy loop holds it up nor the end of one ends it.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def flush(self, timeout: float = FLUSH_SECONDS) -> bool:  # noqa: ASYNC109 - the same as Eye.flush
        """As ``Eye.flush``, without holding up the loop."""
        try:
            return await asyncio.wait_for(asyncio.wrap_future(self._core.flush()), timeout)
        except TimeoutError:
            return False

    async def close(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the same as Eye.close
        """As ``Eye.close``, without holding up the loop."""
        await asyncio.to_thread(self._close_now, timeout)


_clients: WeakSet[_Client] = WeakSet()
_forking: list[Spool] = []
"""Spools whose locks a fork holds."""


def _before_fork() -> None:
    """Close the spools' files, and keep them closed until the fork is done."""
    for client in tuple(_clients):
        spool = client._core.spool  # noqa: SLF001 - the client's own module
        if spool is not None:
            spool.lock.acquire()
            _forking.append(spool)
            spool.disconnect()


def _after_fork_in_parent() -> None:
    while _forking:
        _forking.pop().lock.release()


def _after_fork_in_child() -> None:
    _forking.clear()
    for client in tuple(_clients):
        client._after_fork()  # noqa: SLF001 - the client's own module


if hasattr(os, "register_at_fork"):  # not where there is no fork
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
