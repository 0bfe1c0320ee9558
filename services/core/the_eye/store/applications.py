"""Applications and their tokens."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
import psycopg
from psycopg.rows import class_row

from the_eye.tokens import Caller, RateLimit, Scope, new_token, token_hash

LIVE_TOKENS = 2
"""Live tokens of one application and one set of scopes: enough to bring in a new one before the old one goes."""

HINT_CHARACTERS = 4

_APPLICATION = "id, name, created_at, disabled_at, events_per_second, burst"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SCOPES = {scope.value: scope for scope in Scope}

AnyConnection = psycopg.Connection[Any]


class ApplicationError(Exception):
    """Raised when what was asked of an application or a token cannot be done; its text is one line for people."""


class Application(msgspec.Struct, frozen=True):
    """A sender of events."""

    id: int
    name: str
    created_at: datetime
    disabled_at: datetime | None
    events_per_second: float | None
    """Its own limit; None for the default of the settings."""
    burst: int | None


class Token(msgspec.Struct, frozen=True):
    """What is known of a token: everything but its text."""

    id: int
    application: str
    hint: str
    """Its last characters."""
    scopes: tuple[str, ...]
    state: str
    """``live``, ``expired``, ``revoked``, or ``disabled`` with its application."""
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    """To a minute."""


class NewToken(msgspec.Struct, frozen=True):
    """A token that was just made, with the text that is shown once."""

    id: int
    text: str


def create_application(connection: AnyConnection, name: str) -> Application:
    """Create an application.

    Raises ApplicationError for a bad or taken name.
    """
    if not _NAME.fullmatch(name):
        message = f"an application's name has 1 to 63 of a-z, 0-9 and inner hyphens, unlike {name!r}"
        raise ApplicationError(message)
    query = f"INSERT INTO applications (name) VALUES (%s) RETURNING {_APPLICATION}"  # noqa: S608 - columns, no values
    try:
        return _one(connection, query, (name,))
    except psycopg.errors.UniqueViolation as error:
        message = f"an application named {name} exists already"
        raise ApplicationError(message) from error


def list_applications(connection: AnyConnection) -> list[Application]:
    """List all applications by name."""
    query = f"SELECT {_APPLICATION} FROM applications ORDER BY name"  # noqa: S608 - columns, no values
    return connection.cursor(row_factory=class_row(Application)).execute(query).fetchall()


def disable_application(connection: AnyConnection, name: str) -> Application:
    """Make an application's tokens stop working within seconds; its events stay.

    Raises ApplicationError for an unknown name.
    """
    return _set_disabled(connection, name, "coalesce(disabled_at, now())")


def enable_application(connection: AnyConnection, name: str) -> Application:
    """Make a disabled application's live tokens work again.

    Raises ApplicationError for an unknown name.
    """
    return _set_disabled(connection, name, "NULL")


def limit_application(connection: AnyConnection, name: str, limit: RateLimit | None) -> Application:
    """Give an application a limit of its own within seconds; None gives it the default of the settings again.

    Raises ApplicationError for an unknown name.
    """
    query = f"UPDATE applications SET events_per_second = %s, burst = %s WHERE name = %s RETURNING {_APPLICATION}"  # noqa: S608 - columns, no values
    values = (limit and limit.events_per_second, limit and limit.burst, _sql_text(name))
    return _one(connection, query, values, f"there is no application named {name!r}")


def _set_disabled(connection: AnyConnection, name: str, value: str) -> Application:
    query = f"UPDATE applications SET disabled_at = {value} WHERE name = %s RETURNING {_APPLICATION}"  # noqa: S608 - value is one of two constants
    return _one(connection, query, (_sql_text(name),), f"there is no application named {name!r}")


def _one(connection: AnyConnection, query: str, values: tuple[object, ...], missing: str = "") -> Application:
    row = connection.cursor(row_factory=class_row(Application)).execute(query, values).fetchone()
    if row is None:
        raise ApplicationError(missing)
    return row


def _sql_text(text: str) -> str:
    """Replace what PostgreSQL's text cannot hold, and no name holds either."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def create_token(
    connection: AnyConnection, application: str, scopes: Iterable[Scope], expires_at: datetime | None = None
) -> NewToken:
    """Make a token; its text is nowhere but in what is returned.

    Raises ApplicationError for an unknown or disabled application, and when it has two live tokens of these scopes.
    """
    names = sorted(set(scopes))
    text = new_token()
    with connection.transaction():
        application_id = _lock_application(connection, application)
        _refuse_third(connection, application_id, application, names)
        created = connection.execute(
            """INSERT INTO tokens (application_id, hash, hint, scopes, expires_at)
               VALUES (%s, %s, %s, %s, %s) RETURNING id""",
            (application_id, token_hash(text), text[-HINT_CHARACTERS:], names, expires_at),
        ).fetchall()
    return NewToken(created[0][0], text)


def _lock_application(connection: AnyConnection, name: str) -> int:
    """Keep two calls at once from both counting one live token."""
    row = connection.execute(
        "SELECT id, disabled_at FROM applications WHERE name = %s FOR NO KEY UPDATE", (_sql_text(name),)
    ).fetchone()
    if row is None:
        message = f"there is no application named {name!r}"
        raise ApplicationError(message)
    application_id, disabled_at = row
    if disabled_at is not None:
        message = f"application {name} is disabled"
        raise ApplicationError(message)
    return int(application_id)


def _refuse_third(connection: AnyConnection, application_id: int, application: str, scopes: list[Scope]) -> None:
    rows = connection.execute(
        """SELECT id FROM tokens
            WHERE application_id = %(application_id)s AND scopes @> %(scopes)s AND scopes <@ %(scopes)s
              AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
            ORDER BY id""",
        {"application_id": application_id, "scopes": scopes},
    ).fetchall()
    if len(rows) >= LIVE_TOKENS:
        ids = ", ".join(str(row[0]) for row in rows)
        message = (
            f"application {application} has {len(rows)} live tokens for {' and '.join(scopes)} (ids {ids}): "
            "revoke one first"
        )
        raise ApplicationError(message)


def list_tokens(connection: AnyConnection, application: str | None = None) -> list[Token]:
    """List tokens, live or not, by application and age.

    Raises ApplicationError for an unknown application.
    """
    name = None if application is None else _sql_text(application)
    if name is not None and not connection.execute("SELECT FROM applications WHERE name = %s", (name,)).rowcount:
        message = f"there is no application named {application!r}"
        raise ApplicationError(message)
    query = """
        SELECT t.id, a.name AS application, t.hint, t.scopes, t.created_at, t.expires_at, t.revoked_at,
               t.last_used_at,
               CASE WHEN t.revoked_at IS NOT NULL THEN 'revoked'
                    WHEN t.expires_at <= now() THEN 'expired'
                    WHEN a.disabled_at IS NOT NULL THEN 'disabled'
                    ELSE 'live' END AS state
          FROM tokens t JOIN applications a ON a.id = t.application_id
         WHERE %(name)s::text IS NULL OR a.name = %(name)s
         ORDER BY a.name, t.id"""
    rows = connection.cursor(row_factory=class_row(Token)).execute(query, {"name": name}).fetchall()
    return [msgspec.structs.replace(token, scopes=tuple(token.scopes)) for token in rows]


def rotate_token(connection: AnyConnection, token_id: int, grace: timedelta) -> NewToken:
    """Make a token that takes another's place, which works on for ``grace``.

    Raises ApplicationError for an unknown id, for a token that does not work any more, and as ``create_token``.
    """
    with connection.transaction():
        row = connection.execute(
            """SELECT a.name, t.scopes FROM tokens t JOIN applications a ON a.id = t.application_id
                WHERE t.id = %s::bigint AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
                  FOR NO KEY UPDATE OF t""",
            (token_id,),
        ).fetchone()
        if row is None:
            message = f"there is no live token with the id {token_id}"
            raise ApplicationError(message)
        created = create_token(connection, row[0], _known_scopes(row[1]))
        connection.execute(
            "UPDATE tokens SET expires_at = least(expires_at, now() + %s) WHERE id = %s::bigint", (grace, token_id)
        )
    return created


def revoke_token(connection: AnyConnection, token_id: int) -> None:
    """Make a token stop working within seconds; revoking it again changes nothing.

    Raises ApplicationError for an unknown id.
    """
    query = "UPDATE tokens SET revoked_at = coalesce(revoked_at, now()) WHERE id = %s::bigint"
    if not connection.execute(query, (token_id,)).rowcount:
        message = f"there is no token with the id {token_id}"
        raise ApplicationError(message)


async def note_uses(connection: psycopg.AsyncConnection[Any], hashes: Iterable[bytes]) -> None:
    """Write that tokens were used just now."""
    await connection.execute(
        "UPDATE tokens SET last_used_at = least(now(), revoked_at) WHERE hash = ANY(%s)", (list(hashes),)
    )


async def live_tokens(connection: psycopg.AsyncConnection[Any]) -> Mapping[bytes, Caller]:
    """Read every token that works now, by its hash."""
    cursor = await connection.execute(
        """SELECT t.hash, t.application_id, a.name, t.scopes, t.expires_at, a.events_per_second, a.burst
             FROM tokens t JOIN applications a ON a.id = t.application_id
            WHERE t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now()) AND a.disabled_at IS NULL"""
    )
    return {
        hash_: Caller(application_id, name, _known_scopes(scopes), expires_at, RateLimit(rate, burst) if rate else None)
        async for hash_, application_id, name, scopes, expires_at, rate, burst in cursor
    }


def _known_scopes(scopes: Iterable[str]) -> frozenset[Scope]:
    """Leave out a scope that only a newer version knows, which may run beside this one during an upgrade."""
    return frozenset(_SCOPES[scope] for scope in scopes if scope in _SCOPES)
