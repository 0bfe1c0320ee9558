"""Builds the control plane: ``python -m tests.cluster.control_plane`` from the root of the repository."""

import click
from tests.cluster.control_plane import binaries
from tests.golang import BuildError, MissingPartError


@click.command()
def main() -> None:
    """Build what the cache lacks, and print the folder with the programs."""
    try:
        found = binaries.find(lambda line: click.echo(line, err=True))
    except (BuildError, MissingPartError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(found.folder)


if __name__ == "__main__":
    main()
