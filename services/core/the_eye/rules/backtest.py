"""What a rule alone would say of the events that are stored already. Reads, and never writes.

``python -m the_eye.rules.backtest`` does it in a process of its own, at the lowest priority, for an operator that must
not be held up: a Request as JSON on standard input, a BacktestResult a line on standard output, of which the last says
``Done`` or ``Failed``. The database is the one that THE_EYE_DATABASE_URL names.
"""

import os
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import msgspec
import psycopg
from msgspec import Meta

from the_eye.confinement import LOWEST_PRIORITY
from the_eye.rules.manifest import FieldError, RefusedManifest, ValidatorRule, read_manifest
from the_eye.rules.ruleset import RuleSet, compile_ruleset
from the_eye.settings import SettingsError, StoreSettings
from the_eye.store.connect import connect
from the_eye.store.past_events import PAGE_EVENTS, Page, PastEvent, Window, read_page, reading, select_events

MAX_ROWS = 1_000_000
MAX_SECONDS = 300.0

EVENT_IDS = 10
"""How many events that violate the rule are named."""

STATEMENT_SECONDS = 30.0
"""Deadline of reading one page; a connection for a back-test needs one that is no shorter."""

PROGRESS_SECONDS = 1.0
"""How often the process of its own says how far it is."""

AnyConnection = psycopg.Connection[Any]


class Limits(msgspec.Struct, frozen=True):
    """Where a back-test ends early."""

    rows: int = MAX_ROWS
    """Events read, those that do not match too."""
    seconds: float = MAX_SECONDS


class State(StrEnum):
    """How far a back-test is."""

    RUNNING = "Running"
    DONE = "Done"
    FAILED = "Failed"


class BacktestResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, so far or in the end."""

    state: State
    from_: datetime = msgspec.field(name="from")
    to: datetime
    """Not included."""
    reached: datetime | None = None
    """The time of the oldest event that was read: the newest come first."""
    examined: int = 0
    """Events that the rule matches."""
    skipped: int = 0
    """Events that were read for a glob and do not match; with ``examined`` they count towards the bound on rows."""
    violations: int = 0
    """Events that violate the rule."""
    share: float = 0.0
    """Of the examined, from 0 to 1."""
    event_ids: tuple[UUID, ...] = ()
    """The first that were found, newest first."""
    truncated: bool = False
    """Whether a bound was reached before the window's beginning."""
    seconds: float = 0.0
    message: str = ""
    """Why it was truncated or failed."""


def backtest(
    connection: AnyConnection,
    rule: ValidatorRule,
    window: Window,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> Iterator[BacktestResult]:
    """Judge the stored events that ``rule`` matches, newest first; tell of each page how far it is, and last the end.

    They are judged as the worker does, by a ruleset of this rule alone and without what is built in. Raises
    psycopg.Error, but not for a page that took too long: that is a bound of time like ``limits``.
    """
    ruleset = alone(rule)
    if isinstance(ruleset, tuple):
        yield _failed(window, "; ".join(map(str, ruleset)))
        return
    run = _Run(ruleset, window, limits)
    selection = select_events(connection, rule.spec.match)
    result, after = run.result(State.RUNNING), None
    while result.state is State.RUNNING:
        try:
            with reading(connection, min(run.seconds_left, STATEMENT_SECONDS)):
                page = read_page(connection, selection, window, after, run.next_rows)
        except psycopg.errors.QueryCanceled:
            yield run.too_slow()
            return
        result = run.take(page)
        yield result
        after = page.events[-1].key if page.events else None


def alone(rule: ValidatorRule) -> RuleSet | tuple[FieldError, ...]:
    """Compile a ruleset of one rule, without what is built in: no event can be too far in the future for it."""
    compilation = compile_ruleset([rule], future_tolerance=timedelta.max)
    return compilation.refused[0].errors if compilation.refused else compilation.ruleset


def _failed(window: Window, message: str) -> BacktestResult:
    return BacktestResult(state=State.FAILED, from_=window.since, to=window.until, message=message)


class _Run:
    """Counts, and minds the bounds."""

    def __init__(self, ruleset: RuleSet, window: Window, limits: Limits) -> None:
        self._ruleset = ruleset
        self._window = window
        self._limits = limits
        self._started = time.monotonic()
        self._examined = self._skipped = self._violations = 0
        self._event_ids: list[UUID] = []
        self._reached: datetime | None = None

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def seconds_left(self) -> float:
        return self._limits.seconds - self._seconds

    @property
    def _rows_left(self) -> int:
        return self._limits.rows - self._examined - self._skipped

    @property
    def next_rows(self) -> int:
        """At least one, which tells whether there are more than the bound."""
        return max(1, min(PAGE_EVENTS, self._rows_left))

    def take(self, page: Page) -> BacktestResult:
        """Judge a page, up to a bound."""
        for past in page.events:
            if self._rows_left <= 0:
                return self._ended(f"the bound of {self._limits.rows} events was reached")
            if self.seconds_left <= 0:
                return self.too_slow()
            self._judge(past)
        return self.result(State.RUNNING if page.more else State.DONE)

    def _judge(self, past: PastEvent) -> None:
        verdict = self._ruleset.judge(past.event)
        self._reached = past.event.timestamp
        self._examined += verdict.matched
        self._skipped += not verdict.matched
        if verdict.violations:
            self._violations += 1
            if len(self._event_ids) < EVENT_IDS:
                self._event_ids.append(past.event.event_id)

    def too_slow(self) -> BacktestResult:
        """End because of time: of all of it, or of what one page may take."""
        if self.seconds_left <= 0:
            return self._ended(f"the bound of {self._limits.seconds:g} seconds was reached")
        return self._ended(f"reading {PAGE_EVENTS} events took longer than {STATEMENT_SECONDS:g} seconds")

    def _ended(self, message: str) -> BacktestResult:
        return msgspec.structs.replace(self.result(State.DONE), truncated=True, message=message)

    def result(self, state: State) -> BacktestResult:
        """Say how far it is."""
        return BacktestResult(
            state=state,
            from_=self._window.since,
            to=self._window.until,
            reached=self._reached,
            examined=self._examined,
            skipped=self._skipped,
            violations=self._violations,
            share=self._violations / self._examined if self._examined else 0.0,
            event_ids=tuple(self._event_ids),
            seconds=round(self._seconds, 3),
        )


Moment = Annotated[datetime, Meta(tz=True)]


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the process of its own reads."""

    rule: Any
    """The manifest, as Kubernetes' API gives it."""
    from_: Moment = msgspec.field(name="from")
    to: Moment
    max_rows: Annotated[int, Meta(ge=1)] = MAX_ROWS
    max_seconds: Annotated[float, Meta(gt=0)] = MAX_SECONDS


def main() -> int:
    """Run the Request on standard input; the exit status is 0 when it is done, 1 when it failed."""
    os.nice(LOWEST_PRIORITY)
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    last, said_at = None, time.monotonic()
    for last in _results(request):
        if last.state is not State.RUNNING or time.monotonic() - said_at >= PROGRESS_SECONDS:
            sys.stdout.buffer.write(msgspec.json.encode(last) + b"\n")
            sys.stdout.buffer.flush()
            said_at = time.monotonic()
    return 0 if last and last.state is State.DONE else 1


def _results(request: Request) -> Iterator[BacktestResult]:
    window = Window(request.from_, request.to)
    rule = read_manifest(request.rule)
    if isinstance(rule, RefusedManifest):
        yield _failed(window, "; ".join(map(str, rule.errors)))
        return
    try:
        with connect(StoreSettings.load(), "the-eye backtest", STATEMENT_SECONDS) as connection:
            yield from backtest(connection, rule, window, Limits(request.max_rows, request.max_seconds))
    except (SettingsError, psycopg.Error) as error:
        yield _failed(window, " ".join(str(error).split()))


if __name__ == "__main__":
    sys.exit(main())
