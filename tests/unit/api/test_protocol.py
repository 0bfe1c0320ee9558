"""What the server's protocol adds to uvicorn's: bounds in time, and one write for an answer. Bytes: test_edge.py."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from the_eye_api.protocol import BoundedProtocol, _JoinedWrites

DEADLINE = 10.0
SECONDS = 0.2
ANSWER = b'{"status":"fine"}'


class Hasty(BoundedProtocol):
    """A protocol that waits for no one."""

    head_seconds = SECONDS
    body_seconds = SECONDS
    sweep_seconds = 0.05


class App:
    """An application that reads bodies, or answers without having read them."""

    def __init__(self, *, reads: bool = True) -> None:
        self._reads = reads
        self.received: list[str] = []

    async def __call__(self, _: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        more = self._reads
        while more:
            message = await receive()
            self.received.append(message["type"])
            if message["type"] != "http.request":
                return
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"17")]})
        await send({"type": "http.response.body", "body": ANSWER})


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(app: App) -> AsyncIterator[Streams]:
    """Serve ``app`` and connect to it."""
    config = uvicorn.Config(app, log_config=None, ws="none")
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Hasty(config, state, {}), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        async with asyncio.timeout(DEADLINE):
            yield reader, writer
        writer.close()


async def test_a_head_that_never_ends_is_ended() -> None:
    """The sender is told why."""
    async with connected(App()) as (reader, writer):
        writer.write(b"POST /events HTTP/1.1\r\nHost:")
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"head_timeout"' in answer


async def test_a_connection_that_never_speaks_is_ended() -> None:
    """It holds a place that others need. Nothing is said: it would be taken for the answer to what comes next."""
    async with connected(App()) as (reader, _):
        assert await reader.read() == b""


@pytest.mark.parametrize("begun", [b"", b"half of"])
async def test_a_body_that_never_ends_is_ended(begun: bytes) -> None:
    """The sender is told why, and the application that nobody waits for its answer."""
    app = App()
    async with connected(app) as (reader, writer):
        writer.write(b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n" + begun)
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"body_timeout"' in answer
    assert app.received[-1] == "http.disconnect"


async def test_a_body_that_nobody_waits_for_any_more_is_ended() -> None:
    """Answered without it, the request still holds its connection."""
    async with connected(App(reads=False)) as (reader, writer):
        writer.write(b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
        answer = await reader.read()

    assert answer.count(b"HTTP/1.1") == 1
    assert answer.endswith(ANSWER)


async def test_requests_in_time_keep_their_connection() -> None:
    """However many there are; between them nothing is awaited."""
    async with connected(App()) as (reader, writer):
        for _ in range(4):
            writer.write(b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
            assert (await reader.readuntil(ANSWER)).startswith(b"HTTP/1.1 200 ")
            await asyncio.sleep(SECONDS)  # longer than any of the bounds, in sum


async def test_empty_lines_do_not_hold_a_connection() -> None:
    """Before a head they are allowed, and the parser says nothing of them."""
    async with connected(App()) as (reader, writer):
        writer.write(b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        await reader.readuntil(ANSWER)
        writer.write(b"\r\n")
        assert b'"head_timeout"' in await reader.read()


async def test_a_sender_that_waits_for_leave_gets_it() -> None:
    """``100 Continue`` is not held back until there is more to say."""
    async with connected(App()) as (reader, writer):
        writer.write(b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"x")
        assert (await reader.readuntil(ANSWER)).startswith(b"HTTP/1.1 200 ")


class Written:
    """A transport that notes each write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        """Note it."""
        assert not self.closed
        self.writes.append(data)

    def close(self) -> None:
        """End."""
        self.closed = True

    def is_closing(self) -> bool:
        """Whether it has ended."""
        return self.closed


async def test_head_and_body_are_one_write() -> None:
    """Two would be two packets, and wake the sender twice."""
    transport = Written()
    joined = _JoinedWrites(transport, asyncio.get_running_loop())  # type: ignore[arg-type]

    joined.write(b"head")
    joined.write(b"body")
    await asyncio.sleep(0)

    assert transport.writes == [b"headbody"]


async def test_what_nothing_follows_is_written_too() -> None:
    """At the event loop's next turn, or when the connection is closed."""
    transport = Written()
    joined = _JoinedWrites(transport, asyncio.get_running_loop())  # type: ignore[arg-type]

    joined.write(b"one")
    await asyncio.sleep(0)
    joined.write(b"two")
    joined.close()
    await asyncio.sleep(0)

    assert transport.writes == [b"one", b"two"]


async def test_what_is_held_when_the_sender_leaves_is_dropped() -> None:
    """A transport that is gone takes nothing."""
    transport = Written()
    joined = _JoinedWrites(transport, asyncio.get_running_loop())  # type: ignore[arg-type]

    joined.write(b"one")
    transport.closed = True
    await asyncio.sleep(0)

    assert transport.writes == []
