"""The body of a request: read, bounded and decompressed."""

import zlib
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Protocol

from litestar.types import Receive

from the_eye.compression import zstd
from the_eye.event import Fault
from the_eye_api.problems import ProblemError, malformed, problem

ENCODINGS = "gzip, zstd"
_GZIP_FORMAT = zlib.MAX_WBITS | 16
_ZSTD_WINDOW_LOG = 23
"""8 MiB, what every decoder must support (RFC 8878, 3.1.1.1.2); a larger window is a way to exhaust memory."""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _gunzip() -> _Decompressor:
    return zlib.decompressobj(_GZIP_FORMAT)


def _unzstd() -> _Decompressor:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})


_DECOMPRESSORS = {b"gzip": _gunzip, b"x-gzip": _gunzip, b"zstd": _unzstd}


class ClientDisconnectedError(Exception):
    """Raised when a sender goes away before its body is complete: there is nobody to answer."""


async def read_body(
    headers: Mapping[bytes, bytes], receive: Receive, *, limit: int, count: Callable[[float], None]
) -> bytes:
    """Read a body of at most ``limit`` bytes, also after decompression; the server's protocol bounds the time.

    ``count`` is told the bytes of a body that came whole, before decompression.

    Raises ProblemError: 400, 413 or 415; ClientDisconnectedError.
    """
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding != b"identity" and encoding not in _DECOMPRESSORS:
        raise _unknown_encoding()
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit:
        raise too_large(limit)
    raw = await _receive(receive, limit)
    count(len(raw))
    return raw if encoding == b"identity" else _decompress(raw, limit, encoding)


async def _receive(receive: Receive, limit: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnectedError
        if len(body) + len(message["body"]) > limit:
            raise too_large(limit)
        if not message["more_body"]:
            return bytes(body + message["body"]) if body else message["body"]
        body += message["body"]


def _decompress(raw: bytes, limit: int, encoding: bytes) -> bytes:
    """Decompress a stream of one or several members; no more than ``limit`` bytes are ever made of it."""
    body = bytearray()
    try:
        while raw or not body:
            member = _DECOMPRESSORS[encoding]()
            body += member.decompress(raw, limit + 1 - len(body))
            if len(body) > limit:
                raise too_large(limit)
            if not member.eof:
                raise _malformed_encoding(encoding)
            raw = member.unused_data
    except (zlib.error, zstd.ZstdError) as error:
        raise _malformed_encoding(encoding) from error
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


def _malformed_encoding(encoding: bytes) -> ProblemError:
    return malformed((Fault("$", "malformed_encoding", f"the body is no complete {encoding.decode()} stream"),))
