"""The ValidatorRule resource is read as Kubernetes would read it, with every error naming its field."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.rules.making import manifest

from the_eye.rules.manifest import (
    FailurePolicy,
    Match,
    RefusedManifest,
    Validation,
    ValidatorRule,
    parse_manifests,
    read_manifest,
)
from the_eye.verdict import Action

FULL = """
apiVersion: the-eye.io/v1alpha1
kind: ValidatorRule
metadata: {name: cta-click-element, namespace: shop, generation: 3, labels: {team: web}, uid: 7f3c}
spec:
  match:
    category: page interaction
    name: cta *
    applications: [shop, shop-*]
  action: Audit
  failurePolicy: Ignore
  schema:
    type: object
    properties: {element: {enum: [chat bubble, null]}}
  validations:
    - expression: event.data.host.endsWith('.example.com')
      message: host must be ours
status: {observedGeneration: 3}
"""


def read_one(text: str) -> ValidatorRule:
    (outcome,) = parse_manifests(text)
    assert isinstance(outcome, ValidatorRule)
    return outcome


def errors(value: Any) -> list[str]:
    outcome = read_manifest(value)
    assert isinstance(outcome, RefusedManifest)
    return [str(error) for error in outcome.errors]


def test_every_field_of_a_manifest_is_read() -> None:
    rule = read_one(FULL)

    assert rule.id == "shop/cta-click-element"
    assert rule.metadata.generation == 3
    assert rule.spec.match == Match("page interaction", "cta *", ("shop", "shop-*"))
    assert rule.spec.action is Action.AUDIT
    assert rule.spec.failure_policy is FailurePolicy.IGNORE
    assert rule.spec.schema == {"type": "object", "properties": {"element": {"enum": ["chat bubble", None]}}}
    assert rule.spec.validations == (Validation("event.data.host.endsWith('.example.com')", "host must be ours"),)


def test_what_is_not_given_has_these_defaults() -> None:
    rule = read_one(msgspec.json.encode(manifest("a", schema={})).decode())

    assert rule.id == "default/a"
    assert rule.metadata.generation == 1
    assert rule.spec.match == Match("*", "*", ())
    assert rule.spec.action is Action.ENFORCE
    assert rule.spec.failure_policy is FailurePolicy.FAIL


@pytest.mark.parametrize("name", ["a", "0", "cta-click.v2", "a-b.c-d.e", "a" * 253])
def test_a_name_of_kubernetes_is_a_name(name: str) -> None:
    rule = read_manifest(manifest(name, schema={}))

    assert isinstance(rule, ValidatorRule)
    assert rule.id == f"default/{name}"


def test_an_application_that_is_named_twice_is_named() -> None:
    rule = read_manifest(manifest(match={"applications": ["shop", "shop"]}, schema={}))

    assert isinstance(rule, ValidatorRule)
    assert rule.spec.match.applications == ("shop", "shop")


def test_a_field_that_is_null_is_not_given() -> None:
    rule = read_manifest(
        manifest(
            metadata={"namespace": None},
            match={"category": None, "applications": None},
            action=None,
            schema=None,
            validations=[{"expression": "true", "message": None}],
        )
    )

    assert isinstance(rule, ValidatorRule)
    assert rule.spec.match == Match()
    assert rule.spec.validations == (Validation("true"),)


def test_a_list_as_kubectl_prints_it_counts_by_its_items() -> None:
    listed = {"apiVersion": "v1", "kind": "List", "items": [manifest("a", schema={}), manifest("b"), 5]}

    first, second, third = parse_manifests(msgspec.json.encode(listed))

    assert isinstance(first, ValidatorRule)
    assert isinstance(second, RefusedManifest)
    assert second.id == "default/b"
    assert isinstance(third, RefusedManifest)
    assert third.id is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param([], [": a manifest is a mapping"], id="no mapping"),
        pytest.param("x", [": a manifest is a mapping"], id="text"),
        pytest.param(
            {}, ["apiVersion: required", "kind: required", "metadata: required", "spec: required"], id="empty"
        ),
        pytest.param(
            {**manifest(schema={}), "apiVersion": "v2"}, ["apiVersion: expected the-eye.io/v1alpha1"], id="version"
        ),
        pytest.param({**manifest(schema={}), "kind": "Pod"}, ["kind: expected ValidatorRule"], id="kind"),
        pytest.param(
            {**manifest(schema={}), "spce": {}},
            ["spce: no such field; there are apiVersion, kind, metadata, spec"],
            id="misspelt at the top",
        ),
        pytest.param(manifest(), ["spec: at least one of schema and validations is required"], id="nothing demanded"),
        pytest.param(manifest(match=None, schema={}), ["spec.match: required"], id="no match"),
        pytest.param(
            manifest(schemas={}, schema={}),
            ["spec.schemas: no such field; there are match, action, failurePolicy, schema, validations"],
            id="misspelt",
        ),
        pytest.param(
            manifest(failure_policy="Fail", schema={}),
            ["spec.failure_policy: no such field; there are match, action, failurePolicy, schema, validations"],
            id="snake case",
        ),
        pytest.param(
            manifest(match={"catgory": "x"}, schema={}),
            ["spec.match.catgory: no such field; there are category, name, applications"],
            id="misspelt in match",
        ),
        pytest.param(manifest(match="x", schema={}), ["spec.match: expected a mapping"], id="match is text"),
        pytest.param(
            manifest(match={"category": 5}, schema={}), ["spec.match.category: expected `str`, got `int`"], id="number"
        ),
        pytest.param(
            manifest(match={"category": ""}, schema={}),
            ["spec.match.category: expected `str` of length >= 1"],
            id="empty text",
        ),
        pytest.param(
            manifest(match={"name": "x" * 256}, schema={}),
            ["spec.match.name: expected `str` of length <= 255"],
            id="long text",
        ),
        pytest.param(
            manifest(match={"applications": "shop"}, schema={}),
            ["spec.match.applications: expected `array`, got `str`"],
            id="text for a list",
        ),
        pytest.param(
            manifest(match={"applications": ["a", 5]}, schema={}),
            ["spec.match.applications[1]: expected `str`, got `int`"],
            id="number in a list",
        ),
        pytest.param(
            manifest(match={"applications": ["a"] * 65}, schema={}),
            ["spec.match.applications: expected `array` of length <= 64"],
            id="long list",
        ),
        pytest.param(
            manifest(match={"category": "a[bc"}, schema={}),
            ["spec.match.category: a [ without its ] matches nothing: write [[] for the character itself"],
            id="open set",
        ),
        pytest.param(
            manifest(match={"applications": ["[!]"]}, schema={}),
            ["spec.match.applications[0]: a [ without its ] matches nothing: write [[] for the character itself"],
            id="open negated set",
        ),
        pytest.param(
            manifest(action="enforce", schema={}), ["spec.action: expected one of Enforce, Audit"], id="action"
        ),
        pytest.param(
            manifest(failurePolicy=True, schema={}), ["spec.failurePolicy: expected one of Fail, Ignore"], id="policy"
        ),
        pytest.param(manifest(schema=True), ["spec.schema: expected `object`, got `bool`"], id="boolean schema"),
        pytest.param(manifest(schema={"a": [float("nan")]}), ["spec.schema.a[0]: a number is finite"], id="nan"),
        pytest.param(
            manifest(schema={"maximum": 2**64}),
            ["spec.schema.maximum: a whole number has at most 64 bits"],
            id="more than 64 bits",
        ),
        pytest.param(
            manifest(schema={"a b": {"\ud800": 1}}),
            ['spec.schema["a b"]: a key is text, without NUL and lone surrogates'],
            id="surrogate in a key",
        ),
        pytest.param(
            manifest(schema={"const": "\0"}), ["spec.schema.const: text holds no NUL and no lone surrogate"], id="NUL"
        ),
        pytest.param(
            manifest(schema={"a": {1: 2}}),
            ["spec.schema.a: a key is text, without NUL and lone surrogates"],
            id="number for a key",
        ),
        pytest.param(manifest(schema={"a": {1, 2}}), ["spec.schema.a: set is no type of JSON"], id="no type of JSON"),
        pytest.param(
            manifest(schema={"enum": ["x" * 70_000]}),
            ["spec.schema: a schema has at most 65536 bytes of JSON"],
            id="large schema",
        ),
        pytest.param(
            manifest(validations=["true"]), ["spec.validations[0]: expected a mapping"], id="validation is text"
        ),
        pytest.param(
            manifest(validations=[{"expression": "true"}, {"message": "x"}]),
            ["spec.validations[1].expression: required"],
            id="no expression",
        ),
        pytest.param(
            manifest(validations=[{"expression": "true", "reason": "x"}]),
            ["spec.validations[0].reason: no such field; there are expression, message"],
            id="unknown in a validation",
        ),
        pytest.param(
            manifest(validations=[{"expression": "x" * 4097}]),
            ["spec.validations[0].expression: expected `str` of length <= 4096"],
            id="long expression",
        ),
        pytest.param(
            manifest(validations=[{"expression": "true"}] * 33),
            ["spec.validations: expected `array` of length <= 32"],
            id="many validations",
        ),
        pytest.param(
            manifest("Upper", schema={}),
            ["metadata.name: expected lower-case letters, digits and hyphens, as in a name of Kubernetes"],
            id="name",
        ),
        pytest.param(
            manifest("a..b", schema={}),
            ["metadata.name: expected lower-case letters, digits and hyphens, as in a name of Kubernetes"],
            id="name with nothing between its dots",
        ),
        pytest.param(
            manifest("a.-b", schema={}),
            ["metadata.name: expected lower-case letters, digits and hyphens, as in a name of Kubernetes"],
            id="name with a hyphen after a dot",
        ),
        pytest.param(
            manifest("a" * 254, schema={}),
            ["metadata.name: expected `str` of length <= 253"],
            id="long name",
        ),
        pytest.param(
            manifest("a\n", schema={}),
            ["metadata.name: expected lower-case letters, digits and hyphens, as in a name of Kubernetes"],
            id="name with a line's end",
        ),
        pytest.param(
            manifest(metadata={"namespace": "a/b"}, schema={}),
            ["metadata.namespace: expected lower-case letters, digits and hyphens, as in a name of Kubernetes"],
            id="namespace",
        ),
        pytest.param(
            manifest(metadata={"generation": 0}, schema={}),
            ["metadata.generation: expected `int` >= 1"],
            id="generation",
        ),
        pytest.param(
            manifest(action="x", match={"name": 5, "category": []}, validations=[{}]),
            [
                "spec.match.category: expected `str`, got `array`",
                "spec.match.name: expected `str`, got `int`",
                "spec.action: expected one of Enforce, Audit",
                "spec.validations[0].expression: required",
            ],
            id="several at once",
        ),
    ],
)
def test_each_error_names_its_field(value: Any, expected: list[str]) -> None:
    assert [error.removeprefix(": ") for error in errors(value)] == [error.removeprefix(": ") for error in expected]


def test_a_schema_that_is_nested_too_deeply_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(500):
        schema = {"not": schema}

    (error,) = errors(manifest(schema=schema))

    assert error.endswith("nested more than 64 levels deep")


def test_a_refused_manifest_is_known_by_its_name_where_that_can_be_read() -> None:
    (refused,) = parse_manifests(FULL.replace("Audit", "Adit"))
    (nameless,) = parse_manifests(FULL.replace("name: cta-click-element", "name: CTA"))

    assert refused.id == "shop/cta-click-element"
    assert nameless.id is None


def test_documents_of_one_text_are_judged_each_for_itself() -> None:
    first, second, third = parse_manifests(f"{FULL}---\nkind: Pod\n---\n---\n{FULL.replace('cta-click', 'other')}")

    assert first.id == "shop/cta-click-element"
    assert isinstance(second, RefusedManifest)
    assert second.document == 2
    assert third.id == "shop/other-element"


@pytest.mark.parametrize("text", [b"\xff\xfe", "a: b: c", "\t", "[" * 10_000, "{", "- x", "a: &a [*a]"])
def test_a_text_that_is_no_manifest_is_a_refused_one(text: str | bytes) -> None:
    outcomes = parse_manifests(text)

    assert len(outcomes) == 1
    assert isinstance(outcomes[0], RefusedManifest)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@settings(deadline=None)  # a busy machine is no failure
@given(JSON, JSON, JSON, JSON)
def test_no_object_raises(top: Any, spec: Any, match: Any, validations: Any) -> None:
    for value in (
        top,
        manifest(),
        manifest(match=match, schema=spec, validations=validations),
        {**manifest(), "spec": spec},
    ):
        assert isinstance(read_manifest(value), ValidatorRule | RefusedManifest)
