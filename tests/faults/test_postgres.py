"""The store's server dies, freezes, refuses, or is in the way of itself: accepting goes on, and nothing is lost."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from tests.faults import numbered
from tests.faults.case import Case
from tests.faults.house import House
from tests.faults.sender import Load
from tests.faults.stores import CopiedPostgres, MigratedPostgres, SmallDisk, clean_up, small_disk
from tests.servers import wait_until

from the_eye.queue import QueuedEvent, enqueue_events

DEADLINE = 30.0
RETRIES = "the_eye_write_retries_total"


@pytest.mark.fault("PostgreSQL killed (SIGKILL, all its processes) and started again, again and again")
def test_a_killed_store_is_waited_for(house: House, case: Case, postgres: CopiedPostgres) -> None:
    """Senders notice nothing; what was half written is written again."""
    with case.sending() as sender:
        for _ in range(case.scale.rounds):
            sender.wait_for_more(case.scale.between)
            postgres.kill()
            wait_for_retries(house, case)
            postgres.start()
            case.mended()
        case.recover()
    case.close()
    assert case.seen.only_202


@pytest.mark.fault("PostgreSQL restarted (fast shutdown)")
def test_a_restarted_store_is_waited_for(case: Case, postgres: CopiedPostgres) -> None:
    """It ends every connection in order."""
    with case.sending() as sender:
        sender.wait_for_more(case.scale.between)
        postgres.stop()
        postgres.start()
        case.mended()
        case.recover()
    case.close()
    assert case.seen.only_202


@pytest.mark.fault("PostgreSQL paused")
def test_a_frozen_store_is_waited_for(case: Case, postgres: CopiedPostgres) -> None:
    """Its connections stay open and say nothing."""
    with case.sending() as sender:
        sender.wait_for_more(case.scale.between)
        postgres.pause()
        case.wait(case.scale.pause_seconds)
        postgres.resume()
        case.mended()
        case.recover()
    case.close(how=f"for {case.scale.pause_seconds:.0f} s")
    assert case.seen.only_202


class TestNoConnections:
    """All connections that the server allows are taken by others."""

    @pytest.fixture
    def postgres_options(self) -> list[str]:
        """Allow so few that a test can take them all."""
        return ["-c", "max_connections=20", "-c", "superuser_reserved_connections=0"]

    @pytest.mark.fault("PostgreSQL out of connections")
    def test_a_store_without_connections_is_waited_for(
        self, house: House, case: Case, postgres: CopiedPostgres
    ) -> None:
        """Those of the worker and of the API are ended, so that they need new ones."""
        with case.sending() as sender, ExitStack() as taken:
            sender.wait_for_more(case.scale.between)
            take_all_connections(postgres, taken)
            wait_for_retries(house, case)
            taken.close()
            case.mended()
            case.recover()
        case.close()
        assert case.seen.only_202
        assert "too many clients" in postgres.log


def take_all_connections(postgres: CopiedPostgres, taken: ExitStack) -> None:
    """Take every connection, until none of The Eye's processes has one."""
    end_theirs = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'the-eye%'"
    first = taken.enter_context(postgres.connect())
    while True:
        with suppress(psycopg.OperationalError):
            while True:
                taken.enter_context(postgres.connect())
        if not first.execute(end_theirs).fetchall():
            return


@pytest.mark.fault("PostgreSQL read-only (default_transaction_read_only)")
def test_a_read_only_store_is_waited_for(house: House, case: Case, postgres: CopiedPostgres) -> None:
    """As after a failover to a standby; nothing is taken for an event's own fault."""
    with case.sending() as sender, postgres.connect() as administrator:
        sender.wait_for_more(case.scale.between)
        administrator.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        administrator.execute("SELECT pg_reload_conf()")
        wait_for_retries(house, case)
        administrator.execute("SET default_transaction_read_only = off")
        administrator.execute("ALTER SYSTEM RESET default_transaction_read_only")
        administrator.execute("SELECT pg_reload_conf()")
        case.mended()
        case.recover()
    case.close()
    assert case.seen.only_202


class TestFullDisk:
    """The file system with the data and the write-ahead log has no byte left."""

    @pytest.fixture
    def disk(self, folder: Path) -> Iterator[SmallDisk]:
        """A file system for the server's data alone."""
        with small_disk(folder / "p" / "data", 200) as disk:
            yield disk

    @pytest.fixture
    def postgres(self, disk: SmallDisk, migrated: MigratedPostgres) -> Iterator[CopiedPostgres]:
        """A server on the small file system."""
        server = CopiedPostgres(disk.folder.parent, migrated)
        try:
            server.start()
            yield server
        finally:
            clean_up(server)

    @pytest.mark.fault("PostgreSQL's disk full")
    def test_a_full_disk_is_waited_for(
        self, house: House, case: Case, postgres: CopiedPostgres, disk: SmallDisk
    ) -> None:
        """When it cannot even write its log the server ends itself; it is started again once there is room."""
        with case.sending() as sender:
            sender.wait_for_more(case.scale.between)
            disk.fill()
            wait_for_retries(house, case)
            disk.free()
            ended = _ends(postgres)
            if ended:
                postgres.start()
            case.mended()
            case.recover()
        case.close(how=f"{disk.how}; the server {'ended itself' if ended else 'went on'}")
        assert case.seen.only_202
        assert "No space left on device" in postgres.log


def _ends(postgres: CopiedPostgres) -> bool:
    """Say whether a server that found no room ends itself, once that is decided: a recovery begun before may fail."""

    def writes() -> bool:
        try:
            with postgres.connect() as connection:
                connection.execute("CREATE TABLE room (); DROP TABLE room")
        except psycopg.Error:
            return False
        return True

    wait_until(lambda: not postgres.runs or writes(), DEADLINE, lambda: "the server neither ends nor writes")
    return not postgres.runs


@pytest.mark.fault("deadlock between the worker and another transaction")
def test_a_deadlock_is_no_fault_of_the_event(house: House, case: Case, postgres: CopiedPostgres) -> None:
    """PostgreSQL ends the worker's transaction, which is written again."""
    now = datetime.now(UTC)
    received_at = (now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    events = [
        QueuedEvent(numbered.event_id(number), 1, "faults", received_at, numbered.event(number, now))
        for number in case.numbers(100)
    ]
    with postgres.connect() as other, other.transaction(force_rollback=True):
        # The worker is the one that has waited for a second when it looks for a deadlock.
        other.execute("SET deadlock_timeout = '60s'")
        _insert(other, 99, now)
        enqueue_events(house.queue_settings, events)
        with postgres.connect() as watcher:
            wait_until(lambda: _someone_waits(watcher), DEADLINE, lambda: "the worker does not wait")
        _insert(other, 0, now)
    case.mended()
    case.note_stored()
    case.close()
    assert "deadlock detected" in postgres.log
    assert house.worker.metric(RETRIES) > 0


def _insert(connection: psycopg.Connection[psycopg.rows.TupleRow], number: int, timestamp: datetime) -> None:
    connection.execute(
        """INSERT INTO events (event_id, session_id, application_id, category, name, data, "timestamp", received_at,
                               valid, ruleset)
           VALUES (%(id)s, %(id)s, 1, 'a', 'b', '{}', %(at)s, %(at)s, true, sha256(''))""",
        {"id": numbered.event_id(number), "at": timestamp},
    )


def _someone_waits(connection: psycopg.Connection[psycopg.rows.TupleRow]) -> bool:
    query = "SELECT FROM pg_stat_activity WHERE application_name = 'the-eye worker' AND wait_event_type = 'Lock'"
    return connection.execute(query).fetchone() is not None


@pytest.mark.fault("no partition for the events' day")
def test_a_missing_partition_is_waited_for(house: House, case: Case, postgres: CopiedPostgres) -> None:
    """Today's is missing and there is no default one: the table's fault, not the events'."""
    with case.sending() as sender, postgres.connect() as administrator:
        sender.wait_for_more(case.scale.between)
        partitions = administrator.execute(
            """SELECT inhrelid::regclass::text, pg_get_expr(relpartbound, oid)
                 FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = 'events'::regclass
                ORDER BY pg_get_expr(relpartbound, oid) = 'DEFAULT' -- else it takes in the others' rows"""
        ).fetchall()
        for name, _ in reversed(partitions):
            administrator.execute(sql.SQL("ALTER TABLE events DETACH PARTITION {}").format(sql.Identifier(name)))
        wait_for_retries(house, case)
        for name, bound in partitions:
            administrator.execute(
                sql.SQL("ALTER TABLE events ATTACH PARTITION {} {}").format(sql.Identifier(name), sql.SQL(bound))
            )
        case.mended()
        case.recover()
    case.close()
    assert case.seen.only_202


@pytest.mark.fault("PostgreSQL away while the API is killed and starts again")
def test_an_api_that_starts_without_a_store_accepts_events(house: House, case: Case, postgres: CopiedPostgres) -> None:
    """It takes the copy of the tokens that lies beside the queue; senders see the kill and nothing else."""
    with case.sending() as sender:
        sender.wait_for_more(case.scale.between)
        postgres.kill()
        house.api.kill()
        house.api.start()
        house.api.wait_until_ready()
        sender.wait_for_more(case.scale.between)
        case.wait(case.scale.outage_seconds)
        assert not postgres.runs
        postgres.start()
        case.mended()
        case.recover()
    case.close()
    assert set(case.seen.answers) <= {"202", "broken connection"}
    assert house.api.log.count("tokens_taken_from_copy") == 1


def wait_for_retries(house: House, case: Case) -> None:
    """Wait until the worker has been refused, and for as long as an outage is to last."""
    before = house.worker.metric(RETRIES)
    wait_until(lambda: house.worker.metric(RETRIES) > before, DEADLINE, lambda: "it was not tried again")
    case.wait(case.scale.outage_seconds)


@pytest.mark.fault("PostgreSQL slow: each write takes 6 s, with two workers")
def test_a_slow_store_makes_no_worker_look_dead(house: House, case: Case, postgres: CopiedPostgres) -> None:
    """A write takes longer than the silence after which a worker is taken for dead, and still none is."""
    with postgres.connect() as administrator:
        administrator.execute(
            """CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
               $$BEGIN PERFORM pg_sleep(6); RETURN NULL; END$$"""
        )
        administrator.execute(
            "CREATE TRIGGER dawdle BEFORE INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION dawdle()"
        )
    other = house.make_worker()
    other.start()
    other.wait_until_ready()
    with case.sending(Load(singles=0, batches=1, batch_events=10, total=160)) as sender:
        sender.wait_until_done(DEADLINE)
    case.mended()
    case.note_stored()
    case.close()
    for worker in (house.worker, other):
        assert worker.metric('the_eye_events_total{outcome="redelivered"}') == 0


@pytest.mark.fault("worker stopped (SIGTERM) while PostgreSQL is away")
def test_a_stopping_worker_gives_back_what_it_cannot_store(house: House, case: Case, postgres: CopiedPostgres) -> None:
    """It does not wait for the store, and the next worker need not wait for its silence."""
    with case.sending() as sender:
        sender.wait_for_more(case.scale.between)
        postgres.kill()
        wait_for_retries(house, case)
        assert house.worker.terminate() == 0
        assert not house.claims()
        postgres.start()
        case.mended()
        house.worker.start()
        case.recover()
    case.close()
    assert case.seen.only_202
