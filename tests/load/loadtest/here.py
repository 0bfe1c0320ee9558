"""What ``make up`` has started on this machine: where it is, and applications to send as."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psycopg
from tests.machine import exported

from the_eye.settings import ApiSettings, SettingsError, StoreSettings
from the_eye.store.applications import (
    ApplicationError,
    create_application,
    create_token,
    list_applications,
    list_tokens,
    live_tokens,
    revoke_token,
)
from the_eye.store.connect import AsyncConnection, Connection, connect, parameters
from the_eye.tokens import Scope, token_hash
from the_eye_cli.demo import write_private
from the_eye_cli.probes import reachable, why_not_ok

SCOPES = frozenset({Scope.INGEST, Scope.READ})
CLIENT = "make loadtest"
TOKENS_FILE = "loadtest-tokens"


class NotHereError(Exception):
    """Raised when nothing runs here that could be sent to; its text is one line that says what to do."""


def address() -> str:
    """Find the API. Raises NotHereError when it does not run."""
    try:
        listen = ApiSettings.load().api_listen
    except SettingsError as error:
        raise NotHereError(str(error)) from error
    if why := asyncio.run(why_not_ok(listen, "/readyz")):
        message = (
            f"The Eye does not run here ({reachable(listen)}: {why}): start it with make up, or give HOST and TOKENS"
        )
        raise NotHereError(message)
    return f"http://{reachable(listen)}"


def tokens(data: Path, count: int) -> Path:
    """Give a file with a token of each of ``count`` applications, ``loadtest-1`` and so on; what is missing is made.

    ``data`` is the folder of ``the-eye up``. Raises NotHereError.
    """
    file = data / TOKENS_FILE
    kept = file.read_text().split() if file.exists() else []
    try:
        store = StoreSettings.load(exported(data))
        live = asyncio.run(_live(store))
        with connect(store, CLIENT) as connection:
            found = {live[token_hash(token)]: token for token in kept if token_hash(token) in live}
            made = [found.get(name) or _make(connection, name) for name in _names(count)]
    except (ApplicationError, SettingsError, OSError, psycopg.Error) as error:
        message = f"no tokens can be made ({' '.join(str(error).split())}): start The Eye here with make up"
        raise NotHereError(message) from error
    write_private(file, "\n".join([*made, ""]))
    return file


def _names(count: int) -> Iterator[str]:
    return (f"loadtest-{number + 1}" for number in range(count))


async def _live(settings: StoreSettings) -> dict[bytes, str]:
    """Give the application of each token that works and lets send and read."""
    where = parameters(settings, CLIENT, settings.database_statement_seconds)
    async with await AsyncConnection.connect(where, autocommit=True) as connection:
        callers = await live_tokens(connection)
    return {hash_: caller.application for hash_, caller in callers.items() if caller.scopes >= SCOPES}


def _make(connection: Connection, name: str) -> str:
    """Make a token, and revoke those whose text is lost."""
    if name not in {application.name for application in list_applications(connection)}:
        create_application(connection, name)
    for token in list_tokens(connection, name):
        if token.state == "live":
            revoke_token(connection, token.id)
    return create_token(connection, name, SCOPES).text
