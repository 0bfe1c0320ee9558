"""What is in force follows from what is declared and what was in force before."""

from collections.abc import Iterable
from typing import Any

import pytest
from tests.unit.operator.declaring import BROKEN, declared
from tests.unit.rules.making import cel, schema

from the_eye.rules import shards
from the_eye.rules.manifest import ValidatorRule
from the_eye.rules.ruleset import CompiledRule, RuleSet
from the_eye_operator.decision import Decision, compiled, decide
from the_eye_operator.declared import Declared

NOTHING = compiled(())


def in_force(*rules: Declared) -> RuleSet:
    """A ruleset that these rules came to."""
    return decide(rules, NOTHING).ruleset


def generations(decision: Decision) -> dict[str, int]:
    """The generation of each rule in force, by its name."""
    return {rule.manifest.metadata.name: rule.generation for rule in decision.ruleset.rules}


def reasons(decision: Decision) -> dict[str, list[str]]:
    """Why rules are refused, by uid."""
    return {uid: [error.reason for error in outcome.errors] for uid, outcome in decision.outcomes.items()}


def kept(decision: Decision, uid: str = "rule") -> int | None:
    """The generation that an outcome says is in force."""
    version = decision.outcomes[uid].in_force
    return version.generation if version else None


def test_a_sound_rule_is_in_force() -> None:
    decision = decide([declared("a"), declared("b", generation=4)], NOTHING)

    assert generations(decision) == {"a": 1, "b": 4}
    assert reasons(decision) == {"a": [], "b": []}
    assert (kept(decision, "a"), kept(decision, "b")) == (1, 4)


def test_what_was_looked_at_is_told_by_uid() -> None:
    rule = declared("a", uid="u")

    assert decide([rule], NOTHING).declared == {"u": rule}


def test_no_rules_are_an_empty_ruleset() -> None:
    assert decide([], in_force(declared())).ruleset.rules == ()


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (BROKEN, "InvalidExpression"),
        (schema(a={"type": "nonsense"}), "InvalidSchema"),
        ({"match": {"category": 5}, **cel("true")}, "InvalidField"),
        ({"match": {}}, "InvalidField"),
    ],
)
def test_a_rule_that_is_wrong_is_refused_and_the_others_go_on(spec: dict[str, Any], reason: str) -> None:
    decision = decide([declared("a"), declared("b", **spec)], NOTHING)

    assert generations(decision) == {"a": 1}
    assert reasons(decision) == {"a": [], "b": [reason]}
    assert kept(decision, "b") is None


@pytest.mark.parametrize("spec", [BROKEN, {"match": {"category": 5}, **cel("true")}])
def test_the_last_good_version_of_a_refused_rule_stays(spec: dict[str, Any]) -> None:
    decision = decide([declared(generation=5, **spec)], in_force(declared(generation=3)))

    assert generations(decision) == {"rule": 3}
    assert kept(decision) == 3
    assert reasons(decision)["rule"] != []


def test_a_rule_that_is_repaired_replaces_its_last_good_version() -> None:
    decision = decide([declared(generation=6, **cel("false"))], in_force(declared(generation=3)))

    assert generations(decision) == {"rule": 6}
    assert reasons(decision) == {"rule": []}


def test_a_deleted_rule_leaves() -> None:
    decision = decide([declared("b")], in_force(declared("a"), declared("b")))

    assert generations(decision) == {"b": 1}
    assert decision.outcomes.keys() == {"b"}


def test_the_last_good_version_leaves_with_its_deleted_rule() -> None:
    broken = decide([declared(generation=2, **BROKEN)], in_force(declared()))

    assert decide([], broken.ruleset).ruleset.rules == ()


@pytest.mark.parametrize(("spec", "errors"), [(cel("false"), []), (BROKEN, ["InvalidExpression"])])
def test_a_paused_rule_stays_at_the_version_in_force(spec: dict[str, Any], errors: list[str]) -> None:
    """What is wrong with the edit is told before it takes the place of that version."""
    decision = decide([declared(generation=2, paused=True, **spec)], in_force(declared(generation=1)))

    assert generations(decision) == {"rule": 1}
    assert reasons(decision) == {"rule": errors}
    assert kept(decision) == 1


def test_a_broken_rule_that_was_made_again_does_not_inherit_the_version_of_its_namesake() -> None:
    decision = decide([declared(uid="again", **BROKEN)], in_force(declared(generation=2)))

    assert generations(decision) == {}
    assert kept(decision, "again") is None


def test_a_paused_rule_that_was_made_again_does_not_inherit_it_either() -> None:
    assert generations(decide([declared(uid="again", paused=True)], in_force(declared()))) == {}


def test_a_rule_that_was_paused_before_it_ever_was_in_force_is_not() -> None:
    decision = decide([declared("a", paused=True), declared("b")], NOTHING)

    assert generations(decision) == {"b": 1}
    assert kept(decision, "a") is None
    assert reasons(decision) == {"a": [], "b": []}


def test_a_paused_rule_that_is_deleted_leaves() -> None:
    assert decide([], in_force(declared(paused=False))).ruleset.rules == ()


def test_a_rule_that_is_paused_no_more_is_decided_about_again() -> None:
    frozen = decide([declared(generation=2, paused=True, **cel("false"))], in_force(declared()))

    assert generations(decide([declared(generation=2, **cel("false"))], frozen.ruleset)) == {"rule": 2}


def test_what_is_unchanged_is_not_compiled_again() -> None:
    before = in_force(declared("a"), declared("b"))
    decision = decide([declared("a"), declared("b", generation=2, **cel("false"))], before)

    assert decision.ruleset.rules[0] is before.rules[0]
    assert decision.ruleset.rules[1] is not before.rules[1]


def test_a_decision_that_changes_nothing_is_the_ruleset_before() -> None:
    before = in_force(declared("a"), declared("b"))

    assert decide([declared("a"), declared("b")], before).ruleset.revision == before.revision


def test_deciding_again_about_its_own_outcome_changes_nothing() -> None:
    rules = [declared("a"), declared("b", generation=2, **BROKEN), declared("c", paused=True)]
    once = decide(rules, in_force(declared("b")))
    again = decide(rules, once.ruleset)

    assert again.ruleset.revision == once.ruleset.revision
    assert reasons(again) == reasons(once)


def large(name: str, size: int, generation: int = 1) -> Declared:
    """A rule of at least this many bytes."""
    return declared(name, generation=generation, schema={"description": "x" * size})


def test_a_rule_that_is_too_large_is_refused_and_its_last_good_version_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_RULE_BYTES", 1000)
    decision = decide([large("a", 2000, 2), large("b", 2000)], in_force(declared("a")))

    assert generations(decision) == {"a": 1}
    assert reasons(decision) == {"a": ["TooLarge"], "b": ["TooLarge"]}
    assert (kept(decision, "a"), kept(decision, "b")) == (1, None)


def test_a_rule_that_finds_no_room_is_refused_and_those_in_force_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_RULESET_BYTES", 3000)
    decision = decide([large("a", 2000), large("z", 2000)], in_force(large("z", 2000)))

    assert generations(decision) == {"z": 1}
    assert reasons(decision) == {"a": ["RulesetFull"], "z": []}


def test_what_was_in_force_is_compiled_again_without_what_this_version_refuses() -> None:
    def manifests(rules: Iterable[CompiledRule]) -> list[ValidatorRule]:
        return [rule.manifest for rule in rules]

    sound = in_force(declared("a"))
    broken = declared("b", **BROKEN).manifest
    assert isinstance(broken, ValidatorRule)

    assert manifests(compiled([*manifests(sound.rules), broken]).rules) == manifests(sound.rules)
