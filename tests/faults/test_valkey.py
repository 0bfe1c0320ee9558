"""The queue's server dies, freezes, runs out of disk or memory, or is left with half a write."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from tests.faults import numbered
from tests.faults.case import Case
from tests.faults.house import House
from tests.faults.stores import BreakableValkey, SmallDisk, clean_up, small_disk
from tests.servers import wait_until

DEADLINE = 30.0
UNDERWAY_SECONDS = 1.0
"""Within this an answer comes that was on its way when the server ended."""


@pytest.mark.fault("Valkey killed (SIGKILL) and started again, again and again")
def test_a_killed_queue_has_all_that_was_answered(case: Case, valkey: BreakableValkey) -> None:
    """It reads its append-only file back; what it was not asked to confirm is sent again."""
    with case.sending() as sender:
        for _ in range(case.scale.rounds):
            sender.wait_for_more(case.scale.between)
            valkey.kill()
            valkey.start()
            case.mended()
        case.recover()
    case.close()


@pytest.mark.fault("Valkey paused")
def test_a_frozen_queue_is_a_503_within_the_deadline(house: House, case: Case, valkey: BreakableValkey) -> None:
    """Its connections stay open and say nothing; the edge's own deadline is 5 seconds."""
    with case.sending() as sender:
        sender.wait_for_more(case.scale.between)
        valkey.pause()
        until = time.monotonic() + case.scale.pause_seconds
        wait_until(
            lambda: time.monotonic() > until and sender.seen.answers["503"] > 0, DEADLINE, lambda: str(sender.seen)
        )
        valkey.resume()
        case.mended()
        case.recover()
    case.close(how=f"for {case.scale.pause_seconds:.0f} s and until a sender saw a 503")
    assert case.seen.slowest_seconds < 2 * house.queue_settings.queue_timeout_seconds + 2


class TestFullDisk:
    """The file system with the append-only file has no byte left."""

    @pytest.fixture
    def disk(self, folder: Path) -> Iterator[SmallDisk]:
        """A file system for the server's files alone."""
        with small_disk(folder / "v", 16) as disk:
            yield disk

    @pytest.fixture
    def valkey(self, disk: SmallDisk) -> Iterator[BreakableValkey]:
        """A server on the small file system."""
        server = BreakableValkey(disk.folder)
        try:
            server.start()
            yield server
        finally:
            clean_up(server)

    @pytest.mark.fault("Valkey's disk full")
    def test_what_cannot_be_written_is_never_a_202(self, case: Case, valkey: BreakableValkey, disk: SmallDisk) -> None:
        """With appendfsync always the server ends itself at such a write; it is started again without success, too."""
        with case.sending() as sender:
            sender.wait_for_more(case.scale.between)
            disk.fill()
            wait_until(lambda: not valkey.runs, DEADLINE, lambda: "the server goes on")
            ended = time.monotonic()
            until = ended + UNDERWAY_SECONDS + case.scale.outage_seconds
            while time.monotonic() < until:
                with suppress(RuntimeError):  # a sender's write may end it before it answers
                    valkey.start()
                wait_until(lambda: not valkey.runs, DEADLINE, lambda: "the server goes on")
            assert sender.seen.first_accepted_after(ended + UNDERWAY_SECONDS) is None
            disk.free()
            valkey.start()
            case.mended()
            case.recover()
        case.close(how=disk.how)


@pytest.mark.fault("Valkey's append-only file torn in its last write, found so when it starts")
def test_a_torn_write_takes_nothing_that_was_answered(house: House, case: Case, valkey: BreakableValkey) -> None:
    """The file is cut in the middle of a write that nobody had an answer to.

    That is what a power cut leaves: an answered write was synced before its answer. A cut that goes deeper is a disk
    that lies, against which nothing here helps.
    """
    house.worker.kill()
    with case.sending() as sender:
        sender.wait_for_more(case.scale.between)
    synced = valkey.append_only_file.stat().st_size
    unanswered = range(case.sent, case.sent + 100)
    _send_and_hang_up(house, numbered.batch(unanswered))
    wait_until(lambda: _grown(valkey) > synced + 1_000, DEADLINE, lambda: "the batch was not written")
    valkey.kill()
    whole = _grown(valkey)
    os.truncate(valkey.append_only_file, synced + (whole - synced) // 2)
    valkey.start()
    case.mended()
    assert "Truncating the AOF" in valkey.log
    house.worker.start()
    answer = httpx.post(
        f"{house.url}/events/batch",
        content=numbered.batch(unanswered),
        headers={"Authorization": f"Bearer {house.postgres.token}", "Content-Type": "application/json"},
        timeout=DEADLINE,
    )
    assert answer.status_code == 202
    case.sent += len(unanswered)
    case.note_stored()
    case.close(how=f"{whole - synced:,} bytes written, half of them cut off")


def _grown(valkey: BreakableValkey) -> int:
    return valkey.append_only_file.stat().st_size


def _send_and_hang_up(house: House, body: bytes) -> None:
    """Send a whole request and never look at the answer."""
    host, _, port = house.url.removeprefix("http://").rpartition(":")
    head = (
        f"POST /events/batch HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {house.postgres.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=DEADLINE) as connection:
        connection.sendall(head.encode() + body)
        connection.shutdown(socket.SHUT_WR)


@pytest.mark.fault("Valkey out of memory (maxmemory, noeviction)")
def test_a_queue_without_memory_is_drained(house: House, case: Case) -> None:
    """Senders get 503, workers go on, and so memory comes free by itself."""
    house.worker.kill()
    with case.sending() as sender, house.client() as client:
        sender.wait_for_more(case.scale.between)
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 100_000)
        wait_until(lambda: sender.seen.answers["503"] > 0, DEADLINE, lambda: str(sender.seen))
        house.worker.start()
        case.mended()
        case.recover()
    case.close()


@pytest.mark.fault("Valkey read-only (made a replica) while the worker acknowledges")
def test_what_could_not_be_acknowledged_is_acknowledged_later(house: House, case: Case) -> None:
    """As in a failover: the events are stored, and their messages do not stay in the queue for ever."""
    with house.client() as client, case.sending() as sender:
        with house.postgres.connect() as lock, lock.transaction():
            lock.execute("LOCK TABLE events IN SHARE ROW EXCLUSIVE MODE")
            sender.wait_for_more(case.scale.between)
            wait_until(lambda: bool(house.claims()), DEADLINE, lambda: "the worker takes no messages")
            client.replicaof("127.0.0.1", "1")
            wait_until(lambda: sender.seen.answers["503"] > 0, DEADLINE, lambda: str(sender.seen))
        wait_until(lambda: _rows(house) > 0, DEADLINE, lambda: "nothing is stored")
        case.wait(case.scale.outage_seconds)
        client.replicaof("NO", "ONE")
        case.mended()
        case.recover()
    case.close()


def _rows(house: House) -> int:
    with house.postgres.connect() as connection:
        return int(connection.execute("SELECT count(*) FROM events").fetchall()[0][0])
