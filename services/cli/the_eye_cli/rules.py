"""``the-eye rules``: ValidatorRules checked and tried out, on events from a file or on those that are stored."""

import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import click
import msgspec
from msgspec import Raw

from the_eye.event import Fault, SentEvent, parse_event
from the_eye.rules.assembly import Assembly, Problem, assemble, nothing_assembled
from the_eye.rules.backtest import MAX_ROWS, MAX_SECONDS, STATEMENT_SECONDS, BacktestResult, Limits, backtest
from the_eye.rules.directory import read_file
from the_eye.rules.files import SUFFIXES, manifest_names
from the_eye.rules.manifest import FieldError, ValidatorRule
from the_eye.rules.ruleset import RuleSet
from the_eye.rules.sent import as_received
from the_eye.settings import RuleSettings
from the_eye.store.connect import Connection
from the_eye.store.past_events import Window
from the_eye.verdict import Action, Violation
from the_eye_cli.connect import store
from the_eye_cli.output import OUTPUT, Progress, show_json
from the_eye_cli.windows import Duration, Time, recent_window, shown

INVALID = 1
BROKEN = 2

PATHS = click.argument(
    "paths", metavar="DIR|FILE...", nargs=-1, required=True, type=click.Path(exists=True, allow_dash=True)
)


class NotTestedError(click.ClickException):
    """Raised when the store cannot be read: 1 would say that a rule was violated."""

    exit_code = BROKEN


class Found(msgspec.Struct, frozen=True):
    """A problem, as programs read it."""

    file: str
    rule: str
    path: str
    reason: str
    message: str


class Linted(msgspec.Struct, frozen=True):
    """What ``lint`` found."""

    files: int
    rules: int
    revision: str
    problems: list[Found]


class Outcome(msgspec.Struct, frozen=True):
    """What would become of one event."""

    index: int
    """From 0, as in the answer to ``POST /events/batch``."""
    category: str | None
    name: str | None
    verdict: Literal["valid", "invalid", "refused"]
    matched: bool = False
    violations: tuple[Violation, ...] = ()
    faults: tuple[Fault, ...] = ()
    """Why the event would not have been accepted at all."""


class Tested(msgspec.Struct, frozen=True):
    """What ``test`` found."""

    revision: str
    valid: int
    invalid: int
    refused: int
    events: list[Outcome]


@click.group()
def rules() -> None:
    """Check ValidatorRules, and try them out on events."""


@rules.command()
@PATHS
@OUTPUT
@click.pass_context
def lint(ctx: click.Context, paths: tuple[str, ...], output: str) -> None:
    """Say what is wrong with the manifests in DIR or FILE; - reads standard input. No server is needed.

    The exit status is 1 when anything is.
    """
    contents = _contents(paths)
    assembly = _assembled(contents)
    if output == "json":
        problems = [_found(problem) for problem in assembly.problems]
        show_json(Linted(len(contents), len(assembly.ruleset.rules), assembly.ruleset.revision, problems))
    else:
        for problem in assembly.problems:
            click.echo(printable(str(problem)))
        amounts = (_amount(len(assembly.ruleset.rules), "sound rule"), _amount(len(contents), "file"))
        click.echo(f"{' in '.join(amounts)}, {_amount(len(assembly.problems), 'problem')}")
    ctx.exit(INVALID if assembly.problems else 0)


@rules.command("test")
@PATHS
@click.option(
    "--events",
    "events_file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help="Events as POST /events/batch takes them: one a line, or a JSON array; - reads standard input.",
)
@click.option("--application", default="", help="Name of the application that sends them, for rules that ask for it.")
@OUTPUT
@click.pass_context
def try_out(ctx: click.Context, paths: tuple[str, ...], events_file: str, application: str, output: str) -> None:
    """Say what the rules in DIR or FILE would make of events. No server is needed.

    The exit status is 0 when all events are valid, 1 when one is invalid or refused, 2 when the rules are broken.
    """
    if "-" in paths and events_file == "-":
        message = "standard input cannot be both the rules and the events"
        raise click.UsageError(message)
    assembly = _assembled(_contents(paths))
    _refuse_problems(ctx, assembly)
    outcomes = [_outcome(index, body, assembly.ruleset, application) for index, body in enumerate(_bodies(events_file))]
    if not outcomes:
        message = "there are no events to test with"
        raise click.UsageError(message)
    counts = Counter(outcome.verdict for outcome in outcomes)
    if output == "json":
        revision = assembly.ruleset.revision
        show_json(Tested(revision, counts["valid"], counts["invalid"], counts["refused"], outcomes))
    else:
        _print_table(outcomes)
        summary = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("valid", "invalid", "refused"))
        click.echo(f"{_amount(len(outcomes), 'event')}: {summary}")
    ctx.exit(INVALID if counts["invalid"] or counts["refused"] else 0)


@rules.command("backtest")
@click.argument("path", metavar="DIR|FILE", type=click.Path(exists=True, allow_dash=True))
@click.option("--rule", "only", metavar="NAMESPACE/NAME", help="Only this one of several rules.")
@click.option("--last", type=Duration(), help="Events of so long before --to. [default: 24h]")
@click.option("--from", "since", type=Time(), help="Events that occurred at this time or later, in place of --last.")
@click.option("--to", "until", type=Time(), help="Events that occurred before this time. [default: now]")
@click.option(
    "--limit-rows", default=MAX_ROWS, show_default=True, type=click.IntRange(1), help="Events read for each rule."
)
@click.option(
    "--limit-seconds",
    default=MAX_SECONDS,
    show_default=True,
    type=click.FloatRange(0, 24 * 60 * 60, min_open=True),
    help="Time taken for each rule.",
)
@OUTPUT
@click.pass_context
def try_on_stored(  # noqa: PLR0913 - each is an option
    ctx: click.Context,
    *,
    path: str,
    only: str | None,
    last: timedelta | None,
    since: datetime | None,
    until: datetime | None,
    limit_rows: int,
    limit_seconds: float,
    output: str,
) -> None:
    """Say how many of the stored events each rule in DIR or FILE, by itself, would find in violation.

    Nothing is changed. The newest events come first, until a limit is reached. The exit status is 0 when no event
    violates a rule, 1 when one does, 2 when the rules are broken or the store cannot be read.
    """
    window, limits = recent_window(last, since, until), Limits(limit_rows, limit_seconds)
    assembly = _assembled(_contents((path,)))
    _refuse_problems(ctx, assembly)
    manifests = _chosen([rule.manifest for rule in assembly.ruleset.rules], only)
    try:
        with store("rules backtest", STATEMENT_SECONDS) as connection:
            found = {rule.id: _backtested(connection, rule, window, limits) for rule in manifests}
    except click.ClickException as error:
        raise NotTestedError(error.message) from error
    if output == "json":
        show_json([{"rule": rule, **msgspec.to_builtins(result)} for rule, result in found.items()])
    else:
        click.echo(f"events from {shown(window.since)} to {shown(window.until)}, by their timestamp")
        for rule, result in found.items():
            _print_backtest(rule, result)
    ctx.exit(INVALID if any(result.violations for result in found.values()) else 0)


def _chosen(manifests: list[ValidatorRule], only: str | None) -> list[ValidatorRule]:
    if not manifests:
        message = "there are no rules to test"
        raise click.UsageError(message)
    chosen = [rule for rule in manifests if only in (None, rule.id)]
    if not chosen:
        message = f"there is no rule {only}; there are {', '.join(rule.id for rule in manifests)}"
        raise click.BadParameter(message, param_hint="'--rule'")
    return chosen


def _backtested(connection: Connection, rule: ValidatorRule, window: Window, limits: Limits) -> BacktestResult:
    progress = Progress()
    results = backtest(connection, rule, window, limits)
    result = next(results)  # there is one at least
    for result in results:
        progress.say(f"{rule.id}: {result.violations} of {_amount(result.examined, 'event')} so far")
    return result


def _refuse_problems(ctx: click.Context, assembly: Assembly) -> None:
    """Try nothing out with rules that are broken."""
    for problem in assembly.problems:
        click.echo(printable(str(problem)), err=True)
    if assembly.problems:
        ctx.exit(BROKEN)


def _contents(paths: tuple[str, ...]) -> dict[str, bytes | Problem]:
    contents: dict[str, bytes | Problem] = {}
    for given in paths:
        path = Path(given)
        if given == "-":
            contents["-"] = sys.stdin.buffer.read()
        elif path.is_dir():
            contents |= _of_directory(path)
        else:
            contents[given] = _read(path)
    return contents


def _of_directory(directory: Path) -> dict[str, bytes | Problem]:
    """A check of nothing must not pass for one that succeeded: a directory without manifests is a problem."""
    try:
        names = manifest_names(directory)
    except OSError as error:
        return {str(directory): _problem(directory, f"the directory cannot be listed: {error.strerror or error}")}
    if not names:
        return {str(directory): _problem(directory, f"no manifests are here ({', '.join(SUFFIXES)})")}
    return {str(directory / name): _read(directory / name) for name in names}


def _read(path: Path) -> bytes | Problem:
    content = read_file(path)
    return msgspec.structs.replace(content, file=str(path)) if isinstance(content, Problem) else content


def _problem(path: Path, message: str) -> Problem:
    return Problem(str(path), "", FieldError("", "InvalidFile", message))


def _assembled(contents: dict[str, bytes | Problem]) -> Assembly:
    tolerance = timedelta(seconds=RuleSettings.load().future_tolerance_seconds)
    return assemble(contents, nothing_assembled(future_tolerance=tolerance))


def _found(problem: Problem) -> Found:
    error = problem.error
    return Found(problem.file, problem.rule, error.path, error.reason, error.message)


def _bodies(file: str) -> Iterator[bytes | Raw]:
    text = (sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()).strip()
    if not text.startswith(b"["):
        yield from (line for line in text.split(b"\n") if line.strip())
        return
    try:
        yield from msgspec.json.decode(text, type=list[Raw])
    except (ValueError, RecursionError) as error:
        message = f"the events are no JSON array: {error}"
        raise click.UsageError(message) from error


def _outcome(index: int, body: bytes | Raw, ruleset: RuleSet, application: str) -> Outcome:
    sent = parse_event(body)
    if not isinstance(sent, SentEvent):
        return Outcome(index, None, None, "refused", faults=sent)
    verdict = ruleset.judge(as_received(sent, application))
    return Outcome(
        index,
        sent.category,
        sent.name,
        "valid" if verdict else "invalid",
        matched=verdict.matched,
        violations=verdict.violations,
    )


WIDEST_CELL = 24
DETAIL_INDENT = "       "


def _print_table(outcomes: list[Outcome]) -> None:
    """A row for each event, and below it a line for each violation or fault, so that 80 columns are enough."""
    rows = [("index", "category", "name", "verdict", "violations"), *map(_row, outcomes)]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    width = max(80, shutil.get_terminal_size().columns)
    details = [[], *map(_details, outcomes)]
    for row, lines in zip(rows, details, strict=True):
        click.echo("  ".join(cell.ljust(wide) for cell, wide in zip(row, widths, strict=True)).rstrip())
        for line in lines:
            click.echo(textwrap.fill(line, width, initial_indent=DETAIL_INDENT, subsequent_indent=DETAIL_INDENT + "  "))


def _print_backtest(rule: str, result: BacktestResult) -> None:
    violate = "violates" if result.violations == 1 else "violate"
    of = f"{result.violations} of {_amount(result.examined, 'event')}"
    click.echo(f"{rule}: {of} {violate} it ({100 * result.share:.3g} %)")
    for event_id in result.event_ids:
        click.echo(f"{DETAIL_INDENT}{event_id}")
    if result.violations > len(result.event_ids):
        click.echo(f"{DETAIL_INDENT}and {result.violations - len(result.event_ids)} more")
    if result.truncated:
        reached = f": nothing before {shown(result.reached)} was looked at" if result.reached else ""
        click.echo(f"{DETAIL_INDENT}not all of it: {result.message}{reached}")


def _row(outcome: Outcome) -> tuple[str, ...]:
    verdict = outcome.verdict if outcome.matched or outcome.verdict != "valid" else "valid, unmatched"
    return (str(outcome.index), _cell(outcome.category), _cell(outcome.name), verdict, str(len(outcome.violations)))


def _cell(text: str | None) -> str:
    shown = "-" if text is None else printable(text)
    return shown if len(shown) <= WIDEST_CELL else shown[: WIDEST_CELL - 1] + "…"


def _details(outcome: Outcome) -> list[str]:
    violations = [
        f"{violation.rule} {violation.path} {violation.code}: {violation.message}"
        + (" (audited)" if violation.action is Action.AUDIT else "")
        for violation in outcome.violations
    ]
    faults = [f"{fault.path} {fault.code}: {fault.message}" for fault in outcome.faults]
    return [printable(line) for line in (*violations, *faults)]


def printable(text: str) -> str:
    """Show control characters by their codes: events and manifests must not steer the terminal."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def _amount(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
