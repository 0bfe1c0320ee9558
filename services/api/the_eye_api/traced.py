"""Spans of requests, by OpenTelemetry's semantic conventions for HTTP servers."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from litestar.enums import HttpMethod, ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from the_eye.tracing import Carrier, Tracing, fail
from the_eye_api.protocol import Answer, AtOnce, Route

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

PROBES = frozenset({"/healthz", "/readyz"})
"""Kubernetes asks for them all day."""

_PARENT = "the_eye.parent"
"""Key of what was decided about a request, in its scope."""

_TRACEPARENT = b"traceparent"
_CONTEXT = frozenset({_TRACEPARENT, b"tracestate"})
_NOTHING: Carrier = {}
_METHODS = frozenset(method.value for method in HttpMethod)


class Traced:
    """An ASGI application that makes a span of each sampled request to another one."""

    def __init__(self, app: ASGIApp, tracing: Tracing, route_of: Mapping[str, str]) -> None:
        self._app = app
        self._tracing = tracing
        self._route_of = route_of
        """Routes of paths that the framework does not see."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        http = cast("HTTPScope", scope)
        parent = self._parent(http) if scope["type"] == ScopeType.HTTP and scope["path"] not in PROBES else None
        if parent is None:
            await self._app(scope, receive, send)
            return
        span = self._begin(parent, http)

        async def send_noting_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                _note_status(span, message["status"])
            await send(message)

        with self._tracing.active(span):
            try:
                await self._app(scope, receive, send_noting_status)
            finally:
                self._name(span, http)

    def at_once(self, at_once: Mapping[Route, AtOnce]) -> Mapping[Route, AtOnce]:
        """Have spans of those sampled requests, too, that are answered without a call of this application."""
        return {route: partial(self._at_once, accept) for route, accept in at_once.items()}

    def _at_once(self, accept: AtOnce, scope: HTTPScope, body: bytes, answer: Answer) -> bool:
        parent = self._parent(scope)
        if parent is None:
            return accept(scope, body, answer)
        span = self._begin(parent, scope)

        def answer_noting_status(status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
            try:
                answer(status, headers, body)
            finally:
                _note_status(span, status)
                self._name(span, scope)
                span.end()

        with self._tracing.current(span):  # it is never ended, and so never sent, if the application has to be called
            return accept(scope, body, answer_noting_status, traced=True)

    def _begin(self, parent: "Context", scope: HTTPScope) -> "Span":
        """Begin a span. Neither the query, which has values of events in it, nor who asked is told."""
        return self._tracing.request(
            parent,
            _method(scope),
            {
                "http.request.method": _method(scope, "_OTHER"),
                "url.scheme": scope["scheme"],
                "url.path": scope["path"],
                "network.protocol.version": scope["http_version"],
            },
        )

    def _parent(self, scope: HTTPScope) -> "Context | None":
        """Decide once whether a request is sampled, as ``Tracing.sampled``."""
        decided = cast("dict[str, Any]", scope)
        if _PARENT not in decided:
            decided[_PARENT] = self._tracing.sampled(_carrier(scope["headers"]))
        return cast("Context | None", decided[_PARENT])

    def _name(self, span: "Span", scope: HTTPScope) -> None:
        """Name a span after its route, which is known once the request was routed."""
        route = self._route_of.get(scope["path"]) or scope.get("path_template")
        if route:
            span.set_attribute("http.route", route)
            span.update_name(f"{_method(scope)} {route}")


def _note_status(span: "Span", status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        fail(span, str(status))


def _carrier(headers: Iterable[tuple[bytes, bytes]]) -> Carrier:
    for name, _ in headers:
        if name == _TRACEPARENT:
            break
    else:  # as nearly all are: they must not pay for the rest
        return _NOTHING
    carrier: dict[str, str] = {}
    for name, value in headers:
        if name in _CONTEXT:
            key, text = name.decode(), value.decode("latin-1")
            carrier[key] = f"{carrier[key]},{text}" if key in carrier else text
    return carrier


def _method(scope: HTTPScope, other: str = "HTTP") -> str:
    """Tell a method, of which anyone could make up others."""
    method = str(scope["method"])
    return method if method in _METHODS else other
