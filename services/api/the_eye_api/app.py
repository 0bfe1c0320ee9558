"""The application of the edge, put together."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import structlog
from litestar import Litestar, MediaType, Request, Response, get
from litestar.di import NamedDependency, Provide
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin
from litestar.openapi.spec import Components, License, SecurityScheme
from litestar.static_files import create_static_files_router

from the_eye.queue import QueueWriter
from the_eye.settings import ApiSettings, QueueSettings, RuleSettings, StoreSettings
from the_eye.store.applications import live_tokens, note_uses
from the_eye.store.connect import AsyncPool, make_async_pool
from the_eye.telemetry import telemetry
from the_eye.tokens import Caller, Scope
from the_eye_api import metrics, swagger
from the_eye_api.auth import Tokens, TokenSnapshot
from the_eye_api.backlog import BacklogBound
from the_eye_api.counted import Counted
from the_eye_api.edge import SINGLE, Edge, internal_error
from the_eye_api.group_commit import GroupCommit
from the_eye_api.ingest import Ingest
from the_eye_api.ingest_docs import document_ingest
from the_eye_api.limits import RateLimiter, default_limit
from the_eye_api.pages.router import pages_router
from the_eye_api.pages.site import Site
from the_eye_api.problems import PROBLEM_MEDIA_TYPE, Problem, ProblemError, problem
from the_eye_api.queries import query_handlers
from the_eye_api.readiness import Readiness
from the_eye_api.token_copy import TokenCopyKeeper
from the_eye_api.turns import Turns

if TYPE_CHECKING:
    from litestar.types import ASGIApp

    from the_eye_api.protocol import AtOnce, Route

log = structlog.get_logger(__name__)


DRAIN_SECONDS = 5.0


class Api:
    """What the edge is made of; lives as long as its process."""

    def __init__(self, settings: ApiSettings, queue: QueueSettings, store: StoreSettings, rules: RuleSettings) -> None:
        self.queue = QueueWriter(queue)
        self.pool: AsyncPool = make_async_pool(store, "the-eye api", settings.database_pool_size)
        self._site = Site(settings, store, queue, rules, self.pool)
        self._token_copy = TokenCopyKeeper(
            queue,
            self._read_tokens,
            max_age_seconds=settings.token_copy_max_age_seconds,
            look_seconds=settings.token_refresh_seconds,
        )
        metrics.TOKEN_COPY_AGE_SECONDS.set_function(lambda: self._token_copy.age_seconds)
        self.tokens = TokenSnapshot(self._read_tokens, self._token_copy.load, settings.token_refresh_seconds)
        self.readiness = Readiness(self.tokens, self.queue, self.pool)
        self.group_commit = GroupCommit(
            self.queue.put,
            max_events=settings.group_max_events,
            max_bytes=settings.group_max_bytes,
            pending_max_bytes=settings.pending_max_bytes,
        )
        self.backlog = BacklogBound(
            self.queue.backlog,
            max_bytes=settings.backlog_max_bytes,
            max_age_seconds=settings.backlog_max_age_seconds,
        )
        ingest = Ingest(
            self.group_commit,
            RateLimiter(default_limit(settings)),
            self.backlog,
            Turns(waiting_max_bytes=settings.pending_max_bytes),
        )
        rest = Counted(self._litestar())
        self.asgi: ASGIApp
        if telemetry.tracing is None:
            self.asgi = edge = Edge(rest, self.tokens, ingest)
        else:
            from the_eye_api.traced import RequestSpans, Traced  # noqa: PLC0415 - it loads OpenTelemetry

            spans = RequestSpans(telemetry.tracing)
            edge = Edge(rest, self.tokens, ingest, spans)
            self.asgi = Traced(edge, spans, edge.route_of)
        self.at_once: Mapping[Route, AtOnce] = {("POST", SINGLE): edge.accept_at_once}
        """Requests that are answered without a call of ``asgi``, where that is possible."""

    async def _read_tokens(self) -> Tokens:
        async with self.pool.connection() as connection:
            return await live_tokens(connection)

    def end_streams(self) -> None:
        """End what would otherwise go on for as long as someone watches."""
        self._site.live.close()

    async def _note_uses(self, hashes: Iterable[bytes]) -> None:
        async with self.pool.connection() as connection:
            await note_uses(connection, hashes)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Litestar) -> AsyncIterator[None]:
        await self.pool.open()
        self._site.open()
        await self.tokens.refresh()
        tasks = [
            asyncio.create_task(self.tokens.keep_fresh()),
            asyncio.create_task(self.tokens.keep_uses(self._note_uses)),
            asyncio.create_task(self._token_copy.keep(lambda: self.tokens.live)),
            asyncio.create_task(self.backlog.keep_looking()),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            with contextlib.suppress(TimeoutError):  # then nobody is left who waits for an answer
                async with asyncio.timeout(DRAIN_SECONDS):
                    await self.group_commit.drain()
            await self._token_copy.close()
            await self.queue.close()
            await self.pool.close()
            self._site.close()

    def _litestar(self) -> Litestar:
        app = Litestar(
            route_handlers=[
                healthz,
                readyz,
                *query_handlers,
                *pages_router(self._site),
                create_static_files_router(
                    path=swagger.ASSETS_PATH,
                    directories=[swagger.assets_directory()],
                    name="swagger-ui",
                    include_in_schema=False,
                ),
            ],
            dependencies={
                "api": Provide(lambda: self, sync_to_thread=False),
                "pool": Provide(lambda: self.pool, sync_to_thread=False),
                "caller": Provide(self._reader, sync_to_thread=False),
            },
            exception_handlers={
                ProblemError: _problem_response,
                HTTPException: _http_response,
                Exception: _fault_response,
            },
            after_request=_problem_for_html,
            lifespan=[self._lifespan],
            openapi_config=_openapi_config(),
            logging_config=None,
        )
        document_ingest(app.openapi_schema)
        return app

    def _reader(self, request: Request[Any, Any, Any]) -> Caller:
        """Who asks to read events."""
        return self.tokens.authorize(request.headers.get("authorization", ""), Scope.READ, Scope.ADMIN)


@get("/healthz", sync_to_thread=False, include_in_schema=False)
def healthz() -> dict[str, str]:
    """Say that the process runs: a restart would not help against what is away."""
    return {"status": "ok"}


@get("/readyz", include_in_schema=False)
async def readyz(api: "NamedDependency[Api]") -> dict[str, str]:
    """Say that events can be accepted, or could be once."""
    await api.readiness.check()
    return {"status": "ready"}


def _problem_for_html(response: Response[Any]) -> Response[Any]:
    """Give the framework's own page for what is not under ``/api/schema`` the one shape, too."""
    if response.status_code == HTTPStatus.NOT_FOUND and response.media_type == MediaType.HTML:
        return _response(problem(HTTPStatus.NOT_FOUND, "not_found"))
    return response


def _response(error: ProblemError) -> Response[Problem]:
    return Response(
        error.problem, status_code=error.problem.status, headers=error.headers, media_type=PROBLEM_MEDIA_TYPE
    )


def _problem_response(_: Request[Any, Any, Any], error: ProblemError) -> Response[Problem]:
    return _response(error)


def _http_response(_: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    """Give the framework's own errors the one shape; their texts can tell of internals and stay out."""
    status = HTTPStatus(error.status_code)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("request_failed", exc_info=error)
        return _response(internal_error())
    headers = {name: value for name, value in (error.headers or {}).items() if name.lower() == "allow"}
    return _response(problem(status, status.name.lower(), headers=headers))


def _fault_response(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    log.error("request_failed", route=request.url.path, exc_info=error)
    return _response(internal_error())


def _openapi_config() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="The Eye",
        version=version("the-eye"),
        description="Send events and read them back with their verdicts. Every error is problem details (RFC 9457).",
        license=License(name="Apache-2.0", identifier="Apache-2.0"),
        path="/api/schema",
        components=Components(security_schemes={"token": SecurityScheme(type="http", scheme="bearer")}),
        security=[{"token": []}],
        render_plugins=[
            JsonRenderPlugin(path=("/", "/openapi.json")),
            SwaggerRenderPlugin(
                path="/swagger-ui",
                js_url=f"{swagger.ASSETS_PATH}/swagger-ui-bundle.js",
                css_url=f"{swagger.ASSETS_PATH}/swagger-ui.css",
                standalone_preset_js_url=f"{swagger.ASSETS_PATH}/swagger-ui-standalone-preset.js",
                favicon=f'<link rel="icon" href="{swagger.ASSETS_PATH}/favicon-32x32.png">',
            ),
        ],
    )
