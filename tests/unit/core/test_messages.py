"""What a message's events look like in the queue."""

from uuid import UUID

import dramatiq
import msgspec
import pytest

from the_eye.compression import zstd
from the_eye.queue import EnvelopeEncoder, Payload, QueuedEvent, events_message
from the_eye.queue.messages import COMPRESSED_BYTES, LARGEST_BYTES, payload_size

BODY = b'{"session_id": "e2085be5-9137-4e4e-80b5-f1ffddc25423", "data": {"n": 1.10}}'


def events(count: int) -> list[QueuedEvent]:
    return [QueuedEvent(UUID(int=number), 1, "demo", number, BODY) for number in range(count)]


@pytest.mark.parametrize("count", [1, 1000])
def test_events_come_out_as_they_went_in(count: int) -> None:
    """Compressed or not, byte for byte."""
    assert Payload.of(events(count)).events() == events(count)


def test_many_events_are_compressed_and_few_are_not() -> None:
    """A few would not become smaller by much."""
    few, many = Payload.of(events(10)), Payload.of(events(1000))

    assert few.size == len(few.encoded) < COMPRESSED_BYTES
    assert many.size > COMPRESSED_BYTES > len(many.encoded)


@pytest.mark.parametrize("count", [1, 1000])
def test_a_message_tells_how_large_its_events_are(count: int) -> None:
    """What is compressed takes as much memory as what is not, once it is taken in hand."""
    dramatiq.set_encoder(EnvelopeEncoder())

    assert payload_size(events_message(events(count)).encode()) == Payload.of(events(count)).size


def test_what_is_no_message_is_as_large_as_it_is() -> None:
    assert payload_size(b"garbage") == 7


@pytest.mark.parametrize(
    "encoded",
    [
        zstd.compress(b"no list of events"),
        zstd.compress(b"\x90")[:-1],
        b"\x28\xb5\x2f\xfd",
        zstd.compress(b"\0" * (LARGEST_BYTES + 1)),
        zstd.compress(b"\x90") + zstd.compress(b"\0" * (LARGEST_BYTES + 1)),
    ],
    ids=["other", "torn", "only begun", "too large", "followed by another"],
)
def test_what_cannot_be_decoded_is_said_so(encoded: bytes) -> None:
    """It is set aside whole, and no small message fills the memory."""
    with pytest.raises(msgspec.MsgspecError):
        Payload(encoded).events()
