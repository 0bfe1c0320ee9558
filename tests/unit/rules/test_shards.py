"""Shards and their index: every rule in one shard, little written anew, and damage that loses only itself.

Rules are made by hand here, without compiling: neither packing nor fitting looks into them.
"""

import hashlib
from collections.abc import Iterable, Mapping

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.rules.making import TOLERANCE, cel, rule, ruleset

from the_eye.rules.assembly import Problem
from the_eye.rules.manifest import Match, Metadata, Spec, Validation, ValidatorRule
from the_eye.rules.ruleset import CompiledRule, RuleSet
from the_eye.rules.shards import (
    MAX_RULE_BYTES,
    MAX_RULESET_BYTES,
    MAX_SHARD_BYTES,
    MAX_SHARDS,
    Layout,
    RuleSetIndex,
    Shard,
    fit,
    is_index,
    manifests_of,
    pack,
    read_index,
    read_layout,
    read_shards,
)

KIB = 1024
EMPTY = Layout()


def compiled(name: str, size: int = KIB, generation: int = 1) -> CompiledRule:
    """A rule whose canonical JSON has so many bytes."""
    bare = _manifest(name, 0, generation)
    manifest = _manifest(name, size - len(msgspec.json.encode(bare, order="sorted")), generation)
    document = msgspec.json.encode(manifest, order="sorted")
    assert len(document) == size
    return CompiledRule(manifest=manifest, document=document, schema=None, expressions=())


def _manifest(name: str, length: int, generation: int) -> ValidatorRule:
    spec = Spec(match=Match(), validations=(Validation("x" * length),))
    return ValidatorRule("the-eye.io/v1alpha1", "ValidatorRule", Metadata(name, generation=generation), spec)


def of(*rules: CompiledRule) -> RuleSet:
    return RuleSet(rules, TOLERANCE)


def names(rules: Iterable[CompiledRule]) -> list[str]:
    return [rule.manifest.metadata.name for rule in rules]


def contents(layout: Layout) -> dict[int, list[str]]:
    """The names of the rules in each slot."""
    return {slot: [rule.removeprefix("default/") for rule in shard.rules] for slot, shard in layout.slots.items()}


def files(layout: Layout) -> dict[int, dict[str, bytes]]:
    """What is in the ConfigMaps, by slot."""
    return {slot: {shard.name: shard.content} for slot, shard in layout.slots.items()}


def mounted(layout: Layout) -> dict[str, bytes]:
    """What is in a worker's directory."""
    return {shard.name: shard.content for shard in layout.slots.values()}


def changed(before: Layout, after: Layout) -> set[int]:
    """The slots that are written anew or emptied."""
    slots = before.slots.keys() | after.slots.keys()
    return {slot for slot in slots if before.slots.get(slot) != after.slots.get(slot)}


def index_of(layout: Layout) -> RuleSetIndex:
    index = read_index(layout.index)
    assert isinstance(index, RuleSetIndex), index
    return index


def assert_sound(layout: Layout, rules: RuleSet) -> None:
    in_shards = sorted(rule for shard in layout.slots.values() for rule in shard.rules)
    assert in_shards == [rule.id for rule in rules.rules]
    for slot, shard in layout.slots.items():
        assert slot in range(MAX_SHARDS)
        assert shard.rules
        assert len(shard.content) <= MAX_SHARD_BYTES
        assert shard.name == f"{hashlib.sha256(shard.content).hexdigest()}.json"
    shards = read_shards(index_of(layout), mounted(layout))
    assert shards == tuple(layout.slots.values())


SIZES = st.sampled_from([KIB, 100 * KIB, MAX_RULE_BYTES]) | st.integers(KIB, MAX_RULE_BYTES)
STEPS = st.lists(st.dictionaries(st.integers(0, 140), st.none() | SIZES, max_size=30), min_size=1, max_size=6)
BASES = st.builds(lambda sizes, times: sizes * times, st.lists(SIZES, min_size=1, max_size=9), st.integers(1, 30))
"""From one rule to twice as many as fit."""


def of_sizes(sizes: Mapping[int, int]) -> list[CompiledRule]:
    return [compiled(f"rule-{number}", size) for number, size in sizes.items()]


@settings(max_examples=60, deadline=None)
@given(base=BASES, steps=STEPS)
def test_whatever_happens_to_rules_each_is_in_one_shard_within_the_bounds(
    base: list[int], steps: list[dict[int, int | None]]
) -> None:
    """Through any history of edits, up to a ruleset that is full, there is room for all that fits."""
    sizes = dict(enumerate(base))
    in_force = fit(of_sizes(sizes), ()).rules
    layout = pack(of(*in_force), EMPTY)
    assert_sound(layout, of(*in_force))
    for step in steps:
        sizes = {number: size for number, size in {**sizes, **step}.items() if size is not None}
        declared = {f"default/rule-{number}" for number in sizes}
        in_force = fit(of_sizes(sizes), (rule for rule in in_force if rule.id in declared)).rules
        layout = pack(of(*in_force), layout)
        assert_sound(layout, of(*in_force))


@settings(max_examples=60, deadline=None)
@given(base=BASES, number=st.integers(0, 140), size=st.none() | SIZES)
def test_an_edit_of_one_rule_writes_two_shards_anew_at_most(base: list[int], number: int, size: int | None) -> None:
    rules = fit(of_sizes(dict(enumerate(base))), ()).rules
    before = pack(of(*rules), EMPTY)
    edited = [compiled(f"rule-{number}", size, generation=2)] if size else []
    others = [rule for rule in rules if rule.id != f"default/rule-{number}"]
    after = pack(of(*fit([*others, *edited], others).rules), before)

    assert len(changed(before, after)) <= 2


@settings(max_examples=30, deadline=None)
@given(base=BASES)
def test_the_same_rules_packed_again_are_the_same_bytes(base: list[int]) -> None:
    rules = of(*fit(of_sizes(dict(enumerate(base))), ()).rules)
    layout = pack(rules, EMPTY)

    assert pack(rules, EMPTY) == layout
    assert pack(rules, layout) == layout
    assert pack(rules, read_layout(files(layout), layout.index).layout) == layout


def test_a_shard_is_a_list_of_canonical_rules() -> None:
    rules = ruleset(rule("b", **cel("true")), rule("a", **cel("1 == 1")))
    layout = pack(rules, EMPTY)

    [shard] = layout.slots.values()
    documents = [msgspec.json.decode(rule.document) for rule in rules.rules]
    assert msgspec.json.decode(shard.content) == {
        "apiVersion": "the-eye.io/v1alpha1",
        "kind": "ValidatorRuleList",
        "items": documents,
    }
    assert msgspec.json.decode(layout.index) == {
        "apiVersion": "the-eye.io/v1alpha1",
        "kind": "RuleSetIndex",
        "revision": rules.revision,
        "rules": 2,
        "shards": [shard.name],
    }


def test_no_rules_are_an_index_of_no_shards() -> None:
    layout = pack(of(), pack(of(compiled("a")), EMPTY))

    assert layout.slots == {}
    assert index_of(layout).shards == ()
    assert read_shards(index_of(layout), {}) == ()


def test_rules_fill_the_first_slot_with_room() -> None:
    layout = pack(of(*(compiled(name, 120 * KIB) for name in "abcdef")), EMPTY)
    assert contents(layout) == {0: ["a", "b", "c", "d"], 1: ["e", "f"]}

    smaller = pack(of(*(compiled(name, 120 * KIB) for name in "bcdef")), layout)
    assert contents(smaller) == {0: ["b", "c", "d"], 1: ["e", "f"]}

    larger = pack(of(*(compiled(name, 120 * KIB) for name in "bcdefghi")), smaller)
    assert contents(larger) == {0: ["b", "c", "d", "g"], 1: ["e", "f", "h", "i"]}


def test_a_slot_without_rules_vanishes_and_is_the_first_to_be_filled_again() -> None:
    layout = pack(of(*(compiled(name, 120 * KIB) for name in "abcdef")), EMPTY)

    without = pack(of(*(compiled(name, 120 * KIB) for name in "ef")), layout)
    assert contents(without) == {1: ["e", "f"]}

    again = pack(of(*(compiled(name, 120 * KIB) for name in "efg")), without)
    assert contents(again) == {0: ["g"], 1: ["e", "f"]}


def test_a_rule_that_outgrows_its_slot_moves_and_no_other() -> None:
    rules = {name: compiled(name, 100 * KIB) for name in "abcdefgh"}
    layout = pack(of(*rules.values()), EMPTY)
    assert contents(layout) == {0: ["a", "b", "c", "d", "e"], 1: ["f", "g", "h"]}

    grown = pack(of(*(rules | {"a": compiled("a", 128 * KIB)}).values()), layout)

    assert contents(grown) == {0: ["b", "c", "d", "e"], 1: ["a", "f", "g", "h"]}


def test_a_full_ruleset_has_room_from_the_first_to_the_last_rule() -> None:
    rules = fit([compiled(f"{number:03}", MAX_RULE_BYTES) for number in range(200)], ()).rules
    layout = pack(of(*rules), EMPTY)

    assert len(rules) == MAX_RULESET_BYTES // (MAX_RULE_BYTES + 1)
    assert_sound(layout, of(*rules))


def test_more_than_fits_is_an_error_of_the_caller() -> None:
    rules = [compiled(f"{number:03}", MAX_RULE_BYTES) for number in range(130)]

    with pytest.raises(ValueError, match=r"^no slot has room for default/096$"):
        pack(of(*rules), EMPTY)


def test_a_layout_of_more_slots_than_there_are_now_is_packed_into_those_there_are() -> None:
    before = Layout({MAX_SHARDS: Shard.of({"default/a": compiled("a").document})})

    assert contents(pack(of(compiled("a")), before)) == {0: ["a"]}


def test_what_is_too_large_is_refused() -> None:
    outcome = fit([compiled("a"), compiled("b", MAX_RULE_BYTES), compiled("c", MAX_RULE_BYTES + 1, 7)], ())

    assert names(outcome.rules) == ["a", "b"]
    [refused] = outcome.refused
    assert (refused.id, refused.generation) == ("default/c", 7)
    assert [str(error) for error in refused.errors] == [
        "spec: a rule has at most 131072 bytes of JSON, this one 131073"
    ]
    assert refused.errors[0].reason == "TooLarge"


def full(prefix: str = "m") -> list[CompiledRule]:
    """Rules with less than 1 KiB of room beside them."""
    weight = MAX_RULE_BYTES + 1
    rules = [compiled(f"{prefix}{number:03}", MAX_RULE_BYTES) for number in range(MAX_RULESET_BYTES // weight)]
    rest = MAX_RULESET_BYTES % weight
    return [*rules, compiled(f"{prefix}-rest", rest - KIB)]


def test_what_is_in_force_has_precedence_over_what_is_new() -> None:
    in_force = full()

    outcome = fit([compiled("a", 2 * KIB), *in_force], in_force)

    assert names(outcome.rules) == sorted(names(in_force))
    [refused] = outcome.refused
    assert (refused.id, refused.errors[0].reason) == ("default/a", "RulesetFull")
    assert refused.errors[0].path == "spec"


def test_of_new_rules_the_first_by_id_have_precedence() -> None:
    """What comes after one that finds no room may still be small enough."""
    in_force = full()
    candidates = [compiled("z", 500), compiled("c", 600), compiled("b", 600), compiled("d", 420)]

    outcome = fit(candidates, in_force)

    assert set(names(outcome.rules)) - set(names(in_force)) == {"b", "d"}
    assert [refused.id for refused in outcome.refused] == ["default/c", "default/z"]


def test_an_edit_that_finds_no_room_leaves_the_last_good_version() -> None:
    in_force = full()
    edited = compiled("m-rest", MAX_RULE_BYTES, generation=2)
    too_large = compiled("m000", MAX_RULE_BYTES + 1, generation=2)

    outcome = fit([edited, too_large], in_force)

    assert set(outcome.rules) == set(in_force)
    assert [(refused.id, refused.errors[0].reason) for refused in outcome.refused] == [
        ("default/m-rest", "RulesetFull"),
        ("default/m000", "TooLarge"),
    ]


def test_an_edit_that_makes_room_comes_before_one_that_takes_it() -> None:
    in_force = full()
    shrunk = compiled("m050", KIB, generation=2)
    grown = compiled("m-rest", MAX_RULE_BYTES, generation=2)

    outcome = fit([grown, shrunk], in_force)

    assert outcome.refused == ()
    assert {grown, shrunk} <= set(outcome.rules)


def test_an_edit_of_what_is_in_force_has_precedence_over_what_is_new() -> None:
    in_force = full()
    grown = compiled("m-rest", len(in_force[-1].document) + 600, generation=2)

    outcome = fit([compiled("a", 600), grown], in_force)

    assert grown in outcome.rules
    assert [refused.id for refused in outcome.refused] == ["default/a"]


def test_last_good_versions_beyond_the_bounds_are_told() -> None:
    """As after an upgrade that lowers them; a candidate that fits takes the place."""
    outcome = fit([compiled("b", generation=2)], [compiled("a", MAX_RULE_BYTES + 1), compiled("b", MAX_RULE_BYTES + 1)])

    assert [(rule.id, rule.generation) for rule in outcome.rules] == [("default/b", 2)]
    assert [refused.id for refused in outcome.refused] == ["default/a"]


THREE = ruleset(
    rule("a", metadata={"generation": 3}, schema={"description": "x" * 50_000}),
    rule("b", **cel("true")),
    rule("c", **cel("1 == 1")),
)


def in_slots(**slots: int) -> Layout:
    """The three rules, each in the slot that is given."""
    documents = {rule.manifest.metadata.name: (rule.id, rule.document) for rule in THREE.rules}
    return pack(THREE, Layout({slot: Shard.of(dict([documents[name]])) for name, slot in slots.items()}))


def recovered(slots: Mapping[int, Mapping[str, bytes]], index: bytes | None) -> tuple[list[str], list[str]]:
    """The names of the rules that were recovered, and the problems."""
    outcome = read_layout(slots, index)
    return [rule.metadata.name for rule in outcome.rules], [str(problem) for problem in outcome.problems]


def test_what_is_in_force_is_recovered_from_the_slots() -> None:
    layout = in_slots(a=4, b=0, c=0)

    outcome = read_layout(files(layout), layout.index)

    assert outcome.layout == layout
    assert outcome.rules == tuple(rule.manifest for rule in THREE.rules)
    assert outcome.problems == ()


def test_a_shard_that_no_index_names_yet_or_any_more_is_passed_over() -> None:
    layout = in_slots(a=0, b=1, c=1)
    other = pack(ruleset(rule("d", **cel("true"))), EMPTY)
    slots = files(layout)
    slots[0] |= mounted(other)
    slots[7] = mounted(other)

    outcome = read_layout(slots, layout.index)

    assert outcome.layout == layout
    assert [rule.id for rule in outcome.rules] == ["default/a", "default/b", "default/c"]
    assert outcome.problems == ()


def test_a_missing_shard_loses_its_own_rules_alone() -> None:
    layout = in_slots(a=0, b=1, c=2)
    slots = files(layout)
    del slots[1]

    assert recovered(slots, layout.index) == (["a", "c"], [f"{layout.slots[1].name}: it is missing"])


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff"])
def test_a_damaged_shard_loses_its_own_rules_alone(content: bytes) -> None:
    layout = in_slots(a=0, b=1, c=2)
    name = layout.slots[1].name

    rules, problems = recovered({**files(layout), 1: {name: content}}, layout.index)

    assert rules == ["a", "c"]
    assert problems == [f"{name}: its SHA-256 is not its name"]


def test_what_is_missing_is_written_again_where_it_was_and_the_rest_stays() -> None:
    layout = in_slots(a=0, b=1, c=2)
    slots = files(layout)
    del slots[0]

    again = pack(THREE, read_layout(slots, layout.index).layout)

    assert changed(layout, again) == set()


@pytest.mark.parametrize("index", [None, b"{", b'{"kind":"RuleSetIndex"}'])
def test_without_an_index_all_that_is_whole_counts(index: bytes | None) -> None:
    layout = in_slots(a=0, b=1, c=2)
    slots = {**files(layout), 2: {layout.slots[2].name: b"{}"}}

    outcome = read_layout(slots, index)

    assert [rule.id for rule in outcome.rules] == ["default/a", "default/b"]
    assert [problem.file for problem in outcome.problems] == ["index.json", layout.slots[2].name]
    assert outcome.layout.slots == {slot: shard for slot, shard in layout.slots.items() if slot != 2}


@pytest.mark.parametrize("generations", [(1, 2), (2, 1)])
def test_without_an_index_the_higher_generation_of_a_rule_counts(generations: tuple[int, int]) -> None:
    one, other = (pack(ruleset(_of_generation(generation)), EMPTY) for generation in generations)

    outcome = read_layout({0: mounted(one), 3: mounted(other)}, None)

    assert [rule.metadata.generation for rule in outcome.rules] == [2]


def _of_generation(generation: int) -> ValidatorRule:
    return rule(metadata={"generation": generation}, **cel("true"))


def test_where_nothing_has_been_written_there_is_nothing_wrong() -> None:
    outcome = read_layout({0: {}, 1: {"something-else": b""}}, None)

    assert outcome.layout == EMPTY
    assert (outcome.rules, outcome.problems) == ((), ())


def test_a_rule_that_this_version_cannot_read_is_told_and_spares_the_others() -> None:
    documents = {rule.id: rule.document for rule in THREE.rules}
    documents["default/b"] = documents["default/b"].replace(b'"action":"Enforce"', b'"action":"Explode"')
    shard = Shard.of(documents)
    index = RuleSetIndex("the-eye.io/v1alpha1", "RuleSetIndex", THREE.revision, 3, (shard.name,))

    rules, problems = recovered({0: {shard.name: shard.content}}, msgspec.json.encode(index))

    assert rules == ["a", "c"]
    assert problems == [f"{shard.name}: default/b: spec.action: expected one of Enforce, Audit"]


def test_rules_nested_as_deeply_as_may_be_are_read_back() -> None:
    """A file of YAML is refused there, because its own levels count too; in a shard that would lose all its rules."""
    deep: dict[str, object] = {}
    for _ in range(61):
        deep = {"not": deep}
    layout = pack(ruleset(rule("deep", schema=deep), rule("flat", **cel("true"))), EMPTY)

    assert recovered(files(layout), layout.index) == (["deep", "flat"], [])


def test_a_rule_that_is_no_json_is_refused_for_itself() -> None:
    [manifest] = manifests_of(Shard("", b"", {"default/a": b'"\xff"'}))

    assert not isinstance(manifest, ValidatorRule)
    assert [error.reason for error in manifest.errors] == ["InvalidSyntax"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("apiVersion", "the-eye.io/v9"),
        ("kind", "ConfigMap"),
        ("revision", "sha256:12"),
        ("rules", -1),
        ("shards", ["../../etc/passwd"]),
        ("shards", [f"../{'0' * 64}.json"]),
        ("shards", [f"{'0' * 64}.json\n"]),
    ],
)
def test_an_index_is_read_only_when_all_of_it_is_sound(field: str, value: object) -> None:
    index = msgspec.json.decode(pack(THREE, EMPTY).index)

    outcome = read_index(msgspec.json.encode({**index, field: value}))

    assert isinstance(outcome, Problem)
    assert (outcome.file, outcome.error.reason) == ("index.json", "InvalidFile")


def test_what_a_newer_operator_adds_to_an_index_is_passed_over() -> None:
    index = msgspec.json.decode(pack(THREE, EMPTY).index)

    assert read_index(msgspec.json.encode({**index, "signature": "x"})) == index_of(pack(THREE, EMPTY))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"kind":"RuleSetIndex"}', True),
        (b'{"kind":"ValidatorRule"}', False),
        (b"kind: RuleSetIndex", False),
        (b"[]", False),
        (b"\xff", False),
        (b'{"kind":"\xff"}', False),
        (b'{"metadata":' + b"[" * 100_000, False),
    ],
)
def test_an_index_says_that_it_is_one(content: bytes, expected: bool) -> None:  # noqa: FBT001 - a parameter of the test
    assert is_index(content) is expected


def test_shards_that_are_not_all_there_are_no_ruleset() -> None:
    layout = in_slots(a=0, b=1, c=2)
    present = mounted(layout)
    missing = layout.slots[2].name
    del present[missing]

    assert str(read_shards(index_of(layout), present)) == f"{missing}: it is missing"


def test_whole_shards_that_are_another_ruleset_than_the_index_says_are_no_ruleset() -> None:
    layout = in_slots(a=0, b=1, c=2)
    index = msgspec.structs.replace(index_of(layout), revision=f"sha256:{'0' * 64}")

    outcome = read_shards(index, mounted(layout))

    assert str(outcome) == f"index.json: its shards are {THREE.revision}, not sha256:{'0' * 64}"


def test_a_shard_that_holds_no_rules_is_told() -> None:
    content = b'{"items":[{"metadata":{}}]}'
    name = f"{hashlib.sha256(content).hexdigest()}.json"
    index = RuleSetIndex("the-eye.io/v1alpha1", "RuleSetIndex", THREE.revision, 1, (name,))

    outcome = read_shards(index, {name: content})

    assert str(outcome).startswith(f"{name}: it is no list of rules: Object missing required field `namespace`")
