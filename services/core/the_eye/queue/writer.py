"""How the edge puts messages on disk in the queue, and sees how many wait."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import ClassVar

import redis
import redis.asyncio
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from the_eye.queue.backlog import Backlog, ask_backlog, read_backlog
from the_eye.queue.broker import EventBroker
from the_eye.queue.joining import REDIS_ID
from the_eye.queue.message_ids import new_id
from the_eye.queue.messages import EVENTS_QUEUE, TRACE_CONTEXTS, QueuedEvent, events_message
from the_eye.settings import QueueSettings

THREADED_BYTES = 256 * 1024
"""Bytes of events beyond which they are encoded in a thread: compressing 4 MiB takes 20 ms, 256 KiB one."""

log = structlog.get_logger(__name__)


class QueueUnavailableError(Exception):
    """Raised when an event could not be put on disk in the queue; it may or may not have been queued."""


class QueueWriter:
    """Writes messages from an event loop; for the edge.

    It runs Dramatiq's own enqueue script, with the ledger's before it, so that the layout in Redis stays Dramatiq's
    affair: its arguments are those of ``RedisBroker._dispatch``. Dramatiq's broker itself would block the loop, or cost
    two thread switches for every write.
    """

    _NO_MAINTENANCE: ClassVar[tuple[int, int]] = (0, 1)

    def __init__(self, settings: QueueSettings) -> None:
        self._settings = settings
        self._broker = EventBroker(settings)
        self._client = redis.asyncio.Redis.from_url(
            settings.redis_url,
            socket_connect_timeout=settings.queue_timeout_seconds,
            socket_timeout=None,  # _deadline is one for all of it: one for each command makes a task of its writing
            # Once: a connection that the server closed while idle is found out only by using it.
            retry=Retry(NoBackoff(), 1),
        )
        self._dispatch = self._client.register_script(self._broker.enqueue_script)
        self._verified = False
        """Whether this server is known to put every write on disk; doubtful again after every failure."""

    async def put(self, events: Sequence[QueuedEvent], trace_contexts: Sequence[Mapping[str, str]] = ()) -> None:
        """Queue ``events`` as one message, with the contexts of its traced requests; return when they are on disk.

        Raises QueueUnavailableError when that was not confirmed within ``queue_timeout_seconds``.
        """
        redis_message_id = new_id(len(events))
        options: dict[str, object] = {REDIS_ID: redis_message_id}
        if trace_contexts:
            options[TRACE_CONTEXTS] = trace_contexts
        if sum([len(event.body) for event in events]) > THREADED_BYTES:
            message = await asyncio.to_thread(events_message, events)
        else:
            message = events_message(events)
        arguments = (
            "enqueue",
            time.time_ns() // 1_000_000,
            EVENTS_QUEUE,
            self._broker.broker_id,
            self._broker.heartbeat_timeout,
            self._broker.dead_message_ttl,
            *self._NO_MAINTENANCE,
            redis_message_id,
            message.copy(options=options).encode(),
        )
        async with self._deadline():
            if not self._verified:
                await self._verify()
            await self._dispatch(keys=[self._broker.namespace], args=arguments)

    async def backlog(self) -> Backlog:
        """Look at what waits. Raises QueueUnavailableError."""
        async with self._deadline(), self._client.pipeline(transaction=False) as pipeline:
            ask_backlog(pipeline, self._broker)
            return read_backlog(await pipeline.execute())

    async def check(self) -> None:
        """See that the server answers and puts every write on disk.

        Raises QueueUnavailableError with what is wrong.
        """
        async with self._deadline():
            await self._client.ping()
            await self._verify()

    @contextlib.asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._settings.queue_timeout_seconds):
                yield
        except (redis.RedisError, OSError, TimeoutError) as error:
            self._verified = False  # the next answer may come from another server
            raise QueueUnavailableError(str(error) or type(error).__name__) from error

    async def _verify(self) -> None:
        if self._settings.queue_require_durable:
            await self._require_durable()
        self._verified = True

    async def _require_durable(self) -> None:
        try:
            found = await self._client.config_get("appendonly", "appendfsync")
        except redis.ResponseError as error:
            log.warning("queue_durability_unknown", error=str(error))
            return
        wanted = {"appendonly": "yes", "appendfsync": "always"}
        text = {_text(key): _text(value) for key, value in found.items()}
        if text != wanted:
            message = f"the queue may lose events: it has {text} and must have {wanted}"
            raise QueueUnavailableError(message)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
