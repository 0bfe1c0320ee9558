"""What a token is: its text, its hash, what it allows."""

import hashlib
import secrets
from datetime import datetime
from enum import StrEnum

import msgspec

TOKEN_PREFIX = "eye_"  # noqa: S105 - the mark by which secret scanners find leaked tokens
TOKEN_RANDOM_BYTES = 32


class Scope(StrEnum):
    """What a token allows."""

    INGEST = "ingest"
    """Send events."""
    READ = "read"
    """Read the events of the token's own application."""
    ADMIN = "admin"
    """Read the events of all applications."""


class RateLimit(msgspec.Struct, frozen=True):
    """How much an application may send to one API process."""

    events_per_second: float
    """Over time."""
    burst: int
    """At once, after a pause."""


class Caller(msgspec.Struct, frozen=True):
    """Who a request comes from."""

    application_id: int
    application: str
    scopes: frozenset[Scope]
    expires_at: datetime | None = None
    limit: RateLimit | None = None
    """The application's own; None is the default of the settings."""

    def may(self, *scopes: Scope) -> bool:
        """Whether any of ``scopes`` is granted."""
        return not self.scopes.isdisjoint(scopes)


def new_token() -> str:
    """Make a token of 256 random bits; who holds its text may use it."""
    return TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_RANDOM_BYTES)


def token_hash(token: str | bytes) -> bytes:
    """Hash a token for storing and looking up: 32 bytes.

    A plain SHA-256, since 256 random bits cannot be guessed and every request pays for this.
    """
    return hashlib.sha256(token.encode() if isinstance(token, str) else token).digest()
