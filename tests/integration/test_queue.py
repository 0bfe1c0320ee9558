"""The queue against a real Valkey: nothing that was put there is lost, whatever happens to those who take from it."""

import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast
from uuid import UUID, uuid4

import dramatiq
import msgspec
import pytest
import redis
from dramatiq.broker import MessageProxy
from dramatiq.errors import ConnectionClosed
from dramatiq.worker import Worker
from tests.servers import Valkey, wait_until

from the_eye.queue import (
    EVENTS_QUEUE,
    REPLAYS_QUEUE,
    STORE_EVENTS,
    EventBroker,
    Payload,
    QueuedEvent,
    QueueUnavailableError,
    QueueWriter,
    Unfinished,
    enqueue_events,
    enqueue_message,
    events_message,
)
from the_eye.queue.consumer import REST_SECONDS
from the_eye.settings import QueueSettings

DEADLINE = 20.0


@pytest.fixture
def settings(queue_settings: QueueSettings) -> QueueSettings:
    """Take silence of a second for death, so that tests need not wait long."""
    return msgspec.structs.replace(queue_settings, worker_heartbeat_seconds=1.0, queue_timeout_seconds=1.0)


class Taken:
    """What an actor was given."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.messages: list[list[int]] = []
        self.fault: Callable[[list[int]], None] = lambda _: None

    def take(self, payload: Payload) -> None:
        """Note the events of a message, unless the test wants a fault."""
        numbers = [event.received_at for event in payload.events()]
        self.fault(numbers)
        self.numbers += numbers
        self.messages.append(numbers)


@pytest.fixture
def taken() -> Taken:
    """Nothing yet."""
    return Taken()


@asynccontextmanager
async def writing(settings: QueueSettings) -> AsyncIterator[QueueWriter]:
    """Write as the edge does."""
    writer = QueueWriter(settings)
    try:
        yield writer
    finally:
        await writer.close()


@contextmanager
def working(settings: QueueSettings, taken: Taken, threads: int = 2) -> Iterator[EventBroker]:
    """Run a worker that hands every message to ``taken``."""
    broker = EventBroker(settings)
    dramatiq.actor(actor_name=STORE_EVENTS, queue_name=EVENTS_QUEUE, broker=broker)(taken.take)
    broker.declare_queue(REPLAYS_QUEUE)
    worker = Worker(broker, worker_threads=threads, worker_timeout=50)
    worker.start()
    try:
        yield broker
    finally:
        worker.stop(timeout=5000)
        broker.client.close()


def events(*numbers: int) -> list[QueuedEvent]:
    """Make events that are known by their numbers."""
    return [QueuedEvent(uuid4(), 1, "demo", number, b"{}") for number in numbers]


def left(settings: QueueSettings) -> int:
    """Count the messages that the queues hold, fetched or not."""
    with redis.Redis.from_url(settings.redis_url) as client:
        return sum(client.hlen(f"{settings.queue_namespace}:{name}.msgs") for name in (EVENTS_QUEUE, REPLAYS_QUEUE))


def wait_for(taken: Taken, *numbers: int) -> None:
    """Wait until these events were taken, in whatever order."""
    wait_until(lambda: set(numbers) <= set(taken.numbers), DEADLINE, lambda: f"taken so far: {sorted(taken.numbers)}")


async def test_what_the_edge_writes_a_worker_takes(settings: QueueSettings, taken: Taken) -> None:
    """The edge runs Dramatiq's script by itself, so this holds the two together."""
    async with writing(settings) as writer:
        await writer.put(events(1, 2, 3))

    with working(settings, taken):
        wait_for(taken, 1, 2, 3)
        wait_until(lambda: left(settings) == 0, DEADLINE, lambda: "the message was not acknowledged")


def test_a_payload_keeps_its_bytes_and_hides_them() -> None:
    """What is logged of a message never shows an event."""
    sent = QueuedEvent(UUID(bytes=b"\x01" * 16), 7, "demo", 123, b'{"secret": "\xff"}')

    message = dramatiq.Message.decode(events_message([sent]).encode())

    assert message.args[0].events() == [sent]
    assert "secret" not in f"{message} {message!r}"


@pytest.mark.parametrize(("application_id", "received_at"), [(2**31, 1), (-1, 1), (1, -1), (1, 8 * 10**15)])
def test_numbers_that_cannot_be_stored_are_not_read(application_id: int, received_at: int) -> None:
    """They would be stored as others: the message becomes a dead letter instead."""
    wrong = msgspec.msgpack.encode([[b"\x01" * 16, application_id, "demo", received_at, b"{}"]])

    with pytest.raises(msgspec.ValidationError):
        Payload(wrong).events()


@pytest.mark.parametrize("more", [(), (None,), (None, "a new field", {"and": "another"})])
def test_events_of_other_versions_are_read(more: tuple[object, ...]) -> None:
    """New fields go to the end: older workers leave them alone, and newer ones do without."""
    encoded = msgspec.msgpack.encode([[b"\x01" * 16, 7, "demo", 123, b"{}", *more]])

    assert Payload(encoded).events() == [QueuedEvent(UUID(bytes=b"\x01" * 16), 7, "demo", 123, b"{}")]


def test_a_killed_workers_messages_are_taken_over(settings: QueueSettings, taken: Taken) -> None:
    """A worker that fetched and then died without a word."""
    enqueue_events(settings, events(1))
    dead = EventBroker(settings)
    with dead.client:
        assert len(dead.do_fetch(EVENTS_QUEUE, 10)) == 1

    with working(settings, taken):
        wait_for(taken, 1)


def test_a_fetch_whose_answer_was_lost_is_made_good(settings: QueueSettings, taken: Taken) -> None:
    """The server has handed the message out, this process never heard of it, and lives on."""
    with working(settings, taken) as broker:
        broker.do_enqueue(
            "parked",
            "lost-in-transit",
            events_message(events(1)).copy(options={"redis_message_id": "lost-in-transit"}).encode(),
        )
        raw = broker.do_fetch("parked", 1)[0]
        # As if the answer to a fetch of the events queue had been lost.
        broker.client.hset(broker.key(EVENTS_QUEUE, "msgs"), "lost-in-transit", raw)
        broker.client.sadd(broker.key("__acks__", broker.broker_id, EVENTS_QUEUE), "lost-in-transit")

        wait_for(taken, 1)
        wait_until(lambda: left(settings) == 0, DEADLINE, lambda: "the message was not acknowledged")


def test_an_unfinished_message_goes_back(settings: QueueSettings, taken: Taken) -> None:
    """A worker that must stop leaves the message for the next one, and nothing is acknowledged."""
    stopped = threading.Event()

    def stop(_: list[int]) -> None:
        if not stopped.is_set():
            stopped.set()
            raise Unfinished

    taken.fault = stop
    enqueue_events(settings, events(1))

    with working(settings, taken, threads=1):
        wait_for(taken, 1)

    assert taken.numbers == [1]
    assert left(settings) == 0


def test_what_waits_together_is_taken_together(settings: QueueSettings, taken: Taken) -> None:
    """In order of arrival, and all of it is acknowledged."""
    for number in range(40):
        enqueue_events(settings, events(number))

    with working(settings, taken, threads=1):
        wait_for(taken, *range(40))
        wait_until(lambda: left(settings) == 0, DEADLINE, lambda: f"{left(settings)} messages were not acknowledged")

    assert taken.numbers == list(range(40))
    assert len(taken.messages) < 10


def test_what_follows_closely_is_taken_together(settings: QueueSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that comes after a while is taken at once; then a worker rests, and takes what came meanwhile."""
    broker = EventBroker(settings)
    worker: Any = broker.consume(EVENTS_QUEUE, prefetch=8)
    rests: list[float] = []

    def rest(seconds: float) -> None:
        rests.append(seconds)
        for number in (1, 2):
            enqueue_events(settings, events(number))

    enqueue_events(settings, events(0))
    alone = next(worker)
    assert next(worker) is None
    monkeypatch.setattr("time.sleep", rest)
    together = next(worker)

    assert [[event.received_at for event in taken.args[0].events()] for taken in (alone, together)] == [[0], [1, 2]]
    assert len(rests) == 1
    assert 0 < rests[0] <= REST_SECONDS


def test_one_message_that_fails_costs_no_other(settings: QueueSettings, taken: Taken) -> None:
    """Also where they were taken together: they come again, each by itself."""

    def fail(numbers: list[int]) -> None:
        if 5 in numbers:
            message = "a fault of ours"
            raise ValueError(message)

    taken.fault = fail
    for number in range(10):
        enqueue_events(settings, events(number))

    with working(settings, taken) as broker:
        dead = broker.key(EVENTS_QUEUE, "XQ")
        wait_until(lambda: broker.client.zcard(dead) == 1, DEADLINE, lambda: "no dead letter")
        wait_until(lambda: left(settings) == 0, DEADLINE, lambda: f"{left(settings)} messages are left")

    assert sorted(taken.numbers) == [0, 1, 2, 3, 4, 6, 7, 8, 9]


def test_messages_taken_together_go_back_together(settings: QueueSettings, taken: Taken) -> None:
    """A worker that must stop leaves all of them."""
    stopped = threading.Event()

    def stop(numbers: list[int]) -> None:
        if len(numbers) > 1 and not stopped.is_set():
            stopped.set()
            raise Unfinished

    taken.fault = stop
    for number in range(10):
        enqueue_events(settings, events(number))

    with working(settings, taken, threads=1):
        wait_for(taken, *range(10))
        wait_until(lambda: left(settings) == 0, DEADLINE, lambda: f"{left(settings)} messages are left")

    assert stopped.is_set()
    assert sorted(taken.numbers) == list(range(10))


def test_giving_back_is_tried_until_the_queue_is_there(settings: QueueSettings, taken: Taken, valkey: Valkey) -> None:
    """Or the messages would stay with a worker that does not know of them."""
    failed = threading.Event()

    def fail(numbers: list[int]) -> None:
        if len(numbers) > 1 and not failed.is_set():
            valkey.kill()
            failed.set()
            message = "a fault of ours"
            raise ValueError(message)

    taken.fault = fail
    for number in range(10):
        enqueue_events(settings, events(number))

    with working(settings, taken, threads=1):
        assert failed.wait(DEADLINE)
        valkey.start()
        wait_for(taken, *range(10))
        wait_until(lambda: left(settings) == 0, DEADLINE, lambda: f"{left(settings)} messages are left")


def test_what_cannot_be_given_back_is_said_so_that_dramatiq_tries_again(settings: QueueSettings) -> None:
    """Of other errors it would make a line in the log, and the message would stay claimed."""
    broker = EventBroker(msgspec.structs.replace(settings, redis_url="unix:///nowhere"))
    consumer: Any = broker.consume(EVENTS_QUEUE)
    message = MessageProxy(events_message(events(1)).copy(options={"redis_message_id": "1"}))

    with pytest.raises(ConnectionClosed):
        consumer.requeue([message])
    with pytest.raises(ConnectionClosed):
        consumer.ack(message)
    with pytest.raises(ConnectionClosed):
        consumer.nack(message)


def test_large_messages_are_fetched_one_by_one(settings: QueueSettings, taken: Taken) -> None:
    """So that they do not fill a worker's memory, whatever came before them."""
    body = b'{"%s": 1}' % (b"x" * 1_000_000)
    entered, leave = threading.Event(), threading.Event()

    def wait(numbers: list[int]) -> None:
        if 100 in numbers:
            entered.set()
            leave.wait(DEADLINE)

    taken.fault = wait
    for number in range(40):
        enqueue_events(settings, events(number))
    for number in range(100, 120):
        enqueue_events(settings, [msgspec.structs.replace(events(number)[0], body=body)])
    with working(settings, taken, threads=1) as broker:
        assert entered.wait(DEADLINE)
        fetched = cast("int", broker.client.scard(broker.key("__acks__", broker.broker_id, EVENTS_QUEUE)))
        leave.set()
        wait_until(lambda: left(settings) == 0, DEADLINE, lambda: f"{left(settings)} messages are left")

    assert fetched < 20
    assert max(len(numbers) for numbers in taken.messages if 110 in numbers) == 1


def test_a_worker_that_is_busy_for_long_is_not_taken_for_dead(settings: QueueSettings, taken: Taken) -> None:
    """Its heart beats also while it can take nothing more."""
    leave = threading.Event()
    taken.fault = lambda _: assert_set(leave.wait(DEADLINE))
    other = Taken()
    with working(settings, taken, threads=1) as broker:
        for number in range(4):  # more than it takes at once
            enqueue_events(settings, events(number))
            fetched = broker.key("__acks__", broker.broker_id, EVENTS_QUEUE)
            wait_until(lambda: broker.client.scard(fetched) >= min(number + 1, 2), DEADLINE, lambda: "not fetched")  # noqa: B023
        with working(settings, other):
            wait_until(lambda: len(other.numbers) == 2, DEADLINE, lambda: f"the other took {other.numbers}")
            begun = heartbeat_ms(broker)
            enough = begun + 3_000 * settings.worker_heartbeat_seconds
            wait_until(lambda: heartbeat_ms(broker) > enough, DEADLINE, lambda: "the heart stopped")
            assert len(other.numbers) == 2
        leave.set()
        wait_until(lambda: left(settings) == 0, DEADLINE, lambda: f"{left(settings)} messages are left")

    assert sorted(taken.numbers + other.numbers) == [0, 1, 2, 3]


def heartbeat_ms(broker: EventBroker) -> float:
    """Read when a worker's heart last beat."""
    return cast("float", broker.client.zscore(broker.key("__heartbeats__"), broker.broker_id))


def assert_set(condition: bool) -> None:  # noqa: FBT001
    """See that a wait did not end by its deadline."""
    assert condition


def test_what_is_replayed_waits_for_what_is_fresh(settings: QueueSettings, taken: Taken) -> None:
    """Though it was queued before; and then it is stored, too."""
    entered, leave = threading.Event(), threading.Event()

    def wait(numbers: list[int]) -> None:
        if 0 in numbers:
            entered.set()
            leave.wait(DEADLINE)

    taken.fault = wait
    enqueue_events(settings, events(0))
    with working(settings, taken, threads=1):
        assert entered.wait(DEADLINE)
        for number in range(1, 100):
            enqueue_events(settings, events(number))
        for number in (101, 102):
            enqueue_events(settings, events(number), REPLAYS_QUEUE)
        for number in range(103, 200):
            enqueue_events(settings, events(number))
        leave.set()
        wait_until(lambda: left(settings) == 0, DEADLINE, lambda: f"{left(settings)} messages are left")

    assert taken.numbers == [*range(100), *range(103, 200), 101, 102]


def test_stopping_gives_back_what_was_fetched(settings: QueueSettings, taken: Taken) -> None:
    """No message has to wait for a heartbeat to time out after an ordinary stop."""
    entered, leave = threading.Event(), threading.Event()

    def wait(_: list[int]) -> None:
        entered.set()
        leave.wait(DEADLINE)

    taken.fault = wait
    for number in range(6):
        enqueue_events(settings, events(number))
    with working(settings, taken, threads=1):
        assert entered.wait(DEADLINE)
        threading.Timer(0.2, leave.set).start()

    with redis.Redis.from_url(settings.redis_url) as client:
        waiting = client.llen(f"{settings.queue_namespace}:{EVENTS_QUEUE}")
    assert waiting == 6 - len(taken.numbers)
    assert waiting > 0


def test_an_actor_that_fails_makes_a_dead_letter(settings: QueueSettings, taken: Taken) -> None:
    """It is kept whole: Dramatiq would delete it after a week."""

    def fail(_: list[int]) -> None:
        message = "a fault of ours"
        raise ValueError(message)

    taken.fault = fail
    enqueue_events(settings, events(1))

    with working(settings, taken) as broker:
        ids, messages = broker.key(EVENTS_QUEUE, "XQ"), broker.key(EVENTS_QUEUE, "XQ", "msgs")
        wait_until(lambda: broker.client.zcard(ids) == 1, DEADLINE, lambda: "no dead letter")
        (raw,) = broker.client.hvals(messages)

    assert dramatiq.Message.decode(cast("bytes", raw)).args[0].events()[0].received_at == 1


def test_a_message_that_cannot_be_decoded_harms_no_other(settings: QueueSettings, taken: Taken) -> None:
    """It becomes a dead letter while its neighbours are stored."""
    enqueue_events(settings, events(1))
    broker = EventBroker(settings)
    with broker.client:
        broker.do_enqueue(EVENTS_QUEUE, "garbage", b"\xc1 no MessagePack")
    enqueue_events(settings, events(2))

    with working(settings, taken) as broker:
        wait_for(taken, 1, 2)
        wait_until(
            lambda: (
                broker.client.hgetall(broker.key(EVENTS_QUEUE, "XQ", "msgs")) == {b"garbage": b"\xc1 no MessagePack"}
            ),
            DEADLINE,
            lambda: "no dead letter",
        )


def test_a_dead_message_can_be_queued_again(settings: QueueSettings, taken: Taken) -> None:
    """With an id of its own, so that its acknowledgement finds it."""
    raw = events_message(events(1)).copy(options={"redis_message_id": "its former id"}).encode()

    enqueue_message(settings, raw)

    with working(settings, taken):
        wait_for(taken, 1)
        wait_until(lambda: left(settings) == 0, DEADLINE, lambda: "the message was not acknowledged")
    with pytest.raises(ValueError, match="cannot decode"):
        enqueue_message(settings, b"\xc1")


async def test_a_queue_that_may_lose_events_is_refused(settings: QueueSettings, valkey: Valkey) -> None:
    """202 means on disk, so a server that does not fsync every write gets no event."""
    with redis.Redis.from_url(valkey.url()) as client:
        client.config_set("appendfsync", "everysec")
        try:
            async with writing(settings) as writer:
                with pytest.raises(QueueUnavailableError, match="may lose events"):
                    await writer.put(events(1))
                with pytest.raises(QueueUnavailableError, match="may lose events"):
                    await writer.check()
            async with writing(msgspec.structs.replace(settings, queue_require_durable=False)) as writer:
                await writer.put(events(2))
        finally:
            client.config_set("appendfsync", "always")

    assert left(settings) == 1


async def test_a_queue_that_does_not_answer_is_given_up(settings: QueueSettings, valkey: Valkey) -> None:
    """Within the deadline, and it serves again as soon as it answers."""
    async with writing(settings) as writer:
        await writer.put(events(1))
        valkey.pause()
        try:
            with pytest.raises(QueueUnavailableError):
                await writer.put(events(2))
        finally:
            valkey.resume()

        await writer.put(events(3))


def test_workers_survive_a_restart_of_the_queue(settings: QueueSettings, valkey: Valkey, taken: Taken) -> None:
    """What was on disk is there again, and the worker comes back by itself."""
    with working(settings, taken):
        enqueue_events(settings, events(1))
        wait_for(taken, 1)
        valkey.kill()
        valkey.start()
        enqueue_events(settings, events(2))

        wait_for(taken, 2)


async def test_the_backlog_counts_what_no_worker_has_finished(settings: QueueSettings) -> None:
    """Ready, fetched and delayed messages, their memory, and the age of the oldest."""
    async with writing(settings) as writer:
        assert (await writer.backlog()).messages == 0
        for number in range(20):
            await writer.put([msgspec.structs.replace(event, body=os.urandom(50_000)) for event in events(number)])
        broker = EventBroker(settings)
        with broker.client:
            broker.do_fetch(EVENTS_QUEUE, 3)
            delayed = events_message(events(1)).copy(options={"redis_message_id": "later"})
            broker.do_enqueue(f"{EVENTS_QUEUE}.DQ", "later", delayed.encode())

        backlog = await writer.backlog()

    assert backlog.messages == 21
    assert 900_000 < backlog.bytes < 2_000_000
    assert 0 < backlog.age_seconds < DEADLINE


async def test_a_queue_without_memory_is_drained(settings: QueueSettings, taken: Taken, valkey: Valkey) -> None:
    """The edge is refused, the worker is not: else the queue would stay full for ever."""
    async with writing(settings) as writer:
        await writer.put(events(1))
        with redis.Redis.from_url(valkey.url()) as client:
            client.config_set("maxmemory", "1mb")
            try:
                with pytest.raises(QueueUnavailableError):
                    await writer.put(events(2))
                with working(settings, taken):
                    wait_for(taken, 1)
                    wait_until(lambda: left(settings) == 0, DEADLINE, lambda: "the message was not acknowledged")
            finally:
                client.config_set("maxmemory", "0")


def test_a_worker_with_a_wrong_clock_is_not_taken_for_dead(
    settings: QueueSettings, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's clock counts."""
    enqueue_events(settings, events(1))
    monkeypatch.setattr("dramatiq.brokers.redis.current_millis", lambda: 0)
    late = EventBroker(settings)
    with late.client:
        assert len(late.do_fetch(EVENTS_QUEUE, 1)) == 1
        monkeypatch.undo()
        with working(settings, taken):
            enqueue_events(settings, events(2))
            wait_for(taken, 2)

    assert taken.numbers == [2]
