"""Who is signed in, and whether a form was sent by a page of ours."""

import hashlib
import hmac
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from litestar import Request
from litestar.datastructures import Cookie
from litestar.di import NamedDependency

from the_eye.store.connect import AsyncPool
from the_eye.store.sign_ins import SignedIn, signed_in
from the_eye.store.users import Role
from the_eye_api.problems import problem
from the_eye_api.queries import reading

if TYPE_CHECKING:
    from litestar.connection import ASGIConnection

SIGN_IN_COOKIE = "the_eye_sign_in"
FORM_COOKIE = "the_eye_form"
"""Random text that a browser gets with the form to sign in, which has no sign-in yet to belong to."""

CSRF_FIELD = "csrf_token"
CSRF_HEADER = "x-csrf-token"

AnyRequest = Request[Any, Any, Any]
Pool = NamedDependency[AsyncPool]


class NotSignedInError(Exception):
    """Raised where someone has to sign in first."""


async def provide_user(request: AnyRequest, pool: Pool) -> SignedIn:
    """Find who is signed in.

    Raises NotSignedInError.
    """
    text = request.cookies.get(SIGN_IN_COOKIE)
    if text:
        async with reading(pool) as connection:
            user = await signed_in(connection, text)
        if user is not None:
            return user
    raise NotSignedInError


def provide_admin(user: NamedDependency[SignedIn]) -> SignedIn:
    """Let admins through. Raises ProblemError: 403."""
    if user.role != Role.ADMIN:
        raise problem(HTTPStatus.FORBIDDEN, "not_an_admin", "This takes the role admin.")
    return user


def is_https(request: AnyRequest) -> bool:
    """Whether the browser came by HTTPS, here or to the ingress.

    The header may be forged: whoever does so makes a cookie of their own that is not sent.
    """
    return request.url.scheme == "https" or request.headers.get("x-forwarded-proto", "").lower() == "https"


def cookie(request: AnyRequest, name: str, value: str, max_age: int | None = None) -> Cookie:
    """Make a cookie that no script reads and no other site's form sends; it ends with the browser without an age."""
    return Cookie(
        key=name, value=value, path="/ui", httponly=True, samesite="lax", secure=is_https(request), max_age=max_age
    )


def csrf_token(request: AnyRequest) -> str:
    """Give what the forms of this browser hold; another site can neither read nor guess it."""
    return csrf_token_of(request.cookies.get(SIGN_IN_COOKIE) or request.cookies.get(FORM_COOKIE, ""))


def csrf_token_of(secret: str) -> str:
    """Derive it from what the browser keeps; empty when that is nothing."""
    return hmac.new(secret.encode(errors="replace"), b"csrf", hashlib.sha256).hexdigest() if secret else ""


async def refuse_forgery(request: AnyRequest) -> None:
    """Let a request that changes something through only if a page of ours sent it.

    Raises ProblemError: 403.
    """
    if request.method in {"GET", "HEAD", "OPTIONS"}:
        return
    given = request.headers.get(CSRF_HEADER) or str((await request.form()).get(CSRF_FIELD, ""))
    expected = csrf_token(request)
    same_site = request.headers.get("sec-fetch-site", "same-origin") in {"same-origin", "none"}
    if not same_site or not expected or not hmac.compare_digest(given.encode(), expected.encode()):
        raise problem(HTTPStatus.FORBIDDEN, "forged", "The form was not sent by this site's page, or is too old.")


def client_address(connection: "ASGIConnection[Any, Any, Any, Any]", hops: int) -> str:
    """Tell where a request came from, ``hops`` proxies before this process being trusted to have said so."""
    forwarded = [
        part.strip() for value in connection.headers.getall("x-forwarded-for", []) for part in value.split(",")
    ]
    if hops and len(forwarded) >= hops:
        return forwarded[-hops]
    return connection.client.host if connection.client else ""
