"""What follows from the declared rules: which version of each is in force, and what is wrong with the others."""

from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta

import msgspec

from the_eye.rules.manifest import FieldError, ValidatorRule
from the_eye.rules.ruleset import Compilation, CompiledRule, RuleSet, compile_ruleset
from the_eye.rules.shards import fit
from the_eye_operator.declared import Declared

NO_TOLERANCE = timedelta()
"""Judging is the workers' business: here nothing is judged by a ruleset, and its revision knows no tolerance."""


class Outcome(msgspec.Struct, frozen=True, eq=False):
    """What became of one declared rule."""

    errors: tuple[FieldError, ...] = ()
    """What is wrong with the declared version; nothing is wrong with one that only waits for the end of a pause."""
    in_force: CompiledRule | None = None
    """The version that workers are given: the declared one, an earlier one or none."""


class Decision(msgspec.Struct, frozen=True, eq=False):
    """The ruleset that should be in force, and why it is that one."""

    ruleset: RuleSet
    declared: Mapping[str, Declared]
    """What was looked at, by uid."""
    outcomes: Mapping[str, Outcome]
    """By uid."""


def compiled(rules: Iterable[ValidatorRule], known: RuleSet | None = None) -> RuleSet:
    """Compile rules that were in force; one that this version of the software refuses is not in it.

    What ``known`` holds is not compiled again.
    """
    return compile_ruleset(rules, future_tolerance=NO_TOLERANCE, previous=known).ruleset


def decide(declared: Iterable[Declared], in_force: RuleSet, unseen: Collection[str] = ()) -> Decision:
    """Compile what is new, keep the last good version of what is refused, and freeze what is paused.

    A rule that was deleted and made again does not inherit the version of its namesake. In the namespaces ``unseen``
    whatever is in force stays: nobody knows whether it is still declared. A rule that ``in_force`` holds unchanged is
    not compiled again.
    """
    rules = tuple(declared)
    compilation = _compile((rule for rule in rules if not rule.paused), in_force)
    paused = _compile((rule for rule in rules if rule.paused), in_force)  # only to tell what is wrong with them
    uids = {rule.uid for rule in rules}
    kept = [
        rule
        for rule in in_force.rules
        if rule.manifest.metadata.uid in uids or rule.manifest.metadata.namespace in unseen
    ]
    choice = fit(compilation.ruleset.rules, kept)
    refused = {rule.id: rule.errors for rule in (*choice.refused, *compilation.refused, *paused.refused)}
    chosen = {rule.manifest.metadata.uid: rule for rule in choice.rules}
    return Decision(
        ruleset=_ruleset(choice.rules, compilation.ruleset, in_force),
        declared={rule.uid: rule for rule in rules},
        outcomes={rule.uid: Outcome(_errors(rule, refused), chosen.get(rule.uid)) for rule in rules},
    )


def _compile(rules: Iterable[Declared], in_force: RuleSet) -> Compilation:
    manifests = [rule.manifest for rule in rules if isinstance(rule.manifest, ValidatorRule)]
    return compile_ruleset(manifests, future_tolerance=NO_TOLERANCE, previous=in_force)


def _errors(rule: Declared, refused: Mapping[str, tuple[FieldError, ...]]) -> tuple[FieldError, ...]:
    return refused.get(rule.id, ()) if isinstance(rule.manifest, ValidatorRule) else rule.manifest.errors


def _ruleset(rules: tuple[CompiledRule, ...], *made: RuleSet) -> RuleSet:
    """Make a ruleset, unless there is one of just these rules: hashing thousands of them takes its time."""
    return next((ruleset for ruleset in made if ruleset.rules == rules), None) or RuleSet(rules, NO_TOLERANCE)
