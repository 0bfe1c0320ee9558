"""How a worker takes messages from the queue and gives them back."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, cast

import dramatiq
import redis
import structlog
from dramatiq.broker import MessageProxy
from dramatiq.brokers.redis import _RedisConsumer
from dramatiq.common import compute_backoff
from dramatiq.errors import ConnectionClosed, DecodeError

from the_eye.queue.joining import JOINED_BYTES, join, redis_ids
from the_eye.queue.messages import EVENTS_QUEUE, payload_size

if TYPE_CHECKING:
    from the_eye.queue.broker import EventBroker

HEARTBEATS_PER_TIMEOUT = 5
FETCHED_MESSAGES = 16
"""The most messages that are fetched at once."""

REST_SECONDS = 0.05
"""How long to rest after a fetch that brought little: what comes meanwhile costs hardly more than one event alone."""

ENOUGH_BYTES = JOINED_BYTES // 4
"""What is no longer little, but worth a write to the database."""

OUTCOMES = "outcomes"
"""Option of a message in hand: how its events ended."""

UNFINISHED = "unfinished"
"""Option of a message in hand that must go back instead of being acknowledged."""

log = structlog.get_logger(__name__)


class EventConsumer(_RedisConsumer):
    """Fetches messages, and gives back what it holds without knowing."""

    broker: "EventBroker"

    def __init__(self, broker: "EventBroker", queue_name: str, prefetch: int, timeout: int) -> None:
        super().__init__(broker, queue_name, prefetch, timeout)  # type: ignore[no-untyped-call]
        self._recover_at = 0.0
        self._heartbeat_at = 0.0
        self._rest_until = 0.0
        """Until when what waits is left to become more."""
        self._more_wait = False
        """Whether the last fetch was given all that it asked for, so that there is no need to look for more."""
        self._count = 1
        """How many messages to ask for: few large ones, or many small ones."""
        self._settled = threading.Event()
        """Set when a message in hand is done."""

    def __next__(self) -> MessageProxy | None:
        try:
            if not self.message_cache:
                self._fetch()
                if not self.message_cache:
                    return None
            message: MessageProxy | None = super().__next__()  # type: ignore[no-untyped-call]
        except DecodeError:  # its text holds the message
            log.error("message_not_decoded", queue=self.queue_name)  # noqa: TRY400
            self._recover_at = 0.0
            return None
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise ConnectionClosed(error) from None
        if message is not None:
            message = join(message, self.message_cache, self.broker.alone)
            self.broker.claimed.update(redis_ids(message))
        return message

    def _fetch(self) -> None:
        """Fill the cache if there is room and anything to fetch; else write a heartbeat when due, or wait a moment.

        Where a fetch brought little, the next one comes no sooner than REST_SECONDS later.

        Dramatiq's script writes a heartbeat each time, so on an idle queue every look would cost the server an fsync.
        """
        now = time.monotonic()
        if now >= self._recover_at:
            self.recover()
        self._settled.clear()
        if now < self._rest_until:
            time.sleep(self._rest_until - now)
            now = time.monotonic()
        room = self.outstanding_message_count < self.prefetch
        wanted = self._count if room and self._anything_to_fetch() else 0
        if wanted or now >= self._heartbeat_at:
            self._heartbeat_at = now + self.broker.heartbeat_timeout / 1000 / HEARTBEATS_PER_TIMEOUT
            self.message_cache = self.broker.do_fetch(self.queue_name, wanted)
            self._more_wait = 0 < len(self.message_cache) == wanted
            sizes = [payload_size(raw) for raw in self.message_cache if raw]
            if self.message_cache:
                self._count = self._next_count(sizes)
            if wanted and not self._more_wait and sum(sizes) < ENOUGH_BYTES:
                self._rest_until = now + REST_SECONDS
        elif room:
            self.misses, milliseconds = compute_backoff(self.misses, max_backoff=self.timeout)
            time.sleep(milliseconds / 1000)
        else:
            self._settled.wait(self.timeout / 1000)

    def _anything_to_fetch(self) -> bool:
        return self._more_wait or self._waits(self.queue_name)

    def _waits(self, queue_name: str) -> bool:
        return bool(self.broker.client.llen(self.broker.key(queue_name)))

    def _next_count(self, sizes: Sequence[int]) -> int:
        """Say how many messages to ask for after some of these sizes: as many as can be joined, should they be alike.

        The number grows step by step, so that large ones that begin to come do not fill the memory.
        """
        largest = max(sizes, default=JOINED_BYTES)
        return max(1, min(FETCHED_MESSAGES, 2 * len(sizes), JOINED_BYTES // max(largest, 1)))

    def recover(self) -> None:
        """Give back what the server holds as claimed by this process and this process does not know of.

        Its ids are read first and compared afterwards: a message acknowledged in between is unknown here, but no
        longer claimed there, and dispatch.lua moves claimed messages only.
        """
        self._recover_at = time.monotonic() + self.broker.heartbeat_timeout / 1000
        claims = self.broker.key("__acks__", self.broker.broker_id, self.queue_name)
        held = {raw.decode() for raw in cast("set[bytes]", self.broker.client.smembers(claims))}
        for message_id in held - self.broker.claimed:
            raw = cast("bytes | None", self.broker.client.hget(self.broker.key(self.queue_name, "msgs"), message_id))
            if raw is None or _decodable(raw):
                self.broker.do_requeue(self.queue_name, message_id)
            else:
                self.broker.do_nack(self.queue_name, message_id)

    def ack(self, message: MessageProxy) -> None:
        """Remove a message that is done, and put one that is not back at the end of its queue."""
        if message.options.get(UNFINISHED):
            self.requeue([message])
        else:
            outcomes = message.options.get(OUTCOMES, ())
            self._settle(message, lambda queue, ids: self.broker.acknowledge(queue, ids, outcomes))

    def nack(self, message: MessageProxy) -> None:
        """Make a dead letter of a message."""
        self._settle(message, self.broker.reject)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Put messages back at the end of their queue.

        Raises ConnectionClosed: Dramatiq tries again then, and only then.
        """
        messages = list(messages)
        ids = [each for message in messages for each in redis_ids(message)]
        try:
            if ids:
                self.broker.do_requeue(self.queue_name, *ids)
        except redis.RedisError as error:
            raise ConnectionClosed(error) from None
        for message in messages:
            self._forget(message)

    def close(self) -> None:
        """Give back what was fetched and never handed out."""
        try:
            self.message_cache = []
            self.recover()
        except redis.RedisError as error:
            log.warning("claims_not_returned", queue=self.queue_name, error=str(error))

    def _settle(self, message: MessageProxy, settle: Callable[[str, Sequence[str]], None]) -> None:
        try:
            settle(self.queue_name, redis_ids(message))
        except redis.RedisError as error:  # Dramatiq tries again for lost connections alone
            raise ConnectionClosed(error) from None
        self._forget(message)

    def _forget(self, message: MessageProxy) -> None:
        self.queued_message_ids.discard(message.message_id)
        self.broker.claimed.difference_update(redis_ids(message))
        self._settled.set()


class ReplayConsumer(EventConsumer):
    """Fetches what is replayed, one message at a time and only while no fresh one waits."""

    def __init__(self, broker: "EventBroker", queue_name: str, prefetch: int, timeout: int) -> None:  # noqa: ARG002
        super().__init__(broker, queue_name, 1, timeout)

    def _anything_to_fetch(self) -> bool:
        return self._waits(self.queue_name) and not self._waits(EVENTS_QUEUE)

    def _next_count(self, _: Sequence[int]) -> int:
        return 1


def _decodable(raw: bytes) -> bool:
    try:
        dramatiq.Message.decode(raw)
    except DecodeError:
        return False
    return True
