"""Dramatiq's Redis broker with this package's promises."""

from collections.abc import Sequence
from typing import cast

import dramatiq
import redis
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import Retry as DramatiqRetry
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from the_eye.queue.consumer import UNFINISHED, EventConsumer, ReplayConsumer
from the_eye.queue.joining import redis_ids
from the_eye.queue.messages import REPLAYS_QUEUE, EnvelopeEncoder
from the_eye.settings import QueueSettings

NEVER_MS = 100 * 365 * 24 * 60 * 60 * 1000
EVERY_COMMAND = 1_000_000


class Unfinished(DramatiqRetry):
    """Raised by an actor that must stop before its message is done."""


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
            middleware=[_KeepUnfinished()],
            namespace=settings.queue_namespace,
            maintenance_chance=EVERY_COMMAND,
            heartbeat_timeout=int(settings.worker_heartbeat_seconds * 1000),
            dead_message_ttl=NEVER_MS,
        )
        self.enqueue_script = cast("bytes", self.scripts["dispatch"].script)
        """Dramatiq's script as it is: without memory nothing may be added."""
        self.scripts["dispatch"] = self.client.register_script(_WORKER_PROLOGUE + self.enqueue_script)
        self.claimed: set[str] = set()
        """Redis ids of the messages that this process has in hand."""
        self.alone: set[str] = set()
        """Redis ids of messages that must not be joined with others again; forgotten when this process is done with
        them, and kept where another one was."""

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """Make a consumer; ``timeout`` in milliseconds."""
        consumer = ReplayConsumer if queue_name == REPLAYS_QUEUE else EventConsumer
        return consumer(self, queue_name, prefetch, timeout)

    def acknowledge(self, queue_name: str, redis_message_ids: Sequence[str]) -> None:
        """Remove messages that are done, in one write. Raises redis.RedisError."""
        self._for_each("ack", queue_name, redis_message_ids)

    def reject(self, queue_name: str, redis_message_ids: Sequence[str]) -> None:
        """Make dead letters of messages. Raises redis.RedisError."""
        self._for_each("nack", queue_name, redis_message_ids)

    def _for_each(self, command: str, queue_name: str, redis_message_ids: Sequence[str]) -> None:
        """Run Dramatiq's script for each message, with the arguments of ``RedisBroker._dispatch``."""
        fixed = [command, 0, queue_name, self.broker_id, self.heartbeat_timeout, self.dead_message_ttl, 0, 1]
        dispatch, keys = self.scripts["dispatch"], [self.namespace]
        if len(redis_message_ids) == 1:
            dispatch(keys=keys, args=[*fixed, *redis_message_ids])
        else:
            with self.client.pipeline(transaction=False) as pipeline:
                for message_id in redis_message_ids:
                    dispatch(keys=keys, args=[*fixed, message_id], client=pipeline)
                pipeline.execute()
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
