"""Lists as a table for people or as JSON for programs; and how far a long command is, for people alone."""

import time
from collections.abc import Sequence
from datetime import datetime

import click
import msgspec

OUTPUT = click.option(
    "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Form of the list."
)

PROGRESS_SECONDS = 5.0
"""How often a long command says how far it is."""


class Progress:
    """Says now and then on standard error how far a command is."""

    def __init__(self) -> None:
        self._said_at = time.monotonic()

    def say(self, text: str) -> None:
        """Say it, unless something was said just now."""
        if time.monotonic() - self._said_at >= PROGRESS_SECONDS:
            click.echo(text, err=True)
            self._said_at = time.monotonic()


def show_json(value: object) -> None:
    """Print a value for programs."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def show(output: str, rows: Sequence[msgspec.Struct], type_: type[msgspec.Struct]) -> None:
    """Print ``rows``, whose columns are the fields of ``type_``."""
    if output == "json":
        show_json(rows)
        return
    columns = [field.name for field in msgspec.structs.fields(type_)]
    table = [columns, *([_cell(getattr(row, column)) for column in columns] for row in rows)]
    widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
    for cells in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%SZ}"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return " ".join(str(value).split())
