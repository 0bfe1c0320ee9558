"""The server's HTTP protocol with bounds on requests, and one write for an answer.

uvicorn bounds what it reads of a request neither in bytes nor in time, so that anyone, without any token, could fill
the memory with one endless head or hold connections with requests that never end. And it writes an answer's head and
body apart, which uvloop sends as two packets: for answers of a few bytes that is a third of what they cost.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, ClassVar, Final, cast
from weakref import WeakSet

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from the_eye_api.problems import PROBLEM_MEDIA_TYPE, Problem

MAX_HEAD_BYTES: Final = 64 * 1024
HEAD_SECONDS: Final = 15.0
"""How long a head may take from the connection, or from its first byte on one that was used before."""

SWEEP_SECONDS: Final = 1.0
"""How often late requests are looked for: one timer for all connections costs less than one for each request."""


class BoundedProtocol(HttpToolsProtocol):
    """Ends connections whose request grows too large or takes too long."""

    head_seconds: ClassVar[float] = HEAD_SECONDS
    body_seconds: ClassVar[float]
    sweep_seconds: ClassVar[float] = SWEEP_SECONDS
    _swept: ClassVar[WeakSet[ServerState]] = WeakSet()

    _in_head = True
    _head_bytes = 0
    _awaited_since: float | None = None
    """When what is awaited of a request, its head or its body, began to be; None between requests."""

    @classmethod
    def within(cls, body_seconds: float) -> type["BoundedProtocol"]:
        """Make the protocol that gives a body so long to arrive."""
        return type(cls.__name__, (cls,), {"body_seconds": body_seconds})

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

    def end_if_late(self, now: float) -> None:
        """End the connection when what is awaited has not come in time."""
        if self._awaited_since is None:
            return
        if now - self._awaited_since > (self.head_seconds if self._in_head else self.body_seconds):
            self._end(408, "Request Timeout", "head_timeout" if self._in_head else "body_timeout")

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
