"""``the-eye application`` and ``the-eye token``."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from the_eye.settings import QueueSettings, SettingsError
from the_eye.store import applications
from the_eye.store.audit_log import process_user, record
from the_eye.token_copy import TokenCopyUnavailableError, withdraw_copy
from the_eye.tokens import RateLimit, Scope
from the_eye_cli.connect import one_line, store
from the_eye_cli.output import OUTPUT, show

_DAYS = re.compile(r"(\d{1,5})d")


class Expiry(click.ParamType[datetime]):
    """A number of days, or a date and time."""

    name = "90d|2027-01-01T00:00:00Z"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read a time that lies in the future; without a zone it is UTC."""
        if isinstance(value, datetime):
            return value
        days = _DAYS.fullmatch(value)
        try:
            at = datetime.now(UTC) + timedelta(days=int(days[1])) if days else datetime.fromisoformat(value)
            at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is neither days, such as 90d, nor a time, such as 2027-01-01T00:00:00Z", param, ctx)
        if at <= datetime.now(UTC):
            self.fail(f"{value!r} is not in the future", param, ctx)
        return at


@click.group()
def application() -> None:
    """Create, list, limit and disable the applications that send events."""


@application.command("create")
@click.argument("name")
def create_application(name: str) -> None:
    """Create the application NAME."""
    with store("application create") as connection, connection.transaction():
        created = applications.create_application(connection, name)
        record(connection, process_user(), "application created", name)
    click.echo(f"created application {created.name} (id {created.id})")


@application.command("list")
@OUTPUT
def list_applications(output: str) -> None:
    """List the applications."""
    with store("application list") as connection:
        show(output, applications.list_applications(connection), applications.Application)


@application.command("disable")
@click.argument("name")
def disable_application(name: str) -> None:
    """Make the tokens of application NAME stop working within seconds; its events stay."""
    with store("application disable") as connection, connection.transaction():
        applications.disable_application(connection, name)
        record(connection, process_user(), "application disabled", name)
    _withdraw_copy()
    click.echo(f"disabled application {name}")


@application.command("enable")
@click.argument("name")
def enable_application(name: str) -> None:
    """Make the tokens of application NAME work again."""
    with store("application enable") as connection, connection.transaction():
        applications.enable_application(connection, name)
        record(connection, process_user(), "application enabled", name)
    click.echo(f"enabled application {name}")


@application.command("limit")
@click.argument("name")
@click.option("--events-per-second", type=click.FloatRange(0, 1e6, min_open=True), help="Over time.")
@click.option(
    "--burst", type=click.IntRange(1, 2**31 - 1), help="At once, after a pause. [default: one second's worth]"
)
@click.option("--default", "reset", is_flag=True, help="Take the default of the settings again.")
def limit_application(name: str, events_per_second: float | None, burst: int | None, reset: bool) -> None:  # noqa: FBT001 - click passes a flag so
    """Limit how much application NAME may send to each API process; more is answered with 429."""
    if reset == (events_per_second is not None):
        message = "give either --events-per-second or --default"
        raise click.UsageError(message)
    limit = None
    if events_per_second is not None:
        limit = RateLimit(events_per_second, burst or max(1, int(events_per_second)))
    with store("application limit") as connection, connection.transaction():
        applications.limit_application(connection, name, limit)
        record(connection, process_user(), "application limited", f"{name}, {_described(limit)}")
    click.echo(f"limited application {name} to {_described(limit)}")


def _described(limit: RateLimit | None) -> str:
    return f"{limit.events_per_second:g} events per second, {limit.burst} at once" if limit else "the default"


@click.group()
def token() -> None:
    """Create, list and revoke the tokens of applications."""


@token.command("create")
@click.option("--application", "name", required=True, metavar="NAME")
@click.option(
    "--scope",
    "scopes",
    required=True,
    multiple=True,
    type=click.Choice([scope.value for scope in Scope]),
    help="ingest: send events. read: read the application's events. admin: read all events. May be repeated.",
)
@click.option("--expires", type=Expiry(), help="When the token stops working. [default: never]")
def create_token(name: str, scopes: tuple[str, ...], expires: datetime | None) -> None:
    """Create a token and print it, this once, alone on standard output."""
    with store("token create") as connection, connection.transaction():
        created = applications.create_token(connection, name, map(Scope, scopes), expires)
        record(connection, process_user(), "token created", f"token {created.id} of {name}")
    until = f" until {expires:%Y-%m-%dT%H:%M:%SZ}" if expires else ""
    click.echo(
        f"token {created.id} of {name} for {' and '.join(sorted(set(scopes)))}{until}; shown only now:", err=True
    )
    click.echo(created.text)


@token.command("list")
@click.option("--application", "name", metavar="NAME", help="Only this application's tokens.")
@OUTPUT
def list_tokens(name: str | None, output: str) -> None:
    """List the tokens, those that no longer work too."""
    with store("token list") as connection:
        show(output, applications.list_tokens(connection, name), applications.Token)


@token.command("revoke")
@click.argument("token_id", metavar="ID", type=click.IntRange(1, 2**31 - 1))
def revoke_token(token_id: int) -> None:
    """Make the token ID stop working within seconds."""
    with store("token revoke") as connection, connection.transaction():
        applications.revoke_token(connection, token_id)
        record(connection, process_user(), "token revoked", f"token {token_id}")
    _withdraw_copy()
    click.echo(f"revoked token {token_id}")


def _withdraw_copy() -> None:
    """Keep what was taken back in the store from coming back through the copy beside the queue."""
    try:
        withdraw_copy(QueueSettings.load())
    except (SettingsError, TokenCopyUnavailableError) as error:
        message = f"the copy of the tokens beside the queue was not deleted: {one_line(error)}"
        click.echo(f"{message} (an API that runs renews it within seconds)", err=True)
