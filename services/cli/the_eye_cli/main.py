"""``the-eye``: finds its subcommands as plugins and imports only the one that is asked for.

A subcommand is an entry point of the group ``the_eye.commands``, so that the services never import one another and an
image installs only what its process needs.
"""

import ast
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from the_eye.settings import SettingsError

COMMANDS = "the_eye.commands"
"""The entry-point group of the subcommands."""

DISTRIBUTION = "the-eye"


class SettingsFailure(click.ClickException):
    """Raised when a setting cannot be used."""

    exit_code = 2


class MissingExtra(click.ClickException):
    """Raised when a command's packages are not installed."""

    def __init__(self, entry: EntryPoint, error: ModuleNotFoundError) -> None:
        package = entry.module.partition(".")[0]
        extra = package.removeprefix("the_eye_")
        super().__init__(f"`the-eye {entry.name}` needs the module {error.name}: pip install '{DISTRIBUTION}[{extra}]'")


class Plugins(click.Group):
    """A group whose subcommands are entry points, each imported when it is run."""

    @cached_property
    def plugins(self) -> dict[str, EntryPoint]:
        """The entry points by the names of their commands."""
        return {entry.name: entry for entry in sorted(entry_points(group=COMMANDS), key=lambda entry: entry.name)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order of the alphabet."""
        del ctx
        return list(self.plugins)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        del ctx
        entry = self.plugins.get(cmd_name)
        if entry is None:
            return None
        try:
            command: click.Command = entry.load()
        except ModuleNotFoundError as error:
            if _is_ours(error):
                raise
            raise MissingExtra(entry, error) from error
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what it expects to go wrong becomes one line."""
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            raise SettingsFailure(str(error)) from error
        except ModuleNotFoundError as error:
            if _is_ours(error) or ctx.invoked_subcommand is None:
                raise
            raise MissingExtra(self.plugins[ctx.invoked_subcommand], error) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them: that takes a second, and fails where an extra is missing."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, short_help(entry)) for name, entry in self.plugins.items()])


def _is_ours(error: ModuleNotFoundError) -> bool:
    """Tell a fault of this project, whose traceback is wanted, from a package that is not installed."""
    return error.name is None or error.name.partition(".")[0].startswith("the_eye")


def short_help(entry: EntryPoint) -> str:
    """Read the first line of a command's docstring from its source; empty when there is none."""
    spec = find_spec(entry.module)
    if spec is None or spec.origin is None:
        return ""
    for node in ast.parse(Path(spec.origin).read_bytes()).body:
        if isinstance(node, ast.FunctionDef) and node.name == entry.attr:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


@click.command(cls=Plugins, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name=DISTRIBUTION, message="%(prog)s %(version)s")
def main() -> None:
    """Accept events durably, check them against declared rules, store them and show them.

    Every setting is an environment variable THE_EYE_*.
    """
