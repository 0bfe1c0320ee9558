"""An API makes room for another one while senders that keep their connections send on and on: no request fails.

Between senders and APIs stands what a Service is to them: each connection stays with the API it was made to, and new
ones go to the API that is in force.
"""

import asyncio
import contextlib
import copy
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from operator import ge
from uuid import uuid4

import httpx
import pytest
from tests.integration.test_edge import Edge, body, running

from the_eye.settings import QueueSettings, StoreSettings
from the_eye.store.connect import Connection

SECONDS = 60.0
RAW_SENDERS = 8
CLIENTS = 4

_CONTENT_LENGTH = re.compile(rb"content-length: *(\d+)\r\n", re.IGNORECASE)


class Service:
    """Leads new connections to one API."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.port = 0
        self._leading: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator["Service"]:
        """Take connections during the block."""
        server = await asyncio.start_server(self._lead, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await asyncio.gather(*self._leading)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._leading.add(task)
        there_reader, there_writer = await connect(self.edge)
        await asyncio.gather(_pass_on(reader, there_writer), _pass_on(there_reader, writer))


async def connect(edge: Edge) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Make a connection to an API."""
    url = httpx.URL(edge.url)
    return await asyncio.open_connection(url.host, url.port)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


class Senders:
    """Tasks that send one event after the other, and what came of it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._token = service.edge.created.text
        self._sent = [0] * (RAW_SENDERS + CLIENTS)
        self._answered = asyncio.Condition()
        self._ended = False
        self.accepted: set[str] = set()
        self.failures: list[str] = []

    @contextlib.asynccontextmanager
    async def sending(self) -> AsyncIterator["Senders"]:
        """Send during the block."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(RAW_SENDERS + CLIENTS):
                send = self._send_raw if number < RAW_SENDERS else self._send_with_client
                tasks.create_task(send(number))
            try:
                yield self
            finally:
                self._ended = True

    async def all_send(self, count: int) -> None:
        """Wait until each of them has had so many more answers."""
        wanted = [sent + count for sent in self._sent]
        async with asyncio.timeout(SECONDS), self._answered:
            await self._answered.wait_for(lambda: all(map(ge, self._sent, wanted)))

    async def _take(self, number: int, status: int, text: str, event_id: str) -> None:
        if status == 202:
            self.accepted.add(event_id)
        else:
            self.failures.append(f"{status}: {text}")
        self._sent[number] += 1
        async with self._answered:
            self._answered.notify_all()

    async def _send_with_client(self, number: int) -> None:
        url = f"http://127.0.0.1:{self._service.port}/events"
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {self._token}"}, timeout=SECONDS) as client:
            while not self._ended:
                event_id = str(uuid4())
                try:
                    answer = await client.post(url, content=body(event_id=event_id))
                except httpx.TransportError as error:
                    await self._take(number, 0, repr(error), event_id)
                else:
                    await self._take(number, answer.status_code, answer.text, event_id)

    async def _send_raw(self, number: int) -> None:
        """Send on one connection until an answer says that it is the last one on it."""
        while not self._ended:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._service.port)
            is_last = False
            while not is_last and not self._ended:
                event_id = str(uuid4())
                try:
                    # The edge answers at once what is plain, and calls the application for all else.
                    kind = "application/json" if number % 2 else "application/json; charset=utf-8"
                    writer.write(request(self._token, body(event_id=event_id), kind))
                    head, content = await read_answer(reader)
                except (OSError, asyncio.IncompleteReadError) as error:
                    await self._take(number, 0, repr(error), event_id)
                    break
                await self._take(number, status(head), content.decode(), event_id)
                is_last = says_close(head)
            writer.close()


def request(token: str, content: bytes, kind: str = "application/json") -> bytes:
    """Make a request that sends an event, as HTTP/1.1 has it."""
    headers = {"host": "the-eye", "authorization": f"Bearer {token}", "content-type": kind}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /events HTTP/1.1\r\n{lines}content-length: {len(content)}\r\n\r\n".encode() + content


async def read_answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read the head and the body of an answer."""
    async with asyncio.timeout(SECONDS):
        head = await reader.readuntil(b"\r\n\r\n")
        length = _CONTENT_LENGTH.search(head)
        assert length is not None, head
        return head, await reader.readexactly(int(length[1]))


def status(head: bytes) -> int:
    """Read the status of an answer."""
    return int(head.split(maxsplit=2)[1])


def says_close(head: bytes) -> bool:
    """Whether an answer is the last one on its connection."""
    return b"\r\nconnection: close\r\n" in head.lower()


@pytest.fixture
def edge(queue_settings: QueueSettings, connection: Connection) -> Edge:
    """What the APIs have in common: a queue, a store and a token."""
    return Edge(queue_settings, connection)


@contextlib.contextmanager
def stopped_on_demand(edge: Edge, store: StoreSettings, **environ: str) -> Iterator[Callable[[], None]]:
    """Run an API; gives what sends it SIGTERM and waits for its end, which has to be one in order."""
    with contextlib.ExitStack() as process:
        process.enter_context(running(edge, store, **environ))
        yield process.close


async def test_no_request_fails_while_an_api_makes_room_for_another(edge: Edge, store_settings: StoreSettings) -> None:
    other = copy.copy(edge)
    with running(other, store_settings), stopped_on_demand(edge, store_settings) as stop:
        async with Service(edge).listening() as service, Senders(service).sending() as senders:
            await senders.all_send(10)
            service.edge = other
            await senders.all_send(10)  # as preStop waits, until nobody makes a connection to the first one any more
            await asyncio.to_thread(stop)
            await senders.all_send(10)

    assert senders.failures == []
    assert len(senders.accepted) >= 30 * (RAW_SENDERS + CLIENTS)
    assert {str(event.event_id) for event in edge.queued()} == senders.accepted


async def test_a_request_that_was_begun_before_the_end_is_answered(edge: Edge, store_settings: StoreSettings) -> None:
    """Whether its head or its body is what is still on its way."""
    content = body()
    whole = request(edge.created.text, content)
    with stopped_on_demand(edge, store_settings) as stop:
        connections = [await connect(edge) for _ in range(2)]
        parts = (20, len(whole) - len(content) + 10)
        for (_, writer), part in zip(connections, parts, strict=True):
            writer.write(whole[:part])
        assert status((await ask(edge))[0]) == 202

        stopping = asyncio.create_task(asyncio.to_thread(stop))
        async with asyncio.timeout(SECONDS):
            while not says_close((await ask(edge))[0]):
                pass
        for (_, writer), part in zip(connections, parts, strict=True):
            writer.write(whole[part:])
        answers = [await read_answer(reader) for reader, _ in connections]
        for _, writer in connections:
            writer.close()
        await stopping

    assert [(status(head), says_close(head)) for head, _ in answers] == [(202, True)] * 2


async def ask(edge: Edge) -> tuple[bytes, bytes]:
    """Send an event on a connection of its own."""
    reader, writer = await connect(edge)
    try:
        writer.write(request(edge.created.text, body()))
        return await read_answer(reader)
    finally:
        writer.close()


async def test_who_holds_a_connection_and_sends_nothing_does_not_keep_an_api_from_its_end(
    edge: Edge, store_settings: StoreSettings
) -> None:
    with stopped_on_demand(edge, store_settings, THE_EYE_API_DRAIN_SECONDS="0.5") as stop:
        reader, writer = await connect(edge)
        writer.write(request(edge.created.text, body()))
        assert not says_close((await read_answer(reader))[0])

        await asyncio.to_thread(stop)

        assert await reader.read() == b""
        writer.close()
