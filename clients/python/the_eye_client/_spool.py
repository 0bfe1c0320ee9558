"""Events on disk until the server has them: a SQLite file that survives a crash and that processes share."""

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from the_eye_client._event import QueuedEvent
from the_eye_client._memory import Limits
from the_eye_client._settings import Settings

BUSY_SECONDS = 1.0
"""How long another process's transaction is waited for."""

CLAIM_SECONDS = 60.0
"""How long events that one process has taken are left alone by others, so that they do not send the same ones. It is
twice what a request may take; a claim that is too short or too long costs a request or a wait, and no event."""

POLL_SECONDS = 2.0
"""How often events are looked for that nobody tells of: in the spool those that other processes have left."""

URGENT_POLL_SECONDS = 0.05
"""The same during a flush."""

RECOVERY_SECONDS = 5.0
"""How long a file that failed is left alone."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    place INTEGER PRIMARY KEY AUTOINCREMENT, -- never given twice: a flush waits for places
    writer TEXT NOT NULL,
    owner TEXT, -- who has it in hand
    claimed_at REAL, -- wall-clock: what processes have in common, and what survives a reboot
    event_id TEXT NOT NULL,
    body BLOB NOT NULL -- last, so that the others are read without it
)
"""
_INSERT = "INSERT INTO events (writer, event_id, body) VALUES (?, ?, ?)"
# A claim from the future was made before the clock was set back.
_FREE = """
SELECT place, event_id, body FROM events
 WHERE owner IS NULL OR owner = :owner OR claimed_at NOT BETWEEN :now - :claim AND :now + 1
 ORDER BY place
"""
_CLAIM = "UPDATE events SET owner = ?, claimed_at = ? WHERE place = ?"
_RELEASE = "UPDATE events SET owner = NULL WHERE owner = ?"
_DELETE = "DELETE FROM events WHERE place = ?"
_LAST = "SELECT max(place) FROM events"
_LEFT = "SELECT place FROM events WHERE place BETWEEN ? AND ? AND writer = ?"


class SpoolError(Exception):
    """Raised when the file cannot be used now; events then stay in memory."""

    def __init__(self, error: sqlite3.Error | OSError) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.full = _code(error) == sqlite3.SQLITE_FULL
        """Whether there is no room; fewer events may have some."""


class Spool:
    """Events in a SQLite file. Each method may raise SpoolError; the file is then left alone for a while."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.lock = threading.RLock()
        """Held while the file is used; a fork waits for it."""
        self.written = 0
        """The last place that this process has written to."""
        self._path = path
        self._settings = settings
        self._name = uuid4().hex
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._unwritable_until = float("-inf")
        self._broken_until = float("-inf")
        self._due_at = float("-inf")
        self._taken_at = float("-inf")
        self._fresh = 0
        """Events written since the last batch was taken, and their bytes."""
        self._fresh_bytes = 0
        self._settled_to = 0
        """A place up to which nothing is left that this process has written."""
        self._settled: set[int] = set()
        """Places that have arrived but could not be deleted yet, as on a full disk."""

    @property
    def unwritable_for(self) -> float:
        """Seconds for which nothing is to be written, as on a full disk; 0 when all is well."""
        return max(0.0, self._unwritable_until - time.monotonic())

    @property
    def broken_for(self) -> float:
        """Seconds for which nothing is to be read either; 0 when all is well."""
        return max(0.0, self._broken_until - time.monotonic())

    def insert(self, events: Sequence[QueuedEvent]) -> int:
        """Write events, or the first ones that there is room for; gives how many are on disk then."""
        try:
            self._insert(events)
        except SpoolError as error:
            if error.full and len(events) > 1:
                return self.insert(events[: len(events) // 2])
            raise
        return len(events)

    def _insert(self, events: Sequence[QueuedEvent]) -> None:
        with self._transaction(inserting=True) as connection:
            connection.executemany(_INSERT, ((self._name, event.event_id, event.body) for event in events))
            (last,) = connection.execute(_LAST).fetchone()
        with self.lock:
            self.written = last
            self._fresh += len(events)
            self._fresh_bytes += sum(len(event.body) for event in events)
            full = self._fresh >= self._settings.batch_events or self._fresh_bytes >= self._settings.batch_bytes
            wait = 0.0 if full else self._settings.batch_seconds
            self._due_at = min(self._due_at, time.monotonic() + wait)

    def due_in(self, *, urgent: bool) -> float:
        """Give the seconds until a batch is to be taken, soon when it is urgent."""
        due_at = min(self._due_at, self._taken_at + URGENT_POLL_SECONDS) if urgent else self._due_at
        return max(due_at - time.monotonic(), self.broken_for)

    def take(self, limits: Limits) -> list[QueuedEvent]:
        """Take the oldest events that no other process has in hand; they stay on disk until they are settled."""
        now = time.time()
        read: list[QueuedEvent] = []
        with self._transaction() as connection:
            rows = connection.execute(_FREE, {"owner": self._name, "now": now, "claim": CLAIM_SECONDS})
            taken = limits.cut(self._collect(rows, read))
            rows.close()
            connection.executemany(_CLAIM, ((self._name, now, event.place) for event in read[:taken]))
        with self.lock:
            self._fresh = self._fresh_bytes = 0
            self._taken_at = time.monotonic()
            self._due_at = self._taken_at + (0.0 if taken < len(read) else POLL_SECONDS)
        return read[:taken]

    def _collect(self, rows: Iterable[tuple[int, str, bytes]], read: list[QueuedEvent]) -> Iterator[QueuedEvent]:
        """Read no more rows than are asked for: each may be a mebibyte."""
        for row in rows:
            event = QueuedEvent(*row)
            if event.place not in self._settled:
                read.append(event)
                yield event

    def settle(self, events: Iterable[QueuedEvent]) -> None:
        """Delete events."""
        with self.lock:
            self._settled.update(event.place for event in events)
            places = tuple(self._settled)
            with self._transaction() as connection:
                connection.executemany(_DELETE, ((place,) for place in places))
            self._settled.clear()

    def give_back(self, _events: Sequence[QueuedEvent]) -> None:
        """Have events taken again; until then the claim to them holds."""
        self._due_at = float("-inf")

    def has_settled(self, place: int) -> bool:
        """Whether all events that this process has written up to a place have arrived, whoever had them in hand."""
        if place <= self._settled_to:
            return True
        if self.broken_for:
            return False
        with self._opened() as connection:
            rows = connection.execute(_LEFT, (self._settled_to + 1, place, self._name))
            settled = all(left in self._settled for (left,) in rows)
            rows.close()
        if settled:
            self._settled_to = place
        return settled

    def close(self) -> None:
        """Leave to others what is not sent."""
        with self.lock:
            if self._connection is not None:
                with self._transaction() as connection:
                    connection.execute(_RELEASE, (self._name,))
            self.disconnect()

    def disconnect(self) -> None:
        """Close the file; the next use opens it again. SQLite forbids to take an open one through a fork."""
        with self.lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextmanager
    def _transaction(self, *, inserting: bool = False) -> Iterator[sqlite3.Connection]:
        with self._opened(inserting=inserting) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def _opened(self, *, inserting: bool = False) -> Iterator[sqlite3.Connection]:
        with self.lock:
            try:
                if self._connection is None:
                    self._connection = self._open()
                yield self._connection
            except (sqlite3.Error, OSError) as error:
                self.disconnect()  # which rolls back
                self._leave_alone(error, inserting=inserting)
                raise SpoolError(error) from error

    def _open(self) -> sqlite3.Connection:
        # For this user alone: it holds payloads. SQLite gives its other files the same mode. A file that is there must
        # not be opened and closed, which would let go of the locks that another client of this process has on it.
        with suppress(FileExistsError):
            self._path.touch(mode=0o600, exist_ok=False)
        self._inode = self._path.stat().st_ino
        connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
            connection.execute(f"PRAGMA max_page_count = {max(self._settings.spool_bytes // page_bytes, 1)}")
            connection.execute(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection

    def _leave_alone(self, error: sqlite3.Error | OSError, *, inserting: bool) -> None:
        if _code(error) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB} and self._set_aside():
            return
        until = time.monotonic() + RECOVERY_SECONDS
        if inserting:
            self._unwritable_until = until
        else:
            self._broken_until = until

    def _set_aside(self) -> bool:
        """Make room for a new file beside one that cannot be read, unless another process has done so already."""
        try:
            if self._path.stat().st_ino == self._inode:
                aside = f"{self._path}.corrupt-{uuid4().hex}"
                for suffix in ("-wal", "-shm", ""):
                    with suppress(FileNotFoundError):
                        Path(f"{self._path}{suffix}").rename(aside + suffix)
        except OSError:
            return False
        return True


def _code(error: sqlite3.Error | OSError) -> int:
    """Give SQLite's primary result code; 0 where there is none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
