"""The custom resource definition: the types of a ValidatorRule and of its status, as Kubernetes takes them.

``python -m the_eye.rules.crd`` prints what is committed as ``charts/the-eye/files/validatorrules.the-eye.io.yaml``.
What the API server refuses at admission the core refuses as well; into schemas and expressions it cannot look.
"""

import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import yaml
from msgspec import UNSET, Meta, UnsetType

from the_eye.rules.manifest import GROUP, NOTHING_DEMANDED, PLURAL, UNCLOSED_SET, VERSION, Spec, ValidatorRule

Time = Annotated[datetime, Meta(tz=True)]
Generation = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]


class Condition(msgspec.Struct, frozen=True, rename="camel"):
    """One aspect of the rule's state, in the form that conditions have in all of Kubernetes."""

    type: Annotated[
        str,
        Meta(
            max_length=316,
            pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
            r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
            description="Accepted: the rule compiled. Programmed: every ready worker runs a ruleset that holds this "
            "version. Ready: both. Paused: the rule is frozen at the version in force.",
        ),
    ]
    status: Annotated[Literal["True", "False", "Unknown"], Meta(description="Whether it is so.")]
    last_transition_time: Annotated[Time, Meta(description="When the status last became another.")]
    reason: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=1024,
            pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
            description="Why it is so, in one word for programs. Of a rule that is not Accepted: InvalidField, "
            "InvalidSchema, InvalidExpression, TooLarge or RulesetFull.",
        ),
    ]
    message: Annotated[str, Meta(max_length=32768, description="Why it is so, in words for people.")]
    observed_generation: Annotated[Generation, Meta(description="The generation that it is so for.")] | UnsetType = (
        UNSET
    )


class Audit(msgspec.Struct, frozen=True, rename="camel"):
    """What a rule with the action Audit has found lately, as running counts."""

    generation: Annotated[Generation, Meta(description="The generation that is audited.")]
    since: Annotated[Time, Meta(description="The events counted occurred at this time or later.")]
    updated_at: Annotated[Time, Meta(description="When the counts were last brought up to date.")]
    events: Annotated[Count, Meta(description="How many events the rule was for.")]
    violations: Annotated[Count, Meta(description="How many of these violate it.")]


class Backtest(msgspec.Struct, frozen=True, rename="camel"):
    """What the rule would make of stored events. The annotation ``the-eye.io/backtest`` asks for it."""

    requested: Annotated[str, Meta(max_length=63, description="The value of the annotation that this answers.")]
    generation: Annotated[Generation, Meta(description="The generation that is tried out.")]
    state: Annotated[Literal["Pending", "Running", "Done", "Failed"], Meta(description="How far it has come.")]
    from_: Annotated[Time, Meta(description="Where the window begins: the earliest time of an event.")] | UnsetType = (
        msgspec.field(name="from", default=UNSET)
    )
    to: Annotated[Time, Meta(description="Where the window ends; not included.")] | UnsetType = UNSET
    examined: Annotated[Count, Meta(description="How many of the window's events the rule is for.")] | UnsetType = UNSET
    violations: Annotated[Count, Meta(description="How many of these violate the rule.")] | UnsetType = UNSET
    share: Annotated[float, Meta(ge=0, le=1, description="Violations by events examined, from 0 to 1.")] | UnsetType = (
        UNSET
    )
    event_ids: (
        Annotated[
            tuple[UUID, ...], Meta(max_length=10, description="Some of the events that violate the rule, by event_id.")
        ]
        | UnsetType
    ) = UNSET
    truncated: (
        Annotated[bool, Meta(description="Whether it ended early, at its bound on events or on time.")] | UnsetType
    ) = UNSET
    message: (
        Annotated[str, Meta(max_length=1024, description="Why it ended early or failed, for people.")] | UnsetType
    ) = UNSET
    finished_at: Annotated[Time, Meta(description="When it ended, done or failed.")] | UnsetType = UNSET


class Status(msgspec.Struct, frozen=True, rename="camel"):
    """What has become of the rule. Written by The Eye's operator."""

    observed_generation: (
        Annotated[Generation, Meta(description="The generation that this status is about.")] | UnsetType
    ) = UNSET
    in_force_generation: (
        Annotated[
            Generation,
            Meta(
                description="The generation whose version workers are given; an earlier one while a later one is "
                "refused or the rule is paused. Absent when there is none."
            ),
        ]
        | UnsetType
    ) = UNSET
    ruleset: (
        Annotated[
            str,
            Meta(
                max_length=71,
                pattern="^sha256:[0-9a-f]{64}$",
                description="The revision of the first ruleset that holds that version.",
            ),
        ]
        | UnsetType
    ) = UNSET
    conditions: (
        Annotated[
            tuple[Condition, ...],
            Meta(
                max_length=16,
                description="What is so of the rule: Accepted, Programmed, Ready, Paused.",
                extra_json_schema={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
            ),
        ]
        | UnsetType
    ) = UNSET
    audit: Audit | UnsetType = UNSET
    backtest: Backtest | UnsetType = UNSET


class _Resource(msgspec.Struct):
    """What Kubernetes leaves to the definition: everything but ``apiVersion``, ``kind`` and ``metadata``."""

    spec: Spec
    status: Status | UnsetType = UNSET


class Check(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the API server evaluates at admission, in Kubernetes' dialect of CEL."""

    rule: str
    message: str
    reason: str = "FieldValueInvalid"


SOMETHING_DEMANDED = Check("has(self.schema) || size(self.validations) > 0", NOTHING_DEMANDED, "FieldValueRequired")
CLOSED_SETS = Check(r"self.matches(r'(?s)^([^\[]|\[(!.|[^!])[^\]]*\])*$')", UNCLOSED_SET)
"""The opposite of ``has_unclosed_set``: what comes first in a set, after an optional ``!``, does not close it."""
NO_NUL = Check(r"!self.contains('\x00')", "text holds no NUL")

CHECKS: dict[str, tuple[Check, ...]] = {
    "spec": (SOMETHING_DEMANDED,),
    "spec.match.category": (NO_NUL, CLOSED_SETS),
    "spec.match.name": (NO_NUL, CLOSED_SETS),
    "spec.match.applications[]": (NO_NUL, CLOSED_SETS),
    "spec.validations[].expression": (NO_NUL,),
    "spec.validations[].message": (NO_NUL,),
}


def definition() -> dict[str, Any]:
    """The whole definition, as an object of Kubernetes' API."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": "ValidatorRule",
                "listKind": "ValidatorRuleList",
                "plural": PLURAL,
                "singular": "validatorrule",
                "shortNames": ["vrule"],
                "categories": ["the-eye"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(*column) for column in COLUMNS],
                    "selectableFields": [{"jsonPath": f".{field}"} for field in SELECTABLE],
                    "schema": {"openAPIV3Schema": _schema()},
                }
            ],
        },
    }


ATOMIC = ("spec.match", "spec.schema")
"""What one manifest decides as a whole: server-side apply never merges two authors' schemas."""

SELECTABLE = ("spec.match.category", "spec.match.name", "spec.action")

_OF_CONDITION = '.status.conditions[?(@.type=="{}")].{}'
COLUMNS = (
    ("Category", ".spec.match.category"),
    ("Event", ".spec.match.name"),
    ("Action", ".spec.action"),
    ("Accepted", _OF_CONDITION.format("Accepted", "status")),
    ("Ready", _OF_CONDITION.format("Ready", "status")),
    ("Age", ".metadata.creationTimestamp", "date"),
    ("Message", _OF_CONDITION.format("Ready", "message"), "string", 1),
)
"""Of ``kubectl get``; the last one, only with ``-o wide``, says why the rule is refused or how many workers run it."""


def _column(name: str, path: str, type_: str = "string", priority: int = 0) -> dict[str, Any]:
    # The API server stores no priority of 0. What it does not store, an apply would find changed by someone else.
    return {"name": name, "type": type_, "jsonPath": path, **({"priority": priority} if priority else {})}


def _schema() -> dict[str, Any]:
    components = msgspec.json.schema_components([_Resource], ref_template="{name}")
    (resource,), types = msgspec.json.decode(msgspec.json.encode(components))  # defaults are Python's objects before
    return {**_structural(resource, types, ""), "description": _in_a_line(ValidatorRule.__doc__ or "")}


def _structural(schema: dict[str, Any], types: dict[str, Any], path: str) -> dict[str, Any]:
    """Make a schema structural: a type for every value, nothing referred to, nothing that Kubernetes refuses."""
    schema = types.get(schema.get("$ref", ""), {}) | schema
    type_ = schema.get("type", "string")  # an enumeration comes without
    made = {"type": type_, **_IMPLIED.get(schema.get("format", type_), {}), **_kept(schema)}
    if "description" in made:
        made["description"] = " ".join((_in_a_line(made["description"]), *_bounds(made, path)))
    if path in ATOMIC:
        made["x-kubernetes-map-type"] = "atomic"
    if path in CHECKS:
        made["x-kubernetes-validations"] = [msgspec.to_builtins(check) for check in CHECKS[path]]
    return made | _inner(made, types, path)


_IMPLIED: dict[str, dict[str, Any]] = {
    "integer": {"format": "int64"},
    "number": {"format": "double"},
    "array": {"x-kubernetes-list-type": "atomic"},
    "date-time": {"maxLength": 64},
    "uuid": {"maxLength": 36},
}
"""By type or format, what the types leave unsaid. Nothing is unbounded, not even what has a format."""


def _kept(schema: dict[str, Any]) -> dict[str, Any]:
    """Leave out what Kubernetes does anyway, such as refusing unknown fields, and what says nothing."""
    left_out = ("$ref", "title", "additionalProperties")
    return {
        key: value
        for key, value in schema.items()
        if key not in left_out and (key, value) not in (("required", []), ("default", ""))
    }


def _inner(schema: dict[str, Any], types: dict[str, Any], path: str) -> dict[str, Any]:
    if "items" in schema:
        return {"items": _structural(schema["items"], types, f"{path}[]")}
    if "properties" in schema:
        fields = schema["properties"].items()
        return {
            "properties": {
                name: _structural(inner, types, f"{path}.{name}".removeprefix(".")) for name, inner in fields
            }
        }
    return {"x-kubernetes-preserve-unknown-fields": True} if schema["type"] == "object" else {}


def _bounds(schema: dict[str, Any], path: str) -> Iterator[str]:
    """Say the bounds of what people write: of all that a schema demands, ``kubectl explain`` shows only choices."""
    if not path.startswith("spec."):
        return
    if "maxLength" in schema:
        least = f"{schema['minLength']} to" if "minLength" in schema else "At most"
        yield f"{least} {schema['maxLength']:,} characters."
    if "maxItems" in schema:
        yield f"At most {schema['maxItems']}."
    if "default" in schema:
        yield f"Defaults to {msgspec.json.encode(schema['default']).decode()}."


def _in_a_line(docstring: str) -> str:
    return " ".join(docstring.replace("``", "`").split())


def document() -> str:
    """The definition as YAML, as it is committed."""
    text = yaml.safe_dump(definition(), width=120, allow_unicode=True)
    return f"# Made of the types in services/core/the_eye/rules by: python -m the_eye.rules.crd\n{text}"


if __name__ == "__main__":
    sys.stdout.write(document())
