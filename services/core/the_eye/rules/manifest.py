"""The ValidatorRule resource: its types, and reading it from YAML, JSON or a decoded object.

The custom resource definition is made of these types (``the_eye.rules.crd``), down to their descriptions, which
``kubectl explain`` shows. What is refused is a value, never an exception, and its errors name the field as Kubernetes
does: ``spec.match.category``.
"""

import re
from collections.abc import Iterator
from enum import Enum, StrEnum
from typing import Annotated, Any, Literal, TypeAlias, cast, get_args, get_origin

import msgspec
from msgspec import UNSET, Meta, UnsetType

from the_eye.event import json_path
from the_eye.rules.documents import MAX_DEPTH, Unreadable, read_documents
from the_eye.verdict import Action

API_VERSION = "the-eye.io/v1alpha1"
GROUP, VERSION = API_VERSION.split("/")
PLURAL = "validatorrules"

MAX_SCHEMA_BYTES = 64 * 1024
"""The largest schema, as JSON; eight times less than what one ConfigMap of a ruleset holds."""

MAX_MESSAGE = 500
"""Characters of a message, and of a path, in a violation."""

NOTHING_DEMANDED = "at least one of schema and validations is required"
UNCLOSED_SET = "a [ without its ] matches nothing: write [[] for the character itself"


def cut(text: str) -> str:
    """Bound a text that senders or authors of rules have a part in."""
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


class FailurePolicy(StrEnum):
    """What an expression that cannot be evaluated means."""

    FAIL = "Fail"
    """A violation."""
    IGNORE = "Ignore"
    """Nothing, as if the expression were true."""


Pattern = Annotated[str, Meta(min_length=1, max_length=255)]
"""Exact text, or a glob: ``*`` any text, ``?`` any character, ``[abc]`` one of these, ``[!abc]`` none of these."""

ApplicationPattern = Annotated[str, Meta(min_length=1, max_length=63)]


class Match(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=False):
    """Which events the rule is for: all fields must match. An empty ``match`` is for every event."""

    category: Annotated[
        Pattern,
        Meta(
            description="The event's category: exact text or a glob, in which * is any text, ? any character, [abc] "
            "and [a-z] one of these, [!abc] none of these. Case counts. A special character stands for itself in "
            "brackets: [*], [[]."
        ),
    ] = "*"
    name: Annotated[Pattern, Meta(description="The event's name: exact text or a glob, as in category.")] = "*"
    applications: Annotated[
        tuple[ApplicationPattern, ...],
        Meta(
            max_length=64,
            description="Names of the applications that send the events, or globs as in category, of which one must "
            "match. Empty for all applications.",
        ),
    ] = ()


class Validation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One expression, and what its violation says."""

    expression: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=4096,
            description="CEL that gives a bool, nested at most 32 levels deep. It knows event.data, event.category, "
            "event.name, event.application, event.event_id, event.session_id, event.timestamp and event.received_at, "
            "and CEL's extensions strings and optional.",
        ),
    ]
    message: Annotated[
        str, Meta(max_length=MAX_MESSAGE, description="What a violation says. When absent, it shows the expression.")
    ] = ""


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Which events the rule is for and what it demands of them, by at least one of ``schema`` and ``validations``."""

    match: Match
    action: Annotated[
        Action,
        Meta(
            description="What a violation does to its event: with Enforce the event is invalid; with Audit the "
            "violation is recorded and the event stays valid."
        ),
    ] = Action.ENFORCE
    failure_policy: Annotated[
        FailurePolicy,
        Meta(
            description="What it means when the schema or an expression cannot be evaluated for an event: with Fail it "
            "is a violation, with Ignore it is none, but is counted."
        ),
    ] = FailurePolicy.FAIL
    schema: Annotated[
        dict[str, Any] | UnsetType,
        Meta(
            description=f"JSON Schema 2020-12 for the event's data: at most {MAX_SCHEMA_BYTES // 1024} KiB, and "
            f"{MAX_DEPTH} levels with those of the manifest. Formats are checked; $ref reaches into the same schema."
        ),
    ] = UNSET
    validations: Annotated[
        tuple[Validation, ...], Meta(max_length=32, description="Expressions that are true of every valid event.")
    ] = ()


class Metadata(msgspec.Struct, frozen=True):
    """Of Kubernetes' object metadata what the rules need; the rest is not looked at."""

    name: Annotated[
        str, Meta(max_length=253, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
    ]
    namespace: Annotated[str, Meta(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")] = "default"
    generation: Annotated[int, Meta(ge=1, le=2**63 - 1)] = 1
    """Counted up by Kubernetes with every change of the spec; a file may leave it at 1."""
    uid: Annotated[str, Meta(min_length=1, max_length=128)] | UnsetType = UNSET
    """Of the object in Kubernetes: one that is deleted and made again is another, and counts its generations anew."""


class ValidatorRule(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A rule for events: which it is for, and what their ``data`` must be."""

    api_version: Literal["the-eye.io/v1alpha1"]
    kind: Literal["ValidatorRule"]
    metadata: Metadata
    spec: Spec

    @property
    def id(self) -> str:
        """``namespace/name``: what violations, filters and metrics call the rule."""
        return f"{self.metadata.namespace}/{self.metadata.name}"


class FieldError(msgspec.Struct, frozen=True):
    """One thing that is wrong with a rule."""

    path: str
    """The field, such as ``spec.match.category``; empty when it is the text that cannot be read."""
    reason: str
    """Stable, for conditions: ``InvalidFile``, ``InvalidSyntax``, ``InvalidField``, ``InvalidSchema``,
    ``InvalidExpression`` or ``Duplicate``."""
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class RefusedManifest(msgspec.Struct, frozen=True):
    """A document that is no ValidatorRule."""

    id: str | None
    """``namespace/name`` when at least its metadata could be read."""
    document: int
    """Which document of the text it is, from 1."""
    errors: tuple[FieldError, ...]


Manifest: TypeAlias = ValidatorRule | RefusedManifest


def parse_manifests(text: str | bytes) -> tuple[Manifest, ...]:
    """Read every document of a YAML or JSON text. Empty documents are passed over, a ``List`` counts by its items."""
    return tuple(_manifests(text))


def _manifests(text: str | bytes) -> Iterator[Manifest]:
    for document in read_documents(text):
        if isinstance(document, Unreadable):
            yield RefusedManifest(None, document.number, (FieldError("", "InvalidSyntax", document.message),))
        elif document.value is not None:
            for item in _items(document.value):
                yield read_manifest(item, document=document.number)


def _items(value: Any) -> list[Any]:
    """What ``kubectl get -o yaml`` prints for several objects is a list of them."""
    if isinstance(value, dict) and value.get("kind") in ("List", "ValidatorRuleList"):
        items = value.get("items", [])
        return items if isinstance(items, list) else [items]
    return [value]


def read_manifest(value: Any, *, document: int = 1) -> Manifest:
    """Read a decoded object, such as one from Kubernetes' API. Its ``status`` is passed over."""
    if not isinstance(value, dict):
        return RefusedManifest(None, document, (_error("", "a manifest is a mapping"),))
    plain = _without_nulls(value)
    errors = tuple(_errors(plain))
    if errors:
        return RefusedManifest(_id(plain), document, errors)
    return msgspec.convert(plain, ValidatorRule)


def _without_nulls(value: dict[Any, Any]) -> dict[Any, Any]:
    """A field that is null is a field not given, as in Kubernetes; inside a schema null is a value."""
    manifest = _given({**value, "status": None})
    for part in ("metadata", "spec"):
        if isinstance(manifest.get(part), dict):
            manifest[part] = _given(manifest[part])
    spec = manifest.get("spec")
    if isinstance(spec, dict):
        if isinstance(spec.get("match"), dict):
            spec["match"] = _given(spec["match"])
        if isinstance(spec.get("validations"), list):
            spec["validations"] = [_given(item) if isinstance(item, dict) else item for item in spec["validations"]]
    return manifest


def _given(mapping: dict[Any, Any]) -> dict[Any, Any]:
    return {key: value for key, value in mapping.items() if value is not None}


def _id(value: dict[str, Any]) -> str | None:
    try:
        metadata = msgspec.convert(value.get("metadata"), Metadata)
    except msgspec.ValidationError:
        return None
    return f"{metadata.namespace}/{metadata.name}"


def _error(path: str, message: str) -> FieldError:
    return FieldError(path, "InvalidField", message)


def _errors(value: dict[str, Any]) -> Iterator[FieldError]:
    """Find everything that is wrong; what takes sound types is looked for only where the types are sound."""
    errors = (*_struct_errors(value, ValidatorRule, ""), *_value_errors(value.get("spec"), "spec", MAX_DEPTH))
    if errors:
        yield from errors
        return
    spec = msgspec.convert(value["spec"], Spec)
    if spec.schema is UNSET and not spec.validations:
        yield _error("spec", NOTHING_DEMANDED)
    if spec.schema is not UNSET and len(msgspec.json.encode(spec.schema)) > MAX_SCHEMA_BYTES:
        yield _error("spec.schema", f"a schema has at most {MAX_SCHEMA_BYTES} bytes of JSON")
    yield from _match_errors(spec.match)


def _match_errors(match: Match) -> Iterator[FieldError]:
    patterns = {
        "spec.match.category": match.category,
        "spec.match.name": match.name,
        **{f"spec.match.applications[{index}]": pattern for index, pattern in enumerate(match.applications)},
    }
    for path, pattern in patterns.items():
        if has_unclosed_set(pattern):
            yield _error(path, UNCLOSED_SET)


def has_unclosed_set(pattern: str) -> bool:
    """Tell whether a ``[`` has no ``]``, which ``fnmatch`` would take for the character itself."""
    end = 0
    while (start := pattern.find("[", end)) >= 0:
        # As in fnmatch, a ] that comes first, after an optional !, is a member of the set.
        first = start + 2 if pattern.startswith("!", start + 1) else start + 1
        end = pattern.find("]", first + 1)
        if end < 0:
            return True
    return False


def _struct_errors(value: Any, struct: Any, path: str) -> Iterator[FieldError]:
    if not isinstance(value, dict):
        yield _error(path, "expected a mapping")
        return
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    if struct.__struct_config__.forbid_unknown_fields:
        for key in value:
            if key not in fields:
                yield _error(_step(path, key), f"no such field; there are {', '.join(fields)}")
    for name, field in fields.items():
        if name in value:
            yield from _field_errors(value[name], field.type, _step(path, name))
        elif field.required:
            yield _error(_step(path, name), "required")


def _field_errors(value: Any, type_: Any, path: str) -> Iterator[FieldError]:
    plain = get_args(type_)[0] if get_origin(type_) is Annotated else type_
    if isinstance(plain, type) and issubclass(plain, msgspec.Struct):
        yield from _struct_errors(value, plain, path)
        return
    if isinstance(value, list) and Validation in get_args(plain):
        errors = [error for i, item in enumerate(value) for error in _struct_errors(item, Validation, f"{path}[{i}]")]
        if errors:
            yield from errors
            return
    try:
        msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        yield _error(path + place.rstrip("`"), _in_words(message, plain))


def _in_words(message: str, type_: Any) -> str:
    if isinstance(type_, type) and issubclass(type_, Enum):
        return f"expected one of {', '.join(type_)}"
    if get_origin(type_) is Literal:
        return f"expected {get_args(type_)[0]}"
    if "matching regex" in message:
        return "expected lower-case letters, digits and hyphens, as in a name of Kubernetes"
    return message[:1].lower() + message[1:]


def _step(path: str, key: Any) -> str:
    return json_path(path, key).removeprefix(".") if isinstance(key, str) else f"{path}[{key!r}]"


def _value_errors(value: Any, path: str, levels: int) -> Iterator[FieldError]:
    """Find what JSON or PostgreSQL, which stores texts of rules in violations, cannot hold."""
    if isinstance(value, str):
        if "\0" in value or _SURROGATE.search(value):
            yield _error(path, "text holds no NUL and no lone surrogate")
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        yield _error(path, "a whole number has at most 64 bits")
    elif isinstance(value, float) and not abs(value) < float("inf"):
        yield _error(path, "a number is finite")
    elif isinstance(value, dict | list):
        yield from _container_errors(value, path, levels - 1)
    elif value is not None and not isinstance(value, int | float):
        yield _error(path, f"{type(value).__name__} is no type of JSON")


_SURROGATE = re.compile("[\ud800-\udfff]")


def _container_errors(value: dict[Any, Any] | list[Any], path: str, levels: int) -> Iterator[FieldError]:
    if levels < 0:
        yield _error(path, f"nested more than {MAX_DEPTH} levels deep")
        return
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(value, dict) and (not isinstance(key, str) or "\0" in key or _SURROGATE.search(key)):
            yield _error(path, "a key is text, without NUL and lone surrogates")
        else:
            yield from _value_errors(inner, json_path(path, cast("str | int", key)), levels)
