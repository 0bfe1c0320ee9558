"""Dead letters of the queue become rows: what Dramatiq gave up on is kept where people look for it."""

import threading
from typing import cast

import psycopg
import redis
import structlog

from the_eye.queue import EVENTS_QUEUE, REPLAYS_QUEUE, EventBroker
from the_eye.store.connect import Pool
from the_eye.store.dead_events import DeadEvent, set_aside
from the_eye_worker import metrics

SWEEP_SECONDS = 10.0
BATCH = 100

log = structlog.get_logger(__name__)


class DeadLetterSweep:
    """Moves whole messages that no version of the actor could take from Redis to ``dead_events``."""

    def __init__(self, broker: EventBroker, pool: Pool) -> None:
        self._client = broker.client
        self._queues = [
            (broker.key(name, "XQ"), broker.key(name, "XQ", "msgs")) for name in (EVENTS_QUEUE, REPLAYS_QUEUE)
        ]
        self._pool = pool

    def run(self, stopping: threading.Event) -> None:
        """Sweep every ``SWEEP_SECONDS`` until stopped; a store that is away is tried again the next time."""
        while not stopping.wait(SWEEP_SECONDS):
            try:
                self.sweep()
            except (redis.RedisError, psycopg.Error) as error:
                log.warning("dead_letters_not_swept", error=str(error).partition("\n")[0])
            except Exception:  # the next sweep may succeed; without this thread dead letters would stay unseen
                log.exception("dead_letters_not_swept")

    def sweep(self) -> int:
        """Move what is there and say how many messages that were.

        Each is stored before it is removed; one that is swept twice makes one row.
        """
        return sum(self._sweep(*queue) for queue in self._queues)

    def _sweep(self, dead: str, messages: str) -> int:
        swept = 0
        while ids := cast("list[bytes]", self._client.zrange(dead, 0, BATCH - 1)):
            for message_id in ids:
                self._move(message_id, dead, messages)
            swept += len(ids)
        return swept

    def _move(self, message_id: bytes, dead: str, messages: str) -> None:
        raw = cast("bytes | None", self._client.hget(messages, message_id.decode()))
        if raw is not None:
            letter = DeadEvent(
                kind="message",
                code="dead_letter",
                error="no actor of this version could take the message",
                original=raw,
                queue_id=message_id.decode(),
            )
            with self._pool.connection() as connection:
                set_aside(connection, [letter])
            metrics.DEAD_MESSAGES.inc()
            log.error("message_set_aside", queue_id=letter.queue_id, bytes=len(raw))
        self._client.zrem(dead, message_id)
        self._client.hdel(messages, message_id.decode())
