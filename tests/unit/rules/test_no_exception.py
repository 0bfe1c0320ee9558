"""Whatever rules and events hold, compiling and judging end in a value."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.rules.making import TOLERANCE, cel, event, manifest, rule, ruleset, schema

from the_eye.rules.manifest import ValidatorRule, read_manifest
from the_eye.rules.ruleset import compile_ruleset
from the_eye.verdict import Verdict

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, 2**64, -(2**63) - 1, 10**400, -(10**400)])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "c d", "ж", ""]), inner),
    max_leaves=12,
)
DATA = st.dictionaries(st.sampled_from(["a", "b", "l", "s", "a b"]), JSON)
TIMES = st.datetimes(timezones=st.just(UTC))

DEMANDING = ruleset(
    rule(
        "s1", **schema(a={"type": "string", "maxLength": 2}, b={"maximum": 5, "multipleOf": 3}, l={"uniqueItems": True})
    ),
    rule(
        "s2", schema={"propertyNames": {"pattern": "^[a-z]$"}, "additionalProperties": {"type": ["string", "number"]}}
    ),
    rule("s3", schema={"anyOf": [{"required": ["a"]}, {"properties": {"b": {"$ref": "#"}}, "required": ["b"]}]}),
    rule("e1", **cel("event.data.a > 5 || event.data.b.size() > 2", "event.data.l.all(x, x.startsWith('a'))")),
    rule("e2", **cel("event.data.a + event.data.b == event.data.s", "event.data.a == event.data.b")),
    rule(
        "e3", **cel("int(event.data.a) / int(event.data.b) > 1", "string(event.data.s).matches(string(event.data.a))")
    ),
    rule("e4", **cel("event.data.l[event.data.a] == event.data", "event.data.l.map(x, x.a).size() > event.data.b")),
    rule("e5", **cel("event.timestamp - event.received_at < duration('5m')", "event.timestamp.getFullYear() > 1970")),
    rule(
        "m",
        match={"category": "[a-z]*", "name": "?*"},
        **cel("event.category == event.name", "event.data.?a.b.?c.orValue(1) == 1"),
    ),
    rule("i", failurePolicy="Ignore", **cel("event.data.nope", "double(event.data.b) < 1.0")),
)


def _raw(data: object) -> bytes:
    """JSON with integers of any size."""
    if isinstance(data, dict):
        return b"{" + b",".join(msgspec.json.encode(key) + b":" + _raw(value) for key, value in data.items()) + b"}"
    if isinstance(data, list):
        return b"[" + b",".join(map(_raw, data)) + b"]"
    return (
        msgspec.json.encode(data)
        if not isinstance(data, int) or abs(data) < 10**100
        else b"%s9%s" % (b"-" if data < 0 else b"", b"9" * (399 if data > 0 else 4998))
    )


@settings(deadline=None)  # a busy machine is no failure
@given(DATA, st.text(min_size=1, max_size=6), st.text(min_size=1, max_size=6), TIMES, TIMES)
def test_judging_never_raises(data: Any, category: str, name: str, timestamp: datetime, received_at: datetime) -> None:
    judged = event(_raw(data), category=category, name=name, timestamp=timestamp, received_at=received_at)

    verdict = DEMANDING.judge(judged)

    assert verdict.matched
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict


@settings(deadline=None)  # a busy machine is no failure
@given(st.binary(max_size=40))
def test_judging_never_raises_whatever_the_bytes(data: bytes) -> None:
    assert isinstance(DEMANDING.judge(event(data)), Verdict)


@settings(deadline=None)  # a busy machine is no failure
@given(st.text(max_size=40))
def test_compiling_never_raises_whatever_the_expression(expression: str) -> None:
    outcome = read_manifest(manifest(validations=[{"expression": f"event.data.a == {expression}"}]))
    if isinstance(outcome, ValidatorRule):
        compile_ruleset([outcome], future_tolerance=TOLERANCE)


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.dictionaries(
        st.sampled_from(["type", "properties", "items", "$ref", "$id", "pattern", "format", "enum", "$defs", "allOf"]),
        JSON,
    )
)
def test_compiling_never_raises_whatever_the_schema(keywords: dict[str, Any]) -> None:
    outcome = read_manifest(manifest(schema=keywords))
    if isinstance(outcome, ValidatorRule):
        compile_ruleset([outcome], future_tolerance=TOLERANCE)


@settings(deadline=None)  # a busy machine is no failure
@given(st.text(alphabet="ab*?[]!-^\\{}.(", min_size=1, max_size=12), st.text(max_size=8))
def test_every_pattern_that_is_accepted_can_be_matched(pattern: str, text: str) -> None:
    outcome = read_manifest(manifest(match={"category": pattern}, **cel("false")))
    if isinstance(outcome, ValidatorRule):
        assert ruleset(outcome).judge(event(category=text)).matched in (True, False)
