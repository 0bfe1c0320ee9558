"""Who did what to users, applications, tokens and dead events: a log that is only added to."""

import getpass
import os
import socket
from datetime import datetime
from typing import Any

import msgspec
import psycopg
from psycopg.rows import class_row

AnyConnection = psycopg.Connection[Any]


class Act(msgspec.Struct, frozen=True):
    """Something that was done."""

    at: datetime
    actor: str
    """A user of the pages, or ``user@machine`` of the command line."""
    act: str
    """What, such as ``token revoked``."""
    subject: str
    """To what, such as ``token 3 of shop``."""


def record(connection: AnyConnection, actor: str, act: str, subject: str) -> None:
    """Add an act; in the transaction of the act itself, so that neither is without the other."""
    connection.execute("INSERT INTO audit_log (actor, act, subject) VALUES (%s, %s, %s)", (actor, act, subject))


def latest_acts(connection: AnyConnection, limit: int) -> list[Act]:
    """List the newest first."""
    query = "SELECT at, actor, act, subject FROM audit_log ORDER BY id DESC LIMIT %s"
    return connection.cursor(row_factory=class_row(Act)).execute(query, (limit,)).fetchall()


def process_user() -> str:
    """Name who runs this process, as ``user@machine``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
