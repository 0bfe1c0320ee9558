"""Counts the requests that do not send events: queries, pages and probes."""

import time

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from the_eye.telemetry import telemetry
from the_eye_api import metrics

UNKNOWN_ROUTE = "unknown"
"""Stands for all paths that lead nowhere: they are as many as senders make up."""


class Counted:
    """An ASGI application that counts the answers of Litestar's, by the templates of its routes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count its answer once it begins: an export or a stream may take for ever to end."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()

        async def count(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = scope.get("path_template") or UNKNOWN_ROUTE
                metrics.OTHER_REQUESTS.labels(route, message["status"]).inc()
                seconds = time.perf_counter() - start
                metrics.OTHER_REQUEST_SECONDS.labels(route).observe(seconds, telemetry.exemplar())
            await send(message)

        await self._app(scope, receive, count)
