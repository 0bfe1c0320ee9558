"""The OpenAPI description of the routes that send events, which the framework does not serve."""

from http import HTTPStatus
from typing import Any

import msgspec
from litestar.openapi.spec import (
    Example,
    OpenAPI,
    OpenAPIHeader,
    OpenAPIMediaType,
    OpenAPIResponse,
    Operation,
    PathItem,
    Reference,
    RequestBody,
    Schema,
)
from litestar.openapi.spec.enums import OpenAPIType

from the_eye.event import MAX_DEPTH, MAX_EVENT_BYTES, Fault, SentEvent
from the_eye_api.body import too_large
from the_eye_api.ingest import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, Accepted, BatchAccepted, queue_unavailable
from the_eye_api.problems import PROBLEM_MEDIA_TYPE, Problem, malformed, problem

EXAMPLE_EVENT: dict[str, Any] = {
    "session_id": "e2085be5-9137-4e4e-80b5-f1ffddc25423",
    "category": "page interaction",
    "name": "cta click",
    "data": {"host": "www.consumeraffairs.com", "path": "/", "element": "chat bubble"},
    "timestamp": "2023-01-01T09:15:27.243860Z",
}
CLOUDEVENT: dict[str, Any] = {
    "type": "object",
    "description": (
        "A CloudEvent 1.0. Its `id` becomes the event_id (the UUIDv5 of source and id unless it is a UUID), its `type` "
        "up to the last dot the category and after it the name, its `time` the timestamp; the session is `sessionid`, "
        "or without that `subject`. Other attributes are not kept."
    ),
    "required": ["specversion", "id", "source", "type", "time", "sessionid", "data"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1},
        "source": {"type": "string", "minLength": 1},
        "type": {"type": "string", "minLength": 1},
        "time": {"type": "string", "format": "date-time"},
        "sessionid": {"type": "string", "format": "uuid"},
        "data": {"type": "object"},
    },
}
_PROBLEMS = {
    "400": (
        "Malformed; `errors` lists every fault with its JSON path",
        malformed((Fault("$.session_id", "invalid_uuid", "session_id is a UUID"),)),
    ),
    "401": ("No live token", problem(HTTPStatus.UNAUTHORIZED, "invalid_token")),
    "403": ("The token lacks the scope `ingest`", problem(HTTPStatus.FORBIDDEN, "insufficient_scope")),
    "408": ("The body did not arrive in time", problem(HTTPStatus.REQUEST_TIMEOUT, "body_timeout")),
    "413": ("Too large", too_large(MAX_EVENT_BYTES)),
    "415": (
        "Content-Type or Content-Encoding is not supported",
        problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
    ),
    "429": (
        "The application sends more than it may: send again after `Retry-After` seconds",
        problem(HTTPStatus.TOO_MANY_REQUESTS, "rate_limited", headers={"Retry-After": "1"}),
    ),
    "503": ("Not certain to be on disk: send again after `Retry-After` seconds", queue_unavailable()),
}
_SHARED_TEXT = (
    "The answer comes when the events are on disk in the queue; what the rules say of them is found out later, "
    "and an event that breaks a rule is stored all the same. An event sent again with the same `event_id` and "
    "`timestamp` counts once, so a retry is free."
)


def document_ingest(schema: OpenAPI) -> None:
    """Add the routes to what the framework described."""
    references, components = _components()
    if schema.components is not None:
        schema.components.schemas.update(components)
    paths = schema.paths if schema.paths is not None else {}
    schema.paths = paths
    paths.setdefault("/events", PathItem()).post = _send_event(references)
    paths.setdefault("/events/batch", PathItem()).post = _send_batch(references)


def _components() -> tuple[dict[type, Any], dict[str, Any]]:
    types = (SentEvent, Accepted, BatchAccepted, Problem)
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    event = components["SentEvent"]
    event["description"] = "An event as an application sends it."
    event["properties"]["data"] = {
        "type": "object",
        "description": f"What happened; nested at most {MAX_DEPTH} levels.",
    }
    event["properties"]["event_id"]["description"] = (
        "Makes a retry free. The server makes one (UUIDv7) when it is left out."
    )
    event["properties"]["timestamp"]["description"] = (
        "When it occurred: RFC 3339, to the microsecond. A space for the T is accepted; without a zone it is UTC."
    )
    event["examples"] = [EXAMPLE_EVENT]
    return dict(zip(types, schemas, strict=True)), components


def _send_event(references: dict[type, Any]) -> Operation:
    return Operation(
        operation_id="SendEvent",
        summary="Send an event",
        description=(
            f"{_SHARED_TEXT} A body has at most {MAX_EVENT_BYTES} bytes, also when it is decompressed. With `ce-*` "
            "headers the request is a CloudEvent in binary mode, and its body that one's `data`."
        ),
        tags=["sending"],
        request_body=_body(
            {"application/json": references[SentEvent], "application/cloudevents+json": CLOUDEVENT}, EXAMPLE_EVENT
        ),
        responses={"202": _answer("Accepted", references[Accepted], {"event_id": EXAMPLE_EVENT["session_id"]})}
        | _problems(references),
    )


def _send_batch(references: dict[type, Any]) -> Operation:
    # One good event is enough: what is wrong with the others is in the answer.
    array = {"type": "array", "contains": references[SentEvent], "minItems": 1, "maxItems": MAX_BATCH_EVENTS}
    lines = {"type": "string", "description": "One event a line."}
    clouds = array | {"contains": CLOUDEVENT}
    return Operation(
        operation_id="SendEvents",
        summary="Send many events",
        description=(
            f"{_SHARED_TEXT} A batch has at most {MAX_BATCH_EVENTS} events and {MAX_BATCH_BYTES} bytes, also when it "
            "is decompressed; a malformed event is refused alone, and only when none is good the answer is 400."
        ),
        tags=["sending"],
        request_body=_body(
            {"application/json": array, "application/x-ndjson": lines, "application/cloudevents-batch+json": clouds},
            [EXAMPLE_EVENT],
        ),
        responses={"202": _answer("Accepted", references[BatchAccepted], {"accepted": 1, "refused": []})}
        | _problems(references),
    )


def _body(schemas: dict[str, Any], example: object) -> RequestBody:
    content = {media_type: OpenAPIMediaType(schema=schema) for media_type, schema in schemas.items()}
    content["application/json"].examples = {"cta-click": Example(summary="A click", value=example)}
    return RequestBody(content=content, required=True)


def _answer(description: str, schema: Any, example: object) -> OpenAPIResponse | Reference:
    media_type = OpenAPIMediaType(schema=schema, examples={"example": Example(value=example)})
    return OpenAPIResponse(description=description, content={"application/json": media_type})


def _problems(references: dict[type, Any]) -> dict[str, OpenAPIResponse | Reference]:
    return {
        status: OpenAPIResponse(
            description=description,
            headers={
                name: OpenAPIHeader(schema=Schema(type=OpenAPIType.STRING), example=value)
                for name, value in error.headers.items()
            },
            content={
                PROBLEM_MEDIA_TYPE: OpenAPIMediaType(
                    schema=references[Problem],
                    examples={"example": Example(value=msgspec.to_builtins(error.problem))},
                )
            },
        )
        for status, (description, error) in _PROBLEMS.items()
    }
