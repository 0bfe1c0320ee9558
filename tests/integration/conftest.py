"""Real servers for the integration tests: one PostgreSQL and one Valkey for all, clean for each test."""

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from tests.servers import Postgres, Valkey, running

from the_eye.settings import QueueSettings, StoreSettings
from the_eye.store.connect import Connection, connect
from the_eye_cli.migrate import migrate


class QuickPostgres(Postgres):
    """PostgreSQL that leaves it to the system when to write to the disk: no test cuts the power."""

    def command(self) -> list[str]:
        """Turn off fsync."""
        return [*super().command(), "-c", "fsync=off"]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server; a test that stops it starts it again."""
    with running(QuickPostgres) as server:
        assert isinstance(server, Postgres)
        yield server


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """A Valkey server; a test that stops it starts it again."""
    with running(Valkey) as server:
        assert isinstance(server, Valkey)
        yield server


@pytest.fixture(scope="session")
def migrated_url(postgres: Postgres) -> str:
    """A database with the schema, as `the-eye migrate` makes it."""
    url = postgres.create_database("the_eye")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("THE_EYE_DATABASE_URL", url)
        migrate.main([], standalone_mode=False)
    return url


@pytest.fixture
def store_settings(migrated_url: str) -> StoreSettings:
    """A store with empty tables and no partition but the default one."""
    clean(migrated_url)
    return StoreSettings(database_url=migrated_url, database_connect_seconds=2.0, database_statement_seconds=5.0)


@pytest.fixture
def connection(store_settings: StoreSettings) -> Iterator[Connection]:
    """A connection to the empty store."""
    with connect(store_settings, "test") as opened:
        yield opened


@pytest.fixture
def queue_settings(valkey: Valkey) -> QueueSettings:
    """A queue of the test's own."""
    return QueueSettings(redis_url=valkey.url(), queue_namespace=f"test-{uuid4().hex}")


TABLES = (
    "event_kinds",
    "dead_events",
    "tokens",
    "applications",
    "revised_verdicts",
    "revalidations",
    "users",
    "sign_ins",
    "sign_in_attempts",
    "audit_log",
)


def clean(url: str) -> None:
    """Empty every table, let ids begin at 1 again, and drop the daily partitions."""
    partitions = (
        "SELECT relid::text FROM pg_partition_tree('events') WHERE isleaf AND relid <> 'events_default'::regclass"
    )
    with psycopg.connect(url) as connection:
        for (name,) in connection.execute(partitions).fetchall():
            connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
        # TRUNCATE takes 10 ms a table, DELETE of a few rows less than one.
        if connection.execute("SELECT FROM events LIMIT 1").fetchall():
            connection.execute("TRUNCATE events")
        # Triggers would keep the applications.
        connection.execute("SET session_replication_role = replica")
        for name in TABLES:
            connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(name)))
        connection.execute("SELECT setval(seqrelid, seqstart, false) FROM pg_sequence")
