"""The server's HTTP protocol with bounds on requests, and one write for an answer.

uvicorn bounds what it reads of a request neither in bytes nor in time, so that anyone, without any token, could fill
the memory with one endless head or hold connections with requests that never end. And it writes an answer's head and
body apart, which uvloop sends as two packets: for answers of a few bytes that is a third of what they cost.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, ClassVar, Final, cast
from weakref import WeakSet

import msgspec
from litestar.types import HTTPScope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from the_eye_api.problems import PROBLEM_MEDIA_TYPE, Problem

MAX_HEAD_BYTES: Final = 64 * 1024
HEAD_SECONDS: Final = 15.0
"""How long a head may take from the connection, or from its first byte on one that was used before."""

SWEEP_SECONDS: Final = 1.0
"""How often late requests are looked for: one timer for all connections costs less than one for each request."""


Answer = Callable[[int, Sequence[tuple[bytes, bytes]], bytes], None]
"""Writes an answer: its status, its headers except those of its length and of the connection, its body."""

AtOnce = Callable[[HTTPScope, bytes, Answer], bool]
"""Takes a request, as ASGI has it, and sees to it that it is answered, or gives False with nothing done."""

Route = tuple[str, str]
"""A method and a path."""


class BoundedProtocol(HttpToolsProtocol):
    """Ends connections whose request grows too large or takes too long."""

    head_seconds: ClassVar[float] = HEAD_SECONDS
    body_seconds: ClassVar[float]
    sweep_seconds: ClassVar[float] = SWEEP_SECONDS
    _swept: ClassVar[WeakSet[ServerState]] = WeakSet()

    at_once: ClassVar[Mapping[Route, AtOnce]] = {}
    """What may answer requests to a route without a call of the application."""

    _ending: ClassVar[bool] = False
    """Whether each answer is the last one on its connection."""

    _unstarted: tuple[RequestResponseCycle, Any] | None = None
    """A request to such a route whose body is not complete, and the application."""

    _in_head = True
    _head_bytes = 0
    _awaited_since: float | None = None
    """When what is awaited of a request, its head or its body, began to be; None between requests."""
    _idle_since: float | None = None
    """When the last request was answered, unless the next one has begun; what is awaited counts before it."""

    @classmethod
    def within(cls, body_seconds: float, at_once: Mapping[Route, AtOnce] | None = None) -> type["BoundedProtocol"]:
        """Make the protocol that gives a body so long to arrive, and asks ``at_once`` before the application."""
        return type(cls.__name__, (cls,), {"body_seconds": body_seconds, "at_once": at_once or {}})

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first head."""
        super().connection_made(_JoinedWrites(transport, self.loop))  # type: ignore[arg-type] # it is one in effect
        self._awaited_since = self.loop.time()
        if self.server_state not in self._swept:
            self._swept.add(self.server_state)
            self._sweep(self.server_state, self.loop)

    @classmethod
    def _sweep(cls, state: ServerState, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(cls.sweep_seconds, cls._sweep, state, loop)  # first: nothing must end the sweeping
        now = loop.time()
        for connection in tuple(state.connections):
            if isinstance(connection, cls):
                connection.end_if_late(now)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head before more of it is taken in."""
        self._idle_since = None
        if self._in_head:
            self._head_bytes += len(data)
            if self._awaited_since is None:  # also for empty lines before a head, which the parser does not tell of
                self._awaited_since = self.loop.time()
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._end(431, "Request Header Fields Too Large", "head_too_large")

    def on_message_begin(self) -> None:
        """See the first byte of a head."""
        super().on_message_begin()
        self._idle_since = None
        if self._awaited_since is None:
            self._awaited_since = self.loop.time()

    def on_headers_complete(self) -> None:
        """See the end of a head."""
        self._in_head = False
        self._awaited_since = self.loop.time()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """See the end of a request; what comes now is the next one's head."""
        super().on_message_complete()
        self._in_head = True
        self._head_bytes = 0
        self._awaited_since = None
        if self.cycle.response_complete and not self.pipeline:  # it was answered before its body had come
            self._idle_since = self.loop.time()
        self._start_unstarted()

    def on_body(self, body: bytes) -> None:
        """Take in a part of a body; the application takes large ones as they come."""
        super().on_body(body)
        if self.flow.read_paused:
            self._start_unstarted(complete=False)

    def on_response_complete(self) -> None:
        """Go on with the next request; that one comes in time is for the sweep to see, not for a timer each time."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._idle_since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Have the application see that the body will not come."""
        super().connection_lost(exc)
        self._start_unstarted(complete=False)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Start the application, or wait for the body of a request that may do without it."""
        if self._ending:
            cycle.keep_alive = False
        if _route(cycle) not in self.at_once or cycle.waiting_for_100_continue:
            super()._start_asgi_task(cycle, app)
            return
        self._unstarted = (cycle, app)
        if not cycle.more_body:  # it came while another was answered
            self._start_unstarted()

    def _start_unstarted(self, *, complete: bool = True) -> None:
        """Answer the request at once if that is possible, else start the application."""
        if self._unstarted is None:
            return
        (cycle, app), self._unstarted = self._unstarted, None
        scope = cast("HTTPScope", cycle.scope)
        accept = self.at_once[_route(cycle)]
        answered = complete and not self.flow.write_paused and accept(scope, bytes(cycle.body), partial(_answer, cycle))
        if not answered:
            super()._start_asgi_task(cycle, app)

    def end_if_late(self, now: float) -> None:
        """End the connection when what is awaited has not come in time."""
        if self._awaited_since is None:
            if self._idle_since is not None and now - self._idle_since > self.timeout_keep_alive:
                self.transport.close()
            return
        if now - self._awaited_since > (self.head_seconds if self._in_head else self.body_seconds):
            self._end(408, "Request Timeout", "head_timeout" if self._in_head else "body_timeout")

    @classmethod
    def end_connections(cls, state: ServerState) -> None:
        """Make each answer that begins from now on the last one on its connection, which it then says."""
        cls._ending = True
        for connection in state.connections:
            cycle = cast("RequestResponseCycle | None", connection.cycle) if isinstance(connection, cls) else None
            if cycle is not None and not cycle.response_started:
                cycle.keep_alive = False

    def _end(self, status: int, title: str, code: str) -> None:
        """Answer and close; while the answer to the request before is being made, close after that one."""
        if self.transport.is_closing():
            return
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is not None and not cycle.response_complete:
            if self._in_head:
                cycle.keep_alive = False
                self.flow.pause_reading()
                return
            answered = cycle.response_started
        else:  # there is nothing to answer yet, or it was answered without the body that is still coming
            answered = not self._in_head or not self._head_bytes
        if not answered:
            body = msgspec.json.encode(Problem(status, title, code))
            head = (
                f"HTTP/1.1 {status} {title}\r\ncontent-type: {PROBLEM_MEDIA_TYPE}\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()


def _route(cycle: RequestResponseCycle) -> Route:
    return cycle.scope["method"], cycle.scope["path"]


def _answer(cycle: RequestResponseCycle, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
    """Answer a request with one write: what ``RequestResponseCycle.send`` does in two steps for any answer."""
    if cycle.disconnected:
        return
    head = _head(status, (*cycle.default_headers, *headers))
    connection = b"" if cycle.keep_alive else b"connection: close\r\n"
    answer = b"%b%bcontent-length: %d\r\n\r\n%b" % (head, connection, len(body), body)
    cast("_JoinedWrites", cycle.transport).write_at_once(answer)
    cycle.response_started = cycle.response_complete = True
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()


@lru_cache(8)
def _head(status: int, headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Begin an answer; within a second nearly all begin alike."""
    return STATUS_LINE[status] + b"".join(b"%b: %b\r\n" % header for header in headers)


class _JoinedWrites:
    """A transport that holds what is written until more comes or the event loop has its turn."""

    __slots__ = ("_held", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def write(self, data: bytes) -> None:
        if self._held:
            self._held, joined = b"", self._held + data
            self._transport.write(joined)
        elif data:
            self._held = data
            self._loop.call_soon(self._write_held)

    def write_at_once(self, data: bytes) -> None:
        """Write what nothing more belongs to."""
        self._write_held()
        self._transport.write(data)

    def writelines(self, pieces: Iterable[bytes]) -> None:
        self.write(b"".join(pieces))

    def _write_held(self) -> None:
        self._held, held = b"", self._held
        if held and not self._transport.is_closing():
            self._transport.write(held)

    def close(self) -> None:
        self._write_held()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
