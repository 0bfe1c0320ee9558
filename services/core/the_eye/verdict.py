"""What the rules say of an event."""

from enum import StrEnum

import msgspec


class Action(StrEnum):
    """What a violation does to its event."""

    ENFORCE = "Enforce"
    """The event is invalid."""
    AUDIT = "Audit"
    """The event stays valid and the violation is recorded."""


class Violation(msgspec.Struct, frozen=True):
    """One broken rule at one place. It never repeats the event's value."""

    rule: str
    """``namespace/name``; rules that are built in have the namespace ``the-eye``."""
    generation: int
    action: Action
    path: str
    """JSON path in the event, such as ``$.data.element``."""
    code: str
    """Stable: ``schema.<keyword>``, ``schema.error``, ``expression.false``, ``expression.error``, ``timestamp.future``
    or ``data.unreadable``."""
    message: str


class Verdict(msgspec.Struct, frozen=True):
    """The outcome of judging one event; true when the event is valid."""

    violations: tuple[Violation, ...] = ()
    matched: bool = False
    """Whether any declared rule matched the event."""

    @property
    def valid(self) -> bool:
        """False when an enforced rule is broken."""
        return not self.violations or all(violation.action is not Action.ENFORCE for violation in self.violations)

    def __bool__(self) -> bool:
        return self.valid
