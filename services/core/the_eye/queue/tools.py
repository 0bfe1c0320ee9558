"""How tools queue events; the edge has a way of its own."""

import contextlib
from collections.abc import Iterator, Sequence

import dramatiq
import redis
from dramatiq.errors import DecodeError

from the_eye.queue.broker import EventBroker
from the_eye.queue.joining import REDIS_ID
from the_eye.queue.message_ids import event_count
from the_eye.queue.messages import EVENTS_QUEUE, REPLAYS_QUEUE, QueuedEvent, events_message
from the_eye.queue.writer import QueueUnavailableError
from the_eye.settings import QueueSettings


def enqueue_events(settings: QueueSettings, events: Sequence[QueuedEvent], queue_name: str = EVENTS_QUEUE) -> None:
    """Queue ``events`` and return when they are on disk; for tools, not for the edge.

    Raises QueueUnavailableError.
    """
    with _tool_broker(settings) as broker:
        broker.put(events_message(events, queue_name), len(events))


def enqueue_message(settings: QueueSettings, raw: bytes) -> None:
    """Queue a whole message again, as it was found among the dead letters, to be taken when nothing fresh waits.

    Raises ValueError when this version cannot decode it, QueueUnavailableError when it cannot be queued.
    """
    with _tool_broker(settings) as broker:
        try:
            message = dramatiq.Message.decode(raw)
        except DecodeError as error:
            text = "this version of The Eye cannot decode the message"
            raise ValueError(text) from error
        broker.put(message.copy(queue_name=REPLAYS_QUEUE), event_count(message.options.get(REDIS_ID, "")))


@contextlib.contextmanager
def _tool_broker(settings: QueueSettings) -> Iterator[EventBroker]:
    broker = EventBroker(settings)
    try:
        with broker.client:
            yield broker
    except redis.RedisError as error:
        raise QueueUnavailableError(str(error)) from error
