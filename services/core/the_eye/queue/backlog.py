"""What the queue holds, as its server tells it."""

from collections.abc import Sequence
from typing import Any

import msgspec
from dramatiq.common import dq_name

from the_eye.queue.broker import EventBroker
from the_eye.queue.message_ids import age_seconds
from the_eye.queue.messages import EVENTS_QUEUE, REPLAYS_QUEUE

QUEUES = (EVENTS_QUEUE, REPLAYS_QUEUE)


class Backlog(msgspec.Struct, frozen=True):
    """What the queue holds and no worker has finished: ready, delayed and unacknowledged messages."""

    messages: int
    bytes: int
    """Memory of the messages, estimated by the server from samples."""
    age_seconds: float
    """Since when the oldest ready message has waited; 0 when none is."""


def ask_backlog(pipeline: Any, broker: EventBroker) -> None:
    """Add the commands that ``read_backlog`` needs the answers of to a pipeline of either kind, waiting or not."""
    for name in (name for queue in QUEUES for name in (queue, dq_name(queue))):
        messages = broker.key(name, "msgs")
        pipeline.hlen(messages)
        pipeline.memory_usage(messages, samples=20)
    pipeline.lindex(broker.key(EVENTS_QUEUE), 0)


def read_backlog(answers: Sequence[Any]) -> Backlog:
    """Read the answers to the commands of ``ask_backlog``."""
    *sizes, oldest = answers
    age = 0.0 if oldest is None else age_seconds(oldest.decode())
    return Backlog(sum(sizes[::2]), sum(size or 0 for size in sizes[1::2]), age)
