"""The ledger against a real queue and a real store: it closes, whatever is killed, and opens when something is lost."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import cast
from uuid import uuid4

import click
import dramatiq
import msgspec
import pytest
import redis
from click.testing import CliRunner, Result
from dramatiq.worker import Worker
from tests.faults.processes import Process, clean_environment
from tests.integration.test_queue import DEADLINE, left, writing
from tests.integration.test_storing import NOW, RULES, Rules, queued
from tests.machine import free_addresses
from tests.servers import Valkey, wait_until

from the_eye.queue import (
    EVENTS_QUEUE,
    REPLAYS_QUEUE,
    STORE_EVENTS,
    EventBroker,
    Outcome,
    Payload,
    QueuedEvent,
    QueueUnavailableError,
    enqueue_events,
    events_message,
    figures,
    note_outcomes,
)
from the_eye.queue.figures import QueueObserver, QueueSnapshot
from the_eye.settings import QueueSettings, StoreSettings
from the_eye.store.connect import Connection, Pool, open_pool
from the_eye_cli.dead import dead
from the_eye_cli.ledger import ledger
from the_eye_worker.dead_letters import DeadLetterSweep
from the_eye_worker.storing import EventStorer

LATER = NOW + timedelta(seconds=1)


@pytest.fixture
def settings(queue_settings: QueueSettings) -> QueueSettings:
    """Take silence of a second for death, so that tests need not wait long."""
    return msgspec.structs.replace(queue_settings, worker_heartbeat_seconds=1.0, queue_timeout_seconds=1.0)


@pytest.fixture
def pool(store_settings: StoreSettings) -> Iterator[Pool]:
    """Connections of a worker."""
    with open_pool(store_settings, "test worker", 4, 5.0) as opened:
        yield opened


@pytest.fixture
def storer(pool: Pool) -> EventStorer:
    """A worker's inside."""
    return EventStorer(pool, Rules(), threading.Event())


@pytest.fixture
def broker(settings: QueueSettings) -> Iterator[EventBroker]:
    """The queue as a worker sees it that does what the test says."""
    broker = EventBroker(settings)
    with broker.client:
        yield broker


@contextmanager
def working(settings: QueueSettings, storer: EventStorer) -> Iterator[EventBroker]:
    """Run a worker."""
    broker = EventBroker(settings)

    @dramatiq.actor(actor_name=STORE_EVENTS, queue_name=EVENTS_QUEUE, broker=broker)
    def store(payload: Payload) -> None:
        note_outcomes(storer.store(payload))

    broker.declare_queue(REPLAYS_QUEUE)
    worker = Worker(broker, worker_threads=1, worker_timeout=50)
    worker.start()
    try:
        yield broker
    finally:
        worker.stop(timeout=5000)
        broker.client.close()


def drain(settings: QueueSettings, storer: EventStorer) -> None:
    """Have a worker finish what waits."""
    with working(settings, storer):
        wait_until(lambda: left(settings) == 0, DEADLINE, lambda: f"{left(settings)} messages are left")


def snapshot(settings: QueueSettings) -> QueueSnapshot:
    """Look at the ledger."""
    observer = QueueObserver(settings)
    try:
        return observer.snapshot()
    finally:
        observer.close()


def closed(settings: QueueSettings, **expected: int) -> None:
    """See that the ledger has these counts and no difference."""
    seen = snapshot(settings)
    assert {name: count for name, count in seen.ledger.items() if count} == expected
    assert seen.difference == 0


def unreadable() -> QueuedEvent:
    """Make an event that can only be set aside."""
    return msgspec.structs.replace(queued(), body=b"no json")


async def test_what_the_edge_queues_is_accepted_and_queued(settings: QueueSettings) -> None:
    """Before any worker has seen it."""
    async with writing(settings) as writer:
        await writer.put([queued(), queued()])
        await writer.put([queued()])

    seen = snapshot(settings)

    assert seen.events == 3
    assert (seen.ready, seen.delayed, seen.unacknowledged) == (2, 0, 0)
    closed(settings, accepted=3)


def test_each_event_ends_as_what_it_was(settings: QueueSettings, storer: EventStorer) -> None:
    """Also where messages are taken together."""
    known = uuid4()
    for events in (
        [queued(), queued("banner"), queued(event_id=known)],
        [queued(event_id=known, received_at=LATER), unreadable(), queued()],
        [queued("banner")],
    ):
        enqueue_events(settings, events)

    drain(settings, storer)

    closed(settings, accepted=7, valid=3, invalid=2, duplicate=1, dead=1)


def test_a_worker_that_dies_after_storing_leaves_no_difference(
    settings: QueueSettings, storer: EventStorer, broker: EventBroker
) -> None:
    """Its message comes again; its events end once, as what they were."""
    known = uuid4()
    events = [queued(), queued("banner"), queued(event_id=known), queued(event_id=known), unreadable()]
    enqueue_events(settings, events)
    assert len(broker.do_fetch(EVENTS_QUEUE, 1)) == 1
    storer.store(Payload.of(events))
    closed(settings, accepted=5)

    drain(settings, storer)

    closed(settings, accepted=5, valid=2, invalid=1, duplicate=1, dead=1)


def test_two_workers_that_finish_a_message_count_it_once(
    settings: QueueSettings, storer: EventStorer, broker: EventBroker
) -> None:
    """One was taken for dead, and goes on."""
    events = [queued(), queued("banner")]
    enqueue_events(settings, events)
    broker.do_fetch(EVENTS_QUEUE, 1)
    (message_id,) = cast("list[bytes]", broker.client.hkeys(broker.key(EVENTS_QUEUE, "msgs")))
    drain(settings, storer)

    broker.acknowledge(EVENTS_QUEUE, [message_id.decode()], storer.store(Payload.of(events)))

    closed(settings, accepted=2, valid=1, invalid=1)


def test_a_write_that_a_client_repeats_counts_once(settings: QueueSettings, storer: EventStorer) -> None:
    """The answer to the first was lost."""
    broker = EventBroker(settings)
    message = events_message([queued(), queued()]).copy(options={"redis_message_id": "1.2"}).encode()
    with broker.client:
        for _ in range(2):
            broker.do_enqueue(EVENTS_QUEUE, "1.2", message)
    closed(settings, accepted=2)

    drain(settings, storer)

    closed(settings, accepted=2, valid=2)


def test_killed_workers_leave_no_difference(
    settings: QueueSettings, store_settings: StoreSettings, storer: EventStorer, tmp_path: Path
) -> None:
    """Killed by SIGKILL with messages in hand, again and again, in the middle of storing or after it."""
    for _ in range(60):
        enqueue_events(settings, [queued(), queued("banner"), queued()])

    worker = worker_process(settings, store_settings, tmp_path)
    for _ in range(3):
        before = left(settings)
        worker.start()
        try:
            wait_until(
                lambda: snapshot(settings).unacknowledged > 0 or left(settings) < before,  # noqa: B023
                DEADLINE,
                lambda: worker.log,
            )
        finally:
            worker.kill()
        assert snapshot(settings).difference == 0
        for _ in range(20):
            enqueue_events(settings, [queued()])
    drain(settings, storer)

    closed(settings, accepted=240, valid=180, invalid=60)


def worker_process(settings: QueueSettings, store_settings: StoreSettings, folder: Path) -> Process:
    """Make a worker that is a process of its own, with the rules of these tests."""
    (folder / "rules.yaml").write_text(RULES)
    (listen,) = free_addresses(1)
    environ = {
        "THE_EYE_DATABASE_URL": store_settings.database_url,
        "THE_EYE_REDIS_URL": settings.redis_url,
        "THE_EYE_QUEUE_NAMESPACE": settings.queue_namespace,
        "THE_EYE_WORKER_HEARTBEAT_SECONDS": "1",
        "THE_EYE_WORKER_METRICS_LISTEN": listen,
        "THE_EYE_RULES_DIR": str(folder),
    }
    return Process("worker", clean_environment() | environ, folder / "worker.log", f"http://{listen}/readyz")


def test_a_replay_is_accepted_and_ends_once_more(
    settings: QueueSettings, storer: EventStorer, store_settings: StoreSettings, connection: Connection
) -> None:
    """Counters never fall: what died and is replayed has been accepted twice."""
    enqueue_events(settings, [queued(), unreadable(), unreadable()])
    drain(settings, storer)
    closed(settings, accepted=3, valid=1, dead=2)
    connection.execute("UPDATE dead_events SET original = %s WHERE id = 1", (queued().body,))

    replay(settings, store_settings)

    closed(settings, accepted=5, valid=1, dead=2)
    drain(settings, storer)
    closed(settings, accepted=5, valid=2, dead=3)


def test_a_message_that_dies_whole_ends_once_and_again_when_it_is_replayed(
    settings: QueueSettings, storer: EventStorer, store_settings: StoreSettings, pool: Pool
) -> None:
    """As soon as it is a dead letter, and wherever that is kept."""
    enqueue_events(settings, [queued(), queued()])
    with working(settings, Failing(pool, Rules(), threading.Event())) as broker:
        dead_letters = broker.key(EVENTS_QUEUE, "XQ")
        wait_until(lambda: broker.client.zcard(dead_letters) == 1, DEADLINE, lambda: "no dead letter")
        closed(settings, accepted=2, dead=2)
        assert DeadLetterSweep(broker, pool).sweep() == 1
    closed(settings, accepted=2, dead=2)

    replay(settings, store_settings)
    drain(settings, storer)

    closed(settings, accepted=4, dead=2, valid=2)


class Failing(EventStorer):
    """A worker with a fault of ours."""

    def store(self, payload: Payload) -> list[Outcome]:
        """Fail."""
        message = f"a fault of ours: {payload}"
        raise ValueError(message)


def replay(settings: QueueSettings, store_settings: StoreSettings) -> None:
    """Replay all that is dead, as a person would."""
    result = run(dead, settings, "replay", "--all", THE_EYE_DATABASE_URL=store_settings.database_url)
    assert result.exit_code == 0, result.output


def run(command: click.Command, settings: QueueSettings, *arguments: str, **environ: str) -> Result:
    """Run a command of `the-eye`."""
    queue = {"THE_EYE_REDIS_URL": settings.redis_url, "THE_EYE_QUEUE_NAMESPACE": settings.queue_namespace}
    return CliRunner().invoke(command, arguments, env=queue | environ, catch_exceptions=False)


def test_a_message_that_was_lost_makes_a_difference(
    settings: QueueSettings, storer: EventStorer, broker: EventBroker
) -> None:
    """And it stays, until someone has looked into it: then the next one would be seen."""
    enqueue_events(settings, [queued(), queued(), queued()])
    enqueue_events(settings, [queued()])
    messages = broker.key(EVENTS_QUEUE, "msgs")
    (lost,) = [name for name in cast("list[bytes]", broker.client.hkeys(messages)) if name.endswith(b".3")]

    broker.client.hdel(messages, lost.decode())

    assert snapshot(settings).difference == 3
    drain(settings, storer)
    assert snapshot(settings).difference == 3

    assert run(ledger, settings, "settle", "--difference", "2").output == "Error: the difference is 3\n"
    assert run(ledger, settings, "settle", "--difference", "3").output == "settled 3\n"

    closed(settings, accepted=4, valid=1, lost=3)
    assert run(ledger, settings, "settle", "--difference", "0").exit_code == 1


def test_outcomes_without_an_acceptance_can_be_settled_too(
    settings: QueueSettings, storer: EventStorer, broker: EventBroker
) -> None:
    """As when the ledger was thrown away for want of memory; no counter falls."""
    enqueue_events(settings, [queued(), queued()])
    broker.client.delete(broker.key("__ledger__"))
    drain(settings, storer)

    assert run(ledger, settings, "settle", "--difference", "-2").output == "settled -2\n"

    closed(settings, accepted=2, valid=2)


def test_a_difference_that_changed_meanwhile_is_not_written_off(settings: QueueSettings, broker: EventBroker) -> None:
    """Between looking at it and writing it off more may be lost, or found."""
    enqueue_events(settings, [queued(), queued()])
    broker.client.delete(broker.key(EVENTS_QUEUE, "msgs"))
    observer = QueueObserver(settings)
    try:
        assert not observer.write_off(1)
        assert not observer.write_off(-2)
        assert snapshot(settings).difference == 2

        assert observer.write_off(2)
        assert not observer.write_off(2)
    finally:
        observer.close()
    closed(settings, accepted=2, lost=2)


def test_a_message_is_as_old_as_it_is_wherever_it_waits(
    settings: QueueSettings, storer: EventStorer, broker: EventBroker
) -> None:
    """Also one that a worker has claimed, and one that is replayed; nothing is as old as nothing."""
    assert snapshot(settings).age_seconds == 0
    for queue in (EVENTS_QUEUE, REPLAYS_QUEUE):
        broker.put(events_message([queued()]).copy(queue_name=queue), 1)
        broker.do_fetch(queue, 1)
        seen = snapshot(settings)
        assert (seen.ready, (seen.age_seconds or 0) > 0) == (0, True)
        drain(settings, storer)


def test_the_ledger_is_shown(settings: QueueSettings) -> None:
    """For people and for programs."""
    enqueue_events(settings, [queued(), queued()])

    rows = json.loads(run(ledger, settings, "show", "--output", "json").output)

    assert {row["state"]: row["events"] for row in rows if row["events"]} == {"accepted": 2, "queued": 2}
    assert run(ledger, settings, "show").output.splitlines()[-1].split() == ["difference", "0"]
    away = run(ledger, msgspec.structs.replace(settings, redis_url="unix:///nowhere"), "show")
    assert away.output.startswith("Error: the queue is away: ")


def test_a_message_of_an_older_version_is_in_no_part_of_the_ledger(
    settings: QueueSettings, storer: EventStorer, broker: EventBroker, connection: Connection
) -> None:
    """It is stored as ever, and makes no difference; only how many events wait is not known meanwhile."""
    message_id = str(uuid4())
    message = events_message([queued(), queued()]).copy(options={"redis_message_id": message_id})
    broker.do_enqueue(EVENTS_QUEUE, message_id, message.encode())
    enqueue_events(settings, [queued()])
    assert snapshot(settings).events is None
    closed(settings, accepted=1)

    drain(settings, storer)

    closed(settings, accepted=1, valid=1)
    assert snapshot(settings).events == 0
    assert connection.execute("SELECT count(*) FROM events").fetchall() == [(3,)]


def test_too_many_messages_are_not_counted(settings: QueueSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server would do nothing else meanwhile: what is not known is not told."""
    monkeypatch.setattr(figures, "COUNTED_MESSAGES", 2)
    for _ in range(2):
        enqueue_events(settings, [queued()])
    closed(settings, accepted=2)

    enqueue_events(settings, [queued()])

    seen = snapshot(settings)
    assert (seen.ready, seen.events, seen.difference, seen.age_seconds) == (3, None, None, None)


async def test_what_a_full_server_refuses_is_not_accepted(settings: QueueSettings, valkey: Valkey) -> None:
    """The script refuses before it has done anything."""
    async with writing(settings) as writer:
        await writer.put([queued()])
        with redis.Redis.from_url(valkey.url()) as client:
            client.config_set("maxmemory", "1mb")
            try:
                with pytest.raises(QueueUnavailableError):
                    await writer.put([queued()])
                closed(settings, accepted=1)
            finally:
                client.config_set("maxmemory", "0")
