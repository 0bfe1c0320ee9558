"""A small HTTP proxy that drains: it takes a backend out of use without a request failing, as an ingress does."""

import asyncio
import itertools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.machine import free_addresses
from tests.servers import wait_until

DRAIN_SECONDS = 30.0

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n"


class Proxy:
    """Hands each request to the next backend that is in use."""

    def __init__(self, backends: list[str]) -> None:
        """Backends are given as host:port."""
        (self._listen,) = free_addresses(1)
        self.url = f"http://{self._listen}"
        self._in_use = list(backends)
        self._in_flight = dict.fromkeys(backends, 0)
        self._turns = itertools.count()

    @contextmanager
    def running(self) -> Iterator["Proxy"]:
        """Serve during the block, from a thread of its own."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="proxy", daemon=True)
        thread.start()
        server = asyncio.run_coroutine_threadsafe(self._open(), loop).result(10)
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(_close(server), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()

    def drain(self, backend: str) -> None:
        """Send a backend no more requests, and return when it has answered all that it had."""
        self._in_use.remove(backend)
        wait_until(lambda: self._in_flight[backend] == 0, DRAIN_SECONDS, lambda: f"{backend} does not answer")

    def use(self, backend: str) -> None:
        """Send a backend requests again."""
        self._in_use.append(backend)

    async def _open(self) -> asyncio.Server:
        host, _, port = self._listen.rpartition(":")
        return await asyncio.start_server(self._serve, host, int(port))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                request = await _read_message(reader)
                writer.write(await self._forward(request))
                await writer.drain()
        writer.close()

    async def _forward(self, request: bytes) -> bytes:
        backend = self._in_use[next(self._turns) % len(self._in_use)]
        self._in_flight[backend] += 1
        try:
            return await _ask(backend, request)
        except (OSError, asyncio.IncompleteReadError):
            return _BAD_GATEWAY
        finally:
            self._in_flight[backend] -= 1


async def _ask(backend: str, request: bytes) -> bytes:
    host, _, port = backend.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        return await _read_message(reader)
    finally:
        writer.close()


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    """Read a request or an answer; all that are met here tell their length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = _CONTENT_LENGTH.search(head)
    return head + await reader.readexactly(int(length[1]) if length else 0)


async def _close(server: asyncio.Server) -> None:
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
