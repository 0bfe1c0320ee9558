"""Partitions come ahead of time and go when the retention has passed, whatever else goes on."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest
from click.testing import CliRunner
from tests.integration.store.rows import event, insert
from tests.servers import wait_until

from the_eye.settings import RetentionSettings, StoreSettings
from the_eye.store import partitions
from the_eye.store.connect import Connection, connect
from the_eye.store.partitions import Created, Deleted, Dropped, MaintenanceError, maintain
from the_eye_cli.maintain import maintain as maintain_command

NOW = datetime(2026, 3, 10, 15, 30, tzinfo=UTC)
TODAY = NOW.date()
SETTINGS = RetentionSettings(retention_days=30, partitions_ahead_days=2)


def days(first: int, last: int) -> list[date]:
    """List days by their distance from today."""
    return [TODAY + timedelta(days=offset) for offset in range(first, last + 1)]


def where(connection: Connection) -> list[str]:
    """Name the partition of each event."""
    return [name for (name,) in connection.execute("SELECT tableoid::regclass::text FROM events ORDER BY 1")]


def test_days_from_yesterday_on_get_a_partition(connection: Connection) -> None:
    steps = list(maintain(connection, SETTINGS, NOW))

    assert steps == [Created(day, 0) for day in days(-1, 2)]
    assert partitions.list_partitions(connection) == days(-1, 2)


def test_a_second_time_there_is_nothing_to_do(connection: Connection) -> None:
    list(maintain(connection, SETTINGS, NOW))

    assert list(maintain(connection, SETTINGS, NOW)) == []


def test_a_day_begins_and_ends_at_midnight_in_utc(connection: Connection) -> None:
    connection.execute("SET timezone = 'Pacific/Kiritimati'")
    list(maintain(connection, SETTINGS, NOW))
    midnight = datetime(2026, 3, 10, tzinfo=UTC)
    insert(
        connection,
        event(timestamp=midnight - timedelta(microseconds=1)),
        event(timestamp=midnight),
        event(timestamp=midnight + timedelta(days=1, microseconds=-1)),
    )

    assert where(connection) == ["events_p20260309", "events_p20260310", "events_p20260310"]


def test_events_that_came_before_their_partition_move_into_it(connection: Connection) -> None:
    """They went to the default partition, which then must not hold the day any more."""
    ids = insert(connection, event(timestamp=NOW), event(timestamp=NOW), event(timestamp=NOW - timedelta(days=400)))

    steps = list(maintain(connection, SETTINGS, NOW))

    assert Created(TODAY, 2) in steps
    assert where(connection) == ["events_default", "events_p20260310", "events_p20260310"]
    assert {row[0] for row in connection.execute("SELECT event_id FROM events")} == set(ids)


def test_days_that_a_late_maintenance_left_out_get_their_partition_too(connection: Connection) -> None:
    list(maintain(connection, SETTINGS, NOW))
    insert(connection, event(timestamp=NOW + timedelta(days=5)))

    steps = list(maintain(connection, SETTINGS, NOW + timedelta(days=7)))

    assert steps == [Created(day, int(day == TODAY + timedelta(days=5))) for day in days(3, 9)]


def test_a_partition_goes_when_all_of_its_day_is_older_than_the_retention(connection: Connection) -> None:
    for day in (*days(-32, -29), *days(-1, 2)):
        with connection.transaction():
            partitions.create(connection, day)

    steps = list(maintain(connection, SETTINGS, NOW))

    assert [step for step in steps if isinstance(step, Dropped)] == [Dropped(day) for day in days(-32, -31)]
    assert partitions.list_partitions(connection)[0] == TODAY - timedelta(days=30)


def test_strays_are_deleted_by_the_time_they_were_stored(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event of 1970 or of 2099 stays as long as any other; batches of pages add up to all of them."""
    monkeypatch.setattr(partitions, "DELETE_BLOCKS", 2)
    old, new = NOW - timedelta(days=31), NOW - timedelta(days=29)
    far = datetime(2099, 1, 1, tzinfo=UTC)
    ancient = datetime(1970, 1, 1, tzinfo=UTC)
    insert(connection, *(event(timestamp=far, stored_at=old) for _ in range(200)))
    kept = insert(connection, event(timestamp=far, stored_at=new), event(timestamp=ancient, stored_at=new))

    steps = list(maintain(connection, SETTINGS, NOW))

    assert steps[-1] == Deleted(200)
    assert {row[0] for row in connection.execute("SELECT event_id FROM events")} == set(kept)


def test_a_retention_that_changes_is_followed(connection: Connection) -> None:
    list(maintain(connection, SETTINGS, NOW))
    later = NOW + timedelta(days=10)

    shorter = list(maintain(connection, RetentionSettings(retention_days=5, partitions_ahead_days=1), later))
    longer = list(maintain(connection, RetentionSettings(retention_days=500, partitions_ahead_days=1), later))

    assert [step.day for step in shorter if isinstance(step, Dropped)] == days(-1, 2)
    assert longer == []


def test_events_can_be_kept_for_good(connection: Connection) -> None:
    insert(connection, event(stored_at=datetime(1970, 1, 1, tzinfo=UTC), timestamp=datetime(1, 1, 1, tzinfo=UTC)))

    steps = list(maintain(connection, RetentionSettings(retention_days=10**9, partitions_ahead_days=1), NOW))

    assert steps == [Created(day, 0) for day in days(-1, 1)]
    assert where(connection) == ["events_default"]


def test_partitions_have_the_indexes_of_the_table(connection: Connection) -> None:
    """A partition that was made alone and attached is like any other."""
    list(maintain(connection, SETTINGS, NOW))
    count = "SELECT count(*) FROM pg_index WHERE indrelid = %s::regclass AND indisvalid"

    table = connection.execute(count, ("events",)).fetchall()
    made = connection.execute(count, ("events_p20260310",)).fetchall()
    attached = connection.execute(
        "SELECT count(*) FROM pg_inherits i JOIN pg_index x ON x.indexrelid = i.inhrelid"
        " WHERE x.indrelid = 'events_p20260310'::regclass"
    ).fetchall()

    assert made == table
    assert attached == table


def test_two_maintenances_at_once_do_each_thing_once(store_settings: StoreSettings, connection: Connection) -> None:
    insert(connection, *(event(timestamp=NOW + timedelta(minutes=minute)) for minute in range(100)))
    steps: list[object] = []

    def run() -> None:
        with connect(store_settings, "maintain") as own:
            steps.extend(maintain(own, SETTINGS, NOW))

    together(run, run)

    created = [step for step in steps if isinstance(step, Created)]
    assert sorted(step.day for step in created) == days(-1, 2)
    assert sum(step.moved for step in created) == 100


def test_writers_never_meet_a_partition_made_under_their_feet(
    store_settings: StoreSettings, connection: Connection
) -> None:
    """What is written while partitions are made goes into them or is moved there, and no writer sees an error."""
    done = threading.Event()
    written: list[object] = []

    def write() -> None:
        with connect(store_settings, "writer") as own:
            while not done.is_set():
                written.extend(insert(own, event(timestamp=NOW)))

    def make() -> None:
        wait_until(lambda: len(written) > 50, 20, lambda: "nothing is written")
        for _ in range(20):
            with connect(store_settings, "maintain") as own:
                list(maintain(own, SETTINGS, NOW))
                own.execute("ALTER TABLE events DETACH PARTITION events_p20260310")
                own.execute("INSERT INTO events_default SELECT * FROM events_p20260310")
                own.execute("DROP TABLE events_p20260310")
        done.set()

    together(write, write, make)

    assert {row[0] for row in connection.execute("SELECT event_id FROM events")} == set(written)


def test_a_lock_that_is_held_for_a_while_is_waited_for_in_small_steps(
    store_settings: StoreSettings, connection: Connection
) -> None:
    """A long query delays maintenance; readers and writers that come after it are not held up for longer than 0.5 s."""
    with locked(store_settings) as release:
        thread = threading.Thread(target=lambda: list(maintain(connection, SETTINGS, NOW)))
        thread.start()
        with connect(store_settings, "reader") as reader:
            wait_until(lambda: waiting_for_lock(reader), 20, lambda: "maintenance does not wait")
            reader.execute("SET statement_timeout = '3s'")
            assert reader.execute("SELECT count(*) FROM events").fetchall() == [(0,)]
        release.set()
        thread.join()

    assert partitions.list_partitions(connection) == days(-1, 2)


def test_a_lock_that_stays_held_is_said(
    store_settings: StoreSettings, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "ATTEMPTS", 2)
    monkeypatch.setattr(partitions, "LOCK_SECONDS", 0.05)
    with locked(store_settings), pytest.raises(MaintenanceError, match="cannot create events_p20260309: after 2"):
        list(maintain(connection, SETTINGS, NOW))


def test_the_command_says_what_it_did(store_settings: StoreSettings, connection: Connection) -> None:
    """`the-eye maintain` uses the database's clock."""
    environment = {"THE_EYE_DATABASE_URL": store_settings.database_url, "THE_EYE_PARTITIONS_AHEAD_DAYS": "1"}

    first = CliRunner().invoke(maintain_command, env=environment)
    second = CliRunner().invoke(maintain_command, env=environment)

    today = partitions.clock(connection).date()
    names = [partitions.partition_name(today + timedelta(days=offset)) for offset in (-1, 0, 1)]
    assert first.stdout.splitlines() == [f"created {name}" for name in names]
    assert second.stdout == "nothing to do\n"


def test_the_command_fails_in_one_line_without_a_schema(store_settings: StoreSettings) -> None:
    url = store_settings.database_url.replace("/the_eye?", "/postgres?")

    result = CliRunner().invoke(maintain_command, env={"THE_EYE_DATABASE_URL": url})

    assert result.exit_code == 1
    assert "run `the-eye migrate`" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def together(*targets: object) -> None:
    """Run functions at once and raise what one of them raised."""
    raised: list[BaseException] = []

    def guarded(target: object) -> None:
        assert callable(target)
        try:
            target()
        except BaseException as error:  # noqa: BLE001 - raised again below, in the test's own thread
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


@contextmanager
def locked(settings: StoreSettings) -> Iterator[threading.Event]:
    """Hold the lock of a long query on `events` until the block ends or the event is set."""
    taken, release = threading.Event(), threading.Event()

    def hold() -> None:
        with psycopg.connect(settings.database_url) as own:
            own.execute("SELECT count(*) FROM events")
            taken.set()
            release.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait(30)
    try:
        yield release
    finally:
        release.set()
        thread.join()


def waiting_for_lock(connection: Connection) -> bool:
    """Whether maintenance waits for a lock just now."""
    return bool(connection.execute("SELECT FROM pg_locks WHERE NOT granted").rowcount)
