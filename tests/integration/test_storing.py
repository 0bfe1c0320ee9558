"""From a message to rows, with a real PostgreSQL that misbehaves."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
from prometheus_client import REGISTRY
from tests.servers import Postgres, wait_until

from the_eye.queue import Payload, QueuedEvent, Unfinished
from the_eye.rules.manifest import ValidatorRule, parse_manifests
from the_eye.rules.ruleset import RuleSet, compile_ruleset
from the_eye.settings import StoreSettings
from the_eye.store.connect import Connection, Pool, open_pool
from the_eye_worker.storing import EventStorer

DEADLINE = 30.0
NOW = datetime.now(UTC).replace(microsecond=250_000)
TRACE = UUID("0af7651916cd43dd8448eb211c80319c")
RULES = """
apiVersion: the-eye.io/v1alpha1
kind: ValidatorRule
metadata: {name: element, namespace: shop, generation: 4}
spec:
  match: {category: page interaction, name: cta click}
  schema: {type: object, required: [element], properties: {element: {enum: [chat bubble, buy button]}}}
---
apiVersion: the-eye.io/v1alpha1
kind: ValidatorRule
metadata: {name: host, namespace: shop}
spec:
  match: {category: page interaction, name: "*"}
  action: Audit
  validations:
    - expression: "event.data.host.endsWith('.consumeraffairs.com')"
"""


class Rules:
    """The rules above, in force."""

    def __init__(self) -> None:
        rules = [rule for rule in parse_manifests(RULES.encode()) if isinstance(rule, ValidatorRule)]
        self.current: RuleSet = compile_ruleset(rules, future_tolerance=timedelta(minutes=5)).ruleset


@pytest.fixture
def pool(store_settings: StoreSettings) -> Iterator[Pool]:
    """Connections of a worker."""
    with open_pool(store_settings, "test worker", 4, 2.0) as opened:
        yield opened


@pytest.fixture
def stopping() -> threading.Event:
    """Set when the worker is to stop."""
    return threading.Event()


@pytest.fixture
def storer(pool: Pool, stopping: threading.Event) -> EventStorer:
    """A worker's inside."""
    return EventStorer(pool, Rules(), stopping)


def queued(
    element: str = "chat bubble",
    *,
    event_id: UUID | None = None,
    timestamp: datetime = NOW,
    received_at: datetime = NOW,
) -> QueuedEvent:
    """Make an accepted event."""
    sent = {
        "session_id": "e2085be5-9137-4e4e-80b5-f1ffddc25423",
        "category": "page interaction",
        "name": "cta click",
        "data": {"host": "www.consumeraffairs.com", "element": element},
        "timestamp": timestamp.isoformat(),
    }
    return _queued(json.dumps(sent).encode(), event_id or uuid4(), received_at)


def _queued(body: bytes, event_id: UUID, received_at: datetime) -> QueuedEvent:
    microseconds = (received_at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return QueuedEvent(event_id, 7, "demo", microseconds, body)


def rows(connection: Connection) -> list[tuple[UUID, bool]]:
    """Read what is stored."""
    return connection.execute("SELECT event_id, valid FROM events ORDER BY received_at, event_id").fetchall()


def outcome(name: str) -> float:
    """Read the worker's counter."""
    return REGISTRY.get_sample_value("the_eye_events_total", {"outcome": name}) or 0.0


def retries() -> float:
    """Read how often a write was put off."""
    return REGISTRY.get_sample_value("the_eye_write_retries_total") or 0.0


def test_a_row_holds_all_that_is_known_of_an_event(storer: EventStorer, connection: Connection) -> None:
    """Its payload is byte for byte what was sent."""
    data = b'{"host":"x.example", "element" : "banner", "n": 12345678901234567890.123456789, "n": 1E+2}'
    event = queued()
    body = event.body.replace(b'{"host": "www.consumeraffairs.com", "element": "chat bubble"}', data)

    storer.store(Payload.of([msgspec.structs.replace(event, body=body, trace_id=TRACE)]))

    (row,) = connection.execute(
        "SELECT event_id, session_id, application_id, category, name, data::text, timestamp, received_at, valid,"
        " violations, violated_rules, ruleset, stored_at, trace_id FROM events"
    ).fetchall()
    assert row[:9] == (
        event.event_id,
        UUID("e2085be5-9137-4e4e-80b5-f1ffddc25423"),
        7,
        "page interaction",
        "cta click",
        data.decode(),
        NOW,
        NOW,
        False,
    )
    assert row[9] == [
        {
            "rule": "shop/element",
            "generation": 4,
            "action": "Enforce",
            "path": "$.data.element",
            "code": "schema.enum",
            "message": row[9][0]["message"],
        },
        {
            "rule": "shop/host",
            "generation": 1,
            "action": "Audit",
            "path": "$",
            "code": "expression.false",
            "message": row[9][1]["message"],
        },
    ]
    assert "banner" not in str(row[9])
    assert row[10:12] == (["shop/element", "shop/host"], Rules().current.digest)
    assert row[12] >= NOW - timedelta(hours=1)
    assert row[13] == TRACE


def test_an_audited_violation_leaves_the_event_valid(storer: EventStorer, connection: Connection) -> None:
    """It is recorded all the same."""
    event = queued()
    body = event.body.replace(b"www.consumeraffairs.com", b"www.example.com")

    storer.store(Payload.of([msgspec.structs.replace(event, body=body)]))

    stored = connection.execute("SELECT valid, violated_rules FROM events").fetchall()
    assert stored == [(True, ["shop/host"])]


def test_the_same_event_makes_one_row(storer: EventStorer, connection: Connection) -> None:
    """Within a message, in a later one, and beside events that are new; a retry is free."""
    known, new = uuid4(), uuid4()
    before = outcome("duplicate")
    later = NOW + timedelta(seconds=1)

    storer.store(Payload.of([queued(event_id=known), queued(event_id=known)]))
    storer.store(
        Payload.of([queued(event_id=known, received_at=later), queued("banner", event_id=new, received_at=later)])
    )

    assert rows(connection) == [(known, True), (new, False)]
    assert outcome("duplicate") - before == 2


def test_the_same_id_at_another_time_is_another_event(storer: EventStorer, connection: Connection) -> None:
    """The id and the time together make the event."""
    event_id = uuid4()

    storer.store(
        Payload.of([queued(event_id=event_id), queued(event_id=event_id, timestamp=NOW - timedelta(seconds=1))])
    )

    assert len(rows(connection)) == 2


def test_a_message_that_comes_twice_counts_once(storer: EventStorer, connection: Connection) -> None:
    """As when a worker dies between storing and acknowledging: it ends as it did the first time."""
    known = uuid4()
    storer.store(Payload.of([queued(event_id=known)]))
    sent_again = queued(event_id=known, received_at=NOW + timedelta(seconds=1))
    dead = _queued(b"no json", uuid4(), NOW)
    payload = Payload.of([queued(), queued("banner"), sent_again, dead])
    first = storer.store(payload)
    before = {name: outcome(name) for name in ("valid", "invalid", "redelivered", "dead")}

    second = storer.store(payload)

    assert len(rows(connection)) == 3
    assert first == second == ["valid", "invalid", "duplicate", "dead"]
    assert {name: outcome(name) - count for name, count in before.items()} == {
        "valid": 0,
        "invalid": 0,
        "redelivered": 2,
        "dead": 0,
    }


def test_one_application_cannot_take_anothers_place(storer: EventStorer, connection: Connection) -> None:
    """The same id and time from another application is another event."""
    event = queued()

    storer.store(Payload.of([event, msgspec.structs.replace(event, application_id=8, application="other")]))

    assert len(rows(connection)) == 2


def test_two_workers_with_the_same_message_store_it_once(storer: EventStorer, connection: Connection) -> None:
    """Whoever comes second finds the rows there."""
    payload = Payload.of([queued() for _ in range(300)])
    threads = [threading.Thread(target=storer.store, args=(payload,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)

    assert len(rows(connection)) == 300


def test_one_event_that_cannot_be_stored_is_set_aside_alone(storer: EventStorer, connection: Connection) -> None:
    """A full message with one such event in it: its neighbours are stored, and it is kept with its bytes."""
    connection.execute("ALTER TABLE events ADD CONSTRAINT no_poison CHECK (name <> 'poison')")
    try:
        good = [queued() for _ in range(100)]
        body = good[0].body.replace(b"cta click", b"poison")
        bad = msgspec.structs.replace(queued(), body=body, trace_id=TRACE)
        payload = Payload.of([*good[:37], bad, *good[37:]])

        storer.store(payload)
        storer.store(payload)
    finally:
        connection.execute("ALTER TABLE events DROP CONSTRAINT no_poison")

    assert len(rows(connection)) == 100
    dead = connection.execute(
        "SELECT event_id, application_id, received_at, trace_id, code, original FROM dead_events"
    ).fetchall()
    assert dead == [(bad.event_id, 7, NOW, TRACE, "23514", bad.body)]


@pytest.mark.parametrize("neighbours", [0, 3])
def test_what_was_set_aside_and_can_be_stored_after_all_ends_once(
    pool: Pool, connection: Connection, neighbours: int
) -> None:
    """Its message came again, to another worker, because the first one died before it could acknowledge."""
    payload = Payload.of([queued() for _ in range(neighbours + 1)])
    poison = payload.events()[0].event_id
    connection.execute(f"ALTER TABLE events ADD CONSTRAINT no_poison CHECK (event_id <> '{poison}')")
    try:
        EventStorer(pool, Rules(), threading.Event()).store(payload)
        assert connection.execute("SELECT event_id FROM dead_events").fetchall() == [(poison,)]
    finally:
        connection.execute("ALTER TABLE events DROP CONSTRAINT no_poison")

    EventStorer(pool, Rules(), threading.Event()).store(payload)

    assert len(rows(connection)) == neighbours + 1
    assert connection.execute("SELECT event_id FROM dead_events").fetchall() == []


def test_another_acceptance_leaves_what_is_dead_alone(storer: EventStorer, connection: Connection) -> None:
    """Sent again and stored, the event has two ends, as it was accepted twice."""
    event = queued()
    connection.execute("ALTER TABLE events ADD CONSTRAINT no_poison CHECK (name <> 'cta click')")
    try:
        storer.store(Payload.of([event]))
    finally:
        connection.execute("ALTER TABLE events DROP CONSTRAINT no_poison")

    storer.store(Payload.of([msgspec.structs.replace(event, received_at=event.received_at + 1)]))

    assert len(rows(connection)) == 1
    assert connection.execute("SELECT event_id FROM dead_events").fetchall() == [(event.event_id,)]


def test_what_cannot_even_be_set_aside_fails_its_message(storer: EventStorer, connection: Connection) -> None:
    """It becomes a dead letter, whole, instead of holding the worker for ever; its neighbours are stored."""
    poison = _queued(b"no json", uuid4(), NOW)
    connection.execute("ALTER TABLE dead_events ADD CONSTRAINT never CHECK (code = '')")
    try:
        with pytest.raises(psycopg.IntegrityError):
            storer.store(Payload.of([queued(), poison, queued()]))
    finally:
        connection.execute("ALTER TABLE dead_events DROP CONSTRAINT never")

    assert len(rows(connection)) == 2


def test_what_the_edge_should_have_refused_is_set_aside(storer: EventStorer, connection: Connection) -> None:
    """A worker never stops for an event, whatever another version of the edge let through."""
    storer.store(Payload.of([_queued(b"no json", uuid4(), NOW), queued()]))

    assert len(rows(connection)) == 1
    dead = connection.execute("SELECT code, original FROM dead_events").fetchall()
    assert dead == [("malformed_json", b"no json")]


def test_a_missing_partition_is_no_fault_of_the_event(
    storer: EventStorer, connection: Connection, stopping: threading.Event
) -> None:
    """Nothing goes to the dead events for it: the worker waits until there is one."""
    connection.execute("ALTER TABLE events DETACH PARTITION events_default")
    thread = threading.Thread(target=storer.store, args=(Payload.of([queued()]),))
    thread.start()
    before = retries()
    try:
        wait_until(lambda: retries() > before + 1, DEADLINE, lambda: "the write was not tried again")
    finally:
        connection.execute("ALTER TABLE events ATTACH PARTITION events_default DEFAULT")
    thread.join(DEADLINE)
    stopping.set()

    assert len(rows(connection)) == 1
    assert connection.execute("SELECT count(*) FROM dead_events").fetchone() == (0,)


@pytest.mark.parametrize("fault", ["killed", "paused"])
def test_a_database_that_is_away_is_waited_for(
    storer: EventStorer, store_settings: StoreSettings, postgres: Postgres, stopping: threading.Event, fault: str
) -> None:
    """Killed or frozen in the middle, it loses nothing, and nothing is stored twice."""
    storer.store(Payload.of([queued()]))
    if fault == "killed":
        postgres.kill()
    else:
        postgres.pause()
    thread = threading.Thread(target=storer.store, args=(Payload.of([queued(), queued()]),))
    before = retries()
    thread.start()
    try:
        wait_until(lambda: retries() > before, DEADLINE, lambda: "the write was not tried again")
        assert thread.is_alive()
    finally:
        if fault == "killed":
            postgres.start()
        else:
            postgres.resume()
    thread.join(DEADLINE)
    stopping.set()

    with psycopg.connect(store_settings.database_url) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (3,)


def test_a_worker_that_must_stop_does_not_wait_for_the_database(
    storer: EventStorer, postgres: Postgres, stopping: threading.Event
) -> None:
    """The message goes back to the queue instead."""
    postgres.stop()
    try:
        stopping.set()
        with pytest.raises(Unfinished):
            storer.store(Payload.of([queued()]))
    finally:
        postgres.start()


def test_times_at_the_edges_of_the_calendar_are_stored(storer: EventStorer, connection: Connection) -> None:
    """Also those that no zone but UTC could hold."""
    times = [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)]

    storer.store(Payload.of([queued(timestamp=timestamp) for timestamp in times]))

    assert [row[0] for row in connection.execute("SELECT timestamp FROM events ORDER BY 1").fetchall()] == times
