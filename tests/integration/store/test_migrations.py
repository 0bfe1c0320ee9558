"""The schema holds what the code promises, and comes and goes with dbmate."""

import os
import subprocess
from collections.abc import Iterator

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.types.json import Jsonb
from tests.integration.store.rows import event, insert, violating
from tests.servers import Postgres

from the_eye.store.connect import Connection
from the_eye.store.schema import MIGRATIONS
from the_eye_cli.migrate import dbmate_url, find_dbmate, migrate

VIOLATED = violating("shop/a")


@pytest.fixture
def empty_url(postgres: Postgres) -> Iterator[str]:
    """A database without anything."""
    yield postgres.create_database("scratch")
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE scratch WITH (FORCE)")


def test_migrating_twice_changes_nothing_the_second_time(empty_url: str) -> None:
    """`the-eye migrate` says in one line what it did, and may run at every start."""
    first = CliRunner().invoke(migrate, env={"THE_EYE_DATABASE_URL": empty_url})
    second = CliRunner().invoke(migrate, env={"THE_EYE_DATABASE_URL": empty_url})

    count = len(list(MIGRATIONS.glob("*.sql")))
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert f"{count} migrations applied" in first.stdout
    assert "nothing to migrate" in second.stdout


def take_back_the_last(url: str) -> None:
    """Undo the newest migration that was applied."""
    subprocess.run(  # noqa: S603
        [find_dbmate(), "--no-dump-schema", f"--migrations-dir={MIGRATIONS}", "rollback"],
        env={**os.environ, "DATABASE_URL": dbmate_url(url)},
        check=True,
        capture_output=True,
    )


def test_every_migration_can_be_taken_back(empty_url: str) -> None:
    """Up, all the way down, and up again."""
    CliRunner().invoke(migrate, env={"THE_EYE_DATABASE_URL": empty_url})
    for _ in MIGRATIONS.glob("*.sql"):
        take_back_the_last(empty_url)
    with psycopg.connect(empty_url) as connection:
        left = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname !~ '^schema_mig'"
        ).fetchall()
        functions = connection.execute(
            "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        ).fetchall()

    assert (left, functions) == ([], [])
    assert CliRunner().invoke(migrate, env={"THE_EYE_DATABASE_URL": empty_url}).exit_code == 0


def test_a_change_of_the_events_does_not_wait_behind_a_dump(empty_url: str) -> None:
    """All who write and read would wait behind it."""
    environ = {"THE_EYE_DATABASE_URL": empty_url}
    CliRunner().invoke(migrate, env=environ)
    with psycopg.connect(empty_url) as dump:
        while dump.execute(
            "SELECT 1 FROM pg_attribute WHERE attrelid = 'events'::regclass AND attname = 'trace_id'"
            " AND NOT attisdropped"
        ).fetchall():
            dump.commit()
            take_back_the_last(empty_url)
        dump.execute("LOCK TABLE events IN ACCESS SHARE MODE")
        refused = CliRunner().invoke(migrate, env=environ)

    assert refused.exit_code == 1
    assert "lock timeout" in refused.stderr
    assert CliRunner().invoke(migrate, env=environ).exit_code == 0


def test_a_database_that_is_away_is_one_clear_error() -> None:
    """The URL's password is in none of the output."""
    url = "postgresql://someone:hunter2@127.0.0.1:9/nowhere"
    result = CliRunner().invoke(migrate, ["--wait", "1"], env={"THE_EYE_DATABASE_URL": url})

    assert result.exit_code == 1
    assert "waiting up to 1 s for the database" in result.stderr
    assert "connection refused" in result.stderr
    assert "hunter2" not in result.output


def test_an_event_is_kept_exactly(connection: Connection) -> None:
    """The json column holds the sender's bytes: spaces, digits, repeated keys."""
    data = '{"n": 1.10, "big": 123456789012345678901234567890,"a":1, "a" :2}'
    insert(connection, event(data=data))

    assert connection.execute("SELECT data::text FROM events").fetchall() == [(data,)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"category": ""},
        {"category": "x" * 256},
        {"name": ""},
        {"name": "x" * 256},
        {"ruleset": bytes(31)},
        {"valid": False},
        {"violations": Jsonb([{}])},
        {"violated_rules": ["shop/a"]},
        {**VIOLATED, "violations": Jsonb({})},
        {**VIOLATED, "violated_rules": []},
        {"timestamp": "infinity"},
        {"timestamp": "-infinity"},
        {"timestamp": "10000-01-01T00:00:00Z"},
        {"timestamp": "0001-12-31T00:00:00Z BC"},
    ],
    ids=str,
)
def test_a_row_that_breaks_a_promise_is_refused(connection: Connection, wrong: dict[str, object]) -> None:
    """What no reader could make sense of cannot be written."""
    with pytest.raises(psycopg.errors.CheckViolation):
        insert(connection, event(**wrong))


@pytest.mark.parametrize(
    "right",
    [
        {"category": "\N{PILE OF POO}" * 255, "name": "é" * 255},
        VIOLATED,
        violating("shop/a", action="Audit"),
        {"timestamp": "0001-01-01T00:00:00Z"},
        {"timestamp": "9999-12-31T23:59:59.999999Z"},
    ],
    ids=str,
)
def test_a_row_at_the_edge_of_what_is_promised_is_taken(connection: Connection, right: dict[str, object]) -> None:
    """Lengths count characters; an audited event is valid and has violations."""
    insert(connection, event(**right))


def test_an_event_is_stored_once(connection: Connection) -> None:
    """The same event_id and timestamp never make a second row."""
    same = event()
    insert(connection, same)
    with pytest.raises(psycopg.errors.UniqueViolation):
        insert(connection, same)


@pytest.mark.parametrize("statement", ["DELETE FROM applications", "TRUNCATE applications CASCADE"])
def test_applications_are_never_deleted(connection: Connection, statement: str) -> None:
    """Events name them without a foreign key."""
    connection.execute("INSERT INTO applications (name) VALUES ('shop')")
    with pytest.raises(psycopg.errors.RestrictViolation, match="disable them instead"):
        connection.execute(statement.encode())


@pytest.mark.parametrize("name", ["", "Shop", "-shop", "shop-", "a b", "é", "x" * 64, "shop\n"])
def test_an_application_has_a_dns_label_for_a_name(connection: Connection, name: str) -> None:
    """Names go into metric labels, logs and URLs."""
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute("INSERT INTO applications (name) VALUES (%s)", (name,))


def test_a_dead_event_can_be_replayed(connection: Connection) -> None:
    """Without its id, application and time of arrival it could not."""
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute("INSERT INTO dead_events (kind, code, error, original) VALUES ('event', 'x', 'y', '')")
    connection.execute("INSERT INTO dead_events (kind, code, error, original) VALUES ('message', 'x', 'y', '')")
