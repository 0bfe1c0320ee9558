"""What is in the queue is not what this version of The Eye expects, or is there twice."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from tests.faults import numbered
from tests.faults.audit import Connection, dead_codes
from tests.faults.case import Case
from tests.faults.house import House
from tests.faults.sender import Load
from tests.faults.stores import BreakableValkey, CopiedPostgres
from tests.servers import wait_until

from the_eye.queue import EVENTS_QUEUE, STORE_EVENTS, EventBroker, QueuedEvent

DEADLINE = 60.0


def fields(number: int) -> tuple[Any, ...]:
    """Give what the queue holds of an accepted event, in the order of its fields."""
    now = datetime.now(UTC)
    received_at = (now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return msgspec.structs.astuple(
        QueuedEvent(numbered.event_id(number), 1, "faults", received_at, numbered.event(number, now))
    )


def message(events: Sequence[Sequence[Any]], **changes: Any) -> bytes:
    """Make a message as the queue holds it, with changes to its outer fields."""
    envelope = {
        "queue_name": EVENTS_QUEUE,
        "actor_name": STORE_EVENTS,
        "payload": msgspec.msgpack.encode(events),
        "options": {},
        "message_id": str(uuid4()),
        "message_timestamp": 1,
    }
    return msgspec.msgpack.encode(envelope | changes)


def message_of(events: Sequence[Sequence[Any]], message_id: str) -> bytes:
    """Make a message as this version does."""
    return message(events, options={"redis_message_id": message_id})


def queue(house: House, *messages: Callable[[str], bytes]) -> None:
    """Queue messages, each made for the id under which it is queued."""
    broker = EventBroker(house.queue_settings)
    with broker.client:
        for make in messages:
            message_id = str(uuid4())
            broker.do_enqueue(EVENTS_QUEUE, message_id, make(message_id))


@pytest.mark.fault("one event that cannot be stored (a CHECK constraint) inside a full message")
def test_a_poisoned_event_is_set_aside_alone(house: House, case: Case, postgres: CopiedPostgres) -> None:
    """Its 499 neighbours are stored, and it is kept with the sender's bytes."""
    with postgres.connect() as administrator:
        administrator.execute("ALTER TABLE events ADD CONSTRAINT no_poison CHECK ((data->>'n')::integer <> 250)")
    house.worker.kill()
    with case.sending(Load(singles=0, batches=1, batch_events=500, total=500)) as sender:
        sender.wait_until_done(DEADLINE)
    assert house.waiting() == 1
    case.mended()
    house.worker.start()
    case.note_stored()
    case.close(dead=1)
    with postgres.connect() as reader:
        assert dead_codes(reader) == [("event", "23514", 1)]
        (original,) = reader.execute("SELECT original FROM dead_events").fetchall()[0]
    assert msgspec.json.decode(original)["data"]["n"] == 250


@pytest.mark.fault("events that cannot be stored in every message, and the worker killed again and again")
def test_poison_and_kills_together_double_nothing(house: House, case: Case, postgres: CopiedPostgres) -> None:
    """A message that was half set aside when its worker died comes again."""
    every = 997
    with postgres.connect() as administrator:
        administrator.execute(
            f"ALTER TABLE events ADD CONSTRAINT no_poison CHECK ((data->>'n')::integer % {every} <> 0)"
        )
    with case.sending() as sender:
        for _ in range(case.scale.rounds):
            sender.wait_for_more(case.scale.between)
            house.worker.kill()
            case.mended()
            house.worker.start()
        case.recover()
    case.close(dead=len(range(0, case.sent, every)))
    assert case.seen.only_202


@pytest.mark.fault(
    "an event set aside, its worker killed before the acknowledgement, and the cause gone when the message comes again"
)
def test_an_event_that_was_set_aside_is_not_stored_as_well(
    house: House, case: Case, postgres: CopiedPostgres, valkey: BreakableValkey
) -> None:
    """It is taken back: in both tables it would have ended twice."""
    with postgres.connect() as administrator:
        administrator.execute("ALTER TABLE events ADD CONSTRAINT no_poison CHECK ((data->>'n')::integer <> 250)")
        with postgres.connect() as lock, lock.transaction():
            lock.execute("LOCK TABLE dead_events IN SHARE ROW EXCLUSIVE MODE")
            with case.sending(Load(singles=0, batches=1, batch_events=500, total=500)) as sender:
                sender.wait_until_done(DEADLINE)
            wait_until(lambda: _waits(administrator), DEADLINE, lambda: "nothing is to be set aside")
            valkey.kill()
        wait_until(lambda: _ended(administrator) == 500, DEADLINE, lambda: "the message is not done")
        house.worker.kill()
        valkey.start()
        administrator.execute("ALTER TABLE events DROP CONSTRAINT no_poison")
    case.mended()
    house.worker.start()
    case.note_stored()
    case.close()


def _waits(connection: Connection) -> bool:
    query = "SELECT FROM pg_stat_activity WHERE application_name = 'the-eye worker' AND wait_event_type = 'Lock'"
    return connection.execute(query).fetchone() is not None


def _ended(connection: Connection) -> int:
    query = "SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM dead_events)"
    return int(connection.execute(query).fetchall()[0][0])


@pytest.mark.fault("messages of a newer and of an older version, for an unknown actor, and garbage")
def test_messages_of_other_versions_harm_no_other(house: House, case: Case, postgres: CopiedPostgres) -> None:
    """What can be understood is stored; the rest is set aside whole, with its bytes, and nothing waits behind it."""
    newer, older, bodiless, unknown = (case.numbers(10) for _ in range(4))
    unread = range(bodiless.start, unknown.stop)
    queue(
        house,
        # A later version adds fields at the end of an event, and new ones to a message.
        lambda message_id: message(
            [(*fields(number), "new", {"and": ["more"]}) for number in newer],
            options={"redis_message_id": message_id, "new": 1},
            new="field",
        ),
        lambda message_id: message([fields(number)[:-1] for number in older], options={"redis_message_id": message_id}),
        lambda message_id: message(
            [fields(number)[:4] for number in bodiless], options={"redis_message_id": message_id}
        ),
        lambda message_id: message(
            [fields(number) for number in unknown],
            actor_name="of_a_later_version",
            options={"redis_message_id": message_id},
        ),
        lambda _: b"\xc1 no MessagePack",
        lambda _: b"",
        lambda _: message([])[:-5],
    )
    with case.sending() as sender:
        sender.wait_for_more(case.scale.between)
        case.mended()
        wait_until(lambda: house.left() == 0, DEADLINE, lambda: f"{house.left()} messages are left")
        case.recover()
    case.close(dead=len(unread), in_messages=unread)
    with postgres.connect() as reader:
        assert dead_codes(reader) == [("message", "dead_letter", 5)]
    assert case.seen.only_202


@pytest.mark.fault("the same messages queued twice, for two workers")
def test_messages_that_are_there_twice_are_stored_once(house: House, case: Case) -> None:
    """As when a write to the queue was repeated after its answer was lost."""
    other = house.make_worker()
    house.worker.kill()
    for _ in range(20):
        events = [fields(number) for number in case.numbers(100)]
        queue(house, *[partial(message_of, events)] * 2)
    case.mended()
    house.worker.start()
    other.start()
    case.note_stored()
    case.close()
