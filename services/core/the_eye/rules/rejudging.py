"""Judging a stored event again, for the sake of one rule."""

from datetime import timedelta

import msgspec

from the_eye.rules.manifest import Match
from the_eye.rules.match import Index
from the_eye.rules.ruleset import FUTURE_TIMESTAMP, RuleSet
from the_eye.store.past_events import PastEvent
from the_eye.verdict import Verdict


class Rejudging:
    """Gives the verdict that all rules of a ruleset have on events that concern one of them."""

    def __init__(self, ruleset: RuleSet, rule: str) -> None:
        """``rule`` as ``namespace/name``; one that is gone concerns the events that have violated it."""
        # Whether an event came from the future was settled at its arrival, by a setting that no ruleset holds.
        self._ruleset = RuleSet(ruleset.rules, timedelta.max)
        self._rule = rule
        self.match = next((found.match for found in ruleset.rules if found.id == rule), None)
        """Which events the rule is for now; None when it is not in the ruleset."""
        self._find = Index([_Matched(self.match)] if self.match else []).find

    def __call__(self, past: PastEvent) -> Verdict | None:
        """Judge an event again; None for one that neither matches the rule nor has violated it."""
        event = past.event
        if not self._find(event.category, event.name, event.application) and not past.violates(self._rule):
            return None
        verdict = self._ruleset.judge(event)
        on_arrival = tuple(violation for violation in past.violations if violation.rule == FUTURE_TIMESTAMP)
        return msgspec.structs.replace(verdict, violations=(*on_arrival, *verdict.violations))


class _Matched(msgspec.Struct, frozen=True):
    match: Match
