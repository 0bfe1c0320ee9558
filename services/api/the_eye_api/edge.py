"""The express lane for events: requests that send them never enter the framework.

Litestar's ordinary handler costs more than everything else that accepting an event takes. It serves every other
route; this module's ASGI application stands before it and passes on what is not its own.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cache, partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import msgspec
import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send
from prometheus_client import Counter

from the_eye.batch_histogram import Series
from the_eye.event import MAX_EVENT_BYTES, Fault
from the_eye.queue import QueueUnavailableError
from the_eye.telemetry import telemetry
from the_eye.tokens import Caller
from the_eye.tokens import Scope as TokenScope
from the_eye_api import cloudevents, metrics
from the_eye_api.auth import TokenSnapshot
from the_eye_api.body import ClientDisconnectedError, read_body
from the_eye_api.ingest import MAX_BATCH_BYTES, Accepted, Ingest, Split, queue_unavailable, split_array, split_lines
from the_eye_api.limits import RateLimitedError
from the_eye_api.problems import PROBLEM_MEDIA_TYPE, ProblemError, malformed, problem
from the_eye_api.protocol import Answer
from the_eye_api.trace_ids import read_trace_id

if TYPE_CHECKING:
    from the_eye.spans import Span
    from the_eye_api.traced import RequestSpans

NDJSON_TYPES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})
JSON_TYPES = frozenset({"application/json"})

SINGLE, BATCH = "/events", "/events/batch"

Headers = Mapping[bytes, bytes]
RawHeaders = Sequence[tuple[bytes, bytes]]
Accept = Callable[[Caller, Headers, Receive], Awaitable[msgspec.Struct]]

log = structlog.get_logger(__name__)


class Route(msgspec.Struct, frozen=True):
    """A path to which events are sent."""

    path: str
    accept: Accept
    passed_on: tuple[str, ...] = ()
    """Methods of the same path that are not about sending."""


class Edge:
    """An ASGI application that accepts events and hands every other request to ``rest``."""

    def __init__(
        self, rest: ASGIApp, tokens: TokenSnapshot, ingest: Ingest, spans: "RequestSpans | None" = None
    ) -> None:
        """``spans`` has those of the requests that are accepted at once; without it there are none."""
        self._rest = rest
        self._spans = spans
        self._tokens = tokens
        self._ingest = ingest
        self._in_flight = 0
        self._answered: list[float] = []
        """Seconds that good answers took which are not counted yet."""
        self._exemplars: list[tuple[float, Span]] = []
        """Those of them whose requests are sampled."""
        self._received = 0
        """Bytes of the bodies of requests that were accepted at once and are not counted yet."""
        metrics.IN_FLIGHT.set_function(lambda: self._in_flight)
        one = Route(SINGLE, self._accept_one, passed_on=("GET", "HEAD"))
        batch = Route(BATCH, self._accept_batch)
        self._routes = {path: route for route in (one, batch) for path in (route.path, f"{route.path}/")}
        for path in (SINGLE, BATCH):
            _begin_at_zero(path)

    @property
    def route_of(self) -> Mapping[str, str]:
        """The routes of the paths that it answers itself, at least for some methods."""
        return {path: route.path for path, route in self._routes.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        if scope["type"] != ScopeType.HTTP:
            await self._rest(scope, receive, send)
            return
        method, route = str(scope["method"]), self._routes.get(scope["path"])
        if route is not None and method == "POST":
            self._in_flight += 1
            try:
                await self._respond(route, cast("RawHeaders", scope["headers"]), receive, send)
            finally:
                self._in_flight -= 1
        elif route is not None and method not in route.passed_on:
            await _refuse_method(send, route, method)
        elif method == "HEAD":  # the server leaves the body away
            await self._rest(cast("Scope", {**scope, "method": "GET"}), receive, send)
        else:
            await self._rest(scope, receive, send)

    def accept_at_once(self, scope: HTTPScope, body: bytes, answer: Answer) -> bool:
        """Accept a request to ``POST /events`` without a task of its own, and answer once its event is on disk.

        That is for what nearly all requests are: a good event in plain JSON of a sender who is known already. For any
        other it gives False with nothing done, and the application is to be called.
        """
        start = time.perf_counter()
        try:
            headers = _headers(cast("RawHeaders", scope["headers"]))
            if headers.get(b"content-type", _JSON) != _JSON or b"content-encoding" in headers:
                return False
            if cloudevents.BINARY_MARK in headers:
                return False
            caller = self._tokens.recall(headers.get(b"authorization", b"").decode("latin-1"), TokenScope.INGEST)
            if caller is None:
                return False
            self._ingest.let_in(caller)
            trace_id, span = _given_trace_id(headers), self._begun_span(scope, headers)
            creation = None
            if span is not None:
                trace_id = trace_id or UUID(int=span.context.trace_id)
                creation = span.creation(1)
                answer = _ending(span, answer)
            settle = partial(self._settle, answer, start, span)
            accepted = self._ingest.accept_one_at_once(caller, body, trace_id, settle, creation)
        except Exception:  # noqa: BLE001 - whatever it is, the application meets it, too, and has an answer to it
            return False
        if accepted:
            self._in_flight += 1
            self._received += len(body)
        return accepted

    def _begun_span(self, scope: HTTPScope, headers: Headers) -> "Span | None":
        """Begin the span of a sampled request; it is never ended, and so never sent, if the application is called."""
        if self._spans is None:
            return None
        decide = self._spans.parent if _TRACEPARENT in headers else self._spans.parent_by_chance
        parent = decide(scope)
        if parent is None:
            return None
        return self._spans.begin(parent, scope, SINGLE)

    def _settle(
        self, answer: Answer, start: float, span: "Span | None", event_id: UUID, error: Exception | None
    ) -> None:
        self._in_flight -= 1
        if error is not None:
            self._fail(answer, start, span, event_id, error)
            return
        answer(_ACCEPTED, _JSON_HEADERS, msgspec.json.encode(Accepted(event_id)))
        if not self._answered:  # those of one group are answered in one go, and counted together after it
            asyncio.get_running_loop().call_soon(self._count_answered)
        seconds = time.perf_counter() - start
        self._answered.append(seconds)
        if span is not None:
            self._exemplars.append((seconds, span))

    def _fail(self, answer: Answer, start: float, span: "Span | None", event_id: UUID, error: Exception) -> None:
        if not isinstance(error, QueueUnavailableError):
            log.error("request_failed", route=SINGLE, exc_info=error)
        failure = queue_unavailable(event_id) if isinstance(error, QueueUnavailableError) else internal_error()
        status = failure.problem.status
        answer(status, *_problem_answer(failure))
        self._count_answered()
        exemplar = None if span is None else span.ids
        _count(SINGLE, status, failure.problem.code, time.perf_counter() - start, exemplar)

    def _count_answered(self) -> None:
        """Count those that were accepted at once: one by one that costs a tenth of what accepting them costs."""
        requests, durations = _counters(SINGLE, _ACCEPTED)
        requests.inc(len(self._answered))
        durations.observe_all(self._answered)
        self._answered.clear()
        for seconds, span in self._exemplars:
            durations.exemplify(seconds, span.ids)
        self._exemplars.clear()
        _count_single(self._received)
        self._received = 0

    async def _respond(self, route: Route, raw_headers: RawHeaders, receive: Receive, send: Send) -> None:
        start, held, code = time.perf_counter(), 0.0, None
        try:
            headers = _headers(raw_headers)
            caller = self._tokens.authorize(headers.get(b"authorization", b"").decode("latin-1"), TokenScope.INGEST)
            self._ingest.let_in(caller)
            answer = await route.accept(caller, headers, receive)
            status = _ACCEPTED
            await _send(send, status, msgspec.json.encode(answer), _JSON_HEADERS)
        except ProblemError as error:
            status, code = error.problem.status, error.problem.code
            if isinstance(error, RateLimitedError):
                await self._hold(held := error.hold_seconds)
            await send_problem(send, error)
        except ClientDisconnectedError:
            status = 499  # as nginx calls it: nobody is there to read a status
        except Exception:
            log.exception("request_failed", route=route.path)
            failure = internal_error()
            status, code = failure.problem.status, failure.problem.code
            await send_problem(send, failure)
        _count(route.path, status, code, time.perf_counter() - start - held, telemetry.exemplar())

    async def _hold(self, seconds: float) -> None:
        """Wait, without being counted as work to do."""
        self._in_flight -= 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self._in_flight += 1

    async def _accept_one(self, caller: Caller, headers: Headers, receive: Receive) -> msgspec.Struct:
        media_type = _media_type(headers, JSON_TYPES | cloudevents.STRUCTURED_TYPES)
        body = await read_body(headers, receive, limit=MAX_EVENT_BYTES, count=_count_single)
        trace_id = None
        if media_type in cloudevents.STRUCTURED_TYPES:
            body, trace_id = cloudevents.from_structured(body)
        elif cloudevents.BINARY_MARK in headers:
            body, trace_id = cloudevents.from_binary(headers, body)
        return await self._ingest.accept_one(caller, body, trace_id or _trace_id(headers))

    async def _accept_batch(self, caller: Caller, headers: Headers, receive: Receive) -> msgspec.Struct:
        split = _SPLITS[_media_type(headers, _SPLITS.keys())]
        body = await read_body(headers, receive, limit=MAX_BATCH_BYTES, count=_count_batch)
        return await self._ingest.accept_batch(caller, body, split, _trace_id(headers))


_SPLITS: Mapping[str, Split] = (
    dict.fromkeys(JSON_TYPES, split_array)
    | dict.fromkeys(NDJSON_TYPES, split_lines)
    | dict.fromkeys(cloudevents.BATCH_TYPES, cloudevents.split_cloudevents)
)

_count_single = metrics.REQUEST_BYTES.labels(SINGLE).inc
_count_batch = metrics.REQUEST_BYTES.labels(BATCH).inc


def _ending(span: "Span", answer: Answer) -> Answer:
    """End a span with the answer to its request."""

    def answer_and_end(status: int, headers: RawHeaders, body: bytes) -> None:
        span.note_status(status)
        try:
            answer(status, headers, body)
        finally:
            span.end()

    return answer_and_end


def _count(path: str, status: int, code: str | None, seconds: float, exemplar: dict[str, str] | None = None) -> None:
    requests, durations = _counters(path, status)
    requests.inc()
    durations.observe_all((seconds,), exemplar)
    if code is not None:
        metrics.REFUSALS.labels(path, code).inc()


def _begin_at_zero(path: str) -> None:
    """Make what counts the answers that alerts and dashboards wait for: a rate does not see a series' first value."""
    for status in (HTTPStatus.ACCEPTED, HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE):
        _counters(path, status.value)
    for code in ("crowded", "internal_error", "queue_full", "queue_unavailable", "rate_limited", "tokens_not_loaded"):
        metrics.REFUSALS.labels(path, code)


@cache
def _counters(path: str, status: int) -> tuple[Counter, Series]:
    """Find what counts an answer once: looking it up by labels costs more than counting."""
    return metrics.REQUESTS.labels(path, status), metrics.REQUEST_SECONDS.labels(path)


async def _refuse_method(send: Send, route: Route, method: str) -> None:
    allow = {"Allow": ", ".join(sorted({*route.passed_on, "POST", "OPTIONS"}))}
    if method == "OPTIONS":
        await _send(send, HTTPStatus.NO_CONTENT.value, b"", [(b"allow", allow["Allow"].encode())])
    else:
        await send_problem(send, problem(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", headers=allow))


def _headers(raw: RawHeaders) -> Headers:
    """Make the headers a mapping. Raises ProblemError: 400 where it would not be clear which of several counts."""
    headers = dict(raw)
    if len(headers) < len(raw):  # the same name twice
        names = [name for name, _ in raw]
        for name in (b"authorization", b"content-type", b"content-encoding"):
            if names.count(name) > 1:
                raise malformed((Fault("$", "repeated_header", f"{name.decode()} is given more than once"),))
        if names.count(_TRACEPARENT) > 1:
            del headers[_TRACEPARENT]
    return headers


def _given_trace_id(headers: Headers) -> UUID | None:
    if _TRACEPARENT not in headers:
        return None
    return read_trace_id(headers[_TRACEPARENT].decode("latin-1"))


def _trace_id(headers: Headers) -> UUID | None:
    """Tell the trace of a request: its sender's, or the one that began with it here."""
    begun = telemetry.ids().get("trace_id")
    return _given_trace_id(headers) or (UUID(begun) if begun else None)


def _media_type(headers: Headers, supported: AbstractSet[str]) -> str:
    """Tell the body's media type; without a header it is JSON. Raises ProblemError: 415."""
    stated = headers.get(b"content-type", b"application/json").decode("latin-1")
    media_type = stated.partition(";")[0].strip().lower()
    if media_type not in supported:
        accepted = ", ".join(sorted(supported))
        detail = f"Content-Type is one of: {accepted}."
        raise problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail, headers={"Accept": accepted})
    return media_type


def internal_error() -> ProblemError:
    """Say that the fault is ours; what it is stands in the log alone."""
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "The fault is ours and was logged.")


_ACCEPTED = HTTPStatus.ACCEPTED.value
_TRACEPARENT = b"traceparent"
_JSON = b"application/json"
_JSON_HEADERS = [(b"content-type", _JSON)]


async def send_problem(send: Send, error: ProblemError) -> None:
    """Answer with problem details."""
    headers, body = _problem_answer(error)
    await _send(send, error.problem.status, body, headers)


def _problem_answer(error: ProblemError) -> tuple[list[tuple[bytes, bytes]], bytes]:
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in error.headers.items()]
    headers.append((b"content-type", PROBLEM_MEDIA_TYPE.encode()))
    return headers, msgspec.json.encode(error.problem)


async def _send(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    start: Any = {"type": "http.response.start", "status": status, "headers": [*headers, _content_length(body)]}
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _content_length(body: bytes) -> tuple[bytes, bytes]:
    return (b"content-length", str(len(body)).encode())
