"""The page of events: a list, a histogram, and the list as a file."""

import shlex
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Stream

from the_eye.event import Fault
from the_eye.store.connect import AsyncConnection, AsyncPool
from the_eye.store.event_histogram import read_histogram
from the_eye.store.event_query import EventFilter, SummaryPage, application_names, first_timestamp, list_summaries
from the_eye.store.sign_ins import SignedIn
from the_eye_api.pages.access import is_https
from the_eye_api.pages.charts import Chart
from the_eye_api.pages.export import MAX_EXPORT_BYTES, MAX_EXPORT_EVENTS, Wanted, export
from the_eye_api.pages.rendering import ROOT, html, render
from the_eye_api.pages.site import Site
from the_eye_api.pages.state import LONGEST_HISTOGRAM, RANGE_NAMES, ListState, read_state
from the_eye_api.problems import ProblemError, problem, unavailable
from the_eye_api.queries import read_position, reading

BARS = 48

AnyRequest = Request[Any, Any, Any]
User = NamedDependency[SignedIn]
Pool = NamedDependency[AsyncPool]


@get("/events")
async def get_events(request: AnyRequest, user: User, pool: Pool) -> Response[str]:
    """Show the newest events of a filter."""
    state = read_state(request.scope["query_string"], datetime.now(UTC))
    async with reading(pool) as connection:
        applications = await application_names(connection)
        page, faults = await _page(connection, state)
    context = {
        "state": state,
        "faults": {fault.path: fault.message for fault in faults},
        "page": page,
        "applications": applications,
        "ranges": RANGE_NAMES,
        "curl": _curl(request, state),
        "most": MAX_EXPORT_EVENTS,
        "most_mebibytes": MAX_EXPORT_BYTES // 2**20,
    }
    status = HTTPStatus.OK if page else HTTPStatus.BAD_REQUEST
    return html(render(request, "events.html", user, **context), status)


async def _page(connection: AsyncConnection, state: ListState) -> tuple[SummaryPage | None, tuple[Fault, ...]]:
    filter_, faults = await state.filter(connection)
    if filter_ is None:
        return None, faults
    cursor = state.values.get("cursor")
    try:
        position = read_position(filter_, cursor) if cursor else None
    except ProblemError as error:
        return None, error.problem.errors
    return await list_summaries(connection, filter_, position), ()


def _curl(request: AnyRequest, state: ListState) -> str:
    """Write the command that reads the same events over the API; the shell puts the token in."""
    query = state.api_query()
    url = f"{_origin(request)}/events{'?' if query else ''}{query}"
    return f'curl --header "Authorization: Bearer $TOKEN" {shlex.quote(url)}'


def _origin(request: AnyRequest) -> str:
    scheme = "https" if is_https(request) else request.url.scheme
    return f"{scheme}://{request.headers.get('host', 'localhost')}"


@get("/events/histogram")
async def get_histogram(request: AnyRequest, user: User, pool: Pool) -> Response[str]:
    """Show how many events there are over the range, for the page to put in when it is shown already."""
    state = read_state(request.scope["query_string"], datetime.now(UTC))
    async with reading(pool) as connection:
        filter_, _ = await state.filter(connection)
        chart = await _chart(connection, state, filter_) if filter_ is not None else None
    return html(render(request, "histogram.html", user, chart=chart, state=state))


async def _chart(connection: AsyncConnection, state: ListState, filter_: EventFilter) -> Chart | None:
    until = state.until or state.now
    since = state.since or await first_timestamp(connection)
    if since is None or since >= until:
        return None
    since = max(since, until - LONGEST_HISTOGRAM)
    # Bars of whole seconds, so that what a bar links to has the same events.
    width = timedelta(seconds=max(1, round((until - since) / timedelta(seconds=BARS))))
    bars = max(1, min(BARS, round((until - since) / width)))
    return Chart(await read_histogram(connection, filter_, until - bars * width, until, bars))


@get("/events/export/{form:str}")
async def get_export(
    request: AnyRequest, form: FromPath[str], user: User, pool: Pool, site: NamedDependency[Site]
) -> Stream:
    """Give the newest events of a filter as a file, row by row, or those beyond a cursor."""
    del user
    state = read_state(request.scope["query_string"], datetime.now(UTC))
    if form not in {"ndjson", "csv"}:
        raise problem(HTTPStatus.NOT_FOUND, "not_found")
    if site.exports.locked():
        raise unavailable("exports_running", "Others are exporting just now: try again in a minute.", retry_after=30)
    async with reading(pool) as connection:
        filter_, faults = await state.filter(connection)
    if filter_ is None:
        raise problem(HTTPStatus.BAD_REQUEST, "malformed", "The filter has faults.", errors=faults)
    cursor = state.values.get("cursor")
    position = read_position(filter_, cursor) if cursor else None
    path = f"{_origin(request)}{ROOT}/events/export/{form}"
    wanted = Wanted(filter_, position, form, lambda after: f"{path}?{state.older(after)}")
    name = f"events-{state.now:%Y%m%dT%H%M%SZ}.{form}"
    return Stream(
        export(pool, wanted, site.exports),
        media_type="application/x-ndjson" if form == "ndjson" else "text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
