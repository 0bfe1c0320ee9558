"""The page of one event, and the page of a session."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import MediaType, Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from the_eye.store.connect import AsyncPool
from the_eye.store.event_query import MAX_LIMIT, EventFilter, EventSummary, StoredEvent, list_summaries, read_event
from the_eye.store.sign_ins import SignedIn
from the_eye.verdict import Violation
from the_eye_api.pages.payload import Lines, read_lines
from the_eye_api.pages.rendering import html, render
from the_eye_api.pages.site import Site
from the_eye_api.problems import problem
from the_eye_api.queries import read_position, reading
from the_eye_api.queries_parameters import PAGE_PARAMETERS, read_parameters, read_path_uuid

GAP = timedelta(minutes=5)
"""A pause that is worth seeing between two events of a session."""

AnyRequest = Request[Any, Any, Any]
User = NamedDependency[SignedIn]
Pool = NamedDependency[AsyncPool]


@get("/events/{event_id:str}")
async def get_event(
    request: AnyRequest, event_id: FromPath[str], user: User, site: NamedDependency[Site]
) -> Response[str]:
    """Show an event with its payload, and each violation at the place that it is about."""
    event = await _find(site.pool, event_id)
    # Beside the event loop: a payload of a megabyte takes it a while.
    return html(await asyncio.to_thread(_event_page, request, user, event, site.settings.trace_url))


async def _find(pool: AsyncPool, event_id: str) -> StoredEvent:
    wanted = read_path_uuid("event_id", event_id)
    async with reading(pool) as connection:
        event = await read_event(connection, wanted)
    if event is None:
        raise problem(HTTPStatus.NOT_FOUND, "unknown_event", "No event of this id is stored, or not yet.")
    return event


def _event_page(request: AnyRequest, user: SignedIn, event: StoredEvent, trace_url: str) -> str:
    violations = msgspec.json.decode(event.violations, type=list[Violation])
    payload = read_lines(bytes(event.data), "$.data")
    beside, elsewhere = placed(payload, violations)
    return render(
        request,
        "event.html",
        user,
        event=event,
        payload=payload,
        size=memoryview(event.data).nbytes,
        violations=violations,
        beside=beside,
        elsewhere=elsewhere,
        trace_url=trace_url.replace("{trace_id}", event.trace_id or ""),
    )


def placed(payload: Lines, violations: Sequence[Violation]) -> tuple[Mapping[int, list[Violation]], list[Violation]]:
    """Give each violation to the line it is about; those of no line that is shown are given apart."""
    numbers = {line.path: number for number, line in reversed(list(enumerate(payload.lines))) if line.path}
    beside: dict[int, list[Violation]] = {}
    elsewhere: list[Violation] = []
    for violation in violations:
        number = numbers.get(violation.path)
        (elsewhere if number is None else beside.setdefault(number, [])).append(violation)
    return beside, elsewhere


@get("/events/{event_id:str}/data")
async def get_data(event_id: FromPath[str], user: User, pool: Pool) -> Response[bytes]:
    """Give an event's payload as a file, byte for byte."""
    del user
    event = await _find(pool, event_id)
    name = f'attachment; filename="{event.event_id}.json"'
    return Response(bytes(event.data), media_type=MediaType.JSON, headers={"Content-Disposition": name})


class Step(msgspec.Struct, frozen=True):
    """An event of a session, and how long after the one before."""

    event: EventSummary
    after: timedelta | None

    @property
    def gap(self) -> bool:
        """Whether the session paused before it."""
        return self.after is not None and self.after >= GAP


@get("/sessions/{session_id:str}")
async def get_session(request: AnyRequest, session_id: FromPath[str], user: User, pool: Pool) -> Response[str]:
    """Show a session's events in the order they occurred."""
    wanted = read_path_uuid("session_id", session_id)
    given = read_parameters(request.scope["query_string"], PAGE_PARAMETERS)
    filter_ = EventFilter(session_id=wanted, oldest_first=True)
    position = read_position(filter_, given["cursor"]) if "cursor" in given else None
    async with reading(pool) as connection:
        page = await list_summaries(connection, filter_, position, MAX_LIMIT)
    steps = list(_steps(page.events))
    context = {"session_id": wanted, "steps": steps, "page": page, "position": position}
    return html(render(request, "session.html", user, **context))


def _steps(events: Sequence[EventSummary]) -> Iterator[Step]:
    before = None
    for event in events:
        yield Step(event, None if before is None else event.timestamp - before)
        before = event.timestamp
