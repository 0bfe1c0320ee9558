"""A WSGI application whose client is made before gunicorn forks: ``gunicorn --preload tests.client.wsgi``."""

from collections.abc import Iterable
from typing import Any
from wsgiref.types import StartResponse

from tests.client.programs import SETTINGS
from tests.client.tracking import track

from the_eye_client import Eye

eye = Eye(settings=SETTINGS)
preloaded = track(eye)


def application(_environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Track an event for each request; the answer has its id, and that of the one from before the fork."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{track(eye)} {preloaded}".encode()]
