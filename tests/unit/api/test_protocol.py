"""What the server's protocol adds to uvicorn's: bounds in time, and one write for an answer. Bytes: test_edge.py."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from litestar.types import HTTPScope
from uvicorn.server import ServerState

from the_eye_api.protocol import Answer, BoundedProtocol, _JoinedWrites

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
        self.delay = 0.0
        self.received: list[str] = []
        self.called = asyncio.Event()

    async def __call__(self, _: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        more = self._reads
        while more:
            message = await receive()
            self.received.append(message["type"])
            self.called.set()
            if message["type"] != "http.request":
                return
            more = message["more_body"]
        await asyncio.sleep(self.delay)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"17")]})
        await send({"type": "http.response.body", "body": ANSWER})


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(
    app: App, protocol: type[BoundedProtocol] = Hasty, *, keep_alive: int = 60
) -> AsyncIterator[Streams]:
    """Serve ``app`` and connect to it."""
    config = uvicorn.Config(app, log_config=None, ws="none", timeout_keep_alive=keep_alive)
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: protocol(config, state, {}), "127.0.0.1", 0)
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


async def test_a_connection_that_is_idle_for_too_long_is_ended() -> None:
    """It has been told nothing else: who sends the next request then connects again."""
    async with connected(App(), keep_alive=0) as (reader, writer):
        writer.write(b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        answer = await reader.read()

    assert answer.endswith(ANSWER)
    assert b"connection: close" not in answer


async def test_a_connection_whose_request_is_answered_late_is_not_idle() -> None:
    """What counts is when the last answer was complete, not when the one before it was."""
    app = App()
    async with connected(app, keep_alive=1) as (reader, writer):
        writer.write(b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        await reader.readuntil(ANSWER)
        app.delay = 1.5
        writer.write(b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        assert (await reader.readuntil(ANSWER)).startswith(b"HTTP/1.1 200 ")


async def test_a_connection_whose_body_came_after_its_answer_is_idle_too() -> None:
    """Nobody needs a token to be refused without their body being read."""
    async with connected(App(reads=False), keep_alive=0) as (reader, writer):
        writer.write(b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n")
        await reader.readuntil(ANSWER)
        writer.write(b"x")
        assert await reader.read() == b""


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


ORDINARY = b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"
QUICK_ANSWER = b'{"status":"quick"}'


class Lane:
    """Answers requests at once, except those whose body is ``no``, and a while later those whose body is ``..``."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.later: asyncio.Queue[Answer] = asyncio.Queue()

    def __call__(self, scope: HTTPScope, body: bytes, answer: Answer, /, *, traced: bool = False) -> bool:
        """Answer one request, or leave it to the application."""
        assert (b"host", b"x") in scope["headers"]
        assert not traced
        if body == b"no":
            return False
        self.taken.append(body)
        if body == b"..":
            self.later.put_nowait(answer)
        else:
            self.give(answer)
        return True

    @staticmethod
    def give(answer: Answer) -> None:
        """Answer."""
        answer(202, [(b"content-type", b"application/json")], QUICK_ANSWER)


def quick(lane: Lane) -> type[BoundedProtocol]:
    """Make a protocol that asks ``lane`` first."""
    return Hasty.within(SECONDS, {("POST", "/events"): lane})


async def test_what_can_be_answered_at_once_needs_no_application() -> None:
    """Its connection lives on, and the next request is answered on it."""
    app, lane = App(), Lane()
    async with connected(app, quick(lane)) as (reader, writer):
        for body in (b"ab", b"cd"):
            writer.write(ORDINARY + body)
            answer = await reader.readuntil(QUICK_ANSWER)
            assert answer.startswith(b"HTTP/1.1 202 Accepted\r\n")
            assert b"\r\ncontent-length: 18\r\n" in answer
            assert b"connection:" not in answer

    assert (lane.taken, app.received) == ([b"ab", b"cd"], [])


async def test_a_body_may_come_after_its_head() -> None:
    """As most libraries send it."""
    lane = Lane()
    async with connected(App(), quick(lane)) as (reader, writer):
        for piece in (ORDINARY, b"a", b"b"):
            writer.write(piece)
            await asyncio.sleep(SECONDS / 10)
        await reader.readuntil(QUICK_ANSWER)

    assert lane.taken == [b"ab"]


@pytest.mark.parametrize("pieces", [[ORDINARY + b"no"], [ORDINARY, b"no"]], ids=["whole", "in pieces"])
async def test_what_cannot_be_answered_at_once_is_the_applications(pieces: list[bytes]) -> None:
    """It sees the whole request."""
    app = App()
    async with connected(app, quick(Lane())) as (reader, writer):
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(SECONDS / 10)
        assert (await reader.readuntil(ANSWER)).startswith(b"HTTP/1.1 200 ")

    assert app.received == ["http.request"]


async def test_other_routes_are_the_applications() -> None:
    lane = Lane()
    async with connected(App(), quick(lane)) as (reader, writer):
        writer.write(ORDINARY.replace(b"/events", b"/events/batch") + b"ab")
        await reader.readuntil(ANSWER)

    assert lane.taken == []


async def test_a_large_body_is_the_applications() -> None:
    """It is read as it comes, and nobody waits for all of it in the meantime."""
    lane, size = Lane(), 1_000_000
    async with connected(App(), quick(lane)) as (reader, writer):
        writer.write(ORDINARY.replace(b": 2", f": {size}".encode()) + b"x" * size)
        await reader.readuntil(ANSWER)

    assert lane.taken == []


async def test_requests_that_follow_at_once_are_answered_in_order() -> None:
    """Pipelined ones wait until those before them are answered, whoever answers."""
    lane = Lane()
    async with connected(App(), quick(lane)) as (reader, writer):
        writer.write(ORDINARY + b".." + ORDINARY + b"no" + ORDINARY + b"ab")
        answer = await lane.later.get()
        await asyncio.sleep(SECONDS / 4)
        assert lane.taken == [b".."]
        lane.give(answer)
        answers = await reader.readuntil(QUICK_ANSWER) + await reader.readuntil(QUICK_ANSWER)

    assert [line for line in answers.split(b"\r\n") if line.startswith((b"HTTP/1.1", b"{"))] == [
        b"HTTP/1.1 202 Accepted",
        QUICK_ANSWER + b"HTTP/1.1 200 OK",
        ANSWER + b"HTTP/1.1 202 Accepted",
        QUICK_ANSWER,
    ]


async def test_a_connection_that_is_to_be_closed_is_closed() -> None:
    """And the sender told so."""
    async with connected(App(), quick(Lane())) as (reader, writer):
        writer.write(ORDINARY.replace(b"Host: x", b"Host: x\r\nConnection: close") + b"ab")
        answer = await reader.read()

    assert b"\r\nconnection: close\r\n" in answer
    assert answer.endswith(QUICK_ANSWER)


async def test_a_sender_that_goes_before_its_body_is_seen() -> None:
    """By the application, which counts such requests."""
    app, lane = App(), Lane()
    async with connected(app, quick(lane)) as (_, writer):
        writer.write(ORDINARY)
        await asyncio.sleep(SECONDS / 10)
        writer.close()
        await app.called.wait()

    assert (app.received, lane.taken) == (["http.disconnect"], [])


async def test_an_answer_to_a_sender_that_has_gone_is_dropped() -> None:
    lane = Lane()
    async with connected(App(), quick(lane)) as (_, writer):
        writer.write(ORDINARY + b"..")
        answer = await lane.later.get()
        writer.transport.abort()
        await asyncio.sleep(SECONDS / 4)
        lane.give(answer)


async def test_a_body_that_is_awaited_for_the_lane_is_bounded_in_time() -> None:
    """As any other."""
    async with connected(App(), quick(Lane())) as (reader, writer):
        writer.write(ORDINARY + b"a")
        assert b'"body_timeout"' in await reader.read()


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
