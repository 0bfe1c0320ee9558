"""Connections to PostgreSQL on which every wait has a deadline.

``statement_timeout`` bounds what a live server does. What a dead, unreachable or paused one leaves waiting is bounded
by keepalives, ``tcp_user_timeout`` and a deadline on this side.
"""

import math
import urllib.parse
from typing import Any

import psycopg
from psycopg import conninfo, pq
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from the_eye.settings import SettingsError, StoreSettings

POLL_SECONDS = 0.1
"""How often a wait looks for Ctrl-C; psycopg's own default."""

NETWORK_SECONDS = 3.0
"""What may come on top of a statement's deadline before the server is taken for gone."""

Pool = ConnectionPool["Connection"]
AsyncPool = AsyncConnectionPool["AsyncConnection"]


class Connection(psycopg.Connection[TupleRow]):
    """A connection that closes itself when the server does not answer in time.

    Raises psycopg.OperationalError then. Autocommit is on: what belongs together stands in ``transaction()``.
    """

    answer_seconds: float | None = None

    def wait(self, gen: Any, interval: float = POLL_SECONDS, timeout: float | None = None) -> Any:
        """Wait as psycopg does, but never for longer than ``answer_seconds``."""
        try:
            return super().wait(gen, interval, self.answer_seconds if timeout is None else timeout)
        except psycopg.OperationalError as error:
            _close_if_unanswered(self.pgconn, error)
            raise


class AsyncConnection(psycopg.AsyncConnection[TupleRow]):
    """The same for asyncio."""

    answer_seconds: float | None = None

    async def wait(self, gen: Any, interval: float = POLL_SECONDS, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - psycopg's signature
        """Wait as psycopg does, but never for longer than ``answer_seconds``."""
        try:
            return await super().wait(gen, interval, self.answer_seconds if timeout is None else timeout)
        except psycopg.OperationalError as error:
            _close_if_unanswered(self.pgconn, error)
            raise


def _close_if_unanswered(pgconn: pq.abc.PGconn, error: psycopg.OperationalError) -> None:
    """Close a connection whose statement is still running: an answer that comes later belongs to nobody."""
    if error.sqlstate is None and pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
        pgconn.finish()
        message = "the database did not answer in time"
        raise psycopg.OperationalError(message) from error


def connect(settings: StoreSettings, application_name: str, statement_seconds: float | None = None) -> Connection:
    """Open one connection.

    Raises psycopg.OperationalError when the database is away.
    """
    seconds = statement_seconds or settings.database_statement_seconds
    connection = Connection.connect(parameters(settings, application_name, seconds), autocommit=True)
    connection.answer_seconds = seconds + NETWORK_SECONDS
    return connection


def open_pool(
    settings: StoreSettings,
    application_name: str,
    size: int,
    statement_seconds: float | None = None,
    *,
    checked: bool = True,
) -> Pool:
    """Open a pool of up to ``size`` connections.

    It opens, and stays open, while the database is away: asking for a connection then raises
    psycopg_pool.PoolTimeout, a psycopg.OperationalError, after ``database_connect_seconds``.

    Unless ``checked``, a connection that broke while it was idle is found out by its next user: for those who try
    again anyway, that saves asking the server before each use.
    """
    seconds = statement_seconds or settings.database_statement_seconds

    def configure(connection: Connection) -> None:
        connection.answer_seconds = seconds + NETWORK_SECONDS

    return ConnectionPool(
        parameters(settings, application_name, seconds),
        connection_class=Connection,
        configure=configure,
        check=ConnectionPool.check_connection if checked else None,
        open=True,
        **_pool_options(settings, application_name, size),
    )


def make_async_pool(
    settings: StoreSettings, application_name: str, size: int, statement_seconds: float | None = None
) -> AsyncPool:
    """Make the same for asyncio, not yet open: ``open`` it inside the event loop."""
    seconds = statement_seconds or settings.database_statement_seconds

    async def configure(connection: AsyncConnection) -> None:
        connection.answer_seconds = seconds + NETWORK_SECONDS

    return AsyncConnectionPool(
        parameters(settings, application_name, seconds),
        connection_class=AsyncConnection,
        configure=configure,
        check=AsyncConnectionPool.check_connection,
        open=False,
        **_pool_options(settings, application_name, size),
    )


def _pool_options(settings: StoreSettings, name: str, size: int) -> dict[str, Any]:
    return {
        "kwargs": {"autocommit": True},
        "min_size": 1,
        "max_size": size,
        "name": name,
        "timeout": settings.database_connect_seconds,
        # Few idle connections, so that few are found broken, one after the other, when the database was restarted.
        "max_idle": 60.0,
        # The pool doubles the pause between attempts up to this long: a short one finds a database that came back.
        "reconnect_timeout": settings.database_connect_seconds,
    }


def parameters(settings: StoreSettings, application_name: str, statement_seconds: float) -> str:
    """Make the libpq connection string: the URL with the deadlines added; what the URL itself says wins.

    Raises SettingsError when the URL cannot be read.
    """
    given = read_url(settings.database_url)
    milliseconds = math.ceil(statement_seconds * 1000)
    options = {
        "statement_timeout": milliseconds,
        # A process that froze inside a transaction must not hold its locks.
        "idle_in_transaction_session_timeout": milliseconds,
        # Times of the years 1 and 9999 do not survive a shift into another zone.
        "timezone": "UTC",
        # Where there are many partitions, small reads are expected to be dear. Starting workers and compiling would
        # take longer than they do, and processors from those who store.
        "max_parallel_workers_per_gather": 0,
        "jit": "off",
    }
    defaults = {
        "application_name": application_name,
        "connect_timeout": math.ceil(settings.database_connect_seconds),
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": math.ceil((statement_seconds + NETWORK_SECONDS) * 1000),
    }
    ours = " ".join(f"-c {name}={value}" for name, value in options.items())
    return conninfo.make_conninfo("", **{**defaults, **given, "options": f"{ours} {given.get('options', '')}".strip()})


def read_url(url: str) -> dict[str, Any]:
    """Read a libpq URL into its parameters.

    Raises SettingsError without repeating the URL, which may hold a password.
    """
    try:
        return {key: value for key, value in conninfo.conninfo_to_dict(url).items() if value is not None}
    except psycopg.ProgrammingError:
        message = (
            "THE_EYE_DATABASE_URL is not a URL that libpq can read, such as postgresql://user:password@host/database"
        )
        raise SettingsError(message) from None


def redact(url: str) -> str:
    """Say where a database is, without secrets."""
    try:
        given = read_url(url)
    except SettingsError:
        return "(unreadable URL)"
    user = urllib.parse.quote(given.get("user", ""))
    place: dict[str, str] = {key: given[key] for key in ("host", "port") if key in given}
    query = urllib.parse.urlencode(place, safe="/,:")
    return f"postgresql://{user}{'@' if user else ''}/{urllib.parse.quote(given.get('dbname', ''))}?{query}".rstrip("?")
