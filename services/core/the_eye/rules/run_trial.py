"""Tries a rule that someone typed: ``python -m the_eye.rules.run_trial``. Reads, and never writes.

In a process of its own, which bounds its time and its memory before it looks at the rule: CEL bounds neither.
"""

import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg

from the_eye.confinement import confine
from the_eye.event import SentEvent, parse_event
from the_eye.rules.backtest import alone
from the_eye.rules.documents import Unreadable, read_documents
from the_eye.rules.manifest import API_VERSION, FieldError, RefusedManifest, ValidatorRule, read_manifest
from the_eye.rules.ruleset import RuleSet
from the_eye.rules.sent import as_received
from the_eye.rules.trial import (
    MAX_JUDGED,
    MAX_READ,
    MAX_SHOWN,
    Alike,
    JudgedEvent,
    RefusedEvent,
    RefusedTrial,
    Trial,
    TrialRequest,
    TriedEvent,
    TriedStore,
    UnreadStore,
)
from the_eye.settings import SettingsError, StoreSettings
from the_eye.store.connect import Connection, connect
from the_eye.store.past_events import PastEvent, Window, read_page, reading, select_events
from the_eye.verdict import Verdict, Violation

EVER = Window(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))

PAGE_EVENTS = 200

MAX_VIOLATIONS = 5
"""Of a stored event that are told of."""

_SPEC_FIELDS = frozenset({"match", "schema", "validations"})


def main() -> None:
    """Run the TrialRequest on standard input."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=TrialRequest)
    confine(processor_seconds=request.processor_seconds, memory_bytes=request.memory_bytes)
    sys.stdout.buffer.write(msgspec.json.encode(run(request)))


def run(request: TrialRequest) -> Trial:
    """Try a rule; never raises for what someone typed."""
    rule = read_rule(request.rule, request.known_as)
    if not isinstance(rule, ValidatorRule):
        return RefusedTrial(rule)
    ruleset = alone(rule)
    if not isinstance(ruleset, RuleSet):
        return RefusedTrial(ruleset)
    if request.event is not None:
        return _try_on_event(rule, ruleset, request.event, request.application)
    try:
        with connect(StoreSettings.load(), "the-eye trial", request.store_seconds) as connection:
            return try_on_store(connection, rule, ruleset, request.store_seconds)
    except (SettingsError, psycopg.Error) as error:
        return UnreadStore(str(error).partition("\n")[0])


def read_rule(text: str, known_as: str) -> ValidatorRule | tuple[FieldError, ...]:
    """Read a manifest, or a ``spec`` alone as that of the rule ``known_as``."""
    documents = [one for one in read_documents(text) if isinstance(one, Unreadable) or one.value is not None]
    if len(documents) != 1:
        return (FieldError("", "InvalidSyntax", f"one rule is tried at a time, not {len(documents)}"),)
    (document,) = documents
    if isinstance(document, Unreadable):
        return (FieldError("", "InvalidSyntax", document.message),)
    manifest = read_manifest(_with_metadata(document.value, known_as))
    return manifest.errors if isinstance(manifest, RefusedManifest) else manifest


def _with_metadata(value: Any, known_as: str) -> Any:
    if not isinstance(value, dict) or "spec" in value or _SPEC_FIELDS.isdisjoint(value):
        return value
    namespace, _, name = known_as.partition("/")
    metadata = {"namespace": namespace, "name": name}
    return {"apiVersion": API_VERSION, "kind": "ValidatorRule", "metadata": metadata, "spec": value}


def _try_on_event(rule: ValidatorRule, ruleset: RuleSet, text: str, application: str) -> Trial:
    sent = parse_event(text.encode())
    if not isinstance(sent, SentEvent):
        return RefusedEvent(sent)
    ignored: list[str] = []
    verdict = ruleset.judge(as_received(sent, application), on_ignored=ignored.append)
    return TriedEvent(
        rule=rule.id,
        match=rule.spec.match,
        matched=verdict.matched,
        valid=verdict.valid,
        violations=verdict.violations,
        ignored=len(ignored),
        data=sent.data,
    )


def try_on_store(connection: Connection, rule: ValidatorRule, ruleset: RuleSet, seconds: float) -> TriedStore:
    """Judge the newest events that the rule matches or that have violated it, up to MAX_JUDGED.

    Raises psycopg.Error.
    """
    tally = _Tally(rule, ruleset)
    try:
        for past in _past_events(connection, rule, time.monotonic() + seconds):
            tally.take(past)
            if tally.judged == MAX_JUDGED:
                return tally.result(f"the newest {MAX_JUDGED:,} were judged")
    except TimeoutError:
        return tally.result(f"reading and judging more would have taken longer than {seconds:g} seconds")
    return tally.result("" if tally.read < MAX_READ else f"{MAX_READ:,} events were read")


def _past_events(connection: Connection, rule: ValidatorRule, deadline: float) -> Iterator[PastEvent]:
    """Read up to MAX_READ events, newest first. Raises TimeoutError."""
    selection, after = select_events(connection, rule.spec.match, rule.id), None
    for _ in range(MAX_READ // PAGE_EVENTS):
        try:
            with reading(connection, max(0.001, deadline - time.monotonic())):
                page = read_page(connection, selection, EVER, after, PAGE_EVENTS)
        except psycopg.errors.QueryCanceled as error:
            raise TimeoutError from error
        for past in page.events:
            if time.monotonic() > deadline:
                raise TimeoutError
            yield past
        if not page.more:
            return
        after = page.events[-1].key


_INDEX = re.compile(r"\[\d+\]")


class _Tally:
    """Counts what a rule says of events."""

    def __init__(self, rule: ValidatorRule, ruleset: RuleSet) -> None:
        self._rule = rule
        self._ruleset = ruleset
        self.read = self.judged = 0
        self._violating = self._became_invalid = self._became_valid = self._ignored = 0
        self._oldest: datetime | None = None
        self._newest: datetime | None = None
        self._alike: Counter[tuple[str, str]] = Counter()
        self._messages: dict[tuple[str, str], str] = {}
        self._changed: list[JudgedEvent] = []
        self._others: list[JudgedEvent] = []

    def take(self, past: PastEvent) -> None:
        self.read += 1
        ignored: list[str] = []
        verdict = self._ruleset.judge(past.event, on_ignored=ignored.append)
        if not verdict.matched and not past.violates(self._rule.id):
            return
        self.judged += 1
        self._ignored += bool(ignored)
        self._oldest, self._newest = past.event.timestamp, self._newest or past.event.timestamp
        self._count(verdict.violations)
        self._keep(past, verdict)

    def _count(self, violations: tuple[Violation, ...]) -> None:
        self._violating += bool(violations)
        kinds = {(_INDEX.sub("[*]", violation.path), violation.code): violation.message for violation in violations}
        self._alike.update(kinds.keys())
        self._messages |= kinds

    def _keep(self, past: PastEvent, verdict: Verdict) -> None:
        """What other rules said stays as it is."""
        others = tuple(violation for violation in past.violations if violation.rule != self._rule.id)
        would_be_valid = Verdict((*others, *verdict.violations)).valid
        self._became_invalid += past.valid and not would_be_valid
        self._became_valid += would_be_valid and not past.valid
        kept = self._others if past.valid == would_be_valid else self._changed
        if (verdict.violations or kept is self._changed) and len(kept) < MAX_SHOWN:
            kept.append(_judged(past, verdict, would_be_valid=would_be_valid))

    def result(self, ended: str) -> TriedStore:
        alike = [
            Alike(path, code, self._messages[path, code], events)
            for (path, code), events in self._alike.most_common(MAX_SHOWN)
        ]
        return TriedStore(
            rule=self._rule.id,
            match=self._rule.spec.match,
            judged=self.judged,
            violating=self._violating,
            became_invalid=self._became_invalid,
            became_valid=self._became_valid,
            ignored=self._ignored,
            oldest=self._oldest,
            newest=self._newest,
            alike=tuple(alike),
            events=tuple((self._changed + self._others)[:MAX_SHOWN]),
            ended=ended,
        )


def _judged(past: PastEvent, verdict: Verdict, *, would_be_valid: bool) -> JudgedEvent:
    event = past.event
    return JudgedEvent(
        event_id=event.event_id,
        timestamp=event.timestamp,
        application=event.application,
        category=event.category,
        name=event.name,
        was_valid=past.valid,
        would_be_valid=would_be_valid,
        violations=verdict.violations[:MAX_VIOLATIONS],
    )


if __name__ == "__main__":
    main()
