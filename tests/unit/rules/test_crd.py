"""The custom resource definition says what the core does: the same fields, bounds, defaults and refusals.

That a real API server takes it and refuses what it should is proved in ``tests/cluster/test_crd.py``.
"""

import copy
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema_rs
import msgspec
import pytest
from cel_expr_python import cel
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.rules.making import manifest

from the_eye.rules import expression
from the_eye.rules.crd import (
    ATOMIC,
    CHECKS,
    CLOSED_SETS,
    COLUMNS,
    NO_NUL,
    SELECTABLE,
    Audit,
    Backtest,
    Condition,
    Status,
    definition,
    document,
)
from the_eye.rules.manifest import ValidatorRule, has_unclosed_set, read_manifest

COMMITTED = Path(__file__).parents[3] / "charts" / "the-eye" / "files" / "validatorrules.the-eye.io.yaml"

(VERSION,) = definition()["spec"]["versions"]
SCHEMA: dict[str, Any] = VERSION["schema"]["openAPIV3Schema"]


def parts(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every value that a schema describes, with its path."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from parts(inner, f"{path}.{name}".removeprefix("."))
    if "items" in schema:
        yield from parts(schema["items"], f"{path}[]")


PARTS = dict(parts(SCHEMA))
SPEC = {path: part for path, part in PARTS.items() if path.startswith("spec")}


def test_the_committed_file_is_what_the_types_make() -> None:
    assert document() == COMMITTED.read_text(), "run: python -m the_eye.rules.crd > " + str(COMMITTED)


def test_it_is_the_same_each_time() -> None:
    assert definition() == definition()
    assert document() == document()


def test_it_describes_these_fields() -> None:
    fields = {path: sorted(part["properties"]) for path, part in PARTS.items() if "properties" in part}

    assert fields == {
        "": ["spec", "status"],
        "spec": ["action", "failurePolicy", "match", "schema", "validations"],
        "spec.match": ["applications", "category", "name"],
        "spec.validations[]": ["expression", "message"],
        "status": ["audit", "backtest", "conditions", "inForceGeneration", "observedGeneration", "ruleset"],
        "status.audit": ["events", "generation", "since", "updatedAt", "violations"],
        "status.backtest": sorted(
            (
                *("requested", "generation", "state", "from", "to", "examined", "violations", "share"),
                *("eventIds", "truncated", "message", "finishedAt"),
            )
        ),
        "status.conditions[]": ["lastTransitionTime", "message", "observedGeneration", "reason", "status", "type"],
    }


def test_these_fields_have_a_choice() -> None:
    assert {path: part["enum"] for path, part in PARTS.items() if "enum" in part} == {
        "spec.action": ["Audit", "Enforce"],
        "spec.failurePolicy": ["Fail", "Ignore"],
        "status.backtest.state": ["Done", "Failed", "Pending", "Running"],
        "status.conditions[].status": ["False", "True", "Unknown"],
    }


def test_every_field_is_described() -> None:
    undescribed = [path for path, part in PARTS.items() if not path.endswith("[]") and not part.get("description")]

    assert undescribed == []


def test_every_description_is_prose_in_one_line() -> None:
    for path, part in PARTS.items():
        text = part.get("description", ".")
        assert text.endswith("."), path
        assert "``" not in text, path
        assert text == " ".join(text.split()), path


def test_expressions_are_told_of_every_variable() -> None:
    for variable in expression.VARIABLES:
        assert variable in PARTS["spec.validations[].expression"]["description"]


STRUCTURAL = {
    *("type", "description", "default", "enum", "format", "pattern", "required", "properties", "items"),
    *("minimum", "maximum", "minLength", "maxLength", "maxItems"),
    *("x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type"),
    *("x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations"),
}


def test_every_part_is_structural() -> None:
    for path, part in PARTS.items():
        assert part.keys() <= STRUCTURAL, path
        assert part["type"] in {"array", "boolean", "integer", "number", "object", "string"}, path


def test_every_text_and_every_list_is_bounded() -> None:
    for path, part in PARTS.items():
        if part["type"] == "array":
            assert part["maxItems"] > 0, path
            assert part["x-kubernetes-list-type"] in {"atomic", "map"}, path
        elif part["type"] == "string":
            assert "enum" in part or part["maxLength"] > 0, path


def test_only_the_events_schema_may_hold_anything() -> None:
    open_parts = [path for path, part in PARTS.items() if part.get("x-kubernetes-preserve-unknown-fields")]

    assert open_parts == ["spec.schema"]


def test_what_stands_beside_the_types_is_about_fields_that_there_are() -> None:
    assert CHECKS.keys() <= PARTS.keys()
    assert PARTS.keys() >= set(ATOMIC)
    assert PARTS.keys() >= set(SELECTABLE)
    paths = {str(path).removeprefix(".").partition("[?")[0] for _, path, *_ in COLUMNS}
    assert paths - {"metadata.creationTimestamp"} <= PARTS.keys()


def test_every_free_text_of_the_spec_is_kept_from_holding_a_nul() -> None:
    free = [path for path, part in SPEC.items() if part["type"] == "string" and "enum" not in part]

    assert [path for path in free if NO_NUL not in CHECKS[path]] == []


# Defaults: what the API server hands out is what the core takes for given.


def with_defaults(value: Any, schema: dict[str, Any]) -> Any:
    """Fill in what is missing, as the API server does before it validates, stores and hands out."""
    if isinstance(value, list) and "items" in schema:
        return [with_defaults(item, schema["items"]) for item in value]
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    given = {key: inner for key, inner in value.items() if inner is not None}
    defaults = {
        key: copy.deepcopy(inner["default"]) for key, inner in schema["properties"].items() if "default" in inner
    }
    return {
        key: with_defaults(inner, schema["properties"].get(key, {})) for key, inner in {**defaults, **given}.items()
    }


def test_the_defaults_are_these() -> None:
    assert {path: part["default"] for path, part in PARTS.items() if "default" in part} == {
        "spec.action": "Enforce",
        "spec.failurePolicy": "Fail",
        "spec.match.applications": [],
        "spec.match.category": "*",
        "spec.match.name": "*",
        "spec.validations": [],
    }


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


MATCHES = optional(
    category=st.sampled_from(["*", "page *", None]),
    name=st.sampled_from(["*", "cta click", None]),
    applications=st.sampled_from([[], ["shop"], None]),
)
SOUND_SPECS = st.builds(
    lambda match, rest, demanded: {"match": match, **rest, **demanded},
    MATCHES,
    optional(action=st.sampled_from(["Enforce", "Audit", None]), failurePolicy=st.sampled_from(["Fail", "Ignore"])),
    st.sampled_from(
        [
            {"schema": {}},
            {"schema": {"type": "object"}, "validations": []},
            {"schema": None, "validations": [{"expression": "true", "message": None}]},
            {"validations": [{"expression": "true"}, {"expression": "false", "message": "no"}]},
        ]
    ),
)


@settings(deadline=None)  # a busy machine is no failure
@given(SOUND_SPECS)
def test_a_rule_with_its_defaults_filled_in_is_the_same_rule(spec: dict[str, Any]) -> None:
    plain = manifest(**spec)

    rule = read_manifest(plain)

    assert isinstance(rule, ValidatorRule)
    assert read_manifest({**plain, "spec": with_defaults(spec, SCHEMA["properties"]["spec"])}) == rule


# Checks: evaluated here by another implementation of CEL, with the same regular expressions (RE2). For it a text ends
# at a NUL, so what NO_NUL says is left to the cluster tests.


ENVIRONMENT = cel.NewEnv(variables={"self": cel.Type.DYN})
compiled = cache(ENVIRONMENT.compile)


def holds(rule: str, value: object) -> bool:
    if rule == NO_NUL.rule:
        return "\0" not in str(value)
    outcome = compiled(rule).eval(ENVIRONMENT.Activation({"self": value})).value()
    assert isinstance(outcome, bool), outcome
    return outcome


PATTERNS = st.text(alphabet="[]!*?ab-\\^\né😀", max_size=16) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=24
)


@settings(deadline=None, max_examples=2_000)
@given(PATTERNS)
@example("")
@example("[")
@example("[]")
@example("[]]")
@example("[!]")
@example("[!]]")
@example("[!!]")
@example("[!")
@example("[[]")
@example("[[]]")
@example("[a][")
@example("]")
@example("]]]")
@example("a]b[c]d")
@example("[a]]")
@example("[\n]")
@example("[!\n]")
@example("[a\n")
@example("a\n")
@example("[a]\n")
@example("[]a]")
@example("[!]a]")
@example("[]!]")
@example("[^]")
@example("[\\]")
@example("[😀]")
@example("[" * 255)
@example("[[]" * 85)
def test_the_check_of_globs_agrees_with_the_core(pattern: str) -> None:
    assert holds(CLOSED_SETS.rule, pattern) is not has_unclosed_set(pattern)


# Agreement: what the API server refuses is what the core refuses, but for what is inside schemas and expressions.


def without_unknown_fields(schema: dict[str, Any]) -> dict[str, Any]:
    """Make the schema that ``kubectl apply`` asks for, with its strict validation."""
    plain = {key: part for key, part in schema.items() if not key.startswith("x-")}
    if "items" in plain:
        plain["items"] = without_unknown_fields(plain["items"])
    if "properties" in plain:
        plain["additionalProperties"] = False
        plain["properties"] = {name: without_unknown_fields(inner) for name, inner in plain["properties"].items()}
    return plain


ADMISSION = jsonschema_rs.Draft202012Validator(without_unknown_fields(SCHEMA["properties"]["spec"]))


def admitted(spec: Any) -> bool:
    """Whether the definition lets a spec in."""
    filled = with_defaults(spec, SCHEMA["properties"]["spec"])
    return ADMISSION.is_valid(filled) and all(
        holds(check.rule, value)
        for path, checks in CHECKS.items()
        for check in checks
        for value in at({"spec": filled}, path.split("."))
    )


def at(value: Any, steps: list[str]) -> Iterator[Any]:
    """What stands at a path, and nothing where it leads nowhere."""
    if not steps:
        yield value
        return
    name, many, _ = steps[0].partition("[]")
    if name in value:
        for inner in value[name] if many else [value[name]]:
            yield from at(inner, steps[1:])


SOUND: tuple[dict[str, Any], ...] = (
    {"match": {}, "schema": {}},
    {"match": {"applications": ["shop"]}, "action": "Audit", "validations": [{"expression": "true", "message": "no"}]},
)
PLACES = (
    *("match", "action", "failurePolicy", "schema", "validations", "Match"),
    *("match.category", "match.name", "match.applications", "match.Name"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 5, -1.5, "", "*", "x", "\0", "a\0b", "a\n", "page *", "Enforce", "Audit", "enforce"),
    *("Fail", "Ignore", "[", "[a", "[!]", "[]", "[]]", "[a]", "[[]", "x" * 63, "x" * 64, "é" * 255, "é" * 256),
    *({}, {"type": "object"}, {"category": "x"}, {"category": 5}, {"unknown": 1}, {"expression": "true"}),
    *([], [None], [5], ["shop"], ["shop", "shop"], ["shop", ""], ["["], ["[]]"], ["\0"], ["é" * 63], ["é" * 64]),
    *(["x"] * 64, ["x"] * 65, [{}], [{"expression": ""}], [{"expression": None}], [{"message": "x"}], [["true"]]),
    *([{"expression": "x" * 4096}], [{"expression": "x" * 4097}], [{"expression": "true"}] * 32),
    *([{"expression": "true"}] * 33, [{"expression": "true"}, {"expression": 5}], [{"expression": "'\0'"}]),
    *([{"expression": "true", "message": message}] for message in (None, "", 5, "\0", "é" * 500, "é" * 501)),
    [{"expression": "true", "reason": "x"}],
)


def with_value(spec: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    outer, _, inner = place.partition(".")
    return {**spec, outer: {**spec[outer], inner: value} if inner else value}


def test_what_the_definition_lets_in_is_what_the_core_reads() -> None:
    specs = [
        with_value(spec, place, value)
        for spec in SOUND
        for place in PLACES
        for value in VALUES
        # kubectl apply never sends an unknown field that is null, kubectl create does and is refused.
        if value is not None or place.lower() == place
    ]

    read = [isinstance(read_manifest(manifest(**spec)), ValidatorRule) for spec in specs]

    assert [spec for spec, sound in zip(specs, read, strict=True) if admitted(spec) is not sound] == []
    assert set(read) == {True, False}


@pytest.mark.parametrize("field", ["match", "schema", "validations"])
def test_what_is_required_is_required_by_both(field: str) -> None:
    spec = {name: value for name, value in SOUND[0].items() if name != field}

    assert admitted(spec) is isinstance(read_manifest({**manifest(), "spec": spec}), ValidatorRule), field


# The status: what the operator writes with these types fits.

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
STATUS = Status(
    observed_generation=4,
    in_force_generation=3,
    ruleset="sha256:" + "9f2c" * 16,
    conditions=(
        Condition("Accepted", "False", NOON, "InvalidSchema", "spec.schema.type: …", 4),
        Condition("Paused", "True", NOON, "Paused", ""),
    ),
    audit=Audit(4, NOON, NOON, 2**63 - 1, 0),
    backtest=Backtest(
        requested="24h",
        generation=4,
        state="Done",
        from_=NOON,
        to=NOON,
        examined=8,
        violations=2,
        share=0.25,
        event_ids=(UUID("0195512b-7e14-7cc0-a3c1-8d6e3d9d6f10"),) * 10,
        truncated=False,
        message="",
        finished_at=NOON,
    ),
)
STATUS_FITS = jsonschema_rs.Draft202012Validator(
    without_unknown_fields(SCHEMA["properties"]["status"]), validate_formats=True, ignore_unknown_formats=True
)


@pytest.mark.parametrize(
    "status",
    [
        pytest.param(STATUS, id="full"),
        pytest.param(Status(), id="empty"),
        pytest.param(Status(backtest=Backtest("soon", 1, "Failed")), id="back-test that failed"),
    ],
)
def test_a_status_fits_its_schema(status: Status) -> None:
    written = msgspec.to_builtins(status)

    assert [error.message for error in STATUS_FITS.iter_errors(written)] == []
    assert msgspec.convert(written, Status) == status


def test_a_full_status_has_every_field() -> None:
    written = msgspec.to_builtins(STATUS)

    missing = [
        path for path in PARTS if path.startswith("status") and not list(at({"status": written}, path.split(".")))
    ]
    assert missing == []
