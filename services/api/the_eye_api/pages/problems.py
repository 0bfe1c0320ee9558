"""The page of problems: violations by what they have in common, and events that could not be stored."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Redirect
from litestar.status_codes import HTTP_303_SEE_OTHER

from the_eye.originals import original_parts
from the_eye.queue import QueueUnavailableError
from the_eye.replaying import Replayer
from the_eye.store.audit_log import record
from the_eye.store.connect import Connection
from the_eye.store.dead_events import DeadEntry, batches, discard, list_dead, named, read_dead, replay
from the_eye.store.event_query import application_names
from the_eye.store.problems import Problem, Problems, read_problems
from the_eye.store.sign_ins import SignedIn
from the_eye_api.pages.rendering import ROOT, html, render
from the_eye_api.pages.site import Site
from the_eye_api.pages.state import RANGE_NAMES, ListState, read_state
from the_eye_api.problems import problem
from the_eye_api.queries import reading

DEAD_SHOWN = 100
PARTS = 24
MAX_ORIGINAL = 20_000

AnyRequest = Request[Any, Any, Any]
User = NamedDependency[SignedIn]
TheSite = NamedDependency[Site]


class Trend(msgspec.Struct, frozen=True):
    """A problem with its course."""

    problem: Problem
    counts: Sequence[int]

    @property
    def heights(self) -> list[float]:
        """The course as heights of 0 to 24."""
        most = max(self.counts)
        return [round(max(1.5, 24 * count / most), 2) if count else 0 for count in self.counts]


@get("/problems")
async def get_problems(request: AnyRequest, user: User, site: TheSite) -> Response[str]:
    """Show what is wrong."""
    return await _page(request, user, site)


async def _page(
    request: AnyRequest, user: SignedIn, site: Site, *, refused: str = "", status: int = HTTPStatus.OK
) -> Response[str]:
    state = read_state(request.scope["query_string"], datetime.now(UTC))
    async with reading(site.pool) as connection:
        filter_, faults = await state.filter(connection)
        applications = await application_names(connection)
        if filter_ is None:
            raise problem(HTTPStatus.BAD_REQUEST, "malformed", "The filter has faults.", errors=faults)
        found = await read_problems(connection, state.since, filter_.application_id, filter_.rule)
    dead = await site.act(lambda store: list_dead(store, DEAD_SHOWN))
    context = {
        "state": state,
        "ranges": RANGE_NAMES,
        "applications": applications,
        "found": found,
        "trends": trends_of(found, state),
        "dead": dead,
        "refused": refused,
    }
    return html(render(request, "problems.html", user, **context), status)


def trends_of(found: Problems, state: ListState) -> list[Trend]:
    """Give each problem its course over the range."""
    begin = found.since if state.since is None or not found.whole else state.since
    # What is dated later than now belongs to the end.
    end = max([state.now, *(one.last_seen for one in found.problems)])
    return [Trend(one, one.trend(begin or end, end, PARTS)) for one in found.problems]


@get("/problems/dead/{dead_id:int}")
async def get_dead(request: AnyRequest, dead_id: FromPath[int], user: User, site: TheSite) -> Response[str]:
    """Show an event that could not be stored, with what it was sent as."""
    entry = await site.act(lambda store: read_dead(store, dead_id))
    if entry is None:
        raise problem(HTTPStatus.NOT_FOUND, "unknown_dead_event", "It was replayed, discarded, or never there.")
    original = await asyncio.to_thread(_beginning, entry)
    context = {"entry": entry, "original": original[:MAX_ORIGINAL], "more": len(original) > MAX_ORIGINAL}
    return html(render(request, "dead.html", user, **context))


def _beginning(entry: DeadEntry) -> str:
    """Give the original, up to the part with which it is longer than what is shown: a message may be large."""
    text = ""
    for part in original_parts(entry):
        text = f"{text}\n{part}" if text else part
        if len(text) > MAX_ORIGINAL:
            break
    return text


@post("/problems/dead/{dead_id:int}/replay")
async def post_replay(request: AnyRequest, dead_id: FromPath[int], admin: User, site: TheSite) -> Response[Any]:
    """Put a dead event back into the queue."""
    return await _replayed(request, admin, site, lambda _: [[dead_id]])


@post("/problems/dead/replay-all")
async def post_replay_all(request: AnyRequest, admin: User, site: TheSite) -> Response[Any]:
    """Put all that are dead now back into the queue."""
    return await _replayed(request, admin, site, batches)


async def _replayed(
    request: AnyRequest,
    admin: SignedIn,
    site: Site,
    choose: Callable[[Connection], Iterable[Sequence[int]]],
) -> Response[Any]:
    player = Replayer(site.queue)

    def do(connection: Connection) -> int:
        replayed: set[int] = set()
        try:
            for batch in choose(connection):
                replayed.update(replay(connection, batch, player.enqueue))
        finally:
            if replayed:
                record(connection, admin.user, "dead events replayed", named(replayed))
        return len(replayed)

    try:
        count = await site.act(do)
    except QueueUnavailableError:
        return await _page(request, admin, site, refused="The queue is away: nothing more was replayed.", status=503)
    if player.refused or not count:
        reasons = [f"{dead_id}: {reason}" for dead_id, reason in player.refused.items()] or [
            "Nothing was there to replay."
        ]
        return await _page(request, admin, site, refused="; ".join(reasons[:5]), status=422)
    return Redirect(f"{ROOT}/problems", status_code=HTTP_303_SEE_OTHER)


@post("/problems/dead/{dead_id:int}/discard")
async def post_discard(dead_id: FromPath[int], admin: User, site: TheSite) -> Response[Any]:
    """Delete a dead event for good; one that is gone already is no error."""

    def do(connection: Connection) -> None:
        with connection.transaction():
            if discard(connection, dead_id):
                record(connection, admin.user, "dead event discarded", str(dead_id))

    await site.act(do)
    return Redirect(f"{ROOT}/problems", status_code=HTTP_303_SEE_OTHER)


handlers: Iterable[Any] = (get_problems, get_dead, post_replay, post_replay_all, post_discard)
