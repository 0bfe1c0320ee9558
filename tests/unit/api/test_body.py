"""How a body is read, bounded and decompressed."""

import asyncio
import gzip
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from the_eye_api.body import ClientDisconnectedError, read_body
from the_eye_api.problems import ProblemError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LIMIT = 1000


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data)


def _zstd(data: bytes) -> bytes:
    return zstd.compress(data)


BOTH = pytest.mark.parametrize(("name", "compress"), [(b"gzip", _gzip), (b"zstd", _zstd)])


async def read(*chunks: bytes, headers: Mapping[bytes, bytes] | None = None, limit: int = LIMIT) -> bytes:
    """Read a body that arrives in these chunks."""
    return await counting([], *chunks, headers=headers, limit=limit)


async def counting(
    counted: list[float], *chunks: bytes, headers: Mapping[bytes, bytes] | None = None, limit: int = LIMIT
) -> bytes:
    """Do the same, and note the bytes that are counted."""
    receive = _messages(chunks).__anext__
    return await read_body(headers or {}, receive, limit=limit, count=counted.append)  # type: ignore[arg-type] # ASGI


async def _messages(chunks: tuple[bytes, ...]) -> AsyncIterator[dict[str, Any]]:
    for index, chunk in enumerate(chunks):
        yield {"type": "http.request", "body": chunk, "more_body": index < len(chunks) - 1}


async def status_of(*chunks: bytes, headers: Mapping[bytes, bytes] | None = None) -> tuple[int, str]:
    """Read a body that must be refused."""
    with pytest.raises(ProblemError) as caught:
        await read(*chunks, headers=headers)
    problem = caught.value.problem
    return problem.status, (problem.errors[0].code if problem.errors else problem.code)


async def test_chunks_are_put_together() -> None:
    """In one piece or in many."""
    assert await read(b"abc") == b"abc"
    assert await read(b"a", b"", b"bc") == b"abc"


async def test_the_limit_is_inclusive() -> None:
    """A body of exactly the limit passes, a byte more does not, however it arrives."""
    assert len(await read(b"x" * LIMIT)) == LIMIT
    assert await status_of(b"x" * (LIMIT + 1)) == (413, "too_large")
    assert await status_of(b"x" * LIMIT, b"x") == (413, "too_large")


async def test_a_declared_length_beyond_the_limit_is_refused_unread() -> None:
    """Nothing is received for it."""
    assert await status_of(headers={b"content-length": b"1001"}) == (413, "too_large")


@pytest.mark.parametrize("name", [b"gzip", b"GZIP", b"x-gzip"])
async def test_gzip_is_decompressed(name: bytes) -> None:
    """Members that follow one another are one body (RFC 1952)."""
    body = gzip.compress(b"abc") + gzip.compress(b"def")

    assert await read(body, headers={b"content-encoding": name}) == b"abcdef"


async def test_zstd_is_decompressed() -> None:
    """Frames that follow one another are one body (RFC 8878)."""
    body = _zstd(b"abc") + _zstd(b"def")

    assert await read(body, headers={b"content-encoding": b"zstd"}) == b"abcdef"


@BOTH
async def test_the_limit_holds_for_what_is_decompressed(name: bytes, compress: Callable[[bytes], bytes]) -> None:
    """A small body that unpacks to 64 MiB is refused after a little more than the limit."""
    bomb = compress(b"\0" * 64 * 1024 * 1024)[:LIMIT]

    assert await status_of(bomb, headers={b"content-encoding": name}) == (413, "too_large")
    assert len(await read(compress(b"\0" * LIMIT), headers={b"content-encoding": name})) == LIMIT


@BOTH
async def test_a_broken_stream_is_malformed(name: bytes, compress: Callable[[bytes], bytes]) -> None:
    """Cut short, followed by something else, or never what it was said to be."""
    headers = {b"content-encoding": name}

    for body in (compress(b"abc" * 50)[:-3], compress(b"abc") + b"tail", b"abc", b""):
        assert await status_of(body, headers=headers) == (400, "malformed_encoding")


async def test_other_encodings_are_named_as_unsupported() -> None:
    """The answer says which are."""
    with pytest.raises(ProblemError) as caught:
        await read(b"abc", headers={b"content-encoding": b"br"})

    assert caught.value.problem.status == 415
    assert caught.value.headers == {"Accept-Encoding": "gzip, zstd"}


async def test_a_sender_that_hangs_up_is_noticed() -> None:
    """There is nobody to answer."""

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnectedError):
        await read_body({}, receive, limit=LIMIT, count=[].append)  # type: ignore[arg-type] # ASGI


async def test_what_is_counted_is_what_came() -> None:
    """Before decompression, and only of a body that is complete."""
    counted: list[float] = []
    compressed = _gzip(b"x" * LIMIT)

    await counting(counted, b"ab", b"cde")
    await counting(counted, compressed, headers={b"content-encoding": b"gzip"})
    with pytest.raises(ProblemError):
        await counting(counted, b"x" * LIMIT, b"x")

    assert counted == [5, len(compressed)]
