"""Of the files of a directory each part that is sound is in force, and each part that is not stays as it was."""

from typing import Any

import msgspec
from tests.unit.rules.making import TOLERANCE, cel, manifest

from the_eye.rules.assembly import Assembly, Problem, assemble, nothing_assembled
from the_eye.rules.manifest import FieldError

NOTHING = nothing_assembled(future_tolerance=TOLERANCE)

BROKEN_YAML = b"a: ["
UNREADABLE = Problem("a.yaml", "", FieldError("", "InvalidFile", "it cannot be read"))


def text(*names: str, expression: str = "true", **fields: Any) -> bytes:
    """A file that holds a rule for each name."""
    documents = [msgspec.json.encode(manifest(name, **cel(expression), **fields)) for name in names]
    return b"\n---\n".join(documents)


def in_force(assembly: Assembly) -> dict[str, str]:
    """The expression of each rule by its name."""
    return {
        rule.manifest.metadata.name: rule.manifest.spec.validations[0].expression for rule in assembly.ruleset.rules
    }


def said(assembly: Assembly) -> list[str]:
    return [str(problem) for problem in assembly.problems]


def test_all_rules_of_all_files_are_in_force() -> None:
    assembly = assemble({"b.yaml": text("c"), "a.json": text("a", "b")}, NOTHING)

    assert list(in_force(assembly)) == ["a", "b", "c"]
    assert assembly.problems == ()


def test_a_file_that_is_gone_takes_its_rules_with_it() -> None:
    before = assemble({"a.yaml": text("a"), "b.yaml": text("b")}, NOTHING)

    assert list(in_force(assemble({"b.yaml": text("b")}, before))) == ["b"]


def test_a_broken_file_keeps_its_rules_and_changes_nothing_else() -> None:
    before = assemble({"a.yaml": text("a", "b"), "b.yaml": text("c")}, NOTHING)

    after = assemble({"a.yaml": BROKEN_YAML, "b.yaml": text("c", expression="1 == 1")}, before)

    assert in_force(after) == {"a": "true", "b": "true", "c": "1 == 1"}
    (problem,) = after.problems
    assert (problem.file, problem.kept) == ("a.yaml", True)
    assert str(problem) == "a.yaml: document 1: line 2, column 1: did not find expected node content"


def test_a_file_that_cannot_be_read_keeps_its_rules() -> None:
    before = assemble({"a.yaml": text("a"), "b.yaml": text("b")}, NOTHING)

    after = assemble({"a.yaml": UNREADABLE, "b.yaml": text("b")}, before)

    assert list(in_force(after)) == ["a", "b"]
    assert said(after) == ["a.yaml: it cannot be read"]
    assert after.problems[0].kept


def test_what_was_never_good_is_not_in_force() -> None:
    assembly = assemble({"a.yaml": BROKEN_YAML, "b.yaml": text("b", expression="nope"), "c.yaml": text("c")}, NOTHING)

    assert list(in_force(assembly)) == ["c"]
    assert [problem.kept for problem in assembly.problems] == [False, False]


def test_a_refused_rule_keeps_its_last_good_version_and_its_neighbours_go_on() -> None:
    before = assemble({"a.yaml": text("a", "b")}, NOTHING)
    broken = text("a", expression="event.nme == 'x'") + b"\n---\n" + text("b", "c", expression="1 == 1")

    after = assemble({"a.yaml": broken}, before)

    assert in_force(after) == {"a": "true", "b": "1 == 1", "c": "1 == 1"}
    assert said(after) == [
        "a.yaml: default/a: spec.validations[0].expression: 1:6: undeclared reference to 'event.nme'"
    ]
    assert after.problems[0].kept


def test_a_rule_with_a_wrong_field_keeps_its_last_good_version() -> None:
    before = assemble({"a.yaml": text("a", "b")}, NOTHING)

    after = assemble({"a.yaml": text("a", action="Enforc") + b"\n---\n" + text("b", expression="1 == 1")}, before)

    assert in_force(after) == {"a": "true", "b": "1 == 1"}
    assert said(after) == ["a.yaml: default/a: spec.action: expected one of Enforce, Audit"]


def test_the_last_good_version_outlives_further_broken_ones() -> None:
    assembly = assemble({"a.yaml": text("a")}, NOTHING)
    for content in (BROKEN_YAML, text("a", expression="nope"), text("a", action="x"), BROKEN_YAML, b"\xff"):
        assembly = assemble({"a.yaml": content}, assembly)
        assert in_force(assembly) == {"a": "true"}
        assert len(assembly.problems) == 1

    repaired = assemble({"a.yaml": text("a", expression="1 == 1")}, assembly)

    assert in_force(repaired) == {"a": "1 == 1"}
    assert repaired.problems == ()


def test_a_rule_that_is_gone_from_a_broken_file_stays_while_nobody_can_tell_its_name() -> None:
    before = assemble({"a.yaml": text("a", "b", "c")}, NOTHING)

    after = assemble({"a.yaml": text("a", expression="1 == 1") + b"\n---\nkind: ValidatorRule\n"}, before)

    assert in_force(after) == {"a": "1 == 1", "b": "true", "c": "true"}
    assert after.problems[0].rule == "document 2"


def test_a_rule_that_is_gone_from_a_file_is_gone_although_its_neighbour_is_refused() -> None:
    before = assemble({"a.yaml": text("a", "b")}, NOTHING)

    assert in_force(assemble({"a.yaml": text("a", expression="nope")}, before)) == {"a": "true"}


def test_a_rule_in_two_files_is_that_of_the_first_by_name() -> None:
    assembly = assemble({"b.yaml": text("a", expression="2 == 2"), "a.yaml": text("a", expression="1 == 1")}, NOTHING)

    assert in_force(assembly) == {"a": "1 == 1"}
    assert said(assembly) == ["b.yaml: default/a: metadata.name: the rule is already in a.yaml, whose version counts"]


def test_a_rule_twice_in_one_file_is_the_first() -> None:
    assembly = assemble({"a.yaml": text("a", "b", "a")}, NOTHING)

    assert list(in_force(assembly)) == ["a", "b"]
    assert said(assembly) == ["a.yaml: default/a: metadata.name: the rule is twice in this file"]


def test_a_rule_does_not_change_its_owner_because_a_file_breaks() -> None:
    files = {"a.yaml": text("a", expression="1 == 1"), "b.yaml": text("a", expression="2 == 2")}
    before = assemble(files, NOTHING)

    assert in_force(assemble({**files, "a.yaml": BROKEN_YAML}, before)) == {"a": "1 == 1"}
    assert in_force(assemble({"b.yaml": files["b.yaml"]}, before)) == {"a": "2 == 2"}


def test_a_rule_moves_to_another_file() -> None:
    before = assemble({"b.yaml": text("a", "b")}, NOTHING)

    after = assemble({"a.yaml": text("a", expression="1 == 1"), "b.yaml": text("b")}, before)

    assert in_force(after) == {"a": "1 == 1", "b": "true"}
    assert after.problems == ()


def test_what_did_not_change_is_neither_read_nor_compiled_again() -> None:
    files = {"a.yaml": text("a"), "b.yaml": text("b")}
    before = assemble(files, NOTHING)

    after = assemble({**files, "b.yaml": text("b", expression="1 == 1")}, before)

    assert after.ruleset.rules[0] is before.ruleset.rules[0]
    assert after.parsed[files["a.yaml"]] is before.parsed[files["a.yaml"]]
    assert files["b.yaml"] not in after.parsed
