"""Messages that wait together are stored together: what group commit is to the edge, this is to the worker.

A lone message is taken at once; of those that follow each other closely, what comes within a moment is taken together
(``consumer.py``). A worker that has fallen behind finds many anyway. They are stored at the price of few: fetching,
acknowledging and a transaction cost as much as 70 events, whatever their number.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import dramatiq
import msgspec
from dramatiq.broker import MessageProxy
from dramatiq.errors import DecodeError

from the_eye.queue.message_ids import event_count
from the_eye.queue.messages import EVENTS_QUEUE, STORE_EVENTS, TRACE_CONTEXTS, Payload, QueuedEvent

JOINED_BYTES = 512 * 1024
"""Payload beyond which no further message is joined: about two thousand events of the usual size."""

REDIS_ID = "redis_message_id"
"""Dramatiq's option of a message that holds its id in Redis."""
_JOINED = "joined_redis_message_ids"


class JoinedPayload(msgspec.Struct, frozen=True):
    """The events of several messages in the order of these; its text form keeps them out of logs."""

    joined: Sequence[QueuedEvent]
    trace_contexts: Sequence[Mapping[str, str]]

    def events(self) -> Sequence[QueuedEvent]:
        """Give them, as ``Payload.events`` does."""
        return self.joined

    def __repr__(self) -> str:
        return f"<{len(self.joined)} events>"


def redis_ids(message: MessageProxy) -> list[str]:
    """List the messages that a message stands for, by their ids in Redis."""
    options: dict[str, Any] = message.options
    return cast("list[str]", options.get(_JOINED) or [options[REDIS_ID]])


def join(first: MessageProxy, following: list[bytes | None], alone: Collection[str]) -> MessageProxy:
    """Join to ``first`` what can be stored together with it, and take that from the front of ``following``.

    Whatever is special about a message, it stays by itself: another actor, further options, a payload that this version
    cannot decode, an id in ``alone`` or one that does not tell its events. So does a message that comes twice, which is
    counted as such.
    """
    if not following or not _is_ordinary(first, alone):
        return first
    size = first.args[0].size
    if size > JOINED_BYTES or (events := _events(first)) is None:
        return first
    ids, message_ids, joined = redis_ids(first), {first.message_id}, list(events)
    contexts = list(first.args[0].trace_contexts)
    while following:
        message = _decoded(following[0])
        if message is None or message.message_id in message_ids or not _is_ordinary(message, alone):
            break
        size += message.args[0].size
        if size > JOINED_BYTES or (events := _events(message)) is None:
            break
        del following[0]
        ids.append(message.options[REDIS_ID])
        message_ids.add(message.message_id)
        joined += events
        contexts += message.args[0].trace_contexts
    if len(ids) == 1:
        return first
    return MessageProxy(first.copy(args=(JoinedPayload(joined, contexts),), options={_JOINED: ids}))


def _decoded(raw: bytes | None) -> MessageProxy | None:
    try:
        return None if raw is None else MessageProxy(dramatiq.Message.decode(raw))
    except DecodeError:
        return None


def _is_ordinary(message: MessageProxy, alone: Collection[str]) -> bool:
    ours = message.actor_name == STORE_EVENTS and message.queue_name == EVENTS_QUEUE
    options = message.options.keys() - {TRACE_CONTEXTS}
    return ours and options == {REDIS_ID} and message.options[REDIS_ID] not in alone


def _events(message: MessageProxy) -> list[QueuedEvent] | None:
    """Decode the events if the message's id tells how many they are: it is how outcomes find their message again."""
    try:
        events = cast("Payload", message.args[0]).events()
    except msgspec.MsgspecError:
        return None
    return events if len(events) == event_count(message.options[REDIS_ID]) else None
