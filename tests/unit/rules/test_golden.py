"""A golden set of rules, events and verdicts: each keyword, each kind of error, and what is easily got wrong."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.unit.rules.making import ARRIVAL, cel, event, found, rule, ruleset, schema

NOTHING: list[str] = []
FALSE = ["$ expression.false"]
ERROR = ["$ expression.error"]


def golden(id_: str, spec: dict[str, Any], data: object, expected: list[str], **fields: Any) -> Any:
    return pytest.param(spec, data, fields, expected, id=id_)


SCHEMA_CASES = [
    golden("required is there", {"schema": {"required": ["a"]}}, {"a": None}, NOTHING),
    golden("required is missing", {"schema": {"required": ["a", "b"]}}, {}, ["$.data schema.required"] * 2),
    golden("type", schema(a={"type": "integer"}), {"a": "1"}, ["$.data.a schema.type"]),
    golden("several types", schema(a={"type": ["string", "null"]}), {"a": None}, NOTHING),
    golden("a whole double is an integer", schema(a={"type": "integer"}), b'{"a": 3.0}', NOTHING),
    golden("a boolean is no integer", schema(a={"type": "integer"}), {"a": True}, ["$.data.a schema.type"]),
    golden("null is no object", schema(a={"type": "object"}), {"a": None}, ["$.data.a schema.type"]),
    golden("enum", schema(a={"enum": ["chat bubble", "buy button"]}), {"a": "banner"}, ["$.data.a schema.enum"]),
    golden("enum tells case", schema(a={"enum": ["x"]}), {"a": "X"}, ["$.data.a schema.enum"]),
    golden("enum with null", schema(a={"enum": ["x", None]}), {"a": None}, NOTHING),
    golden("const", schema(a={"const": {"b": [1]}}), {"a": {"b": [2]}}, ["$.data.a schema.const"]),
    golden("const compares numbers", schema(a={"const": 1}), b'{"a": 1.0}', NOTHING),
    golden("minLength", schema(a={"minLength": 3}), {"a": "xy"}, ["$.data.a schema.minLength"]),
    golden("maxLength counts characters", schema(a={"maxLength": 2}), {"a": "é😀"}, NOTHING),
    golden("maxLength counts code points", schema(a={"maxLength": 1}), {"a": "e\u0301"}, ["$.data.a schema.maxLength"]),
    golden("pattern", schema(a={"pattern": "^x+$"}), {"a": "xy"}, ["$.data.a schema.pattern"]),
    golden("pattern is a search", schema(a={"pattern": "b"}), {"a": "abc"}, NOTHING),
    golden("pattern knows Unicode", schema(a={"pattern": r"^\p{L}+$"}), {"a": "жук"}, NOTHING),
    golden("minimum", schema(a={"minimum": 5}), {"a": 4.999}, ["$.data.a schema.minimum"]),
    golden("exclusiveMaximum", schema(a={"exclusiveMaximum": 5}), {"a": 5}, ["$.data.a schema.exclusiveMaximum"]),
    golden("multipleOf", schema(a={"multipleOf": 0.01}), {"a": 19.99}, NOTHING),
    golden(
        "maximum of a huge whole number",
        schema(a={"maximum": 5}),
        b'{"a": %s}' % (b"9" * 400),
        ["$.data.a schema.maximum"],
    ),
    golden("maximum beyond a double", schema(a={"maximum": 5}), b'{"a": 1e400}', ["$.data.a schema.maximum"]),
    golden("minimum beyond a double", schema(a={"minimum": 5}), b'{"a": -1e400}', ["$.data.a schema.minimum"]),
    golden("minimum is for numbers alone", schema(a={"minimum": 5}), {"a": []}, NOTHING),
    golden("64 bits are exact", schema(a={"const": 2**64 - 1}), {"a": 2**64 - 2}, ["$.data.a schema.const"]),
    golden(
        "items",
        schema(a={"items": {"type": "string"}}),
        {"a": ["x", 1, "y", 2]},
        ["$.data.a[1] schema.type", "$.data.a[3] schema.type"],
    ),
    golden("prefixItems", schema(a={"prefixItems": [{}, {"const": 1}]}), {"a": [0, 0]}, ["$.data.a[1] schema.const"]),
    golden("minItems", schema(a={"minItems": 1}), {"a": []}, ["$.data.a schema.minItems"]),
    golden("uniqueItems", schema(a={"uniqueItems": True}), {"a": [1, 1.0]}, ["$.data.a schema.uniqueItems"]),
    golden("contains", schema(a={"contains": {"const": 1}}), {"a": [2]}, ["$.data.a schema.contains"]),
    golden(
        "maxContains",
        schema(a={"contains": {"const": 1}, "maxContains": 1}),
        {"a": [1, 1]},
        ["$.data.a schema.contains"],
    ),
    golden(
        "additionalProperties",
        {"schema": {"properties": {"a": {}}, "additionalProperties": False}},
        {"a": 1, "b": 2},
        ["$.data schema.additionalProperties"],
    ),
    golden(
        "no properties at all",
        {"schema": {"additionalProperties": False}},
        {"a": 1},
        ["$.data schema.additionalProperties"],
    ),
    golden(
        "unevaluatedProperties",
        {"schema": {"allOf": [{"properties": {"a": {}}}], "unevaluatedProperties": False}},
        {"b": 2},
        ["$.data schema.unevaluatedProperties"],
    ),
    golden(
        "patternProperties",
        {"schema": {"patternProperties": {"^n_": {"type": "number"}}}},
        {"n_a": "x", "m": "x"},
        ["$.data.n_a schema.type"],
    ),
    golden(
        "propertyNames", {"schema": {"propertyNames": {"maxLength": 1}}}, {"ab": 1}, ["$.data schema.propertyNames"]
    ),
    golden("dependentRequired", {"schema": {"dependentRequired": {"a": ["b"]}}}, {"a": 1}, ["$.data schema.required"]),
    golden("a property that may not be", schema(a=False), {"a": 1}, ["$.data.a schema.falseSchema"]),
    golden("anyOf", schema(a={"anyOf": [{"type": "string"}, {"minimum": 3}]}), {"a": 2}, ["$.data.a schema.anyOf"]),
    golden("oneOf", schema(a={"oneOf": [{"minimum": 1}, {"maximum": 3}]}), {"a": 2}, ["$.data.a schema.oneOf"]),
    golden("not", schema(a={"not": {"const": 1}}), {"a": 1}, ["$.data.a schema.not"]),
    golden(
        "if and then",
        {"schema": {"if": {"required": ["a"]}, "then": {"required": ["b"]}}},
        {"a": 1},
        ["$.data schema.required"],
    ),
    golden(
        "$ref",
        {"schema": {"$defs": {"s": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/s"}}}},
        {"a": 1},
        ["$.data.a schema.type"],
    ),
    golden(
        "$ref to itself",
        {"schema": {"properties": {"a": {"$ref": "#"}}, "required": ["b"]}},
        {"b": 1, "a": {"b": 1, "a": {}}},
        ["$.data.a.a schema.required"],
    ),
    golden("an endless $ref ends", {"schema": {"$ref": "#"}}, {}, NOTHING),
    golden(
        "a path with odd keys",
        schema(**{"a b": {"items": {"type": "string"}}}),
        {"a b": [1]},
        ['$.data["a b"][0] schema.type'],
    ),
    golden("format email", schema(a={"format": "email"}), {"a": "no address"}, ["$.data.a schema.format"]),
    golden("format date-time", schema(a={"format": "date-time"}), {"a": "2023-01-01T09:15:27Z"}, NOTHING),
    golden(
        "format date-time with a blank",
        schema(a={"format": "date-time"}),
        {"a": "2023-01-01 09:15:27Z"},
        ["$.data.a schema.format"],
    ),
    golden(
        "format date-time with a thirteenth month",
        schema(a={"format": "date-time"}),
        {"a": "2023-13-01T09:15:27Z"},
        ["$.data.a schema.format"],
    ),
    golden("format date", schema(a={"format": "date"}), {"a": "2023-02-30"}, ["$.data.a schema.format"]),
    golden("format uri", schema(a={"format": "uri"}), {"a": "/only/a/path"}, ["$.data.a schema.format"]),
    golden("format uuid", schema(a={"format": "uuid"}), {"a": "e2085be5"}, ["$.data.a schema.format"]),
    golden("format ipv4", schema(a={"format": "ipv4"}), {"a": "127.0.0.256"}, ["$.data.a schema.format"]),
    golden("format hostname", schema(a={"format": "hostname"}), {"a": "-x-"}, ["$.data.a schema.format"]),
    golden("format is for text alone", schema(a={"format": "email"}), {"a": 5}, NOTHING),
]

CEL_CASES = [
    golden("true", cel("event.data.host.endsWith('.example.com')"), {"host": "www.example.com"}, NOTHING),
    golden("false", cel("event.data.host.endsWith('.example.com')"), {"host": "example.org"}, FALSE),
    golden(
        "each expression counts", cel("event.data.a > 1", "event.data.a > 2", "event.data.a > 3"), {"a": 2}, FALSE * 2
    ),
    golden("a missing key", cel("event.data.host == 'x'"), {}, ERROR),
    golden("a missing key that is asked for", cel("!has(event.data.host) || event.data.host == 'x'"), {}, NOTHING),
    golden("an optional key", cel("event.data.?host.orValue('x') == 'x'"), {}, NOTHING),
    golden("an optional path", cel("event.data.?a.?b.hasValue()"), {"a": {}}, FALSE),
    golden("the value of nothing", cel("event.data.?a.value() == 1"), {}, ERROR),
    golden("a field of a number", cel("event.data.a.b.c == 1"), {"a": {"b": 1}}, ERROR),
    golden("a method of another type", cel("event.data.a.startsWith('x')"), {"a": None}, ERROR),
    golden("size of a number", cel("event.data.a.size() == 1"), {"a": 1}, ERROR),
    golden("text plus number", cel("event.data.a + 1 == 2"), {"a": "1"}, ERROR),
    golden("order of text and number", cel("event.data.a < 'x'"), {"a": 1}, ERROR),
    golden("equality of text and number", cel("event.data.a == 'x'"), {"a": 1}, FALSE),
    golden(
        "equality of int and double", cel("event.data.a == 1.0 && event.data.b == 1"), b'{"a": 1, "b": 1.0}', NOTHING
    ),
    golden("an index that is not there", cel("event.data.a[3] == 1"), {"a": [1]}, ERROR),
    golden("an index that is text", cel("event.data.a['x'] == 1"), {"a": [1]}, ERROR),
    golden("division by zero", cel("1 / event.data.a == 1"), {"a": 0}, ERROR),
    golden("modulus by zero", cel("1 % event.data.a == 1"), {"a": 0}, ERROR),
    golden("overflow", cel("event.data.a + 9223372036854775807 == 1"), {"a": 1}, ERROR),
    golden("conversion", cel("int(event.data.a) == 1"), {"a": "x"}, ERROR),
    golden("conversion to a time", cel("timestamp(event.data.a) < event.timestamp"), {"a": "x"}, ERROR),
    golden("conversion to a duration", cel("duration(event.data.a) < duration('1s')"), {"a": "1 s"}, ERROR),
    golden("a pattern of the event's", cel("'x'.matches(event.data.a)"), {"a": "["}, ERROR),
    golden("a pattern that would backtrack", cel("event.data.a.matches('^(a+)+$')"), {"a": "a" * 5000 + "b"}, FALSE),
    golden("an index of text", cel("event.data.a.charAt(5) == 'x'"), {"a": "x"}, ERROR),
    golden("no bool", cel("event.data.a"), {"a": "true"}, ERROR),
    golden("null for a bool", cel("event.data.a"), {"a": None}, ERROR),
    golden("a bool of the event's", cel("event.data.a"), {"a": True}, NOTHING),
    golden("an error that does not matter", cel("event.data.a == 1 || event.data.missing == 1"), {"a": 1}, NOTHING),
    golden("an error that matters", cel("event.data.a == 1 && event.data.missing == 1"), {"a": 1}, ERROR),
    golden("a list", cel("event.data.a.all(x, x > 0) && event.data.a.exists(x, x == 2)"), {"a": [1, 2]}, NOTHING),
    golden("keys of an object", cel("event.data.exists(key, key == 'a') && 'a' in event.data"), {"a": 1}, NOTHING),
    golden(
        "very many steps", cel("event.data.a.all(x, event.data.a.all(y, x + y > 0))"), {"a": list(range(1, 200))}, ERROR
    ),
    golden("Unicode", cel("event.data.a.size() == 2 && event.data.a == 'é😀'"), {"a": "é😀"}, NOTHING),
    golden("lower case is of ASCII", cel("event.data.a.lowerAscii() == 'É'"), {"a": "É"}, NOTHING),
    golden("an odd key", cel("event.data['a b'] == 1 && event.data.`c-d` == 2"), {"a b": 1, "c-d": 2}, NOTHING),
    golden("2^63", cel("event.data.a > 5"), {"a": 2**63}, NOTHING),
    golden("beyond 64 bits", cel("event.data.a > 5"), {"a": 2**64}, NOTHING),
    golden("beyond 64 bits, below zero", cel("event.data.a > 5"), {"a": -(2**63) - 1}, FALSE),
    golden("beyond 64 bits, nested", cel("event.data.a[1].b > 5"), {"a": [True, {"b": 2**70}]}, NOTHING),
    golden("beyond a double", cel("event.data.a > 5"), b'{"a": %s}' % (b"9" * 400), NOTHING),
    golden("the most digits", cel("event.data.a < 5"), b'{"a": -%s}' % (b"9" * 4000), NOTHING),
    golden("an exponent beyond a double", cel("event.data.a > 5.0"), b'{"a": 1e400}', NOTHING),
    golden(
        "the event's fields",
        cel("event.category == 'page interaction'", "event.name.startsWith('cta')", "event.application == 'shop'"),
        {},
        NOTHING,
    ),
    golden(
        "the event's ids",
        cel("event.session_id == 'e2085be5-9137-4e4e-80b5-f1ffddc25423'", "event.event_id.size() == 36"),
        {},
        NOTHING,
    ),
    golden(
        "the event's time",
        cel("event.timestamp == timestamp('2026-03-01T12:00:00Z')", "event.timestamp.getHours('Europe/Berlin') == 13"),
        {},
        NOTHING,
    ),
    golden(
        "the age of an event",
        cel("event.received_at - event.timestamp < duration('1h')"),
        {},
        FALSE,
        timestamp=ARRIVAL - timedelta(hours=2),
    ),
    golden(
        "the first year",
        cel("event.timestamp.getFullYear() == 1"),
        {},
        NOTHING,
        timestamp=datetime(1, 1, 1, 0, 0, 1, tzinfo=UTC),
    ),
    golden(
        "the first instant",
        cel("event.timestamp.getFullYear() == 1"),
        {},
        ERROR,
        timestamp=datetime.min.replace(tzinfo=UTC),
    ),
    golden("a zone of the event's", cel("event.timestamp.getHours(event.data.zone) == 1"), {"zone": "No/Where"}, ERROR),
]

MATCH_CASES = [
    golden("other category", {"match": {"category": "x"}, **cel("false")}, {}, NOTHING),
    golden("exact", {"match": {"category": "page interaction", "name": "cta click"}, **cel("false")}, {}, FALSE),
    golden("case counts", {"match": {"category": "Page interaction"}, **cel("false")}, {}, NOTHING),
    golden("glob", {"match": {"category": "page *"}, **cel("false")}, {}, FALSE),
    golden("glob at the end only", {"match": {"category": "page"}, **cel("false")}, {}, NOTHING),
    golden("question mark", {"match": {"name": "cta ?lick"}, **cel("false")}, {}, FALSE),
    golden("set", {"match": {"name": "[a-d]ta click"}, **cel("false")}, {}, FALSE),
    golden("negated set", {"match": {"name": "[!a-d]ta click"}, **cel("false")}, {}, NOTHING),
    golden("a glob over lines", {"match": {"name": "a*b"}, **cel("false")}, {}, FALSE, name="a\nb"),
    golden("a glob and Unicode", {"match": {"name": "ж?к"}, **cel("false")}, {}, FALSE, name="ж😀к"),
    golden("a bracket itself", {"match": {"name": "a[[]b]"}, **cel("false")}, {}, FALSE, name="a[b]"),
    golden("dots are dots", {"match": {"name": "a.b*"}, **cel("false")}, {}, NOTHING, name="axb"),
    golden("application", {"match": {"applications": ["blog", "shop"]}, **cel("false")}, {}, FALSE),
    golden("other application", {"match": {"applications": ["blog"]}, **cel("false")}, {}, NOTHING),
    golden("glob of applications", {"match": {"applications": ["sh*"]}, **cel("false")}, {}, FALSE),
]


@pytest.mark.parametrize(("spec", "data", "fields", "expected"), [*SCHEMA_CASES, *CEL_CASES, *MATCH_CASES])
def test_golden(spec: dict[str, Any], data: object, fields: dict[str, Any], expected: list[str]) -> None:
    verdict = ruleset(rule(**spec)).judge(event(data, **fields))

    assert found(verdict) == expected
    assert bool(verdict) is (expected == NOTHING)
