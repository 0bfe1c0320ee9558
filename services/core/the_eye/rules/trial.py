"""A rule tried on one event or on stored ones: what is asked for, and what came of it.

Nothing here loads CEL or a schema library: what judges is ``the_eye.rules.run_trial``, a process of its own.
"""

from datetime import datetime
from typing import TypeAlias
from uuid import UUID

import msgspec

from the_eye.event import Fault
from the_eye.rules.manifest import FieldError, Match
from the_eye.verdict import Violation

PROGRAM = "the_eye.rules.run_trial"
"""A TrialRequest as JSON on its standard input, a Trial on its standard output."""

MAX_JUDGED = 1_000
"""Stored events that are judged, the newest."""

MAX_READ = 10_000
"""Stored events that are read for them, where a glob finds more than the rule matches."""

MAX_SHOWN = 50
"""Events, and kinds of violations, that are told of by themselves."""


class TrialRequest(msgspec.Struct, frozen=True):
    """What to try."""

    rule: str
    """A manifest, or its ``spec`` alone, as YAML or JSON."""
    known_as: str
    """``namespace/name`` of the rule that a ``spec`` alone is of."""
    event: str | None
    """An event as it is sent, as JSON; None for the stored ones of THE_EYE_DATABASE_URL."""
    application: str
    """That sends the event."""
    store_seconds: float
    """How long reading and judging stored events may take."""
    processor_seconds: int
    memory_bytes: int


class RefusedTrial(msgspec.Struct, frozen=True, tag=True):
    """The rule is none."""

    errors: tuple[FieldError, ...]


class RefusedEvent(msgspec.Struct, frozen=True, tag=True):
    """The event is none, and would not be accepted."""

    faults: tuple[Fault, ...]


class UnreadStore(msgspec.Struct, frozen=True, tag=True):
    """The stored events cannot be read."""

    message: str


class TriedEvent(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """What the rule, by itself, says of an event."""

    rule: str
    match: Match
    matched: bool
    """Whether the rule is for the event at all."""
    valid: bool
    violations: tuple[Violation, ...]
    ignored: int
    """Checks that could not be evaluated, which the rule's ``failurePolicy`` lets pass."""
    data: msgspec.Raw
    """The event's own, byte for byte."""


class JudgedEvent(msgspec.Struct, frozen=True):
    """A stored event that violates the rule, or whose verdict it would change."""

    event_id: UUID
    timestamp: datetime
    application: str
    category: str
    name: str
    was_valid: bool
    would_be_valid: bool
    violations: tuple[Violation, ...]
    """Of the rule that was tried; the first of them."""

    @property
    def changes(self) -> bool:
        """Whether the verdict would be another one."""
        return self.was_valid != self.would_be_valid


class Alike(msgspec.Struct, frozen=True):
    """Violations at the same path, of the same code; indexes of arrays do not tell them apart."""

    path: str
    code: str
    message: str
    events: int


class TriedStore(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """What the rule says of stored events: of those it matches, and of those that have violated it."""

    rule: str
    match: Match
    judged: int
    violating: int
    became_invalid: int
    """Stored as valid, which this version of the rule would have made invalid."""
    became_valid: int
    """Stored as invalid for the version of then, which this one would not have done."""
    ignored: int
    """Events of which a check could not be evaluated, which ``failurePolicy`` lets pass."""
    oldest: datetime | None
    """When the oldest of the judged occurred."""
    newest: datetime | None
    alike: tuple[Alike, ...]
    """The most frequent first."""
    events: tuple[JudgedEvent, ...]
    """Those whose verdict would change first, and then the newest first."""
    ended: str
    """Why older events were not looked at; empty when there are none."""


Trial: TypeAlias = RefusedTrial | RefusedEvent | UnreadStore | TriedEvent | TriedStore
