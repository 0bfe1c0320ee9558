"""Pages as HTML: templates, and the headers that keep a browser from doing what no page asks for."""

import hashlib
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from litestar import MediaType, Request, Response
from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from the_eye.store.sign_ins import SignedIn
from the_eye_api.pages.access import csrf_token

ROOT = "/ui"
ASSETS = f"{ROOT}/assets"
ASSETS_FOLDER = Path(__file__).with_name("static")

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class SafeHeaders(ASGIMiddleware):
    """Puts the security headers on every answer of the pages, errors included; none is kept unless it says so."""

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Add to the head of the answer."""

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableScopeHeaders.from_message(message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await next_app(scope, receive, send_safely)


def htmx_folder() -> Path:
    """Find htmx's files, from their package: the pages work with no other server.

    Raises ModuleNotFoundError when the package is not installed.
    """
    spec = find_spec("js_lib_htmx")
    if spec is None or spec.origin is None:
        message = "django-js-lib-htmx is not installed: install the-eye[api]"
        raise ModuleNotFoundError(message)
    return Path(spec.origin).parent / "static" / "htmx"


@cache
def _assets_version() -> str:
    """Tell these files from those of another version, which browsers may have kept."""
    digest = hashlib.sha256(version("django-js-lib-htmx").encode())
    for file in sorted(ASSETS_FOLDER.iterdir()):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def asset(name: str) -> str:
    """Give the path of a file in ``static``, or of htmx."""
    return f"{ASSETS}/{name}?v={_assets_version()}"


def shown_time(at: datetime, digits: int = 3) -> str:
    """Write a time in UTC with so many digits of a second."""
    text = f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"
    return text[: len(text) - 6 + digits].removesuffix(".")


def shown_lapse(lapse: timedelta) -> str:
    """Write how long something took, in the unit that fits; it may be negative, where clocks differ."""
    seconds = abs(lapse.total_seconds())
    sign = "-" if lapse < timedelta() else ""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{sign}{seconds / length:.1f} {unit}"
    return f"{sign}{seconds:.1f} s" if seconds >= 1 else f"{sign}{seconds * 1000:.0f} ms"


def shown_number(number: int) -> str:
    """Group a number's digits."""
    return f"{number:,}"


@cache
def environment() -> Environment:
    """Make the templates' environment; whatever is put in is escaped, and what is missing is an error."""
    made = Environment(
        loader=PackageLoader("the_eye_api.pages"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(lapse=shown_lapse, number=shown_number, time=shown_time)
    made.globals.update(root=ROOT, asset=asset, version=version("the-eye"))
    return made


def render(request: Request[Any, Any, Any], template: str, user: SignedIn | None, **context: Any) -> str:
    """Fill in a template."""
    section = request.url.path.removeprefix(ROOT).strip("/").partition("/")[0]
    given = {"csrf_token": csrf_token(request), "user": user, "section": section, **context}
    return environment().get_template(template).render(given)


def html(text: str, status: int = 200) -> Response[str]:
    """Answer with a page or a part of one."""
    return Response(text, status_code=status, media_type=MediaType.HTML)
