"""The body of a request: read, bounded and decompressed."""

import asyncio
import zlib
from collections.abc import Mapping
from http import HTTPStatus

import zstandard
from litestar.types import Receive

from the_eye.event import Fault
from the_eye_api.problems import ProblemError, malformed, problem

ENCODINGS = "gzip, zstd"
_GZIP_FORMAT = zlib.MAX_WBITS | 16
_ZSTD_WINDOW_BYTES = 8 * 1024 * 1024
"""What every zstd decoder must support (RFC 8878, 3.1.1.1.2); a larger window is a way to exhaust memory."""


class ClientDisconnectedError(Exception):
    """Raised when a sender goes away before its body is complete: there is nobody to answer."""


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, *, limit: int, seconds: float) -> bytes:
    """Read a body of at most ``limit`` bytes, also after decompression, within ``seconds``.

    Raises ProblemError: 400, 408, 413 or 415; ClientDisconnectedError.
    """
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding not in {b"identity", b"gzip", b"x-gzip", b"zstd"}:
        raise _unknown_encoding()
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit:
        raise too_large(limit)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        raw = message["body"]
        if len(raw) > limit:
            raise too_large(limit)
    else:
        raw = await _read_rest(message, receive, limit, seconds)
    if encoding == b"identity":
        return raw
    return _unzstd(raw, limit) if encoding == b"zstd" else _gunzip(raw, limit)


async def _read_rest(message: Mapping[str, object], receive: Receive, limit: int, seconds: float) -> bytes:
    chunks = bytearray()
    try:
        async with asyncio.timeout(seconds):
            while True:
                if message["type"] == "http.disconnect":
                    raise ClientDisconnectedError
                chunks += message.get("body", b"")  # type: ignore[arg-type] # bytes, by the ASGI specification
                if len(chunks) > limit:
                    raise too_large(limit)
                if not message.get("more_body", False):
                    return bytes(chunks)
                message = await receive()
    except TimeoutError as error:
        detail = f"The body did not arrive within {seconds:g} seconds."
        raise problem(HTTPStatus.REQUEST_TIMEOUT, "body_timeout", detail) from error


def _gunzip(raw: bytes, limit: int) -> bytes:
    """Decompress all members of a gzip stream (RFC 1952 allows several)."""
    body = bytearray()
    try:
        while raw:
            member = zlib.decompressobj(_GZIP_FORMAT)
            body += member.decompress(raw, limit + 1 - len(body))
            if len(body) > limit:
                raise too_large(limit)
            if not member.eof:
                raise _malformed_encoding("gzip")
            raw = member.unused_data
    except zlib.error as error:
        raise _malformed_encoding("gzip") from error
    return bytes(body)


def _unzstd(raw: bytes, limit: int) -> bytes:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    try:
        with decompressor.stream_reader(raw, read_across_frames=True) as reader:
            body = _read_up_to(reader, limit + 1)
    except zstandard.ZstdError as error:
        raise _malformed_encoding("zstd") from error
    if len(body) > limit:
        raise too_large(limit)
    return body


def _read_up_to(reader: zstandard.ZstdDecompressionReader, size: int) -> bytes:
    body = bytearray()
    while len(body) < size and (chunk := reader.read(size - len(body))):
        body += chunk
    return bytes(body)


def too_large(limit: int) -> ProblemError:
    """Say what the limit is."""
    detail = f"The body has at most {limit} bytes, also when decompressed."
    return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", detail)


def _unknown_encoding() -> ProblemError:
    detail = f"Content-Encoding is one of: {ENCODINGS}."
    return problem(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", detail, headers={"Accept-Encoding": ENCODINGS}
    )


def _malformed_encoding(name: str) -> ProblemError:
    return malformed((Fault("$", "malformed_encoding", f"the body is no complete {name} stream"),))
