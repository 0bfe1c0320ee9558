"""What can be set, and where the server is."""

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from the_eye_client._outcomes import Lost

MAX_EVENT_BYTES = 1024 * 1024
"""The largest event that the server takes, as JSON."""

MAX_BATCH_EVENTS = 1_000
MAX_BATCH_BYTES = 4 * 1024 * 1024
"""The largest batch that the server takes, before compression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How events are gathered, kept and sent."""

    batch_events: int = 500
    """The most events in one request; the server takes 1,000."""

    batch_bytes: int = 1024 * 1024
    """The most bytes in one request before compression, unless a single event is larger; the server takes 4 MiB."""

    batch_seconds: float = 1.0
    """How long an event waits for others before it is sent."""

    memory_events: int = 20_000
    """The most events in memory, those on their way included. Beyond it, and beyond ``memory_bytes``, the newest are
    dropped: what was taken stays, and the caller learns of it at once."""

    memory_bytes: int = 32 * 1024 * 1024
    """The most bytes of JSON in memory."""

    spool: Path | str | None = None
    """A SQLite file in which events wait until the server has them; None keeps them in memory alone. Several processes
    may share it if they send with the same token. It needs a local disk: SQLite's WAL works across no network."""

    spool_bytes: int = 1024 * 1024 * 1024
    """The size that the spool may have; beyond it events stay in memory."""

    request_seconds: float = 30.0
    """Deadline of one request, from connecting to the last byte of the answer."""

    first_backoff_seconds: float = 0.5
    """The most that is waited after a first failure; each further one doubles it."""

    longest_backoff_seconds: float = 30.0
    """The most that is waited after many failures, ``Retry-After`` not counted."""

    close_seconds: float = 5.0
    """How long ``close()``, and with it the end of the process, waits for what is not sent yet."""

    on_lost: Callable[[Lost], None] | None = None
    """Called with each event that will not be stored: in ``track()`` with one that was never taken, in a thread of the
    client's with one that the server refused. It should be quick; what it raises is logged."""

    json_default: Callable[[Any], Any] | None = None
    """Turns a value in ``data`` that JSON does not know into one that it does, as ``default`` of ``json.dumps``."""

    ssl_context: ssl.SSLContext | None = None
    """For a certificate authority of your own; None trusts those of the system."""

    def __post_init__(self) -> None:
        """Refuse what cannot work. Raises ValueError."""
        _require("batch_events", self.batch_events, 1, MAX_BATCH_EVENTS)
        _require("batch_bytes", self.batch_bytes, 1, MAX_BATCH_BYTES)
        for field in ("memory_events", "memory_bytes", "spool_bytes"):
            _require(field, getattr(self, field), 1)
        for field in ("batch_seconds", "first_backoff_seconds", "longest_backoff_seconds", "close_seconds"):
            _require(field, getattr(self, field), 0)
        _require("request_seconds", self.request_seconds, 0.001)


def _require(field: str, value: float, least: float, most: float = float("inf")) -> None:
    if not least <= value <= most:
        message = f"{field}={value!r} does not lie between {least:g} and {most:g}"
        raise ValueError(message)


@dataclass(frozen=True, slots=True)
class Server:
    """Where events are sent, and the token that lets them in."""

    secure: bool
    host: str
    port: int | None
    path: str
    authorization: str

    def __repr__(self) -> str:
        return f"{self.host}:{self.port}{self.path}"

    @classmethod
    def of(cls, url: str | None, token: str | None) -> "Server":
        """Read what was given, or else the environment. Raises ValueError, whose text never holds the token."""
        given = _given("url", url, "THE_EYE_URL")
        parts = urlsplit(given)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query:
            message = "url does not look like https://events.example.com"
            raise ValueError(message)
        secret = _given("token", token, "THE_EYE_TOKEN")
        if not (secret.isascii() and secret.isprintable()) or " " in secret:
            message = "token holds characters that no token has"
            raise ValueError(message)
        path = f"{parts.path.rstrip('/')}/events/batch"
        return cls(parts.scheme == "https", parts.hostname, parts.port, path, f"Bearer {secret}")


def _given(name: str, value: str | None, key: str) -> str:
    found = (value or os.environ.get(key, "")).strip()
    if not found:
        message = f"{name} is not given, and {key} is not set"
        raise ValueError(message)
    return found
