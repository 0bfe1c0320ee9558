"""The spool: on disk before it is sent, gone once it has arrived, and no harm to the rest when it fails."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.client.conftest import TOKEN, MakeEye, settings
from tests.client.scripted import WAIT_SECONDS, Call, ScriptedServer, problem, refuse_those
from tests.client.tracking import SESSION, track, track_many
from tests.servers import wait_until

from the_eye_client import Eye, Lost
from the_eye_client._event import QueuedEvent
from the_eye_client._memory import Limits
from the_eye_client._spool import CLAIM_SECONDS, Spool, SpoolError

ALL = Limits(1_000, 1_000_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the spool is."""
    return tmp_path / "spool"


@pytest.fixture(autouse=True)
def quick_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that failed is tried again at once."""
    monkeypatch.setattr("the_eye_client._spool.RECOVERY_SECONDS", 0.1)


def rows(path: Path) -> int:
    """Count what is in the spool."""
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM events").fetchone()[0])


def events(*numbers: int) -> list[QueuedEvent]:
    """Make events."""
    return [QueuedEvent(number, f"id-{number}", b'{"n":%d}' % number) for number in numbers]


def ids(taken: list[QueuedEvent]) -> list[str]:
    """Give the events' ids."""
    return [event.event_id for event in taken]


def test_events_are_on_disk_until_the_server_has_them(server: ScriptedServer, make_eye: MakeEye, path: Path) -> None:
    server.otherwise = problem(503, "away")
    eye = make_eye(spool=path)
    tracked = track_many(eye, 100)
    wait_until(lambda: eye.counters.spooled == 100, WAIT_SECONDS, lambda: str(eye.counters))
    assert (rows(path), eye.counters.queued) == (100, 0)
    server.otherwise = ScriptedServer().otherwise
    assert eye.flush(WAIT_SECONDS)
    assert set(server.stored) == tracked
    assert rows(path) == 0


def test_the_file_is_synced_and_for_its_user_alone(make_eye: MakeEye, path: Path) -> None:
    """It holds payloads, and a power cut must not take what was written."""
    eye = make_eye(spool=path)
    track(eye)
    assert eye.flush()
    spool = eye._core.spool  # noqa: SLF001 - how it has opened the file
    assert spool is not None
    with spool._opened() as connection:  # noqa: SLF001
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}


def test_what_is_left_at_the_end_stays_for_the_next(server: ScriptedServer, make_eye: MakeEye, path: Path) -> None:
    """At once: who closes in order leaves its claims."""
    server.otherwise = problem(503, "away")
    first = make_eye(spool=path)
    tracked = track_many(first, 10)
    server.wait_for_requests(1)
    first.close()
    assert (first.counters.dropped, rows(path)) == (0, 10)
    server.otherwise = ScriptedServer().otherwise
    second = make_eye(spool=path)
    server.wait_for_events(10)
    assert set(server.stored) == tracked
    wait_until(lambda: second.counters.sent == 10, WAIT_SECONDS, lambda: str(second.counters))


def test_refused_events_leave_the_spool(
    server: ScriptedServer, make_eye: MakeEye, path: Path, lost: list[Lost]
) -> None:
    server.otherwise = refuse_those(lambda event: event["data"]["n"] % 2 == 1)
    eye = make_eye(spool=path, on_lost=lost.append)
    track_many(eye, 10)
    assert eye.flush(WAIT_SECONDS)
    assert (len(server.stored), len(lost), rows(path)) == (5, 5, 0)


def test_a_corrupt_file_is_set_aside(server: ScriptedServer, make_eye: MakeEye, path: Path) -> None:
    garbage = b"This is no database at all. " * 1_000
    path.write_bytes(garbage)
    eye = make_eye(spool=path)
    tracked = track_many(eye, 10)
    server.wait_for_events(10)
    assert set(server.stored) == tracked
    wait_until(lambda: rows(path) == 0, WAIT_SECONDS, lambda: "rows are left")
    (aside,) = path.parent.glob("spool.corrupt-*")
    assert aside.read_bytes() == garbage
    assert eye.counters.last_error is not None
    assert "DatabaseError" in eye.counters.last_error


def test_a_file_that_turns_bad_in_use_is_set_aside(server: ScriptedServer, make_eye: MakeEye, path: Path) -> None:
    eye = make_eye(spool=path)
    track(eye)
    assert eye.flush(WAIT_SECONDS)
    eye.close()
    data = bytearray(path.read_bytes())
    data[100:] = b"\xff" * (len(data) - 100)
    path.write_bytes(data)
    with Eye(server.url, TOKEN, settings(spool=path)) as again:
        track_many(again, 10)
        server.wait_for_events(11)
    assert len([*path.parent.glob("spool.corrupt-*")]) == 1


def test_only_one_process_sets_a_corrupt_file_aside(path: Path) -> None:
    """The others find the new one in its place."""
    path.write_bytes(b"garbage" * 1_000)
    first, second = (Spool(path, settings()) for _ in range(2))
    second._inode = path.stat().st_ino  # noqa: SLF001 - as if it had opened the file before it was set aside
    with pytest.raises(SpoolError):
        first.insert(events(1))
    first.insert(events(1))
    error = sqlite3.DatabaseError()
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    second._leave_alone(error, inserting=True)  # noqa: SLF001 - as above
    assert ids(second.take(ALL)) == ["id-1"]
    assert len([*path.parent.glob("spool.corrupt-*")]) == 1


def test_without_a_folder_events_are_sent_from_memory(server: ScriptedServer, make_eye: MakeEye, path: Path) -> None:
    eye = make_eye(spool=path / "nowhere" / "spool")
    tracked = track_many(eye, 10)
    assert eye.flush(WAIT_SECONDS)
    assert set(server.stored) == tracked
    assert eye.counters.last_error is not None
    assert "FileNotFoundError" in eye.counters.last_error
    (path / "nowhere").mkdir(parents=True)
    wait_until(lambda: bool(track(eye)) and eye.counters.spooled > 0, WAIT_SECONDS, lambda: "it is never tried again")


def test_a_full_spool_leaves_events_in_memory(server: ScriptedServer, make_eye: MakeEye, path: Path) -> None:
    """What is written stays, what has no room is kept in memory, and all of it arrives."""
    server.otherwise = problem(503, "away")
    eye = make_eye(spool=path, spool_bytes=100_000, batch_events=10)
    tracked = set()
    for number in range(300):
        tracked.add(str(eye.track(SESSION, "a", "b", {"n": number, "text": "x" * 1_000})))
    wait_until(lambda: eye.counters.queued < 300 and eye.counters.retried > 5, WAIT_SECONDS, lambda: str(eye.counters))
    assert eye.counters.queued + eye.counters.spooled == 300
    assert path.stat().st_size <= 100_000
    assert 30 < eye.counters.spooled < 100
    server.otherwise = ScriptedServer().otherwise
    assert eye.flush(WAIT_SECONDS), eye.counters
    assert server.stored == dict.fromkeys(tracked, 1)
    assert rows(path) == 0


def test_an_event_that_comes_back_once_the_spool_can_be_written_again_is_sent_again(
    server: ScriptedServer, make_eye: MakeEye, path: Path
) -> None:
    """It has no room there, and nobody tracks another one."""
    spools: list[Spool] = []

    def refuse_late(call: Call) -> None:
        wait_until(lambda: not spools[0].unwritable_for, WAIT_SECONDS, lambda: "the spool cannot be written")
        server.otherwise = ScriptedServer().otherwise
        call.problem(503, "away")

    server.otherwise = refuse_late
    eye = make_eye(spool=path, spool_bytes=100_000)
    spool = eye._core.spool  # noqa: SLF001 - when it can be written again is not to be seen from outside
    assert spool is not None
    spools.append(spool)
    event_id = str(eye.track(SESSION, "a", "b", {"text": "x" * 200_000}))
    server.wait_for_events(1)
    assert server.stored == {event_id: 1}
    assert eye.counters.retried == 1


FULL_DISK = """
import resource, sys, time
from the_eye_client import Eye, Settings
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
eye = Eye(settings=Settings(spool=sys.argv[1], batch_seconds=0.01, close_seconds=20))
for number in range(400):
    assert eye.track("e2085be5-9137-4e4e-80b5-f1ffddc25423", "a", "b", {"n": number, "text": "x" * 1_000})
assert eye.flush(20.0), eye.counters
assert eye.counters.sent == 400, eye.counters
print(eye.counters.last_error)
"""


def test_a_disk_that_takes_no_more_loses_nothing(
    server: ScriptedServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system refuses to let the files grow, as a full disk does."""
    monkeypatch.setenv("THE_EYE_URL", server.url)
    monkeypatch.setenv("THE_EYE_TOKEN", TOKEN)
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 - ours
    assert result.returncode == 0, result.stderr
    assert "OperationalError" in result.stdout
    assert len(server.stored) == 400


def test_what_arrived_but_cannot_be_deleted_is_neither_sent_again_nor_waited_for(path: Path) -> None:
    spool = Spool(path, settings())
    spool.insert(events(1))
    first_place = spool.written
    spool.insert(events(2))
    (first,) = spool.take(Limits(1, 1_000_000))
    assert not spool.has_settled(first_place)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SpoolError):
            spool.settle([first])
        assert spool.broken_for > 0
        wait_until(lambda: not spool.broken_for, WAIT_SECONDS, lambda: "it stays broken")
        assert rows(path) == 2
        assert spool.has_settled(first_place)
        assert not spool.has_settled(spool.written)
        other.execute("ROLLBACK")
    assert ids(spool.take(ALL)) == ["id-2"]
    spool.settle([])
    assert rows(path) == 1


@pytest.fixture
def two(path: Path) -> Iterator[tuple[Spool, Spool]]:
    """Two processes' view of one spool."""
    spools = Spool(path, settings()), Spool(path, settings())
    yield spools
    for spool in spools:
        spool.close()


def test_what_one_process_has_taken_another_leaves_alone(two: tuple[Spool, Spool]) -> None:
    first, second = two
    first.insert(events(1, 2, 3))
    assert ids(first.take(Limits(2, 1_000_000))) == ["id-1", "id-2"]
    assert ids(second.take(ALL)) == ["id-3"]
    assert ids(first.take(ALL)) == ["id-1", "id-2"], "it has its own again"


@pytest.mark.parametrize("jump", [CLAIM_SECONDS + 1, -86_400.0], ids=["time has passed", "the clock was set back"])
def test_a_dead_process_claims_end(two: tuple[Spool, Spool], jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = two
    first.insert(events(1))
    first.take(ALL)
    assert second.take(ALL) == []
    later = time.time() + jump
    monkeypatch.setattr("time.time", lambda: later)
    assert ids(second.take(ALL)) == ["id-1"]


def test_no_more_is_read_than_is_taken(two: tuple[Spool, Spool]) -> None:
    """A thousand events may be a gibibyte."""
    first, _ = two
    large = [QueuedEvent(number, f"id-{number}", b"x" * 1_000) for number in range(100)]
    first.insert(large)
    assert len(first.take(Limits(100, 5_500))) == 5
    assert first.due_in(urgent=False) <= 0
    assert len(first.take(Limits(100, 10))) == 1


def test_a_row_that_is_no_event_does_not_hold_up_the_others(
    server: ScriptedServer, make_eye: MakeEye, path: Path, lost: list[Lost]
) -> None:
    """As after a disk has changed some bytes."""
    with closing(Spool(path, settings())) as spool:
        spool.insert([*events(1, 2), QueuedEvent(3, "broken", b"{garbage"), *events(4)])

    def parse(call: Call) -> None:
        if b"garbage" in call.request.body:
            call.problem(400, "malformed", [{"path": "$", "code": "malformed_json", "message": "?"}])
        else:
            call.respond(202, b'{"accepted": 1, "refused": []}')

    server.otherwise = parse
    eye = make_eye(spool=path, on_lost=lost.append)
    wait_until(lambda: eye.counters.sent == 3 and bool(lost), WAIT_SECONDS, lambda: str(eye.counters))
    assert [one.event_id for one in lost] == ["broken"]
    wait_until(lambda: rows(path) == 0, WAIT_SECONDS, lambda: "rows are left")
