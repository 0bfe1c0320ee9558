"""A rule's status, from what became of it and what the workers run."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from the_eye.rules.manifest import FieldError
from the_eye.rules.ruleset import CompiledRule, RuleSet
from the_eye_operator.decision import Outcome
from the_eye_operator.declared import Declared
from the_eye_operator.workers import WorkerView

MAX_MESSAGE = 2_000
"""Characters of a condition's message; the definition allows 32,768."""

TYPES = ("Accepted", "Programmed", "Ready", "Paused")
"""The conditions that are the operator's."""

Truth = Literal["True", "False", "Unknown"]


class Condition(msgspec.Struct, frozen=True):
    """One condition, without its times."""

    type: str
    status: Truth
    reason: str
    message: str


class Published(msgspec.Struct, frozen=True):
    """The ruleset that workers are told to run."""

    revision: str
    rules: Mapping[str, CompiledRule]
    """By id."""

    @classmethod
    def of(cls, ruleset: RuleSet) -> "Published":
        """Take what is needed of a ruleset."""
        return cls(ruleset.revision, {rule.id: rule for rule in ruleset.rules})

    def version_of(self, rule: Declared) -> CompiledRule | None:
        """Give the version that it holds of a rule."""
        held = self.rules.get(rule.id)
        return held if held is not None and held.manifest.metadata.uid == rule.uid else None

    def holds(self, rule: CompiledRule) -> bool:
        """Whether it holds just this version of a rule."""
        held = self.rules.get(rule.id)
        return held is not None and held.document == rule.document


def status_of(
    rule: Declared, outcome: Outcome, published: Published, workers: WorkerView | None, now: datetime
) -> dict[str, Any]:
    """Give the fields of the status that a reconcile owns; None stands for a field that is not there.

    ``workers`` is None while nobody knows what they run. Conditions of others stay.
    """
    in_force, given = outcome.in_force, published.version_of(rule)
    accepted = _accepted(rule, outcome)
    programmed = _programmed(rule, in_force, published, workers)
    conditions = [accepted, programmed, _ready(accepted, programmed), *_paused(rule, in_force)]
    return {
        "observedGeneration": rule.generation,
        "inForceGeneration": given.generation if given else None,
        "ruleset": _ruleset(rule, given, published),
        "conditions": [*_with_times(conditions, rule, now), *_of_others(rule)],
    }


def changes(rule: Declared, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Give what of ``wanted`` the status does not say yet; empty when nothing is to be patched."""
    return {field: value for field, value in wanted.items() if rule.status.get(field) != value}


def is_urgent(rule: Declared, change: Mapping[str, Any]) -> bool:
    """Whether more than the wording of a condition has changed."""
    if change.keys() != {"conditions"}:
        return bool(change)
    return _truths(change["conditions"]) != _truths(rule.status.get("conditions") or ())


def _truths(conditions: Iterable[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    return [(c.get("type"), c.get("status"), c.get("reason"), c.get("observedGeneration")) for c in conditions]


def condition_of(status: Mapping[str, Any], type_: str) -> Mapping[str, Any]:
    """Find a condition in a status; empty when it is not there."""
    return next((found for found in status.get("conditions") or () if found.get("type") == type_), {})


def _accepted(rule: Declared, outcome: Outcome) -> Condition:
    if outcome.errors:
        return Condition("Accepted", "False", outcome.errors[0].reason, _refusal(outcome))
    if rule.paused and not _is_declared(rule, outcome.in_force):
        return Condition("Accepted", "True", "Accepted", "the rule compiles, and waits for the end of the pause")
    return Condition("Accepted", "True", "Accepted", "the rule compiles")


def _is_declared(rule: Declared, version: CompiledRule | None) -> bool:
    return version is not None and version.generation == rule.generation


def _refusal(outcome: Outcome) -> str:
    kept = outcome.in_force
    last = f"generation {kept.generation}, the last good one, stays in force" if kept else "no version is in force"
    return _joined(outcome.errors, MAX_MESSAGE - len(last)) + "; " + last


def _joined(errors: tuple[FieldError, ...], room: int) -> str:
    text = "; ".join(map(str, errors))
    return text if len(text) <= room else text[: room - 1] + "…"


def _programmed(
    rule: Declared, in_force: CompiledRule | None, published: Published, workers: WorkerView | None
) -> Condition:
    if in_force is None:
        return _not_programmed("NotInForce", "no version of the rule is in force")
    if not published.holds(in_force):
        return _not_programmed("NotPublished", "the ruleset that holds it is not written yet")
    if workers is None:
        return Condition("Programmed", "Unknown", "WorkersUnknown", "the workers could not be looked at")
    if not workers.workers:
        return Condition("Programmed", "Unknown", "NoWorkers", "no worker is ready")
    return _run_by(workers, rule, in_force)


def _run_by(workers: WorkerView, rule: Declared, in_force: CompiledRule) -> Condition:
    total, running = len(workers.workers), workers.running(in_force)
    told = f"{running}/{total} workers run generation {in_force.generation}"
    if running < total:
        return _not_programmed("WorkersBehind", told)
    if not _is_declared(rule, in_force):
        return _not_programmed("Paused" if rule.paused else "LastGoodVersion", told)
    return Condition("Programmed", "True", "Programmed", told)


def _not_programmed(reason: str, message: str) -> Condition:
    return Condition("Programmed", "False", reason, message)


def _ready(accepted: Condition, programmed: Condition) -> Condition:
    for condition in (accepted, programmed):
        if condition.status != "True":
            return Condition("Ready", condition.status, condition.reason, condition.message)
    return Condition("Ready", "True", "Ready", programmed.message)


def _paused(rule: Declared, in_force: CompiledRule | None) -> Iterable[Condition]:
    if rule.paused:
        where = f"generation {in_force.generation} stays in force" if in_force else "no version is in force"
        yield Condition("Paused", "True", "Paused", f"the annotation the-eye.io/paused is set: {where}")


def _ruleset(rule: Declared, in_force: CompiledRule | None, published: Published) -> str | None:
    """Name the first ruleset that held the version in force: of later ones that changed nothing the rule says nothing.

    Otherwise each edit of one rule would be a patch of all.
    """
    if in_force is None:
        return None
    if rule.status.get("inForceGeneration") == in_force.generation and rule.status.get("ruleset"):
        return str(rule.status["ruleset"])
    return published.revision if published.holds(in_force) else None


def _of_others(rule: Declared) -> list[Mapping[str, Any]]:
    """A patch replaces the whole list, so that what others say there has to be said again."""
    return [found for found in rule.status.get("conditions") or () if found.get("type") not in TYPES]


def _with_times(conditions: Iterable[Condition], rule: Declared, now: datetime) -> list[dict[str, Any]]:
    return [_with_time(condition, condition_of(rule.status, condition.type), rule, now) for condition in conditions]


def _with_time(condition: Condition, before: Mapping[str, Any], rule: Declared, now: datetime) -> dict[str, Any]:
    unchanged = before.get("status") == condition.status
    return {
        "type": condition.type,
        "status": condition.status,
        "observedGeneration": rule.generation,
        "lastTransitionTime": before.get("lastTransitionTime") if unchanged else rfc3339(now),
        "reason": condition.reason,
        "message": condition.message,
    }


def rfc3339(time: datetime) -> str:
    """Write a time as Kubernetes does: UTC, in whole seconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
