"""``the-eye user``."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from the_eye.passwords import PasswordError, hash_password, new_password
from the_eye.store import users
from the_eye.store.audit_log import process_user, record
from the_eye.store.connect import Connection
from the_eye.store.users import Role, User, UserError
from the_eye_cli.connect import store
from the_eye_cli.output import OUTPUT, show

_ROLE = click.Choice([role.value for role in Role])
_FROM_STDIN = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input. [default: one is made and printed]"
)


@click.group()
def user() -> None:
    """Create, list and disable the people who sign in to the pages."""


@user.command("create")
@click.argument("name")
@click.option("--role", type=_ROLE, default=Role.VIEWER.value, show_default=True, help="viewer: see. admin: also act.")
@_FROM_STDIN
def create_user(name: str, role: str, *, password_stdin: bool) -> None:
    """Create the user NAME and print the password that was made, this once, alone on standard output."""
    password, hashed = _password(password_stdin=password_stdin)
    with _changing("user create") as connection:
        created = users.create_user(connection, name, hashed, Role(role))
        record(connection, process_user(), "user created", f"{created.name}, {created.role}")
    click.echo(f"created user {created.name} with the role {created.role}", err=True)
    _show_password(password, password_stdin=password_stdin)


@user.command("list")
@OUTPUT
def list_users(output: str) -> None:
    """List the users."""
    with store("user list") as connection:
        show(output, users.list_users(connection), User)


@user.command("disable")
@click.argument("name")
def disable_user(name: str) -> None:
    """Sign the user NAME out everywhere and let them in no more."""
    with _changing("user disable") as connection:
        users.disable_user(connection, name)
        record(connection, process_user(), "user disabled", name)
    click.echo(f"disabled user {name}")


@user.command("enable")
@click.argument("name")
def enable_user(name: str) -> None:
    """Let the user NAME sign in again."""
    with _changing("user enable") as connection:
        users.enable_user(connection, name)
        record(connection, process_user(), "user enabled", name)
    click.echo(f"enabled user {name}")


@user.command("role")
@click.argument("name")
@click.argument("role", type=_ROLE)
def set_role(name: str, role: str) -> None:
    """Give the user NAME another role, at once."""
    with _changing("user role") as connection:
        users.set_role(connection, name, Role(role))
        record(connection, process_user(), "user's role changed", f"{name}, {role}")
    click.echo(f"user {name} has the role {role}")


@user.command("password")
@click.argument("name")
@_FROM_STDIN
def set_password(name: str, *, password_stdin: bool) -> None:
    """Give the user NAME another password, sign them out everywhere, and lift a lock-out."""
    password, hashed = _password(password_stdin=password_stdin)
    with _changing("user password") as connection:
        users.set_password(connection, name, hashed)
        record(connection, process_user(), "user's password changed", name)
    click.echo(f"changed the password of user {name}", err=True)
    _show_password(password, password_stdin=password_stdin)


@contextmanager
def _changing(command: str) -> Iterator[Connection]:
    """Open a transaction for an act and its record."""
    with store(command) as connection, connection.transaction():
        try:
            yield connection
        except UserError as error:
            raise click.ClickException(str(error)) from error


def _password(*, password_stdin: bool) -> tuple[str, str]:
    """Read or make a password; give it with its hash."""
    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else new_password()
    try:
        return password, hash_password(password)
    except PasswordError as error:
        raise click.ClickException(str(error)) from error


def _show_password(password: str, *, password_stdin: bool) -> None:
    if not password_stdin:
        click.echo(password)
