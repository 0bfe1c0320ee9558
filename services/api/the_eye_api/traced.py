"""Spans of requests, by OpenTelemetry's semantic conventions for HTTP servers."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from litestar.enums import HttpMethod, ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from the_eye.spans import Attributes, Span
from the_eye.tracing import Carrier, Tracing

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

PROBES = frozenset({"/healthz", "/readyz"})
"""Kubernetes asks for them all day."""

MAX_PATH = 1_024
"""Characters of a path that a span has at most: many spans may wait, and anyone can send a long one."""

_PARENT = "the_eye.parent"
"""Key of what was decided about a request, in its scope."""

_TRACEPARENT = b"traceparent"
_CONTEXT = frozenset({_TRACEPARENT, b"tracestate"})
_METHODS = frozenset(method.value for method in HttpMethod)


class RequestSpans:
    """Decides which requests are sampled, and makes their spans."""

    def __init__(self, tracing: Tracing) -> None:
        self.tracing = tracing

    def parent(self, scope: HTTPScope) -> "SpanContext | None":
        """Decide once whether a request is sampled, as ``Tracing.sampled``."""
        decided = cast("dict[str, Any]", scope)
        if _PARENT not in decided:
            decided[_PARENT] = self.tracing.sampled(_carrier(scope["headers"]))
        return cast("SpanContext | None", decided[_PARENT])

    def parent_by_chance(self, scope: HTTPScope) -> "SpanContext | None":
        """Decide the same about a request that is known to have no context: nearly all, which must not pay for more."""
        parent = self.tracing.by_chance()
        scope[_PARENT] = parent  # type: ignore[literal-required]
        return parent

    def begin(self, parent: "SpanContext", scope: HTTPScope, route: str | None = None) -> Span:
        """Begin a span, whose route may be known. Neither the query, which has values of events, nor who asked is told.

        Of a method that anyone could make up it is only said that it is another.
        """
        method = str(scope["method"])
        known = method in _METHODS
        attributes: Attributes = {
            "http.request.method": method if known else "_OTHER",
            "url.scheme": scope["scheme"],
            "url.path": scope["path"][:MAX_PATH],
            "network.protocol.version": scope["http_version"],
        }
        span = self.tracing.request(parent, method if known else "HTTP", attributes)
        if route is not None:
            self.note_route(span, route)
        return span

    def note_route(self, span: Span, route: str) -> None:
        """Add its route to a span, whose name is its method until then; to be called once."""
        span.attributes["http.route"] = route
        span.name = f"{span.name} {route}"


class Traced:
    """An ASGI application that makes a span of each sampled request to another one."""

    def __init__(self, app: ASGIApp, spans: RequestSpans, route_of: Mapping[str, str]) -> None:
        self._app = app
        self._spans = spans
        self._route_of = route_of
        """Routes of paths that the framework does not see."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        http = cast("HTTPScope", scope)
        traceable = scope["type"] == ScopeType.HTTP and scope["path"] not in PROBES
        parent = self._spans.parent(http) if traceable else None
        if parent is None:
            await self._app(scope, receive, send)
            return
        span = self._spans.begin(parent, http)

        async def send_noting_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.note_status(message["status"])
            await send(message)

        with self._spans.tracing.active(span):
            try:
                await self._app(scope, receive, send_noting_status)
            finally:  # the route is known once the request was routed
                route = self._route_of.get(scope["path"]) or scope.get("path_template")
                if route:
                    self._spans.note_route(span, route)


def _carrier(headers: Iterable[tuple[bytes, bytes]]) -> Carrier:
    carrier: dict[str, str] = {}
    for name, value in headers:
        if name in _CONTEXT:
            key, text = name.decode(), value.decode("latin-1")
            carrier[key] = f"{carrier[key]},{text}" if key in carrier else text
    return carrier
