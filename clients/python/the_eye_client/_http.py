"""One request at a time over a connection that is kept, with a deadline for all of it."""

import encodings.idna  # noqa: F401 - imported by the first connection otherwise: a fork meanwhile would leave half of it
import gzip
import http.client
import io
import platform
import socket
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from email.message import Message
from importlib.metadata import version
from typing import Any

from the_eye_client._settings import Server

MAX_ANSWER_BYTES = 4 * 1024 * 1024
MIN_COMPRESSED_BYTES = 1024
"""Below this, compressing costs more than it saves."""

ENDED = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
"""What becomes of a request on a connection that the server has ended, without TLS and with it."""

USER_AGENT = f"the-eye-client/{version('the-eye-client')} Python/{platform.python_version()}"


class NoAnswerError(Exception):
    """Raised when a request was not answered whole; whether the server has the events is not known."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said."""

    status: int
    headers: Message
    body: bytes


class Connection:
    """A connection to the server, made when it is needed and made anew when it broke."""

    def __init__(self, server: Server, context: ssl.SSLContext | None) -> None:
        self._server = server
        self._context = context
        self._connection: _Timed | None = None

    def post(self, events: Iterable[bytes], deadline: float) -> Answer:
        """Send a batch until a time of the monotonic clock. Raises NoAnswerError."""
        body = b"[" + b",".join(events) + b"]"
        headers = {
            "Authorization": self._server.authorization,
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
        }
        if len(body) >= MIN_COMPRESSED_BYTES:
            body = gzip.compress(body, mtime=0)
            headers["Content-Encoding"] = "gzip"
        kept = self._connection is not None and self._connection.sock is not None
        try:
            return self._ask(body, headers, deadline)
        except ENDED as error:
            # A server may end a kept connection at any time, which says nothing of its health.
            if not kept:
                raise NoAnswerError(_named(error)) from error
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswerError(_named(error)) from error
        try:
            return self._ask(body, headers, deadline)
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswerError(_named(error)) from error

    def _ask(self, body: bytes, headers: dict[str, str], deadline: float) -> Answer:
        try:
            connection = self._connected(deadline)
            connection.request("POST", self._server.path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, _read_whole(response))
        except BaseException:
            self.close()
            raise

    def _connected(self, deadline: float) -> "_Timed":
        if self._connection is None:
            self._connection = self._made()
        self._connection.deadline = deadline
        return self._connection

    def _made(self) -> "_Timed":
        server = self._server
        if server.secure:
            self._context = self._context or ssl.create_default_context()
            return _TimedTls(server.host, server.port, context=self._context)
        return _Timed(server.host, server.port)

    def close(self) -> None:
        """End the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Timed(http.client.HTTPConnection):
    """A connection that holds to a deadline: the standard library's timeout is one of each read."""

    deadline = 0.0

    def remaining(self) -> float:
        """Give the seconds that are left. Raises TimeoutError when none are."""
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        return seconds

    def connect(self) -> None:
        """Connect within the deadline."""
        self.timeout = self.remaining()
        super().connect()
        self.sock.settimeout(self.remaining())

    def send(self, data: Any) -> None:
        """Send within the deadline."""
        if self.sock is not None:
            self.sock.settimeout(self.remaining())
        super().send(data)

    def response_class(self, sock: socket.socket, **options: Any) -> http.client.HTTPResponse:  # type: ignore[override]
        """Make what reads an answer within the deadline."""
        response = http.client.HTTPResponse(sock, **options)
        response.fp = io.BufferedReader(_TimedReads(self, sock, response.fp.detach()))
        return response


class _TimedTls(_Timed, http.client.HTTPSConnection):
    """The same over TLS."""


class _TimedReads(io.RawIOBase):
    def __init__(self, connection: _Timed, sock: socket.socket, raw: io.RawIOBase) -> None:
        self._connection = connection
        self._sock = sock
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._connection.remaining())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _read_whole(response: http.client.HTTPResponse) -> bytes:
    """Read a body of a bounded size. Raises IncompleteRead, which the standard library does only of chunks."""
    body = response.read(MAX_ANSWER_BYTES)
    if response.read(1) or response.length:
        raise http.client.IncompleteRead(body)
    return body


def _named(error: Exception) -> str:
    """Name an error without what was sent."""
    text = error.strerror if isinstance(error, OSError) else None
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
