"""Lists as a table for people or as JSON for programs."""

from collections.abc import Sequence
from datetime import datetime

import click
import msgspec

OUTPUT = click.option(
    "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Form of the list."
)


def show(output: str, rows: Sequence[msgspec.Struct], type_: type[msgspec.Struct]) -> None:
    """Print ``rows``, whose columns are the fields of ``type_``."""
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2))
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
