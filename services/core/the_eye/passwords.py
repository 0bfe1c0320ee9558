"""Passwords of people: made, hashed and verified with Argon2id."""

import secrets
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MIN_CHARACTERS = 12
MAX_CHARACTERS = 1_024
RANDOM_BYTES = 18

# 19 MiB, twice: what OWASP recommends at the least for Argon2id. An API has little memory beside what it accepts with.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


class PasswordError(Exception):
    """Raised for a password that cannot be used; its text is one line for people."""


def new_password() -> str:
    """Make a password of 144 random bits."""
    return secrets.token_urlsafe(RANDOM_BYTES)


def hash_password(password: str) -> str:
    """Hash a password for storing.

    Raises PasswordError when it is too short or too long.
    """
    if not MIN_CHARACTERS <= len(password) <= MAX_CHARACTERS:
        message = f"a password has {MIN_CHARACTERS} to {MAX_CHARACTERS} characters"
        raise PasswordError(message)
    return _HASHER.hash(_bytes(password))


def is_right(password: str, stored: str | None) -> bool:
    """Verify a password; with nothing stored it takes as long and is wrong."""
    try:
        _HASHER.verify(stored or _nobodys_hash(), _bytes(password[:MAX_CHARACTERS]))
    except (VerificationError, InvalidHashError):
        return False
    return stored is not None


@cache
def _nobodys_hash() -> str:
    return _HASHER.hash(secrets.token_bytes(RANDOM_BYTES))


def _bytes(password: str) -> bytes:
    return password.encode(errors="surrogatepass")
