"""CloudEvents 1.0 over HTTP, made into events: `docs/cloudevents.md` says what becomes of each attribute.

What is no such CloudEvent is left as it is, and refused for the faults that it has as an event.
"""

from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import unquote_to_bytes
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from the_eye_api.ingest import split_array

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
    data: Raw | UnsetType = UNSET


class _Event(msgspec.Struct, frozen=True):
    event_id: UUID
    category: str
    name: str
    session_id: str | UnsetType
    data: Raw | UnsetType
    timestamp: str | UnsetType


_decode = msgspec.json.Decoder(CloudEvent).decode
_decode_data = msgspec.json.Decoder(Raw).decode


def from_structured(body: bytes | Raw) -> bytes:
    """Make the JSON of an event from a CloudEvent in JSON; its ``data`` keep their bytes."""
    try:
        return _event(_decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return bytes(body)


def from_binary(headers: Mapping[bytes, bytes], body: bytes) -> bytes:
    """Make the JSON of an event from a request whose headers are the attributes and whose body is ``data``."""
    attributes = {
        name.removeprefix(_PREFIX).decode("latin-1"): unquote_to_bytes(value).decode(errors="replace")
        for name, value in headers.items()
        if name.startswith(_PREFIX)
    }
    try:
        return _event(msgspec.structs.replace(msgspec.convert(attributes, CloudEvent), data=_decode_data(body)))
    except msgspec.ValidationError:
        return msgspec.json.encode(attributes)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body


def split_cloudevents(body: bytes) -> list[Raw]:
    """Take a batch of CloudEvents apart into events. Raises ProblemError: 400, 413."""
    return [Raw(from_structured(one)) for one in split_array(body)]


def _event(cloud: CloudEvent) -> bytes:
    category, _, name = cloud.type.rpartition(".")
    session = cloud.subject if cloud.sessionid is UNSET else cloud.sessionid
    return msgspec.json.encode(_Event(_event_id(cloud), category or name, name, session, cloud.data, cloud.time))


def _event_id(cloud: CloudEvent) -> UUID:
    """Give the same id to each retry: an ``id`` is unique within its ``source`` only, unless it is a UUID."""
    try:
        return msgspec.convert(cloud.id, UUID)
    except msgspec.ValidationError:
        return uuid5(uuid5(NAMESPACE_URL, cloud.source), cloud.id)
