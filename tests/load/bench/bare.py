"""The limit of the HTTP server: an ASGI application that reads a POST and answers 202, and does nothing else.

Run as ``python -m tests.load.bench.bare HOST:PORT`` with the uvicorn settings of ``the-eye api``.
"""

import sys
from typing import Any

import uvicorn
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

from the_eye.settings import Address
from the_eye_api.command import BACKLOG, listen

ANSWER = b'{"event_id":"01a20a59-1483-7021-bfb5-5f5d42397912"}'
_START: Any = {
    "type": "http.response.start",
    "status": 202,
    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())],
}
_BODY: Any = {"type": "http.response.body", "body": ANSWER, "more_body": False}


async def accept(_: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Read the body and answer as the edge does."""
    message: Any = await receive()
    while message.get("more_body", False):
        message = await receive()
    await send(_START)
    await send(_BODY)


def config() -> uvicorn.Config:
    """Configure uvicorn as ``the-eye api`` does, with its own HTTP protocol; a test holds them together."""
    return uvicorn.Config(
        accept,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
    )


if __name__ == "__main__":
    uvicorn.Server(config()).run(sockets=[listen(Address.parse(sys.argv[1]))])
