"""What the API's description tells of the queries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, ClassVar
from uuid import UUID

import msgspec
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example, OpenAPIHeader, OpenAPIResponse, Operation, Parameter, Schema
from litestar.openapi.spec.enums import OpenAPIType

from the_eye.event import Fault
from the_eye.verdict import Action, Violation
from the_eye_api.problems import PROBLEM_MEDIA_TYPE, Problem, ProblemError, malformed, problem, unavailable
from the_eye_api.queries_parameters import LIST_PARAMETERS, PAGE_PARAMETERS, UUID_SCHEMA, QueryParameter

EXAMPLE_EVENT: dict[str, Any] = {
    "event_id": "0197d4a1-6a35-7c4e-9b1a-0d3f5a8e2c11",
    "session_id": "e2085be5-9137-4e4e-80b5-f1ffddc25423",
    "application": "shop",
    "category": "page interaction",
    "name": "cta click",
    "data": {"host": "www.consumeraffairs.com", "path": "/", "element": "banner"},
    "timestamp": "2023-01-01T09:15:27.243860Z",
    "received_at": "2023-01-01T09:15:27.911204Z",
    "stored_at": "2023-01-01T09:15:27.934871Z",
    "valid": False,
    "violations": [
        msgspec.to_builtins(
            Violation(
                rule="shop/cta-click-element",
                generation=3,
                action=Action.ENFORCE,
                path="$.data.element",
                code="schema.enum",
                message="must be one of 'chat bubble', 'buy button'",
            )
        )
    ],
    "ruleset": "sha256:9f2c4e1b7a6d5c3f8e0b1a2d3c4f5e6a7b8c9d0e1f2a3b4c5d6e7f8a9b0c1d2e",
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
}
EXAMPLE_PAGE = {"events": [EXAMPLE_EVENT], "next_cursor": "AQAF8X0nTm7UAZfUoWo1fE6bGg0_Wo4sEebCYvFxh3Tb"}

_FIELDS: Mapping[str, tuple[Any, str]] = {
    "event_id": (UUID, "The sender's, or the one that the answer to the sender named."),
    "session_id": (UUID, ""),
    "application": (str, "The sender."),
    "category": (str, ""),
    "name": (str, ""),
    "data": (dict[str, Any], "The sender's JSON object, exactly as it was sent."),
    "timestamp": (datetime, "When it occurred, by the sender's clock."),
    "received_at": (datetime, "When it was accepted."),
    "stored_at": (datetime, "When it was checked and stored."),
    "valid": (bool, "False when it breaks an enforced rule."),
    "violations": (list[Violation], "Every broken rule; those that are only audited leave the event valid."),
    "ruleset": (str, "Revision of the ruleset that judged it."),
    "trace_id": (str | None, "The W3C trace that it came with, of 32 hexadecimal digits; null where there was none."),
}


def _documented(name: str, fields: Mapping[str, tuple[Any, str]]) -> type[msgspec.Struct]:
    annotated = [(field, Annotated[type_, msgspec.Meta(description=text)]) for field, (type_, text) in fields.items()]
    return msgspec.defstruct(name, annotated)


# StoredEvent and EventPage as they look on the wire, where the JSON that they pass on as bytes has types of its own.
DocumentedEvent = _documented("StoredEvent", _FIELDS)
DocumentedPage = _documented(
    "EventPage",
    {
        "events": (list[DocumentedEvent], "At most `limit`; fewer when they are large."),  # type: ignore[valid-type]
        "next_cursor": (str | None, "The next page's `cursor`; null on the last page."),
    },
)


@dataclass
class _Query(Operation):
    """An operation whose query parameters the framework does not know, since it does not read them."""

    query_parameters: ClassVar[Sequence[QueryParameter]] = ()

    def __post_init__(self) -> None:
        in_path = [parameter for parameter in self.parameters or [] if isinstance(parameter, Parameter)]
        for parameter in in_path:
            parameter.schema = UUID_SCHEMA
        self.parameters = [*in_path, *(parameter.document() for parameter in self.query_parameters)]
        for status, name, value in (("401", "WWW-Authenticate", 'Bearer realm="the-eye"'), ("503", "Retry-After", "2")):
            response = (self.responses or {}).get(status)
            if isinstance(response, OpenAPIResponse):
                response.headers = {name: OpenAPIHeader(schema=Schema(type=OpenAPIType.STRING), example=value)}


class _ListQuery(_Query):
    query_parameters = LIST_PARAMETERS


class _PageQuery(_Query):
    query_parameters = PAGE_PARAMETERS


def _answer(type_: type, example: object) -> ResponseSpec:
    return ResponseSpec(
        type_,
        generate_examples=False,
        description="Found",
        examples=[Example(summary="An invalid event", value=example)],
    )


def _problem(description: str, error: ProblemError) -> ResponseSpec:
    return ResponseSpec(
        Problem,
        generate_examples=False,
        description=description,
        media_type=PROBLEM_MEDIA_TYPE,
        examples=[Example(summary=error.problem.code, value=msgspec.to_builtins(error.problem))],
    )


_MALFORMED = _problem(
    "Malformed; `errors` lists every faulty parameter",
    malformed((Fault("limit", "invalid_limit", "a number from 1 to 200"),), "The query has faults."),
)
_UNAUTHORIZED = _problem("No live token", problem(HTTPStatus.UNAUTHORIZED, "invalid_token"))
_FORBIDDEN = _problem(
    "The token lacks the scope `read` or `admin`, or may not see this application",
    problem(HTTPStatus.FORBIDDEN, "other_application"),
)
_UNFIT = _problem(
    "The parameters do not fit together, or the cursor does not fit them",
    problem(HTTPStatus.UNPROCESSABLE_ENTITY, "cursor_mismatch"),
)
_UNAVAILABLE = _problem(
    "The database is away or the query too slow: ask again after `Retry-After` seconds",
    unavailable("database_unavailable", "Events cannot be read just now; they are accepted still."),
)
_SHARED = {400: _MALFORMED, 401: _UNAUTHORIZED, 403: _FORBIDDEN, 503: _UNAVAILABLE}

_PAGES = (
    "Pages are cut by position, not by number: each costs the same, and events that arrive meanwhile move nothing. "
    "An event can be read within about a second of being accepted."
)

LIST_DOCS: dict[str, Any] = {
    "operation_id": "ListEvents",
    "operation_class": _ListQuery,
    "summary": "List events",
    "description": f"Lists the events that fit all given parameters, newest first unless `order` says else. {_PAGES}",
    "tags": ["reading"],
    "responses": {200: _answer(DocumentedPage, EXAMPLE_PAGE), **_SHARED, 422: _UNFIT},
}
EVENT_DOCS: dict[str, Any] = {
    "operation_id": "GetEvent",
    "operation_class": _Query,
    "summary": "Show an event",
    "description": "Shows an event with its verdict; of several that were sent with the same id, the latest.",
    "tags": ["reading"],
    "responses": {
        200: _answer(DocumentedEvent, EXAMPLE_EVENT),
        **_SHARED,
        404: _problem("No such event, or not the token's to see", problem(HTTPStatus.NOT_FOUND, "unknown_event")),
    },
}
SESSION_DOCS: dict[str, Any] = {
    "operation_id": "ListSessionEvents",
    "operation_class": _PageQuery,
    "summary": "List a session's events",
    "description": f"Lists a session's events in the order they occurred. {_PAGES}",
    "tags": ["reading"],
    "responses": {200: _answer(DocumentedPage, EXAMPLE_PAGE), **_SHARED, 422: _UNFIT},
}
