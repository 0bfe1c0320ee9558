"""The server, which lets those who hold connections leave before it closes them."""

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

import uvicorn

if TYPE_CHECKING:
    from the_eye_api.protocol import BoundedProtocol

LOOK_SECONDS: Final = 0.1


class DrainingServer(uvicorn.Server):
    """Stops so that no request meets a connection that is just being closed.

    uvicorn closes idle connections at once, and what a sender writes to one of them at that moment has no answer. Here
    every answer says ``Connection: close`` first, for as long as connections are left or a time is over. New ones are
    still accepted: who was not told yet that others take over is served, too.
    """

    def __init__(self, config: uvicorn.Config, drain_seconds: float, end_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_streams = end_streams
        self._drain_seconds = drain_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let connections go, and stop."""
        await self._drain()
        await super().shutdown(sockets)

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        self._end_streams()
        deadline = loop.time() + self._drain_seconds
        protocol = cast("type[BoundedProtocol]", self.config.http_protocol_class)
        protocol.end_connections(self.server_state)
        # Nobody tells when a connection has gone.
        while self.server_state.connections and not self.force_exit and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS)
