"""The server's HTTP protocol with a bound on requests' heads.

uvicorn bounds what it reads of a head neither in bytes nor in time, so that anyone, without any token, could fill the
memory with one endless header or hold connections with requests that never begin.
"""

import asyncio
from typing import Any, Final, cast

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from the_eye_api.problems import PROBLEM_MEDIA_TYPE, Problem

MAX_HEAD_BYTES: Final = 64 * 1024
HEAD_SECONDS: Final = 15.0
"""How long a head may take from the connection, or from its first byte on one that was used before."""


class BoundedHeadProtocol(HttpToolsProtocol):
    """Ends connections whose request's head grows too large or takes too long."""

    _in_head = True
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._start_head_timer()

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head before more of it is taken in."""
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._end(431, "Request Header Fields Too Large", "head_too_large")

    def on_message_begin(self) -> None:
        """See the first byte of a head."""
        super().on_message_begin()
        if self._head_timer is None:
            self._start_head_timer()

    def on_headers_complete(self) -> None:
        """See the end of a head."""
        self._in_head = False
        self._stop_head_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """See the end of a request; what comes now is the next one's head."""
        super().on_message_complete()
        self._in_head = True
        self._head_bytes = 0

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_head_timer()
        super().connection_lost(exc)

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._end, 408, "Request Timeout", "head_timeout")

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end(self, status: int, title: str, code: str) -> None:
        """Answer and close; while the answer to the request before is being written, close after that one."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is not None and not cycle.response_complete:
            cycle.keep_alive = False
            self.flow.pause_reading()
        elif not self.transport.is_closing():
            body = msgspec.json.encode(Problem(status, title, code))
            head = (
                f"HTTP/1.1 {status} {title}\r\ncontent-type: {PROBLEM_MEDIA_TYPE}\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
            self.transport.close()
