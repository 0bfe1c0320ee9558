"""Questions to servers: each answers why not, and an empty text means that all is well."""

import asyncio

import psycopg
import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from the_eye.settings import Address

PROBE_SECONDS = 5.0
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here


def reachable(listen: Address) -> Address:
    """Where a server that listens on all interfaces is reached from this machine."""
    return Address(WILDCARDS.get(listen.host, listen.host), listen.port)


async def why_no_database(url: str) -> str:
    """Say why PostgreSQL does not answer."""
    try:
        async with await psycopg.AsyncConnection.connect(url, connect_timeout=int(PROBE_SECONDS)):
            return ""
    except psycopg.Error as error:
        return _first_line(error)


async def why_no_queue(url: str) -> str:
    """Say why Redis or Valkey does not answer."""
    try:
        async with redis.asyncio.Redis.from_url(
            url, retry=Retry(NoBackoff(), 0), socket_timeout=PROBE_SECONDS, socket_connect_timeout=PROBE_SECONDS
        ) as server:
            await server.ping()
            return ""
    except (redis.exceptions.RedisError, OSError) as error:
        return _first_line(error)


async def why_not_ok(listen: Address, path: str) -> str:
    """Say why ``GET path`` is not answered with 200."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            status = await _get(reachable(listen), path)
    except (OSError, TimeoutError) as error:
        return f"GET {path}: {_first_line(error) or 'no answer'}"
    return "" if status == "200" else f"GET {path}: {status or 'no answer'}"


async def _get(address: Address, path: str) -> str:
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
        line = await reader.readline()
    finally:
        writer.close()
    return "".join(line.decode(errors="replace").split()[1:2])


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
