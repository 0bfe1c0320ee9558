"""``the-eye maintain``: partitions and retention."""

import click

from the_eye.settings import RetentionSettings
from the_eye.store import partitions
from the_eye_cli.connect import store

STATEMENT_SECONDS = 600.0
"""Moving a day's events out of the default partition is one statement."""


@click.command()
def maintain() -> None:
    """Create the partitions of the days to come and delete what the retention no longer keeps.

    Run it once a day. It can be run at any time, by several at once, and after it was not run for long.
    """
    settings = RetentionSettings.load()
    with store("maintain", STATEMENT_SECONDS) as connection:
        steps = 0
        for step in partitions.maintain(connection, settings, partitions.clock(connection)):
            click.echo(step)
            steps += 1
    if not steps:
        click.echo("nothing to do")
