"""A range of the events' time on the command line."""

from datetime import UTC, datetime, timedelta
from typing import Any

import click

from the_eye.durations import parse_duration
from the_eye.store.past_events import Window

DEFAULT_LAST = timedelta(hours=24)


class Duration(click.ParamType[timedelta]):
    """A number with its unit."""

    name = "30m|24h|7d"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read seconds, minutes, hours or days."""
        if isinstance(value, timedelta):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(f"{value!r} is no duration: {error}", param, ctx)


class Time(click.ParamType[datetime]):
    """A date and time."""

    name = "2027-01-01T00:00:00Z"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read a time; without a zone it is UTC."""
        if isinstance(value, datetime):
            return value
        try:
            at = datetime.fromisoformat(value)
            return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time, such as 2027-01-01T00:00:00Z", param, ctx)


def window(since: datetime, until: datetime) -> Window:
    """Make a window of ``--from`` and ``--to``.

    Raises click.BadParameter when it is empty.
    """
    if since >= until:
        message = f"{shown(since)} is not before {shown(until)}, the window's end"
        raise click.BadParameter(message, param_hint="'--from'")
    return Window(since, until)


def recent_window(last: timedelta | None, since: datetime | None, until: datetime | None) -> Window:
    """Make a window of ``--last`` or ``--from``, of which one may be given, up to ``--to`` or now.

    Raises click.UsageError when both are given or nothing lies between.
    """
    if last and since:
        message = "give either --last or --from"
        raise click.UsageError(message)
    end = until or datetime.now(UTC)
    try:
        return window(since or end - (last or DEFAULT_LAST), end)
    except OverflowError as error:
        message = "it begins before the year 1"
        raise click.BadParameter(message, param_hint="'--last'") from error


def shown(at: datetime) -> str:
    """Write a time as commands take it."""
    return at.isoformat().replace("+00:00", "Z")
