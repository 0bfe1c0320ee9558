"""One case from beginning to end: events are sent, something breaks and is mended, and every event is accounted for."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from tests.faults.audit import Ledger, audit
from tests.faults.house import House
from tests.faults.report import Row
from tests.faults.sender import Load, Seen, Sender
from tests.servers import wait_until

RECOVERY_SECONDS = 60.0
LOAD = Load()


class Scale(msgspec.Struct, frozen=True):
    """How long and how often; the short form is for every change, the long one for the table in the documentation."""

    rounds: int
    """How often something that is done "again and again" is done."""
    between: int
    """Events that are accepted between two rounds."""
    pause_seconds: float
    """How long a server is frozen."""
    outage_seconds: float
    """How long a server is away, full, or refuses."""
    backlog: int
    """Events that wait while there is no worker."""
    tracked: int
    """Events that an application gives to the client."""


SHORT = Scale(rounds=2, between=1_000, pause_seconds=5.0, outage_seconds=1.0, backlog=100_000, tracked=50_000)
LONG = Scale(rounds=8, between=4_000, pause_seconds=20.0, outage_seconds=10.0, backlog=10_000_000, tracked=1_000_000)


class Case:
    """What a test needs to say: send, mended, recovered, closed."""

    def __init__(self, house: House, scale: Scale, fault: str) -> None:
        self.house = house
        self.scale = scale
        self.fault = fault
        self.seen = Seen()
        self.sent = 0
        """Events so far, numbered from 0; all of them are accepted in the end."""
        self.row: Row | None = None
        self._mended_at: float | None = None
        self._accepting_after: float | None = None
        self._stored_after: float | None = None

    @contextmanager
    def sending(self, load: Load = LOAD, url: str | None = None) -> Iterator[Sender]:
        """Send events during the block, and afterwards until each that was begun is accepted."""
        sender = Sender(url or self.house.url, self.house.postgres.token, load, first=self.sent)
        self.seen = sender.seen
        with sender.running():
            yield sender
        self.sent = sender.next_number

    def numbers(self, count: int) -> range:
        """Number events that the test queues itself."""
        first, self.sent = self.sent, self.sent + count
        return range(first, self.sent)

    def wait(self, seconds: float) -> None:
        """Let a fault last, while events are sent."""
        until = time.monotonic() + seconds
        wait_until(lambda: time.monotonic() > until, seconds + 1, lambda: "the clock has jumped")

    def mended(self) -> None:
        """Note that the fault is over: from here recovery is measured."""
        self._mended_at = time.monotonic()

    def recover(self, seconds: float = RECOVERY_SECONDS) -> None:
        """Wait until events are accepted again and what was queued by then is stored, while more of them come."""
        mended_at = self._when_mended
        wait_until(
            lambda: self.seen.first_accepted_after(mended_at) is not None, seconds, lambda: f"no 202: {self.seen}"
        )
        before: set[bytes] | None = None

        def stored() -> bool:
            nonlocal before
            now = self.house.queued()
            before = now if before is None else before
            return before is not None and now is not None and before.isdisjoint(now)

        wait_until(stored, seconds, lambda: f"of {before} some are still queued: {self.house.queued()}")
        self._stored_after = time.monotonic() - mended_at

    def note_stored(self, seconds: float = RECOVERY_SECONDS) -> None:
        """Wait until nothing is queued, where no more events come."""
        wait_until(lambda: self.house.left() == 0, seconds, lambda: f"{self.house.left()} messages are still queued")
        self._stored_after = time.monotonic() - self._when_mended

    @property
    def _when_mended(self) -> float:
        assert self._mended_at is not None, "the test has not said when the fault was over"
        return self._mended_at

    @property
    def stored_after(self) -> float:
        """Seconds from the end of the fault until everything that had been accepted was stored."""
        assert self._stored_after is not None
        return self._stored_after

    def close(
        self, *, dead: int = 0, in_messages: range = range(0), judged: bool = True, how: str = "", seconds: float = 30.0
    ) -> Ledger:
        """Account for every event, and make the row of the table.

        ``dead`` is how many events belong into ``dead_events``. Without ``judged`` the verdicts may be any.
        """
        wait_until(lambda: self.house.left() == 0, seconds, lambda: f"{self.house.left()} messages are still queued")
        with self.house.postgres.connect() as connection:
            ledger = audit(connection, self.sent, in_messages)
        if not judged:
            ledger = msgspec.structs.replace(ledger, misjudged=0)
        first = None if self._mended_at is None else self.seen.first_accepted_after(self._mended_at)
        self.row = Row(
            fault=self.fault,
            how=how,
            saw=str(self.seen) if self.seen.answers else "",
            outage=self.seen.longest_outage,
            slowest=self.seen.slowest_seconds,
            accepted=ledger.accepted,
            lost=ledger.accepted - ledger.valid - ledger.invalid - ledger.dead + ledger.doubled,
            doubled=ledger.doubled,
            dead=ledger.dead,
            accepting_after=None if first is None else first - self._when_mended,
            stored_after=self._stored_after,
        )
        assert ledger.closed, ledger
        assert self.house.difference() == 0, self.house.difference()
        assert ledger.dead == dead, ledger
        assert "hung" not in self.seen.answers, self.seen
        return ledger
