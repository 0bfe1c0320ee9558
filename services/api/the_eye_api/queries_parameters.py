"""The parameters of the queries: how each is read, and how the API's description tells of it.

They are read here and not by the framework, so that every fault of a request is named in one answer, unknown and
repeated parameters included, and so that nothing reaches PostgreSQL that its text cannot hold.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus
from uuid import UUID

import msgspec
from litestar.openapi.spec import Parameter, Schema
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType

from the_eye.event import Fault
from the_eye.store.event_query import DEFAULT_LIMIT, MAX_LIMIT
from the_eye_api.problems import malformed

MAX_FAULTS = 20
MAX_TEXT = 255
MAX_RULE = 512
MAX_CURSOR = 128


class _FaultyError(Exception):
    """Raised for a value that cannot be used."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code)
        self.code = code
        self.message = message


class QueryParameter(msgspec.Struct, frozen=True):
    """A parameter of a query."""

    name: str
    description: str
    read: Callable[[str], Any]
    schema: Schema
    example: str | None = None

    def document(self) -> Parameter:
        """Describe it for OpenAPI."""
        return Parameter(
            name=self.name, param_in="query", description=self.description, schema=self.schema, example=self.example
        )


def read_parameters(query: bytes, known: Sequence[QueryParameter]) -> dict[str, Any]:
    """Read a query string; what is absent is absent from the result.

    Raises ProblemError (400) that names every faulty parameter.
    """
    values, faults = parse_parameters(query, known)
    if faults:
        raise malformed(faults, "The query has faults.")
    return values


def parse_parameters(query: bytes, known: Sequence[QueryParameter]) -> tuple[dict[str, Any], tuple[Fault, ...]]:
    """Read a query string into values and the faults of those that cannot be read, which are None."""
    values: dict[str, Any] = {}
    faults = tuple(_read(query, {parameter.name: parameter for parameter in known}, values))
    return values, faults[:MAX_FAULTS]


def _read(query: bytes, known: Mapping[str, QueryParameter], values: dict[str, Any]) -> Iterator[Fault]:
    for pair in query.decode(errors="surrogateescape").split("&") if query else ():
        raw_name, _, raw_value = pair.partition("=")
        name = unquote_plus(raw_name)
        parameter = known.get(name)
        if parameter is None:
            yield Fault(name[:MAX_TEXT], "unknown_parameter", f"known parameters: {', '.join(known)}")
        elif name in values:
            yield Fault(name, "repeated_parameter", f"{name} is given at most once")
        else:
            values[name] = None
            try:
                values[name] = parameter.read(_text(raw_value))
            except _FaultyError as error:
                yield Fault(name, error.code, error.message)


def _text(raw: str) -> str:
    try:
        text = unquote_plus(raw, errors="strict")
        text.encode()
    except UnicodeError:
        raise _FaultyError("invalid_utf8", "text is UTF-8") from None
    if "\0" in text:
        raise _FaultyError("unstorable_text", "text holds no NUL character")
    return text


def _read_text(text: str) -> str:
    if not 1 <= len(text) <= MAX_TEXT:
        raise _FaultyError("invalid_length", f"a text has 1 to {MAX_TEXT} characters")
    return text


def read_path_uuid(name: str, text: str) -> UUID:
    """Read a UUID that stands in the path.

    Raises ProblemError (400).
    """
    try:
        return _read_uuid(text)
    except _FaultyError as error:
        raise malformed((Fault(name, error.code, error.message),), "The path has a fault.") from error


def _read_uuid(text: str) -> UUID:
    try:
        return msgspec.convert(text, UUID)
    except msgspec.ValidationError:
        raise _FaultyError("invalid_uuid", "a UUID, such as e2085be5-9137-4e4e-80b5-f1ffddc25423") from None


_EATEN_PLUS = re.compile(r"(:\d\d(?:\.\d+)?) (\d\d:\d\d)$")


def read_time(text: str) -> datetime:
    """Read a time as events spell it, and one whose plus was not encoded, and so arrives as a space."""
    try:
        at = msgspec.convert(_EATEN_PLUS.sub(r"\1+\2", text), datetime)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        message = "a date and time as in RFC 3339, such as 2023-01-01T09:15:27Z"
        raise _FaultyError("invalid_timestamp", message) from None


_RULE = re.compile(r"[^/]+/[^/]+")


def _read_rule(text: str) -> str:
    if not _RULE.fullmatch(text) or len(text) > MAX_RULE:
        raise _FaultyError("invalid_rule", "a rule is namespace/name")
    return text


def _read_limit(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_LIMIT)) and 1 <= int(text) <= MAX_LIMIT):
        raise _FaultyError("invalid_limit", f"a number from 1 to {MAX_LIMIT}")
    return int(text)


def _read_cursor(text: str) -> str:
    if not 1 <= len(text) <= MAX_CURSOR:
        raise _FaultyError("invalid_cursor", "the next_cursor of a page")
    return text


def one_of(values: Mapping[str, Any]) -> Callable[[str], Any]:
    """Make what reads one of a few words."""

    def read(text: str) -> Any:
        if text not in values:
            raise _FaultyError("invalid_value", f"one of {', '.join(values)}")
        return values[text]

    return read


_STRING = Schema(type=OpenAPIType.STRING)
_LABEL = Schema(type=OpenAPIType.STRING, min_length=1, max_length=MAX_TEXT)
UUID_SCHEMA = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.UUID)
_TIME = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.DATE_TIME)

LIMIT = QueryParameter(
    "limit",
    "The most events in the answer.",
    _read_limit,
    Schema(type=OpenAPIType.INTEGER, minimum=1, maximum=MAX_LIMIT, default=DEFAULT_LIMIT),
)
CURSOR = QueryParameter(
    "cursor",
    "`next_cursor` of the page before, with the same other parameters; `limit` may differ.",
    _read_cursor,
    Schema(type=OpenAPIType.STRING, max_length=MAX_CURSOR),
)
PAGE_PARAMETERS = (LIMIT, CURSOR)
LIST_PARAMETERS = (
    QueryParameter("session_id", "Events of this session.", _read_uuid, UUID_SCHEMA),
    QueryParameter("category", "Events of this category, spelt exactly so.", _read_text, _LABEL, "page interaction"),
    QueryParameter("name", "Events of this name, spelt exactly so.", _read_text, _LABEL, "cta click"),
    QueryParameter(
        "application",
        "Events of this application; with the scope `read` none but the token's own.",
        _read_text,
        _LABEL,
    ),
    QueryParameter(
        "text",
        "Events that have this in their category or name, in whatever case, or whose id or session begins with it "
        "(8 hexadecimal digits at the least).",
        _read_text,
        _LABEL,
        "click",
    ),
    QueryParameter("from", "Events that occurred at this time or later.", read_time, _TIME, "2023-01-01T00:00:00Z"),
    QueryParameter("to", "Events that occurred before this time.", read_time, _TIME),
    QueryParameter(
        "valid",
        "Events that break an enforced rule (false), or none (true).",
        one_of({"true": True, "false": False}),
        Schema(type=OpenAPIType.BOOLEAN),
    ),
    QueryParameter(
        "rule",
        "Events that break this rule, `namespace/name`, be it enforced or audited.",
        _read_rule,
        _STRING,
        "shop/cta-click-element",
    ),
    QueryParameter(
        "order",
        "By the time the events occurred.",
        one_of({"newest": False, "oldest": True}),
        Schema(type=OpenAPIType.STRING, enum=["newest", "oldest"], default="newest"),
    ),
    *PAGE_PARAMETERS,
)
