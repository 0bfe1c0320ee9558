"""``the-eye user`` as a person runs it, and what it means for whoever signs in."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from tests.integration.pages.conftest import PASSWORD, Browser
from tests.machine import THE_EYE, environment

from the_eye.passwords import MAX_CHARACTERS, MIN_CHARACTERS
from the_eye.settings import StoreSettings
from the_eye.store.audit_log import latest_acts, process_user
from the_eye.store.connect import Connection
from the_eye.store.sign_ins import USER_ATTEMPTS
from the_eye_cli.users import user

OTHER = "another horse battery"


class Command:
    """The command with the store of the pages."""

    def __init__(self, url: str) -> None:
        self._environment = {"THE_EYE_DATABASE_URL": url}

    def run(self, *arguments: str, stdin: str = "") -> Result:
        """Run it."""
        result = CliRunner().invoke(user, arguments, input=stdin, env=self._environment)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    def done(self, *arguments: str, stdin: str = "") -> Result:
        """Run it, and see that it succeeds."""
        result = self.run(*arguments, stdin=stdin)
        assert result.exit_code == 0, result.stderr
        return result

    def refused(self, *arguments: str, stdin: str = "") -> str:
        """Run it, and see that it says in one line why not; gives the line."""
        result = self.run(*arguments, stdin=stdin)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.count("\n") == 1
        return result.stderr.removeprefix("Error: ").rstrip()

    def listed(self) -> dict[str, dict[str, Any]]:
        """List the users by name, as a program does."""
        return {one["name"]: one for one in json.loads(self.done("list", "--output", "json").stdout)}


@pytest.fixture
def command(store_settings: StoreSettings) -> Command:
    """The command with an empty store."""
    return Command(store_settings.database_url)


def acts(connection: Connection) -> list[tuple[str, str, str]]:
    """List what was noted, oldest first."""
    return [(act.actor, act.act, act.subject) for act in reversed(latest_acts(connection, 100))]


def enters(browser: Browser, name: str, password: str) -> bool:
    """Whether someone is let in."""
    return browser.sign_in(name, password).status_code == 303


def sees(browser: Browser, path: str = "/ui/events") -> bool:
    """Whether a page is shown and not the form to sign in."""
    return browser.get(path).status_code == 200


def acts_as_admin(browser: Browser) -> httpx.Response:
    """Make an application, which takes the role."""
    return browser.post("/ui/applications", data={**browser.form("/ui/events"), "name": "shop"})


def test_a_user_is_created_with_a_password_and_signs_in(
    browser: Browser, store_settings: StoreSettings, connection: Connection
) -> None:
    """The password stands alone on standard output, so that it can be piped to where it is kept."""
    ran = subprocess.run(  # noqa: S603 - our own command
        [*THE_EYE, "user", "create", "bob"],
        env=environment({"THE_EYE_DATABASE_URL": store_settings.database_url}),
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, "created user bob with the role viewer\n")
    password = ran.stdout.removesuffix("\n")
    assert len(password) > MIN_CHARACTERS
    assert "\n" not in password
    assert enters(browser, "bob", password)
    assert sees(browser)
    assert acts(connection) == [(process_user(), "user created", "bob, viewer")]


def test_a_password_of_ones_own_comes_from_standard_input(command: Command, browser: Browser) -> None:
    """Without its end of line, whichever that is, and with all spaces; it is not printed."""
    made = command.done("create", "bob", "--password-stdin", stdin=f" {PASSWORD} \r\nwhat else there is\n")

    assert made.stdout == ""
    assert not enters(browser, "bob", PASSWORD)
    assert enters(browser, "bob", f" {PASSWORD} ")


@pytest.mark.parametrize("password", ["", "\n", "x" * (MIN_CHARACTERS - 1), "x" * (MAX_CHARACTERS + 1)])
def test_a_password_that_is_too_short_or_too_long_makes_nobody(
    command: Command, connection: Connection, password: str
) -> None:
    said = command.refused("create", "bob", "--password-stdin", stdin=password)

    assert said == f"a password has {MIN_CHARACTERS} to {MAX_CHARACTERS} characters"
    assert command.listed() == {}
    assert acts(connection) == []


@pytest.mark.parametrize("length", [MIN_CHARACTERS, MAX_CHARACTERS])
def test_passwords_at_the_bounds_let_in(command: Command, browser: Browser, length: int) -> None:
    command.done("create", "bob", "--password-stdin", stdin="x" * length)
    assert enters(browser, "bob", "x" * length)


def test_a_taken_name_changes_nothing(command: Command, browser: Browser, people: Connection) -> None:
    assert command.refused("create", "vera", "--role", "admin") == "a user named vera exists already"
    assert command.listed()["vera"]["role"] == "viewer"
    assert enters(browser, "vera", PASSWORD)
    assert acts(people) == []


@pytest.mark.parametrize("name", ["", "Bob", "b b", "-b", "x" * 64, "b\N{LATIN SMALL LETTER O WITH DIAERESIS}b"])
def test_a_name_that_cannot_be_is_said(command: Command, name: str) -> None:
    said = command.refused("create", "--", name)
    assert said.startswith("a user's name has 1 to 63 of a-z, 0-9 and inner dots, hyphens, @ and underscores, unlike ")


def test_an_unknown_role_is_a_wrong_use(command: Command) -> None:
    result = command.run("create", "bob", "--role", "owner")
    assert result.exit_code == 2
    assert "'owner' is not one of 'viewer', 'admin'" in result.stderr
    assert command.listed() == {}


def test_a_role_says_who_may_act_also_where_one_is_signed_in(
    command: Command, browser: Browser, connection: Connection
) -> None:
    command.done("create", "bob", "--role", "admin", "--password-stdin", stdin=PASSWORD)
    assert enters(browser, "bob", PASSWORD)
    assert acts_as_admin(browser).status_code == 303

    assert command.done("role", "bob", "viewer").stdout == "user bob has the role viewer\n"
    assert acts_as_admin(browser).status_code == 403
    assert sees(browser)

    command.done("role", "bob", "admin")
    assert acts_as_admin(browser).status_code == 422  # let through, and the application exists already
    assert [(act, subject) for _, act, subject in acts(connection)] == [
        ("user created", "bob, admin"),
        ("application created", "shop"),
        ("user's role changed", "bob, viewer"),
        ("user's role changed", "bob, admin"),
    ]


def test_who_is_disabled_is_out_until_enabled(
    command: Command, open_browser: Callable[[], Browser], connection: Connection
) -> None:
    signed_in, other = open_browser(), open_browser()
    assert enters(signed_in, "vera", PASSWORD)

    assert command.done("disable", "vera").stdout == "disabled user vera\n"
    assert not sees(signed_in)
    assert not enters(other, "vera", PASSWORD)
    assert command.listed()["vera"]["disabled_at"] is not None

    assert command.done("enable", "vera").stdout == "enabled user vera\n"
    assert not sees(signed_in), "what was ended stays so"
    assert enters(other, "vera", PASSWORD)
    assert command.listed()["vera"]["disabled_at"] is None
    assert [(act, subject) for _, act, subject in acts(connection)] == [
        ("user disabled", "vera"),
        ("user enabled", "vera"),
    ]


def test_another_password_takes_the_place_of_the_old_one(
    command: Command, open_browser: Callable[[], Browser], connection: Connection
) -> None:
    """It ends what is signed in, and nobody is told what it is but who asks."""
    signed_in, other = open_browser(), open_browser()
    assert enters(signed_in, "vera", PASSWORD)

    made = command.done("password", "vera")

    assert made.stderr == "changed the password of user vera\n"
    assert not sees(signed_in)
    assert not enters(other, "vera", PASSWORD)
    assert enters(other, "vera", made.stdout.removesuffix("\n"))
    assert command.done("password", "vera", "--password-stdin", stdin=OTHER).stdout == ""
    assert enters(other, "vera", OTHER)
    assert command.refused("password", "vera", "--password-stdin", stdin="short").startswith("a password has")
    assert enters(other, "vera", OTHER)
    assert [act for _, act, _ in acts(connection)] == ["user's password changed"] * 2


def test_another_password_lifts_a_lock_out(command: Command, browser: Browser) -> None:
    for _ in range(USER_ATTEMPTS):
        assert not enters(browser, "vera", OTHER)
    assert not enters(browser, "vera", PASSWORD)

    command.done("password", "vera", "--password-stdin", stdin=PASSWORD)

    assert enters(browser, "vera", PASSWORD)


def test_users_are_listed_without_their_passwords(command: Command, people: Connection) -> None:
    table = command.done("list").stdout

    assert [line.split()[:3] for line in table.splitlines()] == [
        ["id", "name", "role"],
        ["2", "alice", "admin"],
        ["1", "vera", "viewer"],
    ]
    assert set(command.listed()["vera"]) == {"id", "name", "role", "created_at", "disabled_at"}
    stored = people.execute("SELECT password_hash FROM users").fetchall()
    assert not any(hash_ in table for (hash_,) in stored)


@pytest.mark.parametrize(
    "arguments", [("disable", "nobody"), ("enable", "nobody"), ("role", "nobody", "admin"), ("password", "nobody")]
)
def test_an_unknown_user_is_said(command: Command, connection: Connection, arguments: tuple[str, ...]) -> None:
    assert command.refused(*arguments) == "there is no user named 'nobody'"
    assert acts(connection) == []


def test_a_store_that_is_away_or_empty_is_one_line(postgres: Any) -> None:
    """And says what to do about it; the password in the address is not shown."""
    away = Command("postgresql://the_eye:secret@/x?host=/nowhere").refused("create", "bob")
    assert "/nowhere" in away
    assert "secret" not in away
    assert "run `the-eye migrate`" in Command(postgres.create_database("empty_for_users")).refused("list")
