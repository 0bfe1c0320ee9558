"""``the-eye dead``: what could not be stored."""

from datetime import datetime

import click
import msgspec

from the_eye.originals import original_parts
from the_eye.queue import QueueUnavailableError
from the_eye.replaying import Replayer
from the_eye.settings import QueueSettings
from the_eye.store import dead_events
from the_eye.store.audit_log import process_user, record
from the_eye.store.dead_events import DeadEntry
from the_eye_cli.connect import one_line, store
from the_eye_cli.output import OUTPUT, show

ID = click.IntRange(1, 2**63 - 1)


class DeadRow(msgspec.Struct, frozen=True):
    """A dead event as lists show it."""

    id: int
    died_at: datetime
    kind: str
    application: str | None
    event_id: str | None
    code: str
    error: str
    size: int


@click.group()
def dead() -> None:
    """List, show, replay and discard what could not be stored."""


@dead.command("list")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="The newest so many.")
@OUTPUT
def list_dead(limit: int, output: str) -> None:
    """List the newest first."""
    with store("dead list") as connection:
        rows = [_row(entry) for entry in dead_events.list_dead(connection, limit)]
    show(output, rows, DeadRow)


def _row(entry: DeadEntry) -> DeadRow:
    event_id = None if entry.event_id is None else str(entry.event_id)
    return DeadRow(
        entry.id, entry.died_at, entry.kind, entry.application, event_id, entry.code, entry.error, entry.size
    )


@dead.command("show")
@click.argument("dead_id", metavar="ID", type=ID)
def show_dead(dead_id: int) -> None:
    """Show what is known of ID, then its original.

    That is an event as it was sent, or the events of a message, one after the other; what is no text is in hexadecimal.
    """
    with store("dead show") as connection:
        entry = dead_events.read_dead(connection, dead_id)
    if entry is None:
        raise _unknown(dead_id)
    for field, value in msgspec.structs.asdict(entry).items():
        if field != "original" and value is not None:
            click.echo(f"{field}: {value}")
    click.echo()
    for part in original_parts(entry):
        click.echo(part)


def _unknown(dead_id: int) -> click.ClickException:
    return click.ClickException(f"there is no dead event with the id {dead_id}")


@dead.command("replay")
@click.argument("ids", metavar="ID...", nargs=-1, type=ID)
@click.option("--all", "everything", is_flag=True, help="All that are dead now.")
def replay(ids: tuple[int, ...], *, everything: bool) -> None:
    """Queue ID... again, to be judged by the rules now in force. What still cannot be stored dies again."""
    if bool(ids) == everything:
        message = "name the IDs to replay, or say --all"
        raise click.UsageError(message)
    player = Replayer(QueueSettings.load())
    replayed: set[int] = set()
    with store("dead replay") as connection:
        try:
            for batch in dead_events.batches(connection) if everything else [[dead_id] for dead_id in ids]:
                replayed.update(dead_events.replay(connection, batch, player.enqueue))
        except QueueUnavailableError as error:
            message = f"the queue is away: {one_line(error)}"
            raise click.ClickException(message) from error
        finally:
            if replayed:
                record(connection, process_user(), "dead events replayed", dead_events.named(replayed))
    click.echo(f"replayed {len(replayed)}")
    for dead_id in dict.fromkeys(ids):
        if dead_id not in replayed:
            player.refused.setdefault(dead_id, "not there, or being replayed by someone else")
    if player.refused:
        raise click.ClickException("\n".join(f"{dead_id}: {reason}" for dead_id, reason in player.refused.items()))


@dead.command("discard")
@click.argument("dead_id", metavar="ID", type=ID)
def discard(dead_id: int) -> None:
    """Delete ID for good."""
    with store("dead discard") as connection:
        if not dead_events.discard(connection, dead_id):
            raise _unknown(dead_id)
        record(connection, process_user(), "dead event discarded", str(dead_id))
    click.echo(f"discarded {dead_id}")
