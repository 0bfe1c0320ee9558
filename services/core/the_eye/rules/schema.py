"""JSON Schema 2020-12 for an event's ``data``: formats are checked, patterns run in linear time, nothing is fetched."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import jsonschema_rs
import msgspec

from the_eye.event import json_path
from the_eye.rules.manifest import cut

DIALECT = "https://json-schema.org/draft/2020-12/schema"

MAX_VIOLATIONS = 20
"""The most violations one schema finds in one event."""

LISTED_BYTES = 16 * 1024
"""Data up to this size has all violations listed, larger data only the first: the library builds a list of every
violation before it gives one, 5 seconds for a megabyte of wrong items."""


class InvalidSchema(msgspec.Struct, frozen=True):
    """A schema that is not one."""

    steps: tuple[str | int, ...]
    """The keys and indexes that lead to the place in the schema."""
    message: str


class Broken(msgspec.Struct, frozen=True):
    """One place where data does not fit a schema."""

    path: str
    keyword: str
    message: str


class Schema:
    """A compiled schema; safe to use in several threads at once."""

    def __init__(self, validator: jsonschema_rs.Draft202012Validator) -> None:
        self._validator = validator
        self.fits: Callable[[dict[str, Any]], bool] = validator.is_valid
        """Whether data fits. Raises ValueError for values that JSON does not have."""

    def broken_by(self, data: dict[str, Any], size: int) -> tuple[Broken, ...]:
        """Find where ``data``, of ``size`` bytes, does not fit. Raises ValueError as ``fits`` does."""
        return tuple(_broken(error) for error in islice(self._errors(data, size), MAX_VIOLATIONS))

    def _errors(self, data: dict[str, Any], size: int) -> Iterator[jsonschema_rs.ValidationError]:
        if size <= LISTED_BYTES:
            yield from self._validator.iter_errors(data)
            return
        try:
            self._validator.validate(data)
        except jsonschema_rs.ValidationError as error:
            yield error


def compile_schema(schema: dict[str, Any]) -> Schema | InvalidSchema:
    """Compile a schema, or say what is wrong with it; never raises."""
    dialect = schema.get("$schema", DIALECT)
    if not isinstance(dialect, str) or dialect.rstrip("#") != DIALECT:
        return InvalidSchema(("$schema",), f"the dialect is {DIALECT}")
    try:
        return Schema(
            jsonschema_rs.Draft202012Validator(
                schema,
                validate_formats=True,
                ignore_unknown_formats=False,  # or a misspelt format would never be checked
                offline=True,  # or a $ref would be fetched
                mask="the value",  # instead of the event's own in messages
                pattern_options=jsonschema_rs.RegexOptions(),  # linear time
            )
        )
    except jsonschema_rs.ValidationError as error:
        return InvalidSchema(tuple(error.instance_path), cut(_why_invalid(error)))
    except Exception as error:  # noqa: BLE001 - whatever it is, it concerns this schema alone
        return InvalidSchema((), cut(str(error).partition("\n")[0]))


def _why_invalid(error: jsonschema_rs.ValidationError) -> str:
    field = error.instance_path[-1] if error.instance_path else ""
    if error.message.endswith('is not a "regex"'):
        return "a regular expression of moderate size, without look-around and backreferences, is expected"
    if field == "type" and error.kind.name == "anyOf":
        return "a type is array, boolean, integer, null, number, object or string, or a list of these"
    return error.message.removesuffix(". Adjust configuration to ignore unrecognized formats")


def _broken(error: jsonschema_rs.ValidationError) -> Broken:
    keyword, message = error.kind.name, error.message
    rule = error.schema_path[-1] if error.schema_path else ""
    if keyword == "falseSchema" and rule == "additionalProperties" and error.schema_path[-2:-1] != ["properties"]:
        keyword, message = "additionalProperties", "the schema allows no properties but those it names"
    elif keyword == "falseSchema":
        message = "the schema allows nothing here"
    elif keyword == "contains":
        message = _CONTAINS.get(str(rule), message)
    elif keyword == "propertyNames":
        message = f"property name {message}"
    return Broken(cut(json_path("$.data", *error.instance_path)), keyword, cut(message))


_CONTAINS = {
    "contains": "no item fits the schema of contains",
    "minContains": "too few items fit the schema of contains",
    "maxContains": "too many items fit the schema of contains",
}
