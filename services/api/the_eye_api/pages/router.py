"""The routes of the pages, and what an error looks like there."""

from http import HTTPStatus
from pathlib import Path
from typing import Any

import structlog
from litestar import Request, Response, Router, get
from litestar.datastructures import CacheControlHeader
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.params import FromPath
from litestar.response import Redirect
from litestar.static_files import create_static_files_router
from litestar.status_codes import HTTP_303_SEE_OTHER

from the_eye_api.pages import applications, event, events, live, problems, rules, signing_in
from the_eye_api.pages.access import NotSignedInError, provide_admin, provide_user, refuse_forgery
from the_eye_api.pages.rendering import ASSETS_FOLDER, ROOT, SafeHeaders, environment, html, htmx_folder, render
from the_eye_api.pages.site import Site
from the_eye_api.problems import Problem, ProblemError, problem

NAV = (
    ("events", "Events"),
    ("live", "Live"),
    ("problems", "Problems"),
    ("rules", "Rules"),
    ("applications", "Applications"),
)

_YEAR = CacheControlHeader(max_age=365 * 24 * 60 * 60, public=True, immutable=True)

AnyRequest = Request[Any, Any, Any]

log = structlog.get_logger(__name__)


@get("/", include_in_schema=False, sync_to_thread=False)
def get_root() -> Redirect:
    """Show people the pages; programs ask for what they want by its name."""
    return Redirect(f"{ROOT}/events", status_code=HTTP_303_SEE_OTHER)


@get("/{path:path}", sync_to_thread=False)
def get_nothing(path: FromPath[str]) -> None:
    """Say as a page that there is none. Raises ProblemError: 404."""
    raise problem(HTTPStatus.NOT_FOUND, "not_found", f"There is no page {path[:100]}.")


def pages_router(site: Site) -> list[Any]:
    """Give the routes of the pages and of their files."""
    environment().globals["nav"] = NAV
    pages = Router(
        ROOT,
        route_handlers=[
            signing_in.get_sign_in,
            signing_in.post_sign_in,
            signing_in.post_sign_out,
            events.get_events,
            events.get_histogram,
            events.get_export,
            event.get_event,
            event.get_data,
            event.get_session,
            *live.handlers,
            *problems.handlers,
            *rules.handlers,
            *applications.handlers,
            get_nothing,
        ],
        dependencies={
            "site": Provide(lambda: site, sync_to_thread=False),
            "user": Provide(provide_user),
            "admin": Provide(provide_admin, sync_to_thread=False),
        },
        before_request=refuse_forgery,
        middleware=[SafeHeaders()],
        exception_handlers={
            NotSignedInError: signing_in.ask_to_sign_in,
            ProblemError: _problem_page,
            HTTPException: _http_page,
            Exception: _fault_page,
        },
        include_in_schema=False,
        request_max_body_size=4 * 1024 * 1024,
    )
    files = [
        _files("", ASSETS_FOLDER),
        _files("/htmx", htmx_folder()),
    ]
    return [get_root, pages, *files]


def _files(path: str, folder: Path) -> Router:
    return create_static_files_router(
        f"{ROOT}/assets{path}",
        directories=[folder],
        name=f"pages{path}",
        cache_control=_YEAR,  # the version is part of the address
        middleware=[SafeHeaders()],
        include_in_schema=False,
    )


def _page(request: AnyRequest, shown: Problem) -> Response[Any]:
    page = render(request, "error.html", None, title=shown.title, detail=shown.detail, errors=shown.errors)
    return html(page, shown.status)


def _problem_page(request: AnyRequest, error: ProblemError) -> Response[Any]:
    response = _page(request, error.problem)
    response.headers.update(error.headers)
    return response


def _http_page(request: AnyRequest, error: HTTPException) -> Response[Any]:
    if error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _fault_page(request, error)
    status = HTTPStatus(error.status_code)
    return _page(request, problem(status, status.name.lower()).problem)


def _fault_page(request: AnyRequest, error: Exception) -> Response[Any]:
    log.error("request_failed", route=request.url.path, exc_info=error)
    detail = "This is a fault of The Eye; its log says more."
    return _page(request, problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", detail).problem)
