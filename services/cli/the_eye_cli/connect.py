"""The store's connection for commands, whose failures are one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import click
import psycopg

from the_eye.settings import StoreSettings
from the_eye.store.applications import ApplicationError
from the_eye.store.connect import Connection, connect, redact
from the_eye.store.partitions import MaintenanceError


@contextmanager
def store(command: str, statement_seconds: float | None = None) -> Iterator[Connection]:
    """Connect to the store that the environment names.

    Raises click.ClickException in place of what the database or the store refuses.
    """
    settings = StoreSettings.load()
    try:
        with connect(settings, f"the-eye {command}", statement_seconds) as connection:
            yield connection
    except (ApplicationError, MaintenanceError) as error:
        raise click.ClickException(str(error)) from error
    except psycopg.errors.UndefinedTable as error:
        message = f"the database {redact(settings.database_url)} has no such tables yet: run `the-eye migrate`"
        raise click.ClickException(message) from error
    except psycopg.Error as error:
        message = f"database {redact(settings.database_url)}: {one_line(error)}"
        raise click.ClickException(message) from error


def one_line(error: Exception) -> str:
    """Join the lines of libpq's texts."""
    return " ".join(str(error).split())
