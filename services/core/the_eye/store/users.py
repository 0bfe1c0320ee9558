"""People who sign in to the pages."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec
import psycopg
from psycopg.rows import class_row

from the_eye.store.sign_ins import forget_attempts, sign_out_everywhere

_USER = "id, name, role, created_at, disabled_at"

AnyConnection = psycopg.Connection[Any]


class UserError(Exception):
    """Raised when what was asked of a user cannot be done; its text is one line for people."""


class Role(StrEnum):
    """What a user may do."""

    VIEWER = "viewer"
    """See all events."""
    ADMIN = "admin"
    """Also replay and discard dead events, and make and revoke tokens."""


class User(msgspec.Struct, frozen=True):
    """A person."""

    id: int
    name: str
    role: str
    created_at: datetime
    disabled_at: datetime | None


def create_user(connection: AnyConnection, name: str, password_hash: str, role: Role) -> User:
    """Create a user.

    Raises UserError for a bad or taken name.
    """
    query = f"INSERT INTO users (name, password_hash, role) VALUES (%s, %s, %s) RETURNING {_USER}"  # noqa: S608 - columns, no values
    try:
        return _one(connection, query, (name, password_hash, role.value), name)
    except psycopg.errors.UniqueViolation as error:
        message = f"a user named {name} exists already"
        raise UserError(message) from error
    except (psycopg.errors.CheckViolation, psycopg.DataError) as error:
        message = f"a user's name has 1 to 63 of a-z, 0-9 and inner dots, hyphens, @ and underscores, unlike {name!r}"
        raise UserError(message) from error


def list_users(connection: AnyConnection) -> list[User]:
    """List all users by name."""
    query = f"SELECT {_USER} FROM users ORDER BY name"  # noqa: S608 - columns, no values
    return connection.cursor(row_factory=class_row(User)).execute(query).fetchall()


def disable_user(connection: AnyConnection, name: str) -> User:
    """Sign a user out and let them in no more.

    Raises UserError for an unknown name.
    """
    with connection.transaction():
        user = _change(connection, name, "disabled_at = coalesce(disabled_at, now())", ())
        sign_out_everywhere(connection, user.id)
    return user


def enable_user(connection: AnyConnection, name: str) -> User:
    """Let a disabled user sign in again.

    Raises UserError for an unknown name.
    """
    return _change(connection, name, "disabled_at = NULL", ())


def set_role(connection: AnyConnection, name: str, role: Role) -> User:
    """Give a user another role, also where they are signed in.

    Raises UserError for an unknown name.
    """
    return _change(connection, name, "role = %s", (role.value,))


def set_password(connection: AnyConnection, name: str, password_hash: str) -> User:
    """Give a user another password, sign them out everywhere, and forget the attempts that failed.

    Raises UserError for an unknown name.
    """
    with connection.transaction():
        user = _change(connection, name, "password_hash = %s", (password_hash,))
        sign_out_everywhere(connection, user.id)
        forget_attempts(connection, name)
    return user


def _change(connection: AnyConnection, name: str, change: str, values: Sequence[object]) -> User:
    query = f"UPDATE users SET {change} WHERE name = %s RETURNING {_USER}"  # noqa: S608 - change is one of the constants above
    return _one(connection, query, (*values, name.replace("\0", "\N{REPLACEMENT CHARACTER}")), name)


def _one(connection: AnyConnection, query: str, values: Sequence[object], name: str) -> User:
    row = connection.cursor(row_factory=class_row(User)).execute(query.encode(), values).fetchone()
    if row is None:
        message = f"there is no user named {name!r}"
        raise UserError(message)
    return row
