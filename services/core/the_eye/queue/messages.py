"""What is in the queue: Dramatiq messages of many events each, in MessagePack."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from uuid import UUID

import dramatiq
import msgspec
from dramatiq.encoder import Encoder, MessageData
from msgspec import Meta

from the_eye.compression import zstd

EVENTS_QUEUE = "events"
REPLAYS_QUEUE = "replays"
"""What is stored again, when nothing fresh waits."""
STORE_EVENTS = "store_events"
"""Name of the actor that stores a message's events."""
TRACE_CONTEXTS = "trace_contexts"
"""Option of a message that holds the contexts of its traced requests, as ``traceparent`` and ``tracestate``; absent
where none is traced, and from programs that did not trace yet."""

COMPRESSED_BYTES = 16 * 1024
"""Size from which a payload is compressed: some 40 events of the usual size. A large one would hold up whoever writes
to the queue after it, and of a small one hardly anything is gained."""

LARGEST_BYTES = 64 * 1024 * 1024
"""More than any program of ours puts into one payload; see ``ApiSettings.group_max_bytes``."""

_LEVEL = 1
"""Of Zstandard: higher ones make events hardly smaller and take several times as long."""

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
"""What a compressed payload begins with, and a list in MessagePack never does."""


class QueuedEvent(msgspec.Struct, frozen=True, array_like=True):
    """An accepted event on its way to the worker.

    New fields go to the end with a default: workers that are older ignore them, newer ones fill them in.
    """

    event_id: UUID
    application_id: Annotated[int, Meta(ge=0, lt=2**31)]
    """An ``integer`` of PostgreSQL: psycopg would cut off what is beyond."""
    application: str
    received_at: Annotated[int, Meta(ge=0, lt=8 * 10**15)]
    """Microseconds since 1970 in UTC; up to the year 2223 a double of seconds tells them exactly."""
    body: bytes
    """The sender's JSON, byte for byte."""
    trace_id: UUID | None = None
    """The W3C trace that it came with, of which The Eye may have recorded nothing."""


class Payload(msgspec.Struct, frozen=True):
    """The events of a message, encoded; its text form keeps them out of logs."""

    encoded: bytes
    """MessagePack, compressed if there is much of it."""
    trace_contexts: Sequence[Mapping[str, str]] = ()

    @classmethod
    def of(cls, events: Sequence[QueuedEvent]) -> "Payload":
        """Encode ``events``."""
        encoded = _encode(events)
        return cls(encoded if len(encoded) < COMPRESSED_BYTES else zstd.compress(encoded, _LEVEL))

    @property
    def size(self) -> int:
        """Bytes of the events, not compressed."""
        return _size(self.encoded)

    def events(self) -> list[QueuedEvent]:
        """Decode; raises msgspec.MsgspecError when a program of another version wrote something else."""
        if not self.encoded.startswith(_ZSTD_MAGIC):
            return _decode_events(self.encoded)
        return _decode_events(_decompressed(self.encoded))

    def __repr__(self) -> str:
        return f"<{len(self.encoded)} bytes of events>"


class _Envelope(msgspec.Struct, frozen=True):
    """A Dramatiq message, in MessagePack: a payload of bytes costs nothing to pass on, where JSON would escape it."""

    queue_name: str
    actor_name: str
    payload: bytes
    options: dict[str, Any]
    message_id: str
    message_timestamp: int


_encode = msgspec.msgpack.Encoder(uuid_format="bytes").encode
_decode_events = msgspec.msgpack.Decoder(list[QueuedEvent]).decode
_decode_envelope = msgspec.msgpack.Decoder(_Envelope).decode


class EnvelopeEncoder(Encoder):
    """Dramatiq's messages as MessagePack."""

    def encode(self, data: MessageData) -> bytes:
        """Encode a message whose only argument is a ``Payload``."""
        (payload,) = data["args"]
        return _encode(
            _Envelope(
                data["queue_name"],
                data["actor_name"],
                payload.encoded,
                data["options"],
                data["message_id"],
                data["message_timestamp"],
            )
        )

    def decode(self, data: bytes) -> MessageData:
        """Decode what ``encode`` made."""
        envelope = _envelope(data)
        return {
            "queue_name": envelope.queue_name,
            "actor_name": envelope.actor_name,
            "args": (Payload(envelope.payload, _trace_contexts(envelope.options)),),
            "kwargs": {},
            "options": envelope.options,
            "message_id": envelope.message_id,
            "message_timestamp": envelope.message_timestamp,
        }


def _envelope(raw: bytes) -> _Envelope:
    """Decode a message but not its events; raises msgspec.MsgspecError when it is none of ours."""
    try:
        return _decode_envelope(raw)
    except RecursionError as error:
        message = "a message is nested too deep"
        raise msgspec.DecodeError(message) from error


def bodies_of(raw: bytes) -> list[bytes]:
    """Give what the events in a message were sent as; raises msgspec.MsgspecError when it is no message of ours."""
    return [event.body for event in Payload(_envelope(raw).payload).events()]


def payload_size(raw: bytes) -> int:
    """Tell the bytes of the events in a message, not compressed; of what is no message, its own."""
    try:
        return _size(_envelope(raw).payload)
    except msgspec.MsgspecError:
        return len(raw)


def _size(encoded: bytes) -> int:
    if not encoded.startswith(_ZSTD_MAGIC):
        return len(encoded)
    try:
        return zstd.get_frame_info(encoded).decompressed_size or LARGEST_BYTES
    except zstd.ZstdError:
        return len(encoded)


def _decompressed(encoded: bytes) -> bytes:
    """Decompress a payload; raises msgspec.DecodeError when it is none, or no program of ours made it."""
    decompressor = zstd.ZstdDecompressor()
    try:
        decompressed = decompressor.decompress(encoded, LARGEST_BYTES)
    except zstd.ZstdError as error:
        raise msgspec.DecodeError(str(error)) from error
    if not decompressor.eof or decompressor.unused_data:
        message = f"a payload is not whole, or has more than {LARGEST_BYTES} bytes"
        raise msgspec.DecodeError(message)
    return decompressed


def _trace_contexts(options: Mapping[str, Any]) -> Sequence[Mapping[str, str]]:
    """Read them; whatever else stands there must not keep events from being stored."""
    try:
        return msgspec.convert(options.get(TRACE_CONTEXTS, ()), tuple[dict[str, str], ...])
    except msgspec.ValidationError:
        return ()


def events_message(events: Sequence[QueuedEvent], queue_name: str = EVENTS_QUEUE) -> dramatiq.Message[None]:
    """Make the message that has ``events`` stored."""
    return dramatiq.Message(
        queue_name=queue_name, actor_name=STORE_EVENTS, args=(Payload.of(events),), kwargs={}, options={}
    )
