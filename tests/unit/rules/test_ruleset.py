"""Rulesets: compiled, refused, revised; and what holds for every verdict."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from tests.unit.rules.making import ARRIVAL, TOLERANCE, cel, event, found, rule, ruleset, schema

from the_eye.event import Event
from the_eye.rules.manifest import ValidatorRule, read_manifest
from the_eye.rules.ruleset import RuleSet, compile_ruleset, empty_ruleset
from the_eye.verdict import Action, Verdict

FALSE = ["$ expression.false"]


@pytest.mark.parametrize(
    ("tolerance", "ahead", "valid"),
    [
        pytest.param(TOLERANCE, TOLERANCE, True, id="as far as is tolerated"),
        pytest.param(TOLERANCE, TOLERANCE + timedelta(microseconds=1), False, id="a bit further"),
        pytest.param(timedelta(0), timedelta(0), True, id="no tolerance"),
        pytest.param(timedelta.max, timedelta(days=300_000), True, id="all tolerance"),
    ],
)
def test_a_time_in_the_future_is_a_violation_without_any_rule(
    tolerance: timedelta, ahead: timedelta, *, valid: bool
) -> None:
    verdict = empty_ruleset(future_tolerance=tolerance).judge(event(timestamp=ARRIVAL + ahead))

    assert verdict.valid is valid
    assert found(verdict) == ([] if valid else ["$.timestamp timestamp.future"])
    assert not verdict.matched


def test_a_time_in_the_future_comes_beside_the_violations_of_rules() -> None:
    verdict = ruleset(rule(**cel("false"))).judge(event(timestamp=datetime.max.replace(tzinfo=UTC)))

    assert [violation.rule for violation in verdict.violations] == ["the-eye/future-timestamp", "default/rule"]
    assert verdict.matched


def test_a_violation_names_rule_generation_place_and_reason() -> None:
    judged = ruleset(
        rule("element", metadata={"namespace": "shop", "generation": 7}, **schema(element={"enum": ["a", "b"]})),
        rule("host", action="Audit", validations=[{"expression": "event.data.host == 'x'", "message": "be x"}]),
    ).judge(event({"element": "banner", "host": "y"}))

    host, element = judged.violations
    assert msgspec.to_builtins(element) == {
        "rule": "shop/element",
        "generation": 7,
        "action": "Enforce",
        "path": "$.data.element",
        "code": "schema.enum",
        "message": 'the value is not one of "a" or "b"',
    }
    assert (host.rule, host.action, host.path, host.message) == ("default/host", Action.AUDIT, "$", "be x")


def test_an_audited_violation_leaves_the_event_valid() -> None:
    verdict = ruleset(rule(action="Audit", **cel("false"))).judge(event())

    assert verdict.valid
    assert verdict.matched
    assert found(verdict) == FALSE


def test_without_a_message_a_violation_shows_the_expression() -> None:
    (violation,) = ruleset(rule(**cel("event.data.a == 1"))).judge(event({"a": 2})).violations

    assert violation.message == "not true: event.data.a == 1"


def test_an_expression_that_is_not_evaluated_is_a_violation_or_ignored_as_its_policy_says() -> None:
    failing = cel("event.data.missing == 1", "event.data.other == 1", "1 == 2")
    rules = ruleset(rule("fails", failurePolicy="Fail", **failing), rule("ignores", failurePolicy="Ignore", **failing))
    ignored: list[str] = []

    verdict = rules.judge(event(), on_ignored=ignored.append)

    assert [(violation.rule, violation.code) for violation in verdict.violations] == [
        ("default/fails", "expression.error"),
        ("default/fails", "expression.error"),
        ("default/fails", "expression.false"),
        ("default/ignores", "expression.false"),
    ]
    assert verdict.violations[0].message == "not evaluated (a key is missing): not true: event.data.missing == 1"
    assert ignored == ["default/ignores", "default/ignores"]


def test_all_rules_that_match_are_evaluated_in_the_order_of_their_names() -> None:
    rules = [
        rule(name, match=match, **cel("false"))
        for name, match in {
            "c": {"category": "page *"},
            "a": {},
            "d": {"name": "cta click", "category": "page interaction"},
            "b": {"category": "no"},
        }.items()
    ]

    forwards, backwards = ruleset(*rules).judge(event()), ruleset(*rules[::-1]).judge(event())

    assert [violation.rule for violation in forwards.violations] == ["default/a", "default/c", "default/d"]
    assert forwards == backwards


def test_an_event_that_no_rule_matches_is_valid_and_unmatched() -> None:
    verdict = ruleset(rule(match={"category": "other"}, **cel("false"))).judge(event())

    assert verdict == Verdict()
    assert not verdict.matched


def test_at_most_twenty_violations_of_a_schema_are_listed() -> None:
    rules = ruleset(rule(**schema(a={"items": {"type": "string"}})))

    assert len(rules.judge(event({"a": [1] * 500})).violations) == 20


def test_much_wrong_data_is_judged_quickly() -> None:
    rules = ruleset(rule(**schema(a={"items": {"type": "string"}})))
    wrong = event({"a": [1] * 500_000})

    started = time.monotonic()
    verdict = rules.judge(wrong)

    assert found(verdict) == ["$.data.a[0] schema.type"]
    assert time.monotonic() - started < 2


def test_texts_of_a_violation_are_bounded() -> None:
    key = "k" * 5000
    rules = ruleset(
        rule("a", schema={"properties": {key: {"enum": ["v" * 5000]}}}),
        rule("b", validations=[{"expression": f"event.data.a == '{'x' * 4000}'"}]),
        rule("c", schema={"additionalProperties": {}, "unevaluatedProperties": False, "maxProperties": 1}),
    )

    verdict = rules.judge(event({key: 1, "a": "y"}))

    assert len(verdict.violations) == 3
    for violation in verdict.violations:
        assert len(violation.path) <= 500
        assert len(violation.message) <= 500


CANARY = "s3cret-4711"

LEAKY = [
    {"type": "integer"},
    {"enum": [1]},
    {"const": 1},
    {"minLength": 100},
    {"maxLength": 1},
    {"pattern": "^x$"},
    {"format": "email"},
    {"not": {"type": ["string", "array", "object"]}},
    {"oneOf": [{"type": "integer"}]},
    {"oneOf": [{}, {}]},
    {"anyOf": [{"type": "integer"}]},
    {"contains": {"const": 1}},
    {"items": {"const": 1}},
    {"items": False},
    {"uniqueItems": True},
    {"additionalProperties": {"const": 1}},
    {"unevaluatedItems": False},
    {"dependentSchemas": {"k": {"required": ["other"]}}},
    {"maxItems": 0},
    {"if": {"minLength": 1}, "then": False},
    {"multipleOf": 7},
    {"maximum": 1},
]


@pytest.mark.parametrize("keywords", LEAKY, ids=str)
@pytest.mark.parametrize("value", [CANARY, [CANARY, CANARY], {"k": CANARY}, 47114711])
def test_no_message_of_a_schema_repeats_the_events_values(keywords: dict[str, Any], value: object) -> None:
    for violation in ruleset(rule(**schema(a=keywords))).judge(event({"a": value})).violations:
        assert CANARY not in violation.message
        assert "4711" not in violation.message


@pytest.mark.parametrize(
    "expression",
    [
        "event.data[event.data.a] == 1",
        "int(event.data.a) == 1",
        "timestamp(event.data.a) == event.timestamp",
        "event.data.a.matches('(' + event.data.a)",
        "event.data.a.format([1]) == ''",
        "event.timestamp.getHours(event.data.a) == 1",
        "event.data.a",
        "event.data.a == 1",
        "event.data.b == {}.x",
    ],
)
def test_no_message_of_an_expression_repeats_the_events_values(expression: str) -> None:
    verdict = ruleset(rule(**cel(expression))).judge(event({"a": CANARY, "b": 2**200}))

    assert verdict.violations
    for violation in verdict.violations:
        assert CANARY not in violation.message
        assert str(2**200) not in violation.message


@pytest.mark.parametrize(
    ("spec", "path", "reason", "message"),
    [
        pytest.param(
            schema(element={"type": "strin"}),
            "spec.schema.properties.element.type",
            "InvalidSchema",
            "a type is array, boolean",
            id="no type",
        ),
        pytest.param(
            schema(a={"minLength": -1}),
            "spec.schema.properties.a.minLength",
            "InvalidSchema",
            "less than the minimum of 0",
            id="no length",
        ),
        pytest.param(
            schema(a={"pattern": "["}),
            "spec.schema.properties.a.pattern",
            "InvalidSchema",
            "a regular expression",
            id="no pattern",
        ),
        pytest.param(
            schema(a={"pattern": "(?=a)"}),
            "spec.schema.properties.a.pattern",
            "InvalidSchema",
            "without look-around",
            id="look-around",
        ),
        pytest.param(
            {"schema": {"patternProperties": {"(?=a)": {}}}},
            'spec.schema.patternProperties["(?=a)"]',
            "InvalidSchema",
            "without look-around",
            id="no pattern of names",
        ),
        pytest.param(
            schema(**{"a b": {"format": "emial"}}),
            'spec.schema.properties["a b"].format',
            "InvalidSchema",
            "Unknown format: 'emial'",
            id="no format",
        ),
        pytest.param(
            {"schema": {"required": "a"}}, "spec.schema.required", "InvalidSchema", 'not of type "array"', id="no list"
        ),
        pytest.param(
            {"schema": {"$ref": "#/nope"}},
            "spec.schema",
            "InvalidSchema",
            "Pointer '/nope' does not exist",
            id="no target",
        ),
        pytest.param(
            {"schema": {"$ref": "https://example.com/x"}},
            "spec.schema",
            "InvalidSchema",
            "Retrieval is disabled",
            id="never fetched",
        ),
        pytest.param(
            {"schema": {"$ref": "file:///etc/passwd"}},
            "spec.schema",
            "InvalidSchema",
            "Retrieval is disabled",
            id="never read from files",
        ),
        pytest.param(
            {"schema": {"$schema": "http://json-schema.org/draft-07/schema#"}},
            'spec.schema["$schema"]',
            "InvalidSchema",
            "draft/2020-12",
            id="other dialect",
        ),
        pytest.param(
            {"schema": {"$schema": 5}}, 'spec.schema["$schema"]', "InvalidSchema", "draft/2020-12", id="no dialect"
        ),
        pytest.param(
            cel("true", "event.data.a =="),
            "spec.validations[1].expression",
            "InvalidExpression",
            "1:16: Syntax error",
            id="syntax",
        ),
        pytest.param(
            cel("event.timestmp == 1"),
            "spec.validations[0].expression",
            "InvalidExpression",
            "1:6: undeclared reference to 'event.timestmp'",
            id="misspelt field",
        ),
        pytest.param(
            cel("event == 1"),
            "spec.validations[0].expression",
            "InvalidExpression",
            "undeclared reference to 'event'",
            id="the event itself",
        ),
        pytest.param(
            cel("foo == 1"),
            "spec.validations[0].expression",
            "InvalidExpression",
            "1:1: undeclared reference to 'foo'",
            id="unknown name",
        ),
        pytest.param(
            cel("event.name == 5"),
            "spec.validations[0].expression",
            "InvalidExpression",
            "1:12: found no matching overload",
            id="types that do not fit",
        ),
        pytest.param(
            cel("event.timestamp > '2023'"),
            "spec.validations[0].expression",
            "InvalidExpression",
            "no matching overload",
            id="time and text",
        ),
        pytest.param(
            cel("event.name"),
            "spec.validations[0].expression",
            "InvalidExpression",
            "gives a bool, this one gives string",
            id="no bool",
        ),
        pytest.param(
            cel("has(event.name) && true"),
            "spec.validations[0].expression",
            "InvalidExpression",
            "event.name is always there",
            id="has of a field",
        ),
        pytest.param(
            cel("has( event.data )"),
            "spec.validations[0].expression",
            "InvalidExpression",
            "event.data is always there",
            id="has of data",
        ),
        pytest.param(
            cel("event.data.a.matches('[')"),
            "spec.validations[0].expression",
            "InvalidExpression",
            "not a regular expression of RE2: '['",
            id="no regular expression",
        ),
        pytest.param(
            cel('event.data.a.matches(r"(?=a)")'),
            "spec.validations[0].expression",
            "InvalidExpression",
            "not a regular expression of RE2",
            id="look-around of RE2",
        ),
        pytest.param(
            cel("(" * 2000 + "true" + ")" * 2000),
            "spec.validations[0].expression",
            "InvalidExpression",
            "nested too deeply",
            id="parentheses",
        ),
        pytest.param(
            cel("[" * 2040 + "]" * 2040 + " == []"),
            "spec.validations[0].expression",
            "InvalidExpression",
            "nested too deeply",
            id="lists",
        ),
        pytest.param(
            cel("+".join(["1"] * 2000) + " == 1"),
            "spec.validations[0].expression",
            "InvalidExpression",
            "nested too deeply",
            id="sums",
        ),
        pytest.param(
            cel("event.data" + ".a" * 2000),
            "spec.validations[0].expression",
            "InvalidExpression",
            "nested too deeply",
            id="selections",
        ),
        pytest.param(cel(" "), "spec.validations[0].expression", "InvalidExpression", "1:2: Syntax error", id="blank"),
    ],
)
def test_a_rule_that_does_not_compile_is_refused_with_its_field(
    spec: dict[str, Any], path: str, reason: str, message: str
) -> None:
    compilation = compile_ruleset(
        [rule("good", **cel("false")), rule("bad", metadata={"generation": 4}, **spec)], future_tolerance=TOLERANCE
    )

    (refused,) = compilation.refused
    (error,) = refused.errors
    assert (refused.id, refused.generation) == ("default/bad", 4)
    assert (error.path, error.reason) == (path, reason)
    assert message in error.message
    assert "\n" not in error.message
    assert found(compilation.ruleset.judge(event())) == FALSE


def test_a_refused_rule_lists_its_schema_and_each_expression() -> None:
    (refused,) = compile_ruleset(
        [rule(schema={"type": 5}, **cel("x", "true", "y"))], future_tolerance=TOLERANCE
    ).refused

    assert [error.path for error in refused.errors] == [
        "spec.schema.type",
        "spec.validations[0].expression",
        "spec.validations[2].expression",
    ]


@pytest.mark.parametrize(
    "expression",
    [
        "r\".matches('\\')\" != ''",
        "!" * 4000 + "true",
        "-" * 4000 + "1 == 1",
        "&&".join(["true"] * 600),
        "'" + "x" * 4000 + "' == ''",
    ],
    ids=lambda expression: str(expression[:10]),
)
def test_a_long_expression_does_no_harm(expression: str) -> None:
    assert ruleset(rule(**cel(expression))).judge(event()).matched


def test_of_two_rules_with_one_name_the_first_counts() -> None:
    compilation = compile_ruleset(
        [
            rule("a", **cel("false")),
            rule("a", **cel("true")),
            rule("a", metadata={"namespace": "shop"}, **cel("false")),
        ],
        future_tolerance=TOLERANCE,
    )

    (refused,) = compilation.refused
    assert (refused.id, refused.errors[0].reason) == ("default/a", "Duplicate")
    assert [kept.id for kept in compilation.ruleset.rules] == ["default/a", "shop/a"]
    assert found(compilation.ruleset.judge(event())) == FALSE * 2


def test_the_revision_is_that_of_the_rules_and_not_of_their_order_or_their_writing() -> None:
    a, b = rule("a", **cel("true")), rule("b", action="Enforce", schema={"type": "object", "required": ["x"]})
    b_again = rule("b", schema={"required": ["x"], "type": "object"}, validations=[])

    first, second = ruleset(a, b), ruleset(b_again, a)
    other = ruleset(a, rule("b", metadata={"generation": 2}, schema={"type": "object", "required": ["x"]}))

    assert first.document == second.document
    assert first.revision == second.revision == f"sha256:{first.digest.hex()}"
    assert len(first.digest) == 32
    assert other.revision != first.revision


def test_the_document_holds_the_manifests_of_its_rules() -> None:
    rules = ruleset(rule("a", metadata={"generation": 3}, **cel("true")), rule("b", schema={"const": {"a": None}}))

    document = msgspec.json.decode(rules.document)

    assert (document["apiVersion"], document["kind"]) == ("the-eye.io/v1alpha1", "RuleSet")
    again = [read_manifest(manifest) for manifest in document["rules"]]
    assert ruleset(*[one for one in again if isinstance(one, ValidatorRule)]).revision == rules.revision


def test_a_ruleset_shows_its_rules() -> None:
    (shown,) = ruleset(
        rule("a", match={"category": "page *"}, action="Audit", metadata={"generation": 3}, **cel("true"))
    ).rules

    assert (shown.id, shown.generation, shown.action) == ("default/a", 3, Action.AUDIT)
    assert (shown.match.category, shown.match.name, shown.match.applications) == ("page *", "*", ())


def test_the_empty_ruleset_has_a_revision_too() -> None:
    empty = empty_ruleset(future_tolerance=TOLERANCE)

    assert empty.revision == ruleset().revision
    assert empty.rules == ()
    assert empty.judge(event()) == Verdict()


def test_one_edit_recompiles_one_rule() -> None:
    before = ruleset(*[rule(f"r{number}", **cel(f"event.data.a != {number}")) for number in range(5)])
    edited = [rule(f"r{number}", **cel(f"event.data.a != {number % 4}")) for number in range(5)]

    after = compile_ruleset(edited, future_tolerance=TOLERANCE, previous=before).ruleset

    assert [old is new for old, new in zip(before.rules, after.rules, strict=True)] == [True, True, True, True, False]
    assert found(after.judge(event({"a": 0}))) == FALSE * 2


@pytest.mark.parametrize("pattern", ["page {}", "page {}*"], ids=["exact", "globs"])
def test_a_thousand_rules_of_which_one_matches_cost_about_as_much_as_one(pattern: str) -> None:
    one = ruleset(rule(match={"category": "page 7"}, **cel("event.data.a == 1")))
    thousand = ruleset(
        *[rule(f"r{n}", match={"category": pattern.format(f"{n} ")}, **cel("event.data.a == 1")) for n in range(999)],
        rule("it", match={"category": "page 7"}, **cel("event.data.a == 1")),
    )
    judged = event({"a": 1}, category="page 7")

    assert _fastest(thousand, judged) < 3 * _fastest(one, judged)


def _fastest(rules: RuleSet, judged: Event) -> float:
    rules.judge(judged)
    times = []
    for _ in range(50):
        started = time.thread_time()
        for _ in range(20):
            rules.judge(judged)
        times.append(time.thread_time() - started)
    return min(times)


def test_kinds_of_events_that_senders_make_up_are_not_remembered_for_ever() -> None:
    rules = ruleset(rule(match={"category": "*7"}, **cel("false")))

    for number in range(10_000):
        assert rules.judge(event(category=f"c{number}")).valid is not str(number).endswith("7")

    assert rules._find.cache_info().currsize <= 4096  # noqa: SLF001 - the bound is what this is about


def test_several_threads_judge_by_one_ruleset() -> None:
    rules = ruleset(
        rule(
            "a",
            **schema(a={"type": "integer", "maximum": 50}),
            **cel("event.data.a < 40", "event.data.l.all(x, x != 3)"),
        ),
        rule("b", match={"category": "c*"}, **cel("event.data.s.matches('^[a-z]+$')", "event.data.missing == 1")),
    )

    def judge_many(seed: int) -> bool:
        for number in range(2000):
            value = (number + seed) % 100
            judged = event({"a": value, "l": [value % 5], "s": "x" * value}, category=f"c{value}")
            expected = (value > 50) + (value >= 40) + (value % 5 == 3) + (value == 0) + 1
            if len(rules.judge(judged).violations) != expected:
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(judge_many, range(8)))


@pytest.mark.parametrize(
    "data", [b"", b"[1]", b"5", b"{", b'{"a": \xff}', b"[" * 100_000, b'{"a": 1e400', b'{"a": "\\ud800"}'], ids=str
)
def test_data_that_the_edge_never_lets_through_make_an_event_invalid(data: bytes) -> None:
    verdict = ruleset(rule(**cel("true"))).judge(event(data[:20] if data.startswith(b"[[") else data))

    assert found(verdict) == ["$.data data.unreadable"]
