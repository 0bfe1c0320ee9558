"""Dramatiq's Redis broker with this package's promises."""

from collections.abc import Sequence
from itertools import chain
from typing import cast

import dramatiq
import redis
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import Retry as DramatiqRetry
from dramatiq.middleware import CurrentMessage
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from the_eye.queue.consumer import OUTCOMES, UNFINISHED, EventConsumer, ReplayConsumer
from the_eye.queue.joining import REDIS_ID, redis_ids
from the_eye.queue.ledger import ACCEPTING, Outcome, settling, shares
from the_eye.queue.message_ids import event_count, new_id
from the_eye.queue.messages import REPLAYS_QUEUE, EnvelopeEncoder
from the_eye.settings import QueueSettings

NEVER_MS = 100 * 365 * 24 * 60 * 60 * 1000
EVERY_COMMAND = 1_000_000


class Unfinished(DramatiqRetry):
    """Raised by an actor that must stop before its message is done."""


def note_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Say, inside of an actor, how the events of its message ended, in their order; they are counted with its end."""
    message = cast("MessageProxy", CurrentMessage.get_current_message())
    message.options[OUTCOMES] = outcomes


class _KeepUnfinished(dramatiq.Middleware):
    """Decides what becomes of a message whose actor raised: back to its queue, or a dead letter."""

    def after_process_message(
        self,
        broker: dramatiq.Broker,
        message: MessageProxy,
        *,
        result: object = None,  # noqa: ARG002 - Dramatiq's signature
        exception: BaseException | None = None,
    ) -> None:
        ours = cast("EventBroker", broker)
        if isinstance(exception, Unfinished):
            message.options[UNFINISHED] = True
        elif exception is not None and len(joined := redis_ids(message)) > 1:
            # One of them may be at fault: they come again, and each by itself.
            ours.alone.update(joined)
            message.options[UNFINISHED] = True
        elif exception is not None:
            message.fail()


# Put before Dramatiq's script for workers. What they do frees memory in the end, so they must go on when the server has
# none left: refused like the edge, they would leave it full for ever. And the server's clock tells who is silent, not
# the workers' clocks, which need not agree. (Redis 7 or newer.)
_WORKER_PROLOGUE = b"""#!lua flags=allow-oom
local now = redis.call('time')
ARGV[2] = now[1] * 1000 + math.floor(now[2] / 1000)
"""


class EventBroker(RedisBroker):
    """Dramatiq's Redis broker with this module's promises."""

    def __init__(self, settings: QueueSettings) -> None:
        dramatiq.set_encoder(EnvelopeEncoder())
        super().__init__(  # type: ignore[no-untyped-call]
            client=_client(settings),
            middleware=[_KeepUnfinished(), CurrentMessage()],
            namespace=settings.queue_namespace,
            maintenance_chance=EVERY_COMMAND,
            heartbeat_timeout=int(settings.worker_heartbeat_seconds * 1000),
            dead_message_ttl=NEVER_MS,
        )
        dispatch = cast("bytes", self.scripts["dispatch"].script)
        self.enqueue_script = ACCEPTING + dispatch
        """For the edge: without memory nothing may be added."""
        self.scripts["dispatch"] = self.client.register_script(_WORKER_PROLOGUE + ACCEPTING + dispatch)
        self._settle = self.client.register_script(_WORKER_PROLOGUE + settling(dispatch))
        self.claimed: set[str] = set()
        """Redis ids of the messages that this process has in hand."""
        self.alone: set[str] = set()
        """Redis ids of messages that must not be joined with others again; forgotten when this process is done with
        them, and kept where another one was."""

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """Make a consumer; ``timeout`` in milliseconds."""
        consumer = ReplayConsumer if queue_name == REPLAYS_QUEUE else EventConsumer
        return consumer(self, queue_name, prefetch, timeout)

    def put(self, message: dramatiq.Message[None], events: int | None) -> None:
        """Queue a message of so many events; None where nobody knows how many. Raises redis.RedisError."""
        message_id = new_id(events)
        self.do_enqueue(message.queue_name, message_id, message.copy(options={REDIS_ID: message_id}).encode())

    def acknowledge(self, queue_name: str, redis_message_ids: Sequence[str], outcomes: Sequence[Outcome] = ()) -> None:
        """Remove messages that are done and count how their events ended, in one write. Raises redis.RedisError."""
        self._settle_all("ack", queue_name, redis_message_ids, outcomes)

    def reject(self, queue_name: str, redis_message_ids: Sequence[str]) -> None:
        """Make dead letters of messages and count their events as dead. Raises redis.RedisError."""
        events = sum(event_count(message_id) or 0 for message_id in redis_message_ids)
        self._settle_all("nack", queue_name, redis_message_ids, [Outcome.DEAD] * events)

    def do_nack(self, queue_name: str, *redis_message_ids: str) -> None:
        """As ``reject``: for Dramatiq, which would have its own script do it."""
        self.reject(queue_name, redis_message_ids)

    def _settle_all(
        self, command: str, queue_name: str, redis_message_ids: Sequence[str], outcomes: Sequence[Outcome]
    ) -> None:
        """Run Dramatiq's script for each message, with the arguments of ``RedisBroker._dispatch``."""
        fixed = [command, 0, queue_name, self.broker_id, self.heartbeat_timeout, self.dead_message_ttl, 0, 1]
        messages = zip(redis_message_ids, shares(redis_message_ids, outcomes), strict=True)
        self._settle(keys=[self.namespace], args=[*fixed, *chain.from_iterable(messages)])
        self.alone.difference_update(redis_message_ids)

    def key(self, *parts: str) -> str:
        """Name a key as Dramatiq's dispatch.lua does."""
        return ".".join((f"{self.namespace}:{parts[0]}", *parts[1:]))


def _client(settings: QueueSettings) -> redis.Redis:
    return redis.Redis.from_url(
        settings.redis_url,
        socket_timeout=settings.queue_timeout_seconds,
        socket_connect_timeout=settings.queue_timeout_seconds,
        retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), 3),
    )
