"""Signing in and out."""

import functools
import re
import secrets
from datetime import timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.response import Redirect
from litestar.status_codes import HTTP_303_SEE_OTHER

from the_eye.store.sign_ins import LOCK_SECONDS, sign_in, sign_out
from the_eye_api.pages.access import (
    FORM_COOKIE,
    SIGN_IN_COOKIE,
    NotSignedInError,
    client_address,
    cookie,
    csrf_token,
    csrf_token_of,
)
from the_eye_api.pages.rendering import ROOT, html, render
from the_eye_api.pages.site import Site

AnyRequest = Request[Any, Any, Any]
TheSite = NamedDependency[Site]

_REFUSED = (
    "This name and password do not fit, or there were too many attempts: "
    f"then it works again {LOCK_SECONDS / 60:g} minutes after the last one."
)
_OUR_PATH = re.compile(rf"{ROOT}(/[\w.~!$&'()*+,;=:@%/?-]*)?")


def sign_in_path(request: AnyRequest) -> str:
    """Give where to sign in, so that one comes back here."""
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return f"{ROOT}/sign-in?{urlencode({'next': target})}"


def ask_to_sign_in(request: AnyRequest, _: NotSignedInError) -> Response[Any]:
    """Send a browser to the form; htmx is told in a header, since it would put the form into the page."""
    if request.headers.get("hx-request"):
        return Response(b"", status_code=HTTPStatus.UNAUTHORIZED, headers={"HX-Redirect": f"{ROOT}/sign-in"})
    return Redirect(sign_in_path(request), status_code=HTTP_303_SEE_OTHER)


def _next(given: str | None) -> str:
    """Let no one be sent elsewhere after signing in."""
    return given if given and _OUR_PATH.fullmatch(given) else f"{ROOT}/events"


@get("/sign-in", sync_to_thread=False)
def get_sign_in(request: AnyRequest) -> Response[str]:
    """Show the form."""
    return _form(request, next_=_next(request.query_params.get("next")))


def _form(request: AnyRequest, *, next_: str, name: str = "", refused: str = "") -> Response[str]:
    """Show the form; the browser gets what it belongs to, unless it has it."""
    token = csrf_token(request)
    secret = secrets.token_urlsafe(32)
    context = {"next": next_, "name": name, "refused": refused, "csrf_token": token or csrf_token_of(secret)}
    response = html(
        render(request, "sign_in.html", None, **context), HTTPStatus.FORBIDDEN if refused else HTTPStatus.OK
    )
    if not token:
        response.cookies.append(cookie(request, FORM_COOKIE, secret))
    return response


@post("/sign-in")
async def post_sign_in(request: AnyRequest, site: TheSite) -> Response[Any]:
    """Sign in, or say that it did not work and nothing about why."""
    form = await request.form()
    name, password, next_ = (str(form.get(field, "")) for field in ("name", "password", "next"))
    address = client_address(request, site.settings.forwarded_hops)
    lifetime = timedelta(seconds=site.settings.sign_in_seconds)
    async with site.passwords:
        text = await site.act(
            functools.partial(sign_in, name=name, password=password, address=address, lifetime=lifetime)
        )
    if text is None:
        return _form(request, next_=_next(next_), name=name, refused=_REFUSED)
    response = Redirect(_next(next_), status_code=HTTP_303_SEE_OTHER)
    response.cookies.append(cookie(request, SIGN_IN_COOKIE, text, max_age=int(lifetime.total_seconds())))
    return response


@post("/sign-out")
async def post_sign_out(request: AnyRequest, site: TheSite) -> Response[Any]:
    """Sign out."""
    await site.act(functools.partial(sign_out, text=request.cookies.get(SIGN_IN_COOKIE, "")))
    response = Redirect(f"{ROOT}/sign-in", status_code=HTTP_303_SEE_OTHER)
    response.delete_cookie(SIGN_IN_COOKIE, path=ROOT)
    return response
