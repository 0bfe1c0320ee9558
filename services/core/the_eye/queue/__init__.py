"""The queue of accepted events: Dramatiq over Redis, with what would lose or delay events changed on purpose.

One Dramatiq message carries many events. Dramatiq's own defaults are for tasks that may be lost after a while:

- A failed message is retried by enqueueing a copy and then acknowledging the original *even if enqueueing failed*;
  here no message is ever retried that way: the actor finishes it, or it goes back to its queue in one step.
- Dead letters are deleted after 7 days; here never (the worker moves them to ``dead_events``).
- A killed worker's messages are missed after 60 s by one command in a thousand; here after
  ``worker_heartbeat_seconds`` by every fetch.
- What a consumer had fetched when its connection broke, or while the answer was on its way, stays claimed until
  the process ends; here it is given back within seconds.
- A message that cannot be decoded breaks the consumer; here it becomes a dead letter.
- A server out of memory refuses workers as it refuses senders, and so is never drained; here workers go on.
- Workers' own clocks tell who is silent; here it is the server's.
"""

from the_eye.queue.backlog import Backlog
from the_eye.queue.broker import EventBroker, Unfinished, note_outcomes
from the_eye.queue.consumer import EventConsumer
from the_eye.queue.ledger import Outcome
from the_eye.queue.messages import (
    EVENTS_QUEUE,
    REPLAYS_QUEUE,
    STORE_EVENTS,
    EnvelopeEncoder,
    Payload,
    QueuedEvent,
    events_message,
)
from the_eye.queue.tools import enqueue_events, enqueue_message
from the_eye.queue.writer import QueueUnavailableError, QueueWriter

__all__ = [
    "EVENTS_QUEUE",
    "REPLAYS_QUEUE",
    "STORE_EVENTS",
    "Backlog",
    "EnvelopeEncoder",
    "EventBroker",
    "EventConsumer",
    "Outcome",
    "Payload",
    "QueueUnavailableError",
    "QueueWriter",
    "QueuedEvent",
    "Unfinished",
    "enqueue_events",
    "enqueue_message",
    "events_message",
    "note_outcomes",
]
