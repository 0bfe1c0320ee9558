"""People are let in by their password alone, and whoever guesses is locked out."""

from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest

from the_eye.passwords import PasswordError, hash_password, is_right
from the_eye.settings import StoreSettings
from the_eye.store.audit_log import latest_acts, record
from the_eye.store.connect import Connection, make_async_pool
from the_eye.store.sign_ins import ADDRESS_ATTEMPTS, USER_ATTEMPTS, SignedIn, sign_in, sign_out, signed_in
from the_eye.store.users import Role, User, UserError, create_user, disable_user, enable_user, set_password, set_role

PASSWORD = "correct horse battery"  # noqa: S105 - of this test's users
HASHED = hash_password(PASSWORD)
HOUR = timedelta(hours=1)
HERE = "192.0.2.1"


@pytest.fixture
def alice(connection: Connection) -> Connection:
    """A store that knows one person."""
    create_user(connection, "alice", HASHED, Role.VIEWER)
    return connection


def enter(connection: Connection, password: str = PASSWORD, name: str = "alice", address: str = HERE) -> str | None:
    return sign_in(connection, name, password, address, HOUR)


async def who(settings: StoreSettings, text: str) -> SignedIn | None:
    async with make_async_pool(settings, "test", 1) as pool, pool.connection() as opened:
        return await signed_in(opened, text)


async def test_a_sign_in_lasts_until_it_is_ended(alice: Connection, store_settings: StoreSettings) -> None:
    text = enter(alice)

    assert text is not None
    assert await who(store_settings, text) == SignedIn("alice", "viewer")
    assert await who(store_settings, text + "x") is None
    sign_out(alice, text)
    assert await who(store_settings, text) is None


async def test_a_sign_in_ends_by_itself(alice: Connection, store_settings: StoreSettings) -> None:
    text = enter(alice)
    alice.execute("UPDATE sign_ins SET created_at = now() - interval '2 h', expires_at = now() - interval '1 s'")

    assert text is not None
    assert await who(store_settings, text) is None
    enter(alice)
    assert alice.execute("SELECT count(*) FROM sign_ins").fetchone() == (1,), "what has ended is not kept"


@pytest.mark.parametrize("end", [disable_user, lambda store, name: set_password(store, name, HASHED)])
async def test_whoever_is_disabled_or_gets_another_password_is_out(
    end: Callable[[Connection, str], User], alice: Connection, store_settings: StoreSettings
) -> None:
    text = enter(alice)

    end(alice, "alice")

    assert text is not None
    assert await who(store_settings, text) is None


async def test_a_role_changes_where_one_is_signed_in(alice: Connection, store_settings: StoreSettings) -> None:
    text = enter(alice)

    set_role(alice, "alice", Role.ADMIN)

    assert text is not None
    assert await who(store_settings, text) == SignedIn("alice", "admin")


def test_a_disabled_user_is_not_let_in_until_enabled(alice: Connection) -> None:
    disable_user(alice, "alice")
    assert enter(alice) is None
    enable_user(alice, "alice")
    assert enter(alice) is not None


@pytest.mark.parametrize("name", ["bob", "", "Alice", "alice\0", "\ud800", "x" * 10_000])
def test_nobody_is_let_in(alice: Connection, name: str) -> None:
    assert enter(alice, name=name) is None


@pytest.mark.parametrize("name", ["alice", "nobody"])
def test_a_name_is_locked_after_some_failures_whether_or_not_someone_has_it(alice: Connection, name: str) -> None:
    """From whatever addresses they come; the others go on."""
    for number in range(USER_ATTEMPTS):
        assert enter(alice, "wrong wrong wrong", name, f"192.0.2.{number}") is None

    tried = alice.execute("SELECT count(*) FROM sign_in_attempts").fetchone()
    assert enter(alice, name=name, address="192.0.2.99") is None
    assert alice.execute("SELECT count(*) FROM sign_in_attempts").fetchone() == tried, "what is refused counts no more"
    create_user(alice, "bob", HASHED, Role.VIEWER)
    assert enter(alice, name="bob") is not None


def test_an_address_is_locked_after_more_failures(alice: Connection) -> None:
    for number in range(ADDRESS_ATTEMPTS):
        assert enter(alice, "wrong wrong wrong", f"nobody-{number}") is None

    assert enter(alice) is None
    assert enter(alice, address="192.0.2.2") is not None


def test_a_lock_out_ends_by_itself_and_by_a_new_password(alice: Connection) -> None:
    for _ in range(USER_ATTEMPTS):
        enter(alice, "wrong wrong wrong")
    assert enter(alice) is None

    alice.execute("UPDATE sign_in_attempts SET attempted_at = attempted_at - interval '16 min'")
    assert enter(alice) is not None

    for _ in range(USER_ATTEMPTS):
        enter(alice, "wrong wrong wrong")
    assert enter(alice) is None
    set_password(alice, "alice", HASHED)
    assert enter(alice) is not None


def test_an_attempt_counts_before_it_is_known_to_have_failed(
    alice: Connection, store_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many at once as there may be: the next one is refused while none of them has ended."""
    counted = []

    def look(_: str, __: str | None) -> bool:
        with psycopg.connect(store_settings.database_url) as other:
            counted.append(other.execute("SELECT count(*) FROM sign_in_attempts").fetchone())
        return False

    monkeypatch.setattr("the_eye.store.sign_ins.is_right", look)
    enter(alice)

    assert counted == [(2,)], "one of the name, one of the address"


def test_success_forgets_the_failures_of_a_name_alone(alice: Connection) -> None:
    """Else whoever has an account could go on guessing others' passwords."""
    for _ in range(USER_ATTEMPTS - 1):
        enter(alice, "wrong wrong wrong")
    enter(alice)

    assert alice.execute("SELECT count(*) FROM sign_in_attempts").fetchone() == (USER_ATTEMPTS - 1,)


def test_success_is_no_failed_attempt_of_an_address(alice: Connection) -> None:
    for _ in range(ADDRESS_ATTEMPTS + 1):
        assert enter(alice) is not None


@pytest.mark.parametrize("name", ["", "Alice", "a b", "-a", "a-", "é", "a\nb", "a\0b", "x" * 64])
def test_a_name_that_cannot_be_is_refused(connection: Connection, name: str) -> None:
    with pytest.raises(UserError):
        create_user(connection, name, HASHED, Role.VIEWER)


def test_a_taken_or_unknown_name_is_refused(alice: Connection) -> None:
    with pytest.raises(UserError, match="exists already"):
        create_user(alice, "alice", HASHED, Role.ADMIN)
    with pytest.raises(UserError, match="no user named 'bob'"):
        disable_user(alice, "bob")
    with pytest.raises(UserError):
        disable_user(alice, "b\0b")


def test_passwords_are_of_some_length_and_verified_as_they_are() -> None:
    for password in ("short", "x" * 1_025):
        with pytest.raises(PasswordError, match="12 to 1024"):
            hash_password(password)
    assert is_right(PASSWORD, HASHED)
    assert not is_right(PASSWORD + " ", HASHED)
    assert not is_right(PASSWORD, None)
    assert not is_right(PASSWORD, "no hash")
    assert HASHED.startswith("$argon2id$")


def test_the_audit_log_is_only_added_to(connection: Connection) -> None:
    record(connection, "alice", "token revoked", "token 3 of shop")

    for statement in ("DELETE FROM audit_log", "UPDATE audit_log SET actor = 'x'", "TRUNCATE audit_log"):
        with pytest.raises(psycopg.errors.RestrictViolation):
            connection.execute(statement.encode())
    (act,) = latest_acts(connection, 10)
    assert (act.actor, act.act, act.subject) == ("alice", "token revoked", "token 3 of shop")
