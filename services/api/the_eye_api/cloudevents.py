"""CloudEvents 1.0 over HTTP, made into events: `docs/cloudevents.md` says what becomes of each attribute.

What is no such CloudEvent is left as it is, and refused for the faults that it has as an event.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple
from urllib.parse import unquote_to_bytes
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from the_eye_api.ingest import Batch, split_array
from the_eye_api.trace_ids import read_trace_id

STRUCTURED_TYPES = frozenset({"application/cloudevents+json"})
BATCH_TYPES = frozenset({"application/cloudevents-batch+json"})

BINARY_MARK = b"ce-specversion"
"""The header by which a request in binary mode is known."""

_PREFIX = b"ce-"

Attribute = Annotated[str, Meta(min_length=1)]


class CloudEvent(msgspec.Struct, frozen=True):
    """The attributes that an event is made of; others are extensions, which have no place in it."""

    specversion: Literal["1.0"]
    id: Attribute
    source: Attribute
    type: Attribute
    time: str | UnsetType = UNSET
    subject: str | UnsetType = UNSET
    sessionid: str | UnsetType = UNSET
    traceparent: Raw | UnsetType = UNSET
    """Whatever it is, it is no reason to refuse an event, and makes no objects."""
    data: Raw | UnsetType = UNSET


class _Event(msgspec.Struct, frozen=True):
    event_id: UUID
    category: str
    name: str
    session_id: str | UnsetType
    data: Raw | UnsetType
    timestamp: str | UnsetType


class Translated(NamedTuple):
    """What a CloudEvent was made into."""

    body: bytes
    """The JSON of an event."""
    trace_id: UUID | None = None
    """The trace in which it was made, by the extension for distributed tracing; the request's may be a broker's."""


_decode = msgspec.json.Decoder(CloudEvent).decode
_decode_data = msgspec.json.Decoder(Raw).decode
_decode_text = msgspec.json.Decoder(str).decode


def from_structured(body: bytes) -> Translated:
    """Make an event from a CloudEvent in JSON; its ``data`` keep their bytes."""
    try:
        cloud = _decode(body)
        return _event(cloud, _text(cloud.traceparent))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Translated(body)


def from_binary(headers: Mapping[bytes, bytes], body: bytes) -> Translated:
    """Make an event from a request whose headers are the attributes and whose body is ``data``."""
    attributes = {
        name.removeprefix(_PREFIX).decode("latin-1"): unquote_to_bytes(value).decode(errors="replace")
        for name, value in headers.items()
        if name.startswith(_PREFIX)
    }
    traceparent = attributes.pop("traceparent", "")
    try:
        cloud = msgspec.convert(attributes, CloudEvent)
        return _event(msgspec.structs.replace(cloud, data=_decode_data(body)), traceparent)
    except msgspec.ValidationError:
        return Translated(msgspec.json.encode(attributes))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Translated(body)


def split_cloudevents(body: bytes) -> Batch:
    """Take a batch of CloudEvents apart into events. Raises ProblemError: 400, 413."""
    translated = [from_structured(one) for one in split_array(body).bodies]
    return Batch(
        [one.body for one in translated],
        {place: one.trace_id for place, one in enumerate(translated) if one.trace_id is not None},
    )


def _text(given: Raw | UnsetType) -> str:
    try:
        return "" if given is UNSET else _decode_text(given)
    except msgspec.ValidationError:
        return ""


def _event(cloud: CloudEvent, traceparent: str) -> Translated:
    category, _, name = cloud.type.rpartition(".")
    session = cloud.subject if cloud.sessionid is UNSET else cloud.sessionid
    event = _Event(_event_id(cloud), category or name, name, session, cloud.data, cloud.time)
    return Translated(msgspec.json.encode(event), read_trace_id(traceparent))


def _event_id(cloud: CloudEvent) -> UUID:
    """Give the same id to each retry: an ``id`` is unique within its ``source`` only, unless it is a UUID."""
    try:
        return msgspec.convert(cloud.id, UUID)
    except msgspec.ValidationError:
        return uuid5(uuid5(NAMESPACE_URL, cloud.source), cloud.id)
