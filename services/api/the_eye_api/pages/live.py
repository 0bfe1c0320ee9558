"""The page of events as they are stored."""

import time
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.response import ServerSentEvent, ServerSentEventMessage

from the_eye.store.event_query import EventFilter, application_names
from the_eye.store.sign_ins import SignedIn
from the_eye_api.pages.access import NotSignedInError, provide_user
from the_eye_api.pages.rendering import html, render
from the_eye_api.pages.site import Site
from the_eye_api.pages.state import read_state
from the_eye_api.problems import ProblemError, malformed
from the_eye_api.queries import reading

CHECK_SECONDS = 60.0
"""How often it is seen whether a viewer is still signed in."""

AnyRequest = Request[Any, Any, Any]
User = NamedDependency[SignedIn]


@get("/live")
async def get_live(request: AnyRequest, user: User, site: NamedDependency[Site]) -> Response[str]:
    """Show the page that events come into."""
    state = read_state(request.scope["query_string"], datetime.now(UTC))
    async with reading(site.pool) as connection:
        applications = await application_names(connection)
        _, faults = await state.filter(connection)
    context = {
        "state": state,
        "ranges": {},
        "applications": applications,
        "faults": {fault.path: fault.message for fault in faults},
    }
    return html(render(request, "live.html", user, **context))


@get("/live/stream")
async def get_stream(request: AnyRequest, user: User, site: NamedDependency[Site]) -> ServerSentEvent:
    """Tell of events as they are stored."""
    del user
    state = read_state(request.scope["query_string"], datetime.now(UTC))
    async with reading(site.pool) as connection:
        filter_, faults = await state.filter(connection)
    if filter_ is None:
        raise malformed(faults, "The filter has faults.")
    headers = {"X-Accel-Buffering": "no"}  # nginx would hold back what comes in small pieces
    return ServerSentEvent(_stream(request, site, filter_), retry_duration=2_000, headers=headers)


async def _stream(request: AnyRequest, site: Site, filter_: EventFilter) -> AsyncIterator[ServerSentEventMessage]:
    checked = time.monotonic()
    with site.live.viewer(filter_) as viewer:
        yield ServerSentEventMessage(event="watching", data="")
        while not site.live.closing:
            for message in await viewer.take():
                yield message
            if time.monotonic() - checked > CHECK_SECONDS:
                checked = time.monotonic()
                try:
                    await provide_user(request, site.pool)
                except (NotSignedInError, ProblemError):  # the browser asks again, and is told what is the matter
                    return


handlers: Iterable[Any] = (get_live, get_stream)
