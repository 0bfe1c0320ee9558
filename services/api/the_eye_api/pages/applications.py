"""The page of applications: their tokens, and what was done by whom."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Redirect
from litestar.status_codes import HTTP_303_SEE_OTHER

from the_eye.store.applications import (
    Application,
    ApplicationError,
    NewToken,
    Token,
    create_application,
    create_token,
    list_applications,
    list_tokens,
    revoke_token,
    rotate_token,
)
from the_eye.store.audit_log import Act, latest_acts, record
from the_eye.store.connect import Connection
from the_eye.store.sign_ins import SignedIn
from the_eye.token_copy import TokenCopyUnavailableError, withdraw_copy
from the_eye.tokens import Scope
from the_eye_api.pages.rendering import ROOT, html, render
from the_eye_api.pages.site import Site

ACTS = 50
GRACE = timedelta(days=1)
"""For how long a token goes on working that another has taken the place of."""

MAX_DAYS = 3_650

AnyRequest = Request[Any, Any, Any]
User = NamedDependency[SignedIn]
TheSite = NamedDependency[Site]

log = structlog.get_logger(__name__)


class Shown(msgspec.Struct, frozen=True):
    """What the page shows."""

    applications: Sequence[Application]
    tokens: Sequence[Token]
    acts: Sequence[Act]

    def of(self, application: Application) -> list[Token]:
        """Give an application's tokens, those that work first."""
        found = [token for token in self.tokens if token.application == application.name]
        return sorted(found, key=lambda token: (token.state != "live", -token.id))


def _read(connection: Connection) -> Shown:
    return Shown(list_applications(connection), list_tokens(connection), latest_acts(connection, ACTS))


@get("/applications")
async def get_applications(request: AnyRequest, user: User, site: TheSite) -> Response[str]:
    """Show all applications."""
    return await _page(request, user, site)


async def _page(
    request: AnyRequest, user: SignedIn, site: Site, *, refused: str = "", made: NewToken | None = None
) -> Response[str]:
    shown = await site.act(_read)
    context = {"shown": shown, "refused": refused, "made": made, "scopes": [scope.value for scope in Scope]}
    status = HTTPStatus.UNPROCESSABLE_ENTITY if refused else HTTPStatus.OK
    return html(render(request, "applications.html", user, **context), status)


@post("/applications")
async def post_application(request: AnyRequest, admin: User, site: TheSite) -> Response[Any]:
    """Make an application."""
    name = str((await request.form()).get("name", "")).strip()
    do = _recorded(admin, lambda store: create_application(store, name), "application created", lambda _: name)
    return await _acted(request, admin, site, do)


@post("/applications/tokens")
async def post_token(request: AnyRequest, admin: User, site: TheSite) -> Response[Any]:
    """Make a token, which is shown in the answer and never again."""
    form = await request.form()
    application = str(form.get("application", ""))
    wanted = [scope for scope in Scope if scope.value in form.getall("scope", [])]
    days = str(form.get("days", "")).strip()
    if not wanted or (days and not (days.isascii() and days.isdecimal() and 0 < int(days[:9]) <= MAX_DAYS)):
        return await _page(
            request, admin, site, refused=f"A token has a scope, and ends in 1 to {MAX_DAYS} days or never."
        )
    expires = datetime.now(UTC) + timedelta(days=int(days)) if days else None
    subject = f"of {application} for {' and '.join(wanted)}"
    do = _recorded(
        admin,
        lambda store: create_token(store, application, wanted, expires),
        "token created",
        lambda made: f"token {made.id} {subject}",
    )
    return await _made(request, admin, site, do)


@post("/applications/tokens/{token_id:int}/rotate")
async def post_rotation(request: AnyRequest, token_id: FromPath[int], admin: User, site: TheSite) -> Response[Any]:
    """Make a token in the place of another, which goes on working for a day."""
    do = _recorded(
        admin,
        lambda store: rotate_token(store, token_id, GRACE),
        "token rotated",
        lambda made: f"token {made.id} in the place of token {token_id}",
    )
    return await _made(request, admin, site, do)


@post("/applications/tokens/{token_id:int}/revoke")
async def post_revocation(request: AnyRequest, token_id: FromPath[int], admin: User, site: TheSite) -> Response[Any]:
    """Make a token stop working within seconds."""
    do = _recorded(admin, lambda store: revoke_token(store, token_id), "token revoked", lambda _: f"token {token_id}")
    answer = await _acted(request, admin, site, do)
    try:
        await asyncio.to_thread(withdraw_copy, site.queue)
    except TokenCopyUnavailableError as error:  # an API that runs renews it within seconds
        log.warning("token_copy_not_withdrawn", error=str(error))
    return answer


def _recorded(
    actor: SignedIn, do: Callable[[Connection], Any], act: str, subject: Callable[[Any], str]
) -> Callable[[Connection], Any]:
    """Make an act and its record one."""

    def both(connection: Connection) -> Any:
        with connection.transaction():
            done = do(connection)
            record(connection, actor.user, act, subject(done))
        return done

    return both


async def _acted(request: AnyRequest, admin: SignedIn, site: Site, do: Callable[[Connection], Any]) -> Response[Any]:
    try:
        await site.act(do)
    except ApplicationError as error:
        return await _page(request, admin, site, refused=str(error))
    return Redirect(f"{ROOT}/applications", status_code=HTTP_303_SEE_OTHER)


async def _made(
    request: AnyRequest, admin: SignedIn, site: Site, do: Callable[[Connection], NewToken]
) -> Response[Any]:
    try:
        made = await site.act(do)
    except ApplicationError as error:
        return await _page(request, admin, site, refused=str(error))
    return await _page(request, admin, site, made=made)


handlers: Iterable[Any] = (get_applications, post_application, post_token, post_rotation, post_revocation)
