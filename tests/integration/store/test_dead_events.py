"""What cannot be stored is set aside, seen, replayed and discarded; nothing of it is lost on the way."""

import json
import threading
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID, uuid4

import dramatiq
import msgspec
import pytest
import redis
from click.testing import CliRunner, Result
from tests.integration.store.rows import NOON
from tests.servers import Valkey

from the_eye.queue import REPLAYS_QUEUE, EnvelopeEncoder, QueuedEvent, events_message
from the_eye.settings import QueueSettings, StoreSettings
from the_eye.store import dead_events
from the_eye.store.applications import create_application
from the_eye.store.connect import Connection, connect
from the_eye.store.dead_events import DeadEntry, DeadEvent, batches, list_dead, read_dead, replay, set_aside
from the_eye_cli.dead import dead

ID = UUID("018a0000-0000-7000-8000-000000000001")
TRACE = UUID("0af7651916cd43dd8448eb211c80319c")


def dead_event(**changes: object) -> DeadEvent:
    """Make an event that cannot be stored."""
    fields = {
        "kind": "event",
        "code": "unstorable",
        "error": "value out of range",
        "original": b'{"a": 1}',
        "event_id": ID,
        "application_id": 1,
        "received_at": NOON,
        "trace_id": TRACE,
    }
    return DeadEvent(**{**fields, **changes})  # type: ignore[arg-type] # the fields are DeadEvent's


def test_what_is_set_aside_can_be_read_as_it_was(connection: Connection) -> None:
    create_application(connection, "shop")
    raw = bytes(range(256))
    assert set_aside(connection, [dead_event(original=raw), dead_event(kind="message", event_id=None)]) == 2

    entry = read_dead(connection, 1)
    assert entry is not None
    assert (entry.original, entry.size, entry.application, entry.event_id) == (raw, 256, "shop", ID)
    assert [one.id for one in list_dead(connection, 10)] == [2, 1]


def test_a_redelivered_message_is_not_set_aside_twice(connection: Connection) -> None:
    """It counts once in the ledger."""
    first = set_aside(connection, [dead_event(queue_id="m1:0"), dead_event(queue_id="m1:1")])
    again = set_aside(connection, [dead_event(queue_id="m1:1"), dead_event(queue_id="m1:2")])
    unnamed = set_aside(connection, [dead_event(), dead_event()])

    assert (first, again, unnamed) == (2, 1, 2)
    assert len(list_dead(connection, 10)) == 5


def test_any_error_can_be_set_aside(connection: Connection) -> None:
    """Its text may quote what could not be stored in the first place."""
    set_aside(connection, [dead_event(error="NUL \0, surrogate \ud800, " + "long " * 10_000)])

    (entry,) = list_dead(connection, 1)
    assert entry.error.startswith("NUL \\0, surrogate \\ud800, long")
    assert len(entry.error) < 2_100


def test_a_replay_deletes_only_what_was_queued(connection: Connection) -> None:
    set_aside(connection, [dead_event() for _ in range(3)])

    def enqueue(entries: Sequence[DeadEntry]) -> list[int]:
        return [entry.id for entry in entries if entry.id != 2]

    assert replay(connection, [1, 2, 3, 4], enqueue) == [1, 3]
    assert [entry.id for entry in list_dead(connection, 10)] == [2]


def test_an_event_that_dies_again_while_it_is_replayed_is_kept(
    connection: Connection, store_settings: StoreSettings
) -> None:
    """A worker can be faster than the replay that gave it the event: it waits, and nothing falls between the two."""
    set_aside(connection, [dead_event(queue_id="the same acceptance")])
    workers: list[threading.Thread] = []

    def die_again() -> None:
        with connect(store_settings, "worker") as another:
            set_aside(another, [dead_event(queue_id="the same acceptance", code="died again")])

    def enqueue(entries: Sequence[DeadEntry]) -> Sequence[int]:
        workers.append(threading.Thread(target=die_again))
        workers[0].start()
        workers[0].join(0.5)  # long enough to have done nothing, were it not to wait
        return [entry.id for entry in entries]

    assert replay(connection, [1], enqueue) == [1]
    workers[0].join(10)

    assert [entry.code for entry in list_dead(connection, 10)] == ["died again"]


def test_a_replay_that_fails_keeps_all(connection: Connection) -> None:
    set_aside(connection, [dead_event()])

    def enqueue(_: Sequence[DeadEntry]) -> list[int]:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        replay(connection, [1], enqueue)
    assert len(list_dead(connection, 10)) == 1


def test_all_are_replayed_in_bounded_batches_and_what_dies_again_is_not_met_again(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_events, "REPLAY_ROWS", 3)
    monkeypatch.setattr(dead_events, "REPLAY_BYTES", 100)
    set_aside(connection, [dead_event(original=b"x" * size) for size in (1, 1, 1, 1, 99, 1, 500, 1)])

    found = []
    for batch in batches(connection):
        found.append(batch)
        set_aside(connection, [dead_event()])

    assert found == [[1, 2, 3], [4, 5], [6], [7], [8]]


class Commands:
    """`the-eye dead ...` with a store and a queue."""

    def __init__(self, store: StoreSettings, queue: QueueSettings, valkey: Valkey) -> None:
        self.queue = queue
        self._valkey = valkey
        self._environment = {
            "THE_EYE_DATABASE_URL": store.database_url,
            "THE_EYE_REDIS_URL": queue.redis_url,
            "THE_EYE_QUEUE_NAMESPACE": queue.queue_namespace,
        }

    def run(self, *arguments: str, **environment: str) -> Result:
        """Run the command."""
        return CliRunner().invoke(dead, arguments, env={**self._environment, **environment})

    def queued(self) -> list[list[QueuedEvent]]:
        """Read the events of each message in the queue."""
        dramatiq.set_encoder(EnvelopeEncoder())
        with redis.Redis.from_url(self._valkey.url()) as client:
            messages = client.hvals(f"{self.queue.queue_namespace}:{REPLAYS_QUEUE}.msgs")
        assert isinstance(messages, list)
        return [dramatiq.Message.decode(raw).args[0].events() for raw in messages]


@pytest.fixture
def commands(store_settings: StoreSettings, queue_settings: QueueSettings, valkey: Valkey) -> Commands:
    """The commands with an empty store and an empty queue."""
    return Commands(store_settings, queue_settings, valkey)


def test_a_replayed_event_is_queued_with_its_own_id_and_time(commands: Commands, connection: Connection) -> None:
    """So that a replay that is repeated makes no second row."""
    create_application(connection, "shop")
    received = NOON + timedelta(microseconds=123_457)
    set_aside(connection, [dead_event(received_at=received)])

    result = commands.run("replay", "1")

    assert (result.exit_code, result.stdout) == (0, "replayed 1\n")
    ((event,),) = commands.queued()
    assert (event.event_id, event.application_id, event.application, event.body) == (ID, 1, "shop", b'{"a": 1}')
    assert event.received_at == 1_773_144_000_123_457
    assert event.trace_id == TRACE
    assert list_dead(connection, 10) == []


def test_a_replayed_message_is_queued_as_it_was(commands: Commands, connection: Connection) -> None:
    dramatiq.set_encoder(EnvelopeEncoder())
    events = [QueuedEvent(uuid4(), 1, "shop", 5, b"{}")]
    set_aside(connection, [DeadEvent(kind="message", code="x", error="y", original=events_message(events).encode())])

    assert commands.run("replay", "--all").stdout == "replayed 1\n"
    assert commands.queued() == [events]


def test_what_cannot_be_replayed_stays_and_stops_nothing_else(commands: Commands, connection: Connection) -> None:
    set_aside(
        connection,
        [DeadEvent(kind="message", code="x", error="y", original=b"garbage"), dead_event(), dead_event()],
    )

    result = commands.run("replay", "--all")

    assert (result.exit_code, result.stdout) == (1, "replayed 2\n")
    assert result.stderr.startswith("Error: 1: ")
    assert [entry.id for entry in list_dead(connection, 10)] == [1]


def test_a_queue_that_is_away_loses_nothing(commands: Commands, connection: Connection) -> None:
    set_aside(connection, [dead_event()])

    result = commands.run("replay", "1", THE_EYE_REDIS_URL="unix:///nowhere")

    assert result.exit_code == 1
    assert "the queue is away" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert len(list_dead(connection, 10)) == 1


def test_an_id_that_is_not_there_is_said_and_the_others_are_replayed(
    commands: Commands, connection: Connection
) -> None:
    set_aside(connection, [dead_event()])

    result = commands.run("replay", "7", "1")

    assert (result.exit_code, result.stdout) == (1, "replayed 1\n")
    assert "7: not there" in result.stderr


def test_the_original_is_shown_as_text_or_in_hexadecimal(commands: Commands, connection: Connection) -> None:
    set_aside(connection, [dead_event(original='{"n": "é"}'.encode()), dead_event(original=b"\xff\x00")])

    text, binary = commands.run("show", "1").stdout, commands.run("show", "2").stdout

    assert text.endswith('\n\n{"n": "é"}\n')
    assert "code: unstorable\n" in text
    assert binary.endswith("\n\nff00\n")


def too_deep() -> bytes:
    """Make a message that no decoder follows to its end."""
    nested = b"\x91" * 100_000 + b"\x90"
    return b"\x86" + msgspec.msgpack.encode("options") + b"\x81" + msgspec.msgpack.encode("a") + nested


@pytest.mark.parametrize("size", [0, 100_000], ids=["as it is", "compressed"])
def test_a_whole_message_is_shown_as_its_events(commands: Commands, connection: Connection, size: int) -> None:
    bodies = ['{"n": "é"}', f'{{"text": "{"x" * size}"}}']
    events = [QueuedEvent(uuid4(), 1, "shop", 0, body.encode()) for body in bodies]
    message = EnvelopeEncoder().encode(events_message(events).asdict())
    nobody_s = [b"\x00" + message, b'{"queue_name": "events"}', too_deep()]
    set_aside(
        connection,
        [
            DeadEvent(kind="message", code="dead_letter", error="", original=original, queue_id=str(number))
            for number, original in enumerate([message, *nobody_s])
        ],
    )

    shown, binary, text, deep = (commands.run("show", str(number)).stdout for number in range(1, 5))

    assert shown.endswith("\n\n{}\n{}\n".format(*bodies))
    assert binary.endswith(f"\n\n{nobody_s[0].hex()}\n")
    assert text.endswith('\n\n{"queue_name": "events"}\n')
    assert deep.endswith(f"\n\n{nobody_s[2].hex()}\n")


def test_a_list_is_a_table_or_json(commands: Commands, connection: Connection) -> None:
    create_application(connection, "shop")
    set_aside(connection, [dead_event(error="two\nlines")])

    table = commands.run("list").stdout.splitlines()
    (entry,) = json.loads(commands.run("list", "--output", "json").stdout)

    assert "two lines" in table[1]
    assert (entry["application"], entry["event_id"], entry["size"]) == ("shop", str(ID), 8)


def test_what_is_discarded_is_gone(commands: Commands, connection: Connection) -> None:
    set_aside(connection, [dead_event()])

    assert commands.run("discard", "1").exit_code == 0
    again = commands.run("discard", "1")
    assert (again.exit_code, again.stderr) == (1, "Error: there is no dead event with the id 1\n")
    assert commands.run("show", "1").exit_code == 1
