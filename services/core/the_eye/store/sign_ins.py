"""What keeps people signed in, and what locks out those who guess.

A sign-in is a row, and no signed cookie: to sign out, to disable a user or to change a password then acts at once, on
every API, and no key has to be kept and shared.
"""

import hashlib
import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
import psycopg
from psycopg.rows import class_row

from the_eye.passwords import is_right

LOCK_SECONDS = 15 * 60.0
"""For how long an attempt that has not succeeded counts."""

USER_ATTEMPTS = 5
ADDRESS_ATTEMPTS = 30
"""Attempts that may fail within LOCK_SECONDS; of an address more, since many people may share it."""

_ATTEMPTS_LOCK = 0x7468652D6579
"""Held while attempts are counted: two at once could otherwise both be the last one that may be."""

AnyConnection = psycopg.Connection[Any]


class SignedIn(msgspec.Struct, frozen=True):
    """Who is signed in."""

    user: str
    role: str


def sign_in(connection: AnyConnection, name: str, password: str, address: str, lifetime: timedelta) -> str | None:
    """Sign a user in for ``lifetime`` and give the text that proves it from now on; None when they are not let in.

    It says nothing about why, and takes as long for a name that no one has. An attempt counts as failed from before
    the password is looked at until it has succeeded, so that many at once are no more guesses than one by one.
    """
    subjects = [_subject("user", name), _subject("address", address)]
    attempt = _attempt(connection, subjects)
    if not attempt or not is_right(password, _password_hash(connection, name)):
        return None
    text = secrets.token_urlsafe(32)
    with connection.transaction():
        # Of the address only this one: whoever has an account could else go on guessing others' passwords.
        connection.execute("DELETE FROM sign_in_attempts WHERE subject = %s OR id = ANY(%s)", (subjects[0], attempt))
        connection.execute("DELETE FROM sign_ins WHERE expires_at <= now()")
        # Once more whether the user may: they could have been disabled meanwhile.
        created = connection.execute(
            """INSERT INTO sign_ins (hash, user_id, expires_at)
               SELECT %s, id, now() + %s FROM users WHERE name = %s AND disabled_at IS NULL""",
            (_hash(text), lifetime, name),
        )
    return text if created.rowcount else None


def _subject(kind: str, text: str) -> bytes:
    return _hash(f"{kind}:{text}")


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def _attempt(connection: AnyConnection, subjects: Sequence[bytes]) -> list[int]:
    """Note an attempt and give its rows; none when there were too many."""
    window = timedelta(seconds=LOCK_SECONDS)
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_ATTEMPTS_LOCK,))
        connection.execute("DELETE FROM sign_in_attempts WHERE attempted_at <= now() - %s", (window,))
        rows = connection.execute(
            "SELECT subject, count(*) FROM sign_in_attempts WHERE subject = ANY(%s) GROUP BY subject", (list(subjects),)
        )
        counts = dict(rows.fetchall())
        limits = (USER_ATTEMPTS, ADDRESS_ATTEMPTS)
        if any(counts.get(subject, 0) >= limit for subject, limit in zip(subjects, limits, strict=True)):
            return []
        noted = connection.execute(
            "INSERT INTO sign_in_attempts (subject) SELECT unnest(%s::bytea[]) RETURNING id", (list(subjects),)
        )
        return [row[0] for row in noted.fetchall()]


def _password_hash(connection: AnyConnection, name: str) -> str | None:
    if "\0" in name:  # which no name has, and PostgreSQL's text cannot hold
        return None
    query = "SELECT password_hash FROM users WHERE name = %s AND disabled_at IS NULL"
    row = connection.execute(query, (name.encode(errors="replace").decode(),)).fetchone()
    return row[0] if row else None


def forget_attempts(connection: AnyConnection, name: str) -> None:
    """Lift a user's lock-out."""
    connection.execute("DELETE FROM sign_in_attempts WHERE subject = %s", (_subject("user", name),))


def sign_out(connection: AnyConnection, text: str) -> None:
    """End one sign-in."""
    connection.execute("DELETE FROM sign_ins WHERE hash = %s", (_hash(text),))


def sign_out_everywhere(connection: AnyConnection, user_id: int) -> None:
    """End all sign-ins of a user."""
    connection.execute("DELETE FROM sign_ins WHERE user_id = %s", (user_id,))


async def signed_in(connection: psycopg.AsyncConnection[Any], text: str) -> SignedIn | None:
    """Find whose sign-in it is; None when it has ended."""
    async with connection.cursor(row_factory=class_row(SignedIn)) as cursor:
        await cursor.execute(
            """SELECT u.name AS "user", u.role FROM sign_ins s JOIN users u ON u.id = s.user_id
                WHERE s.hash = %s AND s.expires_at > now() AND u.disabled_at IS NULL""",
            (_hash(text),),
        )
        return await cursor.fetchone()
