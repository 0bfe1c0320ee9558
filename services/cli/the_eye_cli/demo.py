"""The application and the user ``demo``, their token and password, and the commands that try The Eye out."""

import asyncio
import os
import shlex
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import msgspec
import psycopg

from the_eye.passwords import hash_password, new_password
from the_eye.settings import Address, StoreSettings
from the_eye.store.applications import (
    ApplicationError,
    create_application,
    create_token,
    list_applications,
    live_tokens,
)
from the_eye.store.connect import AsyncConnection, connect, parameters
from the_eye.store.users import Role, UserError, create_user, list_users
from the_eye.tokens import Scope, token_hash

APPLICATION = "demo"
USER = "demo"
SCOPES = frozenset({Scope.INGEST, Scope.READ})
CLIENT = "the-eye up"


class DemoError(Exception):
    """Raised when there is no token for trying out; its text is one line for people."""


async def demo_token(settings: StoreSettings, file: Path) -> str:
    """Give a live token of the application ``demo``: the one in ``file``, or a new one that is put there.

    Raises DemoError.
    """
    try:
        kept = _read(file)
        if kept and await _is_live(settings, kept):
            return kept
        token = await asyncio.to_thread(_make_token, settings)
        write_private(file, f"{token}\n")
    except (ApplicationError, psycopg.Error, OSError) as error:
        raise DemoError(" ".join(str(error).split())) from error
    return token


async def demo_password(settings: StoreSettings, file: Path) -> str:
    """Give the password of the user ``demo``, an admin who is made with it when there are no users at all.

    It is in ``file`` from then on. Empty when there are other users, or it is not known. Raises DemoError.
    """
    try:
        return await asyncio.to_thread(_demo_password, settings, file)
    except (UserError, psycopg.Error, OSError) as error:
        raise DemoError(" ".join(str(error).split())) from error


def _demo_password(settings: StoreSettings, file: Path) -> str:
    with connect(settings, CLIENT) as connection:
        users = {user.name for user in list_users(connection) if user.disabled_at is None}
        if not users:
            password = new_password()
            with connection.transaction():
                create_user(connection, USER, hash_password(password), Role.ADMIN)
                write_private(file, f"{password}\n")
            return password
    return _read(file) if USER in users else ""


def _read(file: Path) -> str:
    return file.read_text().strip() if file.exists() else ""


async def _is_live(settings: StoreSettings, token: str) -> bool:
    where = parameters(settings, CLIENT, settings.database_statement_seconds)
    async with await AsyncConnection.connect(where, autocommit=True) as connection:
        caller = (await live_tokens(connection)).get(token_hash(token))
    return caller is not None and caller.application == APPLICATION and caller.scopes >= SCOPES


def _make_token(settings: StoreSettings) -> str:
    with connect(settings, CLIENT) as connection:
        if APPLICATION not in {application.name for application in list_applications(connection)}:
            create_application(connection, APPLICATION)
        return create_token(connection, APPLICATION, SCOPES).text


def write_private(file: Path, text: str) -> None:
    """Replace a file that only its owner may read; whoever reads it finds the old text or the new one."""
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(text)
    new.replace(file)


def curl_lines(api: Address, token: str) -> tuple[str, str]:
    """Make a command that sends an event, and one that reads it back; both can be pasted into a shell."""
    session_id = str(uuid4())
    event = {
        "session_id": session_id,
        "category": "page interaction",
        "name": "cta click",
        "data": {"host": "www.consumeraffairs.com", "path": "/", "element": "chat bubble"},
        "timestamp": datetime.now(UTC),
    }
    authorization = ["--header", f"Authorization: Bearer {token}"]
    body = ["--header", "Content-Type: application/json", "--data", msgspec.json.encode(event).decode()]
    send = ["curl", "--request", "POST", f"http://{api}/events", *authorization, *body]
    read = ["curl", f"http://{api}/sessions/{session_id}/events", *authorization]
    return shlex.join(send), shlex.join(read)
