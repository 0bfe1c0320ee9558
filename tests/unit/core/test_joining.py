"""Which messages are stored together. That they are acknowledged together is shown against the real queue."""

from collections.abc import Callable
from uuid import UUID

import dramatiq
import msgspec
import pytest
from dramatiq.broker import MessageProxy

from the_eye.queue import EnvelopeEncoder, QueuedEvent, events_message
from the_eye.queue.joining import JOINED_BYTES, join, redis_ids
from the_eye.queue.messages import TRACE_CONTEXTS


@pytest.fixture(autouse=True)
def _encoder() -> None:
    dramatiq.set_encoder(EnvelopeEncoder())


def raw(number: int, *, body: bytes = b"{}", **changes: object) -> bytes:
    """Make a message of one event as it lies in Redis."""
    event = QueuedEvent(UUID(int=number), 1, "demo", number, body)
    message = events_message([event]).copy(options={"redis_message_id": f"{number}.1"})
    return message.copy(**changes).encode() if changes else message.encode()


def first(number: int = 1, **changes: object) -> MessageProxy:
    """Make the message that others are joined to."""
    return MessageProxy(dramatiq.Message.decode(raw(number, **changes)))  # type: ignore[arg-type]


def numbers(message: MessageProxy) -> list[int]:
    """Tell the events of a message."""
    return [event.received_at for event in message.args[0].events()]


def test_what_waits_is_joined_in_order() -> None:
    """First come, first stored."""
    following: list[bytes | None] = [raw(2), raw(3)]

    joined = join(first(), following, alone=())

    assert numbers(joined) == [1, 2, 3]
    assert redis_ids(joined) == ["1.1", "2.1", "3.1"]
    assert following == []


def test_the_traced_requests_of_joined_messages_stay_known() -> None:
    """Messages of a version that does not trace are joined as those are that do."""
    traced = {TRACE_CONTEXTS: [{"traceparent": "00-a"}, {"traceparent": "00-b"}]}
    following: list[bytes | None] = [raw(2, options=traced), raw(3)]

    joined = join(first(options={TRACE_CONTEXTS: [{"traceparent": "00-c"}]}), following, alone=())

    assert numbers(joined) == [1, 2, 3]
    assert [each["traceparent"] for each in joined.args[0].trace_contexts] == ["00-c", "00-a", "00-b"]


def test_a_message_that_nothing_follows_stays_as_it_is() -> None:
    """At low load nothing changes."""
    message = first()

    assert join(message, [], alone=()) is message
    assert redis_ids(message) == ["1.1"]


@pytest.mark.parametrize(
    "special",
    [
        lambda: raw(2, actor_name="of_a_later_version"),
        lambda: raw(2, options={"redis_message_id": "2.1", "eta": 5}),
        lambda: raw(2, queue_name="replays"),
        lambda: b"\xc1 no MessagePack",
        lambda: None,
    ],
    ids=["another actor", "an option", "another queue", "no message", "nothing"],
)
def test_what_is_special_stays_by_itself(special: Callable[[], bytes | None]) -> None:
    """And keeps its place: what comes after it is not taken before it."""
    following = [special(), raw(3)]
    before = list(following)

    assert numbers(join(first(), following, alone=())) == [1]
    assert following == before


def test_a_payload_of_another_version_stays_by_itself() -> None:
    """Joined, it would make its neighbours unreadable."""
    envelope = msgspec.msgpack.decode(raw(2))
    following: list[bytes | None] = [msgspec.msgpack.encode({**envelope, "payload": b"\xc1"})]

    assert numbers(join(first(), following, alone=())) == [1]
    assert len(following) == 1


@pytest.mark.parametrize("message_id", ["2", "2.7"], ids=["no number of events", "another number of events"])
def test_a_message_whose_id_does_not_tell_its_events_stays_by_itself(message_id: str) -> None:
    """Joined, the outcomes of its neighbours could not be told from its own."""
    told = raw(2, options={"redis_message_id": message_id})

    assert numbers(join(first(), [told], alone=())) == [1]
    assert numbers(join(MessageProxy(dramatiq.Message.decode(told)), [raw(3)], alone=())) == [2]


def test_a_message_that_failed_in_company_stays_by_itself() -> None:
    """At either place."""
    assert numbers(join(first(), [raw(2)], alone={"2.1"})) == [1]
    assert numbers(join(first(), [raw(2)], alone={"1.1"})) == [1]


def test_the_same_message_twice_is_not_joined() -> None:
    """The second is a redelivery of the first, and is counted as such."""
    again = raw(1)
    message = MessageProxy(dramatiq.Message.decode(again))
    following: list[bytes | None] = [again]

    assert numbers(join(message, following, alone=())) == [1]
    assert following == [again]


def test_joined_messages_are_bounded_in_bytes() -> None:
    """However many wait, a transaction does not grow for ever."""
    body = b'{"%s": 1}' % (b"x" * (JOINED_BYTES // 3))
    following: list[bytes | None] = [raw(number, body=body) for number in range(2, 6)]

    assert numbers(join(first(body=body), following, alone=())) == [1, 2]
    assert len(following) == 3


def test_joined_events_stay_out_of_logs() -> None:
    """As those of a single message do."""
    joined = join(first(), [raw(2, body=b'{"secret": 1}')], alone=())

    assert "secret" not in f"{joined} {joined!r}"
