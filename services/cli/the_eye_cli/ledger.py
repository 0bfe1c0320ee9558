"""``the-eye ledger``: whether each accepted event has ended or is queued."""

from collections.abc import Iterator
from contextlib import contextmanager

import click
import msgspec

from the_eye.queue import QueueUnavailableError
from the_eye.queue.figures import COUNTED_MESSAGES, QueueObserver, QueueSnapshot
from the_eye.settings import QueueSettings
from the_eye_cli.connect import one_line
from the_eye_cli.output import OUTPUT, show


class LedgerRow(msgspec.Struct, frozen=True):
    """A count of the ledger as lists show it."""

    state: str
    events: int | None


@click.group()
def ledger() -> None:
    """Show what the queue's server has counted, and write off what is lost."""


@ledger.command("show")
@OUTPUT
def show_ledger(output: str) -> None:
    """Show the events by state, those that are queued, and the difference, which is 0 when nothing is lost."""
    with _observer() as observer:
        seen = observer.snapshot()
    rows = [LedgerRow(state, events) for state, events in seen.ledger.items()]
    show(output, [*rows, LedgerRow("queued", seen.events), LedgerRow("difference", seen.difference)], LedgerRow)


@ledger.command()
@click.option("--difference", required=True, type=int, help="The difference that was looked into, as `show` has it.")
def settle(difference: int) -> None:
    """Write off a difference whose cause is known, so that the next one is seen: counts it as lost."""
    with _observer() as observer:
        seen = observer.snapshot()
        _see_that_it_is(difference, seen)
        if not observer.write_off(difference):
            message = "the difference has changed meanwhile: look again"
            raise click.ClickException(message)
    click.echo(f"settled {difference}")


def _see_that_it_is(difference: int, seen: QueueSnapshot) -> None:
    if seen.difference is None:
        message = f"more than {COUNTED_MESSAGES} messages are queued: wait until the workers have caught up"
        raise click.ClickException(message)
    if difference == 0 or difference != seen.difference:
        message = f"the difference is {seen.difference}"
        raise click.ClickException(message)


@contextmanager
def _observer() -> Iterator[QueueObserver]:
    """Ask the queue's server. Raises click.ClickException when it is away."""
    observer = QueueObserver(QueueSettings.load())
    try:
        yield observer
    except QueueUnavailableError as error:
        message = f"the queue is away: {one_line(error)}"
        raise click.ClickException(message) from error
    finally:
        observer.close()
