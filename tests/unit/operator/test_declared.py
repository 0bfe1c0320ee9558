"""Declared rules: whatever a watch tells, forgets or tells late, a list puts right and never sets back."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.unit.operator.declaring import BROKEN, body

from the_eye.rules.manifest import RefusedManifest, ValidatorRule
from the_eye_operator.declared import DeclaredRules, read_declared


def known(rules: DeclaredRules) -> dict[str, int]:
    """The version of each known object."""
    return {declared.uid: declared.resource_version for declared in rules.all()}


def of(*bodies: dict[str, Any]) -> DeclaredRules:
    """Rules that a watch has told of."""
    rules = DeclaredRules()
    for one in bodies:
        rules.seen(one)
    return rules


def test_an_object_is_read_with_what_its_author_asks_for() -> None:
    declared = read_declared(
        body("a", uid="u", version=7, generation=3, annotations={"paused": "True", "backtest": "24h"}, status={"x": 1})
    )

    assert (declared.id, declared.uid, declared.generation, declared.resource_version) == ("shop/a", "u", 3, 7)
    assert (declared.paused, declared.backtest, declared.status) == (True, "24h", {"x": 1})
    assert isinstance(declared.manifest, ValidatorRule)


@pytest.mark.parametrize("value", ["false", "", "yes", "1"])
def test_only_true_pauses(value: str) -> None:
    assert not read_declared(body(annotations={"paused": value})).paused


def test_an_object_without_annotations_and_status_is_read() -> None:
    bare = body()
    bare["metadata"]["annotations"] = None

    declared = read_declared(bare)

    assert (declared.paused, declared.backtest, declared.status) == (False, "", {})


def test_an_object_that_is_no_rule_is_read_with_what_is_wrong() -> None:
    declared = read_declared(body(match={"category": 5}))

    assert isinstance(declared.manifest, RefusedManifest)
    assert declared.id == "shop/rule"


def test_a_status_that_changes_is_nothing_to_decide_about() -> None:
    rules = of(body(version=1))
    version = rules.version

    assert not rules.seen(body(version=2, status={"ruleset": "new"}))
    assert rules.version == version
    assert rules.all()[0].status == {"ruleset": "new"}


@pytest.mark.parametrize(
    "change", [{"generation": 2}, {"annotations": {"paused": "true"}}, {"annotations": {"backtest": "1h"}}]
)
def test_what_its_author_changes_is_something_to_decide_about(change: dict[str, Any]) -> None:
    rules = of(body(version=1))
    version = rules.version

    assert rules.seen(body(version=2, **change))
    assert rules.version == version + 1


def test_what_is_older_than_what_is_known_is_passed_over() -> None:
    rules = of(body(version=5, generation=2))

    assert not rules.seen(body(version=4, generation=1))
    assert rules.all()[0].generation == 2


def test_versions_are_compared_as_numbers() -> None:
    rules = of(body(version=9))

    assert rules.seen(body(version=10, generation=2))


def test_a_deleted_rule_is_forgotten_once() -> None:
    rules = of(body("a"))

    assert rules.gone("a")
    assert not rules.gone("a")
    assert len(rules) == 0
    assert rules.get("a") is None


def test_a_rule_that_is_deleted_and_created_again_is_another_one() -> None:
    rules = of(body("a", uid="first", version=5, generation=7))
    rules.gone("first")

    assert rules.seen(body("a", uid="second", version=6, generation=1))
    assert [(declared.uid, declared.generation) for declared in rules.all()] == [("second", 1)]


def test_the_answer_to_a_patch_does_not_revive_a_rule_that_was_deleted_meanwhile() -> None:
    rules = of(body("a", version=1))
    rules.gone("a")

    assert not rules.patched(body("a", version=2, status={"ruleset": "x"}))
    assert len(rules) == 0


def test_the_answer_to_a_patch_is_taken_for_what_is_known() -> None:
    rules = of(body("a", version=1))

    assert not rules.patched(body("a", version=2, status={"ruleset": "x"}))
    assert rules.patched(body("a", version=3, generation=2))
    assert rules.all()[0].generation == 2


def test_a_deletion_that_the_watch_missed_is_found_and_counted() -> None:
    rules = of(body("a"), body("b"))
    version = rules.version

    rules.begin_list()

    assert rules.end_list([body("b")]) == 1
    assert known(rules) == {"b": 1}
    assert rules.version == version + 1


def test_a_list_finds_what_is_new_and_what_was_edited() -> None:
    rules = of(body("a", version=1), body("b", version=2))
    rules.begin_list()

    missed = rules.end_list([body("a", version=3, generation=2), body("b", version=2), body("c", version=4)])

    assert missed == 2
    assert known(rules) == {"a": 3, "b": 2, "c": 4}


def test_a_rule_that_is_deleted_during_a_list_is_not_revived_by_it() -> None:
    rules = of(body("a"), body("b"))
    rules.begin_list()
    rules.gone("a")

    assert rules.end_list([body("a"), body("b")]) == 0
    assert known(rules) == {"b": 1}


def test_a_rule_that_is_created_during_a_list_is_kept() -> None:
    rules = of(body("a"))
    rules.begin_list()
    rules.seen(body("b", version=2))

    assert rules.end_list([body("a")]) == 0
    assert known(rules) == {"a": 1, "b": 2}


def test_a_list_does_not_set_back_what_was_edited_during_it() -> None:
    rules = of(body("a", version=1))
    rules.begin_list()
    rules.seen(body("a", version=2, generation=2))

    assert rules.end_list([body("a", version=1)]) == 0
    assert rules.all()[0].generation == 2


def test_news_from_before_a_list_protects_nothing_from_it() -> None:
    rules = of(body("a"))
    rules.begin_list()
    rules.end_list([body("a")])
    rules.begin_list()

    assert rules.end_list([]) == 1
    assert len(rules) == 0


def test_rules_come_in_the_order_of_their_ids() -> None:
    assert [declared.id for declared in of(body("c"), body("a"), body("b")).all()] == ["shop/a", "shop/b", "shop/c"]


def test_a_manifest_is_read_once_a_generation() -> None:
    rules = of(body(version=1))
    manifest = rules.all()[0].manifest
    rules.seen(body(version=2, status={"x": 1}))

    assert rules.all()[0].manifest is manifest

    rules.seen(body(version=3, generation=2, **BROKEN))

    assert rules.all()[0].manifest is not manifest


class Watched(RuleBasedStateMachine):
    """A cluster, a watch that is late and loses things, lists that are under way meanwhile, and answers to patches."""

    @initialize()
    def begin(self) -> None:
        self.told_of = DeclaredRules()
        self.truth: dict[str, dict[str, Any]] = {}
        self.version = 0
        self.created = 0
        self.news: list[tuple[str, dict[str, Any]]] = []
        self.answers: list[dict[str, Any]] = []
        self.listing = False
        self.listed: list[dict[str, Any]] | None = None
        self.forgotten: set[str] = set()
        self.highest: dict[str, int] = {}

    def _change(self, type_: str, uid: str, **fields: Any) -> None:
        self.version += 1
        before = self.truth.get(uid)
        generation = fields.get("generation", before["metadata"]["generation"] if before else 1)
        self.truth[uid] = body(uid, version=self.version, generation=generation)
        self.news.append((type_, self.truth[uid]))

    @rule()
    def create(self) -> None:
        self.created += 1
        self._change("ADDED", f"rule-{self.created}")

    @precondition(lambda self: self.truth)
    @rule(data=st.data())
    def edit(self, data: st.DataObject) -> None:
        uid = data.draw(st.sampled_from(sorted(self.truth)))
        self._change("MODIFIED", uid, generation=self.truth[uid]["metadata"]["generation"] + 1)

    @precondition(lambda self: self.truth)
    @rule(data=st.data())
    def patch_status(self, data: st.DataObject) -> None:
        uid = data.draw(st.sampled_from(sorted(self.truth)))
        self._change("MODIFIED", uid)
        self.answers.append(self.truth[uid])

    @precondition(lambda self: self.truth)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        uid = data.draw(st.sampled_from(sorted(self.truth)))
        self._change("DELETED", uid)
        del self.truth[uid]

    @precondition(lambda self: self.news)
    @rule()
    def tell(self) -> None:
        type_, told = self.news.pop(0)
        uid = told["metadata"]["uid"]
        if type_ == "DELETED":
            self.told_of.gone(uid)
            self.forgotten.add(uid)
        else:
            self.told_of.seen(told)

    @precondition(lambda self: self.news)
    @rule()
    def lose(self) -> None:
        self.news.pop(0)

    @precondition(lambda self: self.answers)
    @rule()
    def answer_patch(self) -> None:
        self.told_of.patched(self.answers.pop(0))

    @precondition(lambda self: not self.listing)
    @rule()
    def ask_for_list(self) -> None:
        self.told_of.begin_list()
        self.listing = True

    @precondition(lambda self: self.listing and self.listed is None)
    @rule()
    def make_list(self) -> None:
        self.listed = list(self.truth.values())

    @precondition(lambda self: self.listed is not None)
    @rule()
    def take_list(self) -> None:
        before = _wanted(self.told_of)
        missed = self.told_of.end_list(self.listed or ())
        after = _wanted(self.told_of)
        assert missed == len({uid for uid in before | after if before.get(uid) != after.get(uid)})
        self.listing, self.listed = False, None

    @rule()
    def settle(self) -> None:
        """What a list says that nothing overlaps is the truth."""
        while self.news:
            self.tell()
        while self.answers:
            self.answer_patch()
        self.told_of.begin_list()
        self.told_of.end_list(list(self.truth.values()))
        self.listing, self.listed = False, None
        assert known(self.told_of) == {uid: int(one["metadata"]["resourceVersion"]) for uid, one in self.truth.items()}

    @invariant()
    def nothing_comes_back(self) -> None:
        assert not self.forgotten & known(self.told_of).keys()

    @invariant()
    def nothing_is_set_back(self) -> None:
        for uid, version in known(self.told_of).items():
            assert version >= self.highest.get(uid, 0)
            self.highest[uid] = version


def _wanted(rules: DeclaredRules) -> dict[str, object]:
    return {declared.uid: declared.wanted for declared in rules.all()}


Watched.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestWatched = Watched.TestCase


def test_a_rule_that_was_made_again_takes_the_place_of_one_whose_deletion_went_by_unseen() -> None:
    rules = DeclaredRules()
    rules.seen(body(uid="former", version=5))

    assert rules.seen(body(uid="latter", version=7))
    assert [rule.uid for rule in rules.all()] == ["latter"]
    assert not rules.seen(body(uid="former", version=6))
    assert [rule.uid for rule in rules.all()] == ["latter"]


def test_a_deletion_that_is_told_late_takes_nothing_from_the_namesake() -> None:
    rules = DeclaredRules()
    rules.seen(body(uid="former", version=5))
    rules.seen(body(uid="latter", version=7))

    assert not rules.gone("former")
    assert rules.gone("latter")
    assert rules.seen(body(uid="third", version=1))
