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

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Annotated, Any, ClassVar, Protocol, cast
from uuid import UUID

import dramatiq
import msgspec
import redis
import redis.asyncio
import structlog
import uuid_utils
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer
from dramatiq.common import compute_backoff, dq_name
from dramatiq.encoder import Encoder, MessageData
from dramatiq.errors import ConnectionClosed, DecodeError
from dramatiq.errors import Retry as DramatiqRetry
from msgspec import Meta
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

from the_eye.settings import QueueSettings

EVENTS_QUEUE = "events"
STORE_EVENTS = "store_events"
"""Name of the actor that stores a message's events."""

NEVER_MS = 100 * 365 * 24 * 60 * 60 * 1000
EVERY_COMMAND = 1_000_000
HEARTBEATS_PER_TIMEOUT = 5

log = structlog.get_logger(__name__)


class QueueUnavailableError(Exception):
    """Raised when an event could not be put on disk in the queue; it may or may not have been queued."""


class QueuedEvent(msgspec.Struct, frozen=True, array_like=True):
    """An accepted event on its way to the worker.

    New fields go to the end with a default: workers that are older ignore them, newer ones fill them in.
    """

    event_id: UUID
    application_id: Annotated[int, Meta(ge=0, lt=2**31)]
    """An ``integer`` of PostgreSQL: psycopg would cut off what is beyond."""
    application: str
    received_at: Annotated[int, Meta(ge=0, lt=8 * 10**15)]
    """Microseconds since 1970 in UTC; up to the year 2223 a double of seconds tells them exactly."""
    body: bytes
    """The sender's JSON, byte for byte."""


class Backlog(msgspec.Struct, frozen=True):
    """What the queue holds and no worker has finished: ready, delayed and unacknowledged messages."""

    messages: int
    bytes: int
    """Memory of the messages, estimated by the server from samples."""
    age_seconds: float
    """Since when the oldest ready message has waited; 0 when none is."""


class Payload(msgspec.Struct, frozen=True):
    """The events of a message, encoded; its text form keeps them out of logs."""

    encoded: bytes

    @classmethod
    def of(cls, events: Sequence[QueuedEvent]) -> "Payload":
        """Encode ``events``."""
        return cls(_encode(events))

    def events(self) -> list[QueuedEvent]:
        """Decode; raises msgspec.MsgspecError when a program of another version wrote something else."""
        return _decode_events(self.encoded)

    def __repr__(self) -> str:
        return f"<{len(self.encoded)} bytes of events>"


class _Envelope(msgspec.Struct, frozen=True):
    """A Dramatiq message, in MessagePack: a payload of bytes costs nothing to pass on, where JSON would escape it."""

    queue_name: str
    actor_name: str
    payload: bytes
    options: dict[str, Any]
    message_id: str
    message_timestamp: int


_encode = msgspec.msgpack.Encoder(uuid_format="bytes").encode
_decode_events = msgspec.msgpack.Decoder(list[QueuedEvent]).decode
_decode_envelope = msgspec.msgpack.Decoder(_Envelope).decode


class EnvelopeEncoder(Encoder):
    """Dramatiq's messages as MessagePack."""

    def encode(self, data: MessageData) -> bytes:
        """Encode a message whose only argument is a ``Payload``."""
        (payload,) = data["args"]
        return _encode(
            _Envelope(
                data["queue_name"],
                data["actor_name"],
                payload.encoded,
                data["options"],
                data["message_id"],
                data["message_timestamp"],
            )
        )

    def decode(self, data: bytes) -> MessageData:
        """Decode what ``encode`` made."""
        envelope = _decode_envelope(data)
        return {
            "queue_name": envelope.queue_name,
            "actor_name": envelope.actor_name,
            "args": (Payload(envelope.payload),),
            "kwargs": {},
            "options": envelope.options,
            "message_id": envelope.message_id,
            "message_timestamp": envelope.message_timestamp,
        }


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
        if isinstance(exception, Unfinished):
            cast("EventBroker", broker).unfinished.add(message.options["redis_message_id"])
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
        self.unfinished: set[str] = set()
        """Redis ids of messages in hand that must go back instead of being acknowledged."""

    @property
    def consumer_class(self) -> type[Consumer]:
        """What ``consume`` makes."""
        return EventConsumer

    def key(self, *parts: str) -> str:
        """Name a key as Dramatiq's dispatch.lua does."""
        return ".".join((f"{self.namespace}:{parts[0]}", *parts[1:]))


class EventConsumer(_RedisConsumer):
    """Fetches messages, and gives back what it holds without knowing."""

    broker: EventBroker

    def __init__(self, broker: EventBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        super().__init__(broker, queue_name, prefetch, timeout)  # type: ignore[no-untyped-call]
        self._recover_at = 0.0
        self._heartbeat_at = 0.0

    def __next__(self) -> MessageProxy | None:
        try:
            if not self.message_cache:
                if time.monotonic() >= self._recover_at:
                    self.recover()
                if self._nothing_to_do():
                    return None
            message: MessageProxy | None = super().__next__()  # type: ignore[no-untyped-call]
        except DecodeError:  # its text holds the message
            log.error("message_not_decoded", queue=self.queue_name)  # noqa: TRY400
            self._recover_at = 0.0
            return None
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise ConnectionClosed(error) from None
        if message is not None:
            self.broker.claimed.add(message.options["redis_message_id"])
        return message

    def _nothing_to_do(self) -> bool:
        """See whether there is reason to run Dramatiq's script, and wait a moment if there is none.

        The script writes a heartbeat, so on an idle queue every look would cost the server an fsync.
        """
        now = time.monotonic()
        if now >= self._heartbeat_at or self.broker.client.llen(self.broker.key(self.queue_name)):
            self._heartbeat_at = now + self.broker.heartbeat_timeout / 1000 / HEARTBEATS_PER_TIMEOUT
            return False
        self.misses, milliseconds = compute_backoff(self.misses, max_backoff=self.timeout)
        time.sleep(milliseconds / 1000)
        return True

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
        message_id = message.options["redis_message_id"]
        if message_id in self.broker.unfinished:
            self.requeue([message])
            self.broker.unfinished.discard(message_id)
        else:
            self._settle(super().ack, message)

    def nack(self, message: MessageProxy) -> None:
        """Make a dead letter of a message."""
        self._settle(super().nack, message)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Put messages back at the end of their queue."""
        messages = list(messages)
        super().requeue(messages)  # type: ignore[no-untyped-call]
        for message in messages:
            self.queued_message_ids.discard(message.message_id)
            self.broker.claimed.discard(message.options["redis_message_id"])

    def close(self) -> None:
        """Give back what was fetched and never handed out."""
        try:
            self.message_cache = []
            self.recover()
        except redis.RedisError as error:
            log.warning("claims_not_returned", queue=self.queue_name, error=str(error))

    def _settle(self, settle: "_Settle", message: MessageProxy) -> None:
        try:
            settle(message)
        except redis.RedisError as error:  # Dramatiq tries again for lost connections alone
            raise ConnectionClosed(error) from None
        self.broker.claimed.discard(message.options["redis_message_id"])


class _Settle(Protocol):
    def __call__(self, message: MessageProxy) -> None: ...


def _decodable(raw: bytes) -> bool:
    try:
        dramatiq.Message.decode(raw)
    except DecodeError:
        return False
    return True


def _client(settings: QueueSettings) -> redis.Redis:
    return redis.Redis.from_url(
        settings.redis_url,
        socket_timeout=settings.queue_timeout_seconds,
        socket_connect_timeout=settings.queue_timeout_seconds,
        retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), 3),
    )


def events_message(events: Sequence[QueuedEvent]) -> dramatiq.Message[None]:
    """Make the message that has ``events`` stored."""
    return dramatiq.Message(
        queue_name=EVENTS_QUEUE, actor_name=STORE_EVENTS, args=(Payload.of(events),), kwargs={}, options={}
    )


def enqueue_events(settings: QueueSettings, events: Sequence[QueuedEvent]) -> None:
    """Queue ``events`` and return when they are on disk; for tools, not for the edge.

    Raises QueueUnavailableError.
    """
    with _tool_broker(settings) as broker:
        broker.enqueue(events_message(events))


def enqueue_message(settings: QueueSettings, raw: bytes) -> None:
    """Queue a whole message again, as it was found among the dead letters.

    Raises ValueError when this version cannot decode it, QueueUnavailableError when it cannot be queued.
    """
    with _tool_broker(settings) as broker:
        try:
            message = dramatiq.Message.decode(raw)
        except DecodeError as error:
            text = "this version of The Eye cannot decode the message"
            raise ValueError(text) from error
        broker.enqueue(message)


@contextlib.contextmanager
def _tool_broker(settings: QueueSettings) -> Iterator[EventBroker]:
    broker = EventBroker(settings)
    try:
        with broker.client:
            yield broker
    except redis.RedisError as error:
        raise QueueUnavailableError(str(error)) from error


class QueueWriter:
    """Writes messages from an event loop; for the edge.

    It runs Dramatiq's own enqueue script, so that the layout in Redis stays Dramatiq's affair: its arguments are
    those of ``RedisBroker._dispatch``. Dramatiq's broker itself would block the loop, or cost two thread switches
    for every write.
    """

    _NO_MAINTENANCE: ClassVar[tuple[int, int]] = (0, 1)

    def __init__(self, settings: QueueSettings) -> None:
        self._settings = settings
        self._broker = EventBroker(settings)
        self._client = redis.asyncio.Redis.from_url(
            settings.redis_url,
            socket_connect_timeout=settings.queue_timeout_seconds,
            # Once: a connection that the server closed while idle is found out only by using it.
            retry=Retry(NoBackoff(), 1),
        )
        self._dispatch = self._client.register_script(self._broker.enqueue_script)
        self._verified = False
        """Whether this server is known to put every write on disk; doubtful again after every failure."""

    async def put(self, events: Sequence[QueuedEvent]) -> None:
        """Queue ``events`` as one message and return when they are on disk.

        Raises QueueUnavailableError when that was not confirmed within ``queue_timeout_seconds``.
        """
        redis_message_id = str(uuid_utils.uuid7())  # tells the message's age
        message = events_message(events).copy(options={"redis_message_id": redis_message_id})
        arguments = (
            "enqueue",
            time.time_ns() // 1_000_000,
            EVENTS_QUEUE,
            self._broker.broker_id,
            self._broker.heartbeat_timeout,
            self._broker.dead_message_ttl,
            *self._NO_MAINTENANCE,
            redis_message_id,
            message.encode(),
        )
        async with self._deadline():
            if not self._verified:
                await self._verify()
            await self._dispatch(keys=[self._broker.namespace], args=arguments)

    async def backlog(self) -> Backlog:
        """Look at what waits. Raises QueueUnavailableError."""
        queues = [self._broker.key(name, "msgs") for name in (EVENTS_QUEUE, dq_name(EVENTS_QUEUE))]
        async with self._deadline(), self._client.pipeline(transaction=False) as pipeline:
            for queue in queues:
                pipeline.hlen(queue)
                pipeline.memory_usage(queue, samples=20)
            pipeline.lindex(self._broker.key(EVENTS_QUEUE), 0)
            *sizes, oldest = await pipeline.execute()
        return Backlog(sum(sizes[::2]), sum(size or 0 for size in sizes[1::2]), _age_seconds(oldest))

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


def _age_seconds(message_id: bytes | None) -> float:
    """Read the age of a message from its id; those that Dramatiq or a tool has queued do not tell theirs."""
    if message_id is None:
        return 0.0
    try:
        made_at = uuid_utils.UUID(message_id.decode()).timestamp
    except ValueError:
        return 0.0
    return max(0.0, time.time() - made_at / 1000)


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
