"""Applications and tokens: who may send and read, through the functions and through the commands."""

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner, Result

from the_eye.settings import StoreSettings
from the_eye.store.applications import (
    ApplicationError,
    create_application,
    create_token,
    disable_application,
    enable_application,
    list_tokens,
    live_tokens,
    note_uses,
    revoke_token,
)
from the_eye.store.connect import Connection, connect, make_async_pool
from the_eye.tokens import Caller, Scope, token_hash
from the_eye_cli.applications import application, token


async def snapshot(settings: StoreSettings) -> dict[bytes, Caller]:
    """Read the live tokens as the API does."""
    async with make_async_pool(settings, "test", 1) as pool, pool.connection() as connection:
        return dict(await live_tokens(connection))


async def test_a_live_token_tells_who_sends_and_what_is_allowed(
    store_settings: StoreSettings, connection: Connection
) -> None:
    shop = create_application(connection, "shop")
    expires = datetime.now(UTC) + timedelta(days=1)
    made = create_token(connection, "shop", [Scope.READ, Scope.INGEST, Scope.READ], expires)

    assert await snapshot(store_settings) == {
        token_hash(made.text): Caller(shop.id, "shop", frozenset({Scope.READ, Scope.INGEST}), expires)
    }


async def test_a_token_is_not_live_when_revoked_expired_or_of_a_disabled_application(
    store_settings: StoreSettings, connection: Connection
) -> None:
    for name in ("revoked", "expired", "disabled", "live"):
        create_application(connection, name)
        create_token(connection, name, [Scope.INGEST], datetime.now(UTC) + timedelta(hours=1))
    revoke_token(connection, 1)
    connection.execute("UPDATE tokens SET created_at = '2020-01-01', expires_at = '2020-01-02' WHERE id = 2")
    disable_application(connection, "disabled")

    assert [caller.application for caller in (await snapshot(store_settings)).values()] == ["live"]
    assert [(one.application, one.state) for one in list_tokens(connection)] == [
        ("disabled", "disabled"),
        ("expired", "expired"),
        ("live", "live"),
        ("revoked", "revoked"),
    ]
    enable_application(connection, "disabled")
    assert len(await snapshot(store_settings)) == 2


async def test_a_scope_of_a_newer_version_is_left_out(store_settings: StoreSettings, connection: Connection) -> None:
    """During an upgrade an older edge must not stumble over tokens that it knows half of."""
    create_application(connection, "shop")
    create_token(connection, "shop", [Scope.READ])
    connection.execute("ALTER TABLE tokens DROP CONSTRAINT tokens_scopes_check")
    try:
        connection.execute("UPDATE tokens SET scopes = '{read,replay}'")
        callers = (await snapshot(store_settings)).values()
    finally:
        connection.execute("TRUNCATE tokens")
        connection.execute(
            "ALTER TABLE tokens ADD CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['ingest', 'read', 'admin'])"
        )

    assert [caller.scopes for caller in callers] == [frozenset({Scope.READ})]


def test_the_text_of_a_token_is_nowhere_in_the_store(connection: Connection) -> None:
    create_application(connection, "shop")
    made = create_token(connection, "shop", [Scope.INGEST])

    (row,) = connection.execute("SELECT tokens::text, hash, hint FROM tokens").fetchall()
    assert made.text not in row[0]
    assert row[1:] == (token_hash(made.text), made.text[-4:])


def test_two_tokens_of_the_same_scopes_allow_rotation_and_a_third_is_refused(connection: Connection) -> None:
    create_application(connection, "shop")
    create_application(connection, "blog")
    create_token(connection, "shop", [Scope.INGEST, Scope.READ])
    create_token(connection, "shop", [Scope.READ, Scope.INGEST])

    with pytest.raises(ApplicationError, match=r"2 live tokens for ingest and read \(ids 1, 2\): revoke one first"):
        create_token(connection, "shop", [Scope.INGEST, Scope.READ])
    create_token(connection, "shop", [Scope.INGEST])
    create_token(connection, "blog", [Scope.INGEST, Scope.READ])
    revoke_token(connection, 1)
    create_token(connection, "shop", [Scope.INGEST, Scope.READ])


def test_calls_at_once_do_not_make_a_third(store_settings: StoreSettings, connection: Connection) -> None:
    create_application(connection, "shop")

    def create() -> None:
        with connect(store_settings, "test") as own:
            for _ in range(5):
                try:
                    create_token(own, "shop", [Scope.INGEST])
                except ApplicationError:
                    return

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(list_tokens(connection)) == 2


def run(settings: StoreSettings, *arguments: str) -> Result:
    """Run `the-eye application ...` or `the-eye token ...`."""
    command = {"application": application, "token": token}[arguments[0]]
    return CliRunner().invoke(command, arguments[1:], env={"THE_EYE_DATABASE_URL": settings.database_url})


def test_a_token_is_printed_alone_on_standard_output(store_settings: StoreSettings) -> None:
    """So that a shell can put it into a variable."""
    run(store_settings, "application", "create", "shop")

    result = run(store_settings, "token", "create", "--application", "shop", "--scope", "ingest", "--expires", "90d")

    assert result.stdout.startswith("eye_")
    assert len(result.stdout.split()) == 1
    assert "token 1 of shop for ingest until 2" in result.stderr


def test_lists_are_tables_or_json(store_settings: StoreSettings) -> None:
    run(store_settings, "application", "create", "shop")
    run(store_settings, "token", "create", "--application", "shop", "--scope", "read", "--scope", "ingest")

    table = run(store_settings, "token", "list").stdout.splitlines()
    (listed,) = json.loads(run(store_settings, "token", "list", "--output", "json").stdout)
    (shop,) = json.loads(run(store_settings, "application", "list", "--output", "json").stdout)

    assert table[0].split()[:5] == ["id", "application", "hint", "scopes", "state"]
    assert table[1].split()[1:5] == ["shop", listed["hint"], "ingest,read", "live"]
    assert (listed["scopes"], listed["expires_at"], shop["name"]) == (["ingest", "read"], None, "shop")


def test_a_disabled_application_gets_no_token(store_settings: StoreSettings) -> None:
    run(store_settings, "application", "create", "shop")
    run(store_settings, "application", "disable", "shop")

    result = run(store_settings, "token", "create", "--application", "shop", "--scope", "read")

    assert (result.exit_code, result.stderr) == (1, "Error: application shop is disabled\n")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["application", "create", "shop"], "an application named shop exists already"),
        (["application", "create", "My Shop"], "an application's name has 1 to 63 of a-z, 0-9 and inner hyphens"),
        (["application", "create", "a\0"], "an application's name has 1 to 63"),
        (["application", "disable", "blog"], "there is no application named 'blog'"),
        (["application", "disable", "a\0"], "there is no application named 'a\\x00'"),
        (["token", "create", "--application", "blog", "--scope", "read"], "there is no application named 'blog'"),
        (["token", "list", "--application", "blog"], "there is no application named 'blog'"),
        (["token", "revoke", "7"], "there is no token with the id 7"),
    ],
)
def test_what_cannot_be_done_is_one_line(store_settings: StoreSettings, arguments: list[str], error: str) -> None:
    run(store_settings, "application", "create", "shop")

    result = run(store_settings, *arguments)

    assert result.exit_code == 1
    assert error in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("expires", ["0d", "2020-01-01", "soon", "99999999d", "9999-12-31T23:59:59-14:00"])
def test_a_token_expires_in_the_future(store_settings: StoreSettings, expires: str) -> None:
    result = run(store_settings, "token", "create", "--application", "a", "--scope", "read", "--expires", expires)

    assert result.exit_code == 2
    assert "--expires" in result.stderr


def test_a_database_that_is_away_is_one_line_without_the_password() -> None:
    url = "postgresql://someone:hunter2@127.0.0.1:9/nowhere"

    result = CliRunner().invoke(application, ["list"], env={"THE_EYE_DATABASE_URL": url})

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: database postgresql://someone@/nowhere?host=127.0.0.1&port=9: ")
    assert len(result.stderr.splitlines()) == 1
    assert "hunter2" not in result.output


async def test_a_token_tells_when_it_was_last_used(connection: Connection, store_settings: StoreSettings) -> None:
    """Not later than when it was revoked, though it is written a moment after."""
    create_application(connection, "shop")
    used, revoked, other = (create_token(connection, "shop", [scope]) for scope in Scope)
    revoke_token(connection, revoked.id)

    async with make_async_pool(store_settings, "test", 1) as pool, pool.connection() as opened:
        await note_uses(opened, [token_hash(used.text), token_hash(revoked.text)])

    seen = {token.id: token for token in list_tokens(connection)}
    assert seen[used.id].last_used_at is not None
    assert seen[revoked.id].last_used_at == seen[revoked.id].revoked_at
    assert seen[other.id].last_used_at is None
