"""``the-eye events``: stored events judged again, and the verdicts they had before."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import datetime
from pathlib import Path
from threading import Event as Signal
from types import FrameType
from typing import Any
from uuid import UUID

import click
import msgspec

from the_eye.rules.directory import RuleDirectory
from the_eye.rules.rejudging import Rejudging
from the_eye.rules.ruleset import RuleSet
from the_eye.settings import RuleSettings
from the_eye.store import revalidations
from the_eye.store.audit_log import process_user
from the_eye.store.connect import Connection
from the_eye.store.past_events import PAGE_EVENTS, select_events
from the_eye.store.revalidations import STATEMENT_SECONDS, Counts, GivenVerdict, Revalidation, Task
from the_eye_cli.connect import store
from the_eye_cli.output import OUTPUT, Progress, show, show_json
from the_eye_cli.windows import Time, shown, window

BROKEN = 2

LOAD_SECONDS = 5.0
"""How long a ruleset that is being written is waited for."""


class RuleName(click.ParamType[str]):
    """A rule as violations name it."""

    name = "NAMESPACE/NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read the name of a rule that someone declared."""
        text = str(value)
        if text.count("/") != 1 or not all(text.split("/")):
            self.fail(f"{text!r} is no rule, such as shop/pageview-host", param, ctx)
        if text.startswith("the-eye/"):
            self.fail(f"{text} is built in: it judges events when they arrive", param, ctx)
        return text


class Revalidated(msgspec.Struct, frozen=True):
    """What became, or would become, of the events."""

    rule: str
    from_: datetime = msgspec.field(name="from")
    to: datetime
    ruleset: str
    """Revision of the ruleset that judged again."""
    applied: bool
    """False for a dry run, whose counts are of what would be."""
    finished: bool
    """False when it was stopped; the same command goes on."""
    run: int | None
    """Its number in ``the-eye events revalidations``; None for a dry run."""
    counts: Counts


class VerdictRow(msgspec.Struct, frozen=True):
    """A verdict as lists show it."""

    application: str
    timestamp: datetime
    valid: bool
    violated_rules: tuple[str, ...]
    ruleset: str
    revised_at: datetime | None
    rule: str | None
    revised_by: str | None


class RunRow(msgspec.Struct, frozen=True):
    """A run as lists show it."""

    id: int
    rule: str
    since: datetime
    until: datetime
    started_at: datetime
    finished_at: datetime | None
    started_by: str
    examined: int
    became_valid: int
    became_invalid: int
    violations_changed: int


@click.group()
def events() -> None:
    """Judge stored events again, and read the verdicts they had before."""


@events.command("revalidate")
@click.option("--rule", required=True, type=RuleName(), help="The rule that was wrong, or is right now.")
@click.option("--from", "since", required=True, type=Time(), help="Events that occurred at this time or later.")
@click.option("--to", "until", required=True, type=Time(), help="Events that occurred before this time.")
@click.option(
    "--rules",
    "directory",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="All rules, as workers load them. [default: THE_EYE_RULES_DIR]",
)
@click.option("--apply", "applied", is_flag=True, help="Write it. Without this only what would be is counted.")
@click.option(
    "--batch",
    default=PAGE_EVENTS,
    show_default=True,
    type=click.IntRange(1, 5_000),
    help="Events that are judged and written at once.",
)
@OUTPUT
@click.pass_context
def revalidate(  # noqa: PLR0913 - each is an option
    ctx: click.Context,
    *,
    rule: str,
    since: datetime,
    until: datetime,
    directory: Path | None,
    applied: bool,
    batch: int,
    output: str,
) -> None:
    """Judge again, by all rules now in force, the events that match a rule or have violated it.

    Without --apply nothing is written. With it the old verdicts are kept, and the same command goes on where it was
    stopped. The exit status is 1 when it was stopped, 2 when the rules are broken.
    """
    between = window(since, until)
    ruleset = _ruleset(ctx, directory)
    rejudging = Rejudging(ruleset, rule)
    if rejudging.match is None:
        click.echo(f"there is no rule {rule} now: only events that have violated it are judged again", err=True)
    with store("events revalidate", STATEMENT_SECONDS) as connection:
        selection = select_events(connection, rejudging.match, rule)
        task = Task(rule, between, ruleset.digest, selection, rejudging, batch)
        run = _apply(connection, task) if applied else None
        counts = run.counts if run else _try_out(connection, task)
    finished = run is None or run.finished_at is not None
    outcome = Revalidated(rule, since, until, ruleset.revision, applied, finished, run.id if run else None, counts)
    _show(output, outcome)
    if not finished:
        click.echo("stopped between two batches: the same command goes on from here", err=True)
        ctx.exit(1)
    if not applied:
        click.echo("a dry run: nothing was written; --apply writes it", err=True)


def _ruleset(ctx: click.Context, directory: Path | None) -> RuleSet:
    """Load all rules. One that is refused would let all pass that it is there to stop: then nothing is judged."""
    settings = RuleSettings.load()
    rules_dir = directory or settings.rules_dir
    if rules_dir is None:
        message = "give --rules, or set THE_EYE_RULES_DIR"
        raise click.UsageError(message)
    rules = RuleDirectory(
        rules_dir,
        poll_seconds=settings.rules_poll_seconds,
        future_tolerance=settings.future_tolerance,
        wait_seconds=LOAD_SECONDS,
    )
    with redirect_stdout(sys.stderr):  # where its logs go
        rules.load()
    for problem in rules.problems:
        click.echo(f"{problem}", err=True)
    if rules.problems:
        ctx.exit(BROKEN)
    if not rules.current.rules and rules.state.declared is None:
        message = f"there are no rules in {rules_dir}, or they were being written just now"
        raise click.UsageError(message)
    return rules.current


def _try_out(connection: Connection, task: Task) -> Counts:
    progress = Progress()
    counts = Counts()
    for counts in revalidations.try_out(connection, task):
        progress.say(f"{counts.examined} events judged so far")
    return counts


def _apply(connection: Connection, task: Task) -> Revalidation:
    progress = Progress()
    run = revalidations.begin(connection, task, process_user())
    if run.position:
        click.echo(f"going on with run {run.id}, begun by {run.started_by} at {shown(run.started_at)}", err=True)
    with stop_asked() as asked:
        for run in revalidations.apply(connection, task, run.id):  # noqa: B020 - the last counts
            progress.say(f"{run.examined} events judged so far, back to {run.timestamp and shown(run.timestamp)}")
            if asked.is_set():
                break
    return run


@contextmanager
def stop_asked() -> Iterator[Signal]:
    """Let the first Ctrl-C or SIGTERM only set an event; the second ends the command at once."""
    asked = Signal()

    def ask(_number: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        click.echo("stopping after this batch", err=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_WORDS = {
    "examined": "examined",
    "became_valid": "became valid",
    "became_invalid": "became invalid",
    "violations_changed": "violations changed",
    "unchanged": "unchanged",
}
_DRY_WORDS = {
    **_WORDS,
    "became_valid": "would become valid",
    "became_invalid": "would become invalid",
    "violations_changed": "violations would change",
}


def _show(output: str, outcome: Revalidated) -> None:
    if output == "json":
        show_json(outcome)
        return
    click.echo(f"rule: {outcome.rule}")
    click.echo(f"events: from {shown(outcome.from_)} to {shown(outcome.to)}, by their timestamp")
    click.echo(f"ruleset: {outcome.ruleset}")
    for field, words in (_WORDS if outcome.applied else _DRY_WORDS).items():
        click.echo(f"{words}: {getattr(outcome.counts, field)}")


@events.command("verdicts")
@click.argument("event_id", metavar="EVENT_ID", type=click.UUID)
@OUTPUT
def verdicts(event_id: UUID, output: str) -> None:
    """List the verdicts that the event EVENT_ID had, oldest first; the last is in force.

    As JSON, with all that was violated.
    """
    with store("events verdicts") as connection:
        given = revalidations.verdicts_of(connection, event_id)
    if not given:
        message = f"there is no event {event_id}"
        raise click.ClickException(message)
    if output == "json":
        show_json(given)
    else:
        show(output, list(map(_verdict_row, given)), VerdictRow)


def _verdict_row(given: GivenVerdict) -> VerdictRow:
    rules = tuple(sorted({violation.rule for violation in given.violations}))
    return VerdictRow(
        given.application,
        given.timestamp,
        given.valid,
        rules,
        given.ruleset,
        given.revised_at,
        given.rule,
        given.revised_by,
    )


@events.command("revalidations")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="The newest so many.")
@OUTPUT
def list_revalidations(limit: int, output: str) -> None:
    """List the runs that wrote verdicts, the newest first."""
    with store("events revalidations") as connection:
        runs = revalidations.list_revalidations(connection, limit)
    if output == "json":
        show_json(runs)
    else:
        show(output, [_run_row(run) for run in runs], RunRow)


def _run_row(run: Revalidation) -> RunRow:
    return RunRow(**{field: getattr(run, field) for field in RunRow.__struct_fields__})
