"""Reading events: lists, one event, the events of a session."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import msgspec
import psycopg
import structlog
from litestar import MediaType, Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from the_eye.event import Fault
from the_eye.store.connect import AsyncConnection, AsyncPool
from the_eye.store.event_query import (
    DEFAULT_LIMIT,
    CursorError,
    CursorMismatchError,
    EventFilter,
    EventPage,
    Position,
    StoredEvent,
    find_application,
    find_text,
    list_events,
    read_event,
)
from the_eye.tokens import Caller, Scope
from the_eye_api.problems import malformed, problem, unavailable
from the_eye_api.queries_docs import EVENT_DOCS, LIST_DOCS, SESSION_DOCS
from the_eye_api.queries_parameters import LIST_PARAMETERS, PAGE_PARAMETERS, read_parameters, read_path_uuid

log = structlog.get_logger(__name__)

AnyRequest = Request[Any, Any, Any]
Reader = NamedDependency[Caller]
Pool = NamedDependency[AsyncPool]


@get("/events", **LIST_DOCS)
async def get_events(request: AnyRequest, caller: Reader, pool: Pool) -> Response[bytes]:
    """List the events that fit all given parameters."""
    given = read_parameters(request.scope["query_string"], LIST_PARAMETERS)
    if "from" in given and "to" in given and given["from"] > given["to"]:
        raise _unfit("invalid_range", Fault("from", "after_to", "from is not after to"))
    async with reading(pool) as connection:
        application_id = await _application(connection, caller, given.get("application"))
        filter_ = await make_filter(connection, application_id, given)
        page = await _page(connection, filter_, given)
    return _json(page)


@get("/events/{event_id:str}", **EVENT_DOCS)
async def get_event(request: AnyRequest, event_id: FromPath[str], caller: Reader, pool: Pool) -> Response[bytes]:
    """Show one event."""
    read_parameters(request.scope["query_string"], ())
    wanted = read_path_uuid("event_id", event_id)
    async with reading(pool) as connection:
        event = await read_event(connection, wanted, _visible(caller))
    if event is None:
        raise problem(HTTPStatus.NOT_FOUND, "unknown_event", "No event of this id is stored, or not yet.")
    return _json(event)


@get("/sessions/{session_id:str}/events", **SESSION_DOCS)
async def get_session_events(
    request: AnyRequest, session_id: FromPath[str], caller: Reader, pool: Pool
) -> Response[bytes]:
    """List a session's events in the order they occurred."""
    given = read_parameters(request.scope["query_string"], PAGE_PARAMETERS)
    wanted = read_path_uuid("session_id", session_id)
    filter_ = EventFilter(application_id=_visible(caller), session_id=wanted, oldest_first=True)
    async with reading(pool) as connection:
        page = await _page(connection, filter_, given)
    return _json(page)


query_handlers = [get_events, get_event, get_session_events]


async def make_filter(connection: AsyncConnection, application_id: int | None, given: Mapping[str, Any]) -> EventFilter:
    """Make a filter of the parameters of a list."""
    text = given.get("text")
    return EventFilter(
        application_id=application_id,
        session_id=given.get("session_id"),
        category=given.get("category"),
        name=given.get("name"),
        valid=given.get("valid"),
        rule=given.get("rule"),
        text=None if text is None else await find_text(connection, text),
        since=given.get("from"),
        until=given.get("to"),
        oldest_first=given.get("order", False),
    )


def _json(answer: EventPage | StoredEvent) -> Response[bytes]:
    """Encode here: the payloads pass as bytes, which the framework's own encoding would not promise."""
    return Response(msgspec.json.encode(answer), media_type=MediaType.JSON)


def _visible(caller: Caller) -> int | None:
    """Tell whose events the caller may see; None is everyone's."""
    return None if caller.may(Scope.ADMIN) else caller.application_id


async def _application(connection: AsyncConnection, caller: Caller, name: str | None) -> int | None:
    """Find the application to list; the caller's own needs no look into the database."""
    if name is None:
        return _visible(caller)
    if name == caller.application:
        return caller.application_id
    if not caller.may(Scope.ADMIN):
        raise problem(HTTPStatus.FORBIDDEN, "other_application", "The token reads its own application's events only.")
    application_id = await find_application(connection, name)
    if application_id is None:
        raise _unfit("unknown_application", Fault("application", "unknown_application", "no application has this name"))
    return application_id


async def _page(connection: AsyncConnection, filter_: EventFilter, given: Mapping[str, Any]) -> EventPage:
    position = read_position(filter_, given["cursor"]) if "cursor" in given else None
    return await list_events(connection, filter_, position, given.get("limit", DEFAULT_LIMIT))


def read_position(filter_: EventFilter, cursor: str) -> Position:
    """Read a cursor. Raises ProblemError: 400 for none of ours, 422 for one of another list."""
    try:
        return Position.parse(cursor, filter_)
    except CursorMismatchError as error:
        fault = Fault("cursor", "other_query", "the cursor continues a list with other parameters, or of another token")
        raise _unfit("cursor_mismatch", fault) from error
    except CursorError as error:
        raise malformed((Fault("cursor", "invalid_cursor", "the next_cursor of a page"),)) from error


def _unfit(code: str, fault: Fault) -> Exception:
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, code, "The parameters do not fit.", errors=(fault,))


@asynccontextmanager
async def reading(pool: AsyncPool) -> AsyncIterator[AsyncConnection]:
    """Take a connection for a query; whatever the database refuses becomes 503, and its text stays in the log."""
    try:
        async with pool.connection() as connection:
            yield connection
    except psycopg.errors.QueryCanceled as error:
        log.warning("query_too_slow", error=str(error))
        raise unavailable("query_too_slow", "The query took too long: narrow it by time or session.") from error
    except psycopg.OperationalError as error:
        log.warning("database_unavailable", error=str(error))
        raise unavailable("database_unavailable", "Events cannot be read just now; they are accepted still.") from error
    except psycopg.Error as error:
        log.exception("query_failed")
        raise unavailable("query_failed", "Events cannot be read just now; they are accepted still.") from error
