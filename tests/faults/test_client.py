"""An application with the client of ``clients/python`` in front of a server that is killed again and again."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from tests.faults import numbered
from tests.faults.case import Case
from tests.faults.house import House
from tests.servers import wait_until

from the_eye_client import Eye, Settings

KILL_SECONDS = 3.0
"""From the API's being ready to its next death."""

WAITING = 10_000
"""Events in the client's memory beyond which the application tracks no more for the moment, so that none is dropped."""

FINISH_SECONDS = 120.0


class Application:
    """Tracks numbered events as fast as they are sent, in a thread of its own."""

    def __init__(self, eye: Eye, numbers: range) -> None:
        self.eye = eye
        self.accepted_at = [time.monotonic()]
        """Times at which more events were seen to be accepted."""
        self._numbers = numbers
        self._seen = 0
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="application", daemon=True)

    @contextmanager
    def running(self) -> Iterator["Application"]:
        """Track during the block."""
        self._thread.start()
        try:
            yield self
        finally:
            self._given_up.set()
            self._thread.join()

    @property
    def tracks(self) -> bool:
        """Whether there are events to come."""
        return self._thread.is_alive()

    def accepted(self) -> int:
        """Count the accepted events, and note when there are more than at the last look."""
        sent = self.eye.counters.sent
        if sent > self._seen:
            self._seen = sent
            self.accepted_at.append(time.monotonic())
        return sent

    def _run(self) -> None:
        for number in self._numbers:
            while self.eye.counters.queued >= WAITING:
                if self._given_up.wait(0.01):
                    return
            event = msgspec.json.decode(numbered.event(number))
            self.eye.track(
                event["session_id"],
                event["category"],
                event["name"],
                event["data"],
                event_id=numbered.event_id(number),
            )


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("spooled", [pytest.param(False, id="memory"), pytest.param(True, id="spool")])
@pytest.mark.fault("API killed (SIGKILL) 3 s after each start, in front of it an application with the-eye-client")
def test_what_is_tracked_is_stored_exactly_once(house: House, case: Case, folder: Path, *, spooled: bool) -> None:
    """However often it must be sent: the application tracks each event once and never looks back."""
    start = time.monotonic()
    # The server is up for seconds: a longer pause would miss them.
    settings = Settings(spool=folder / "spool" if spooled else None, close_seconds=0.0, longest_backoff_seconds=0.5)
    kills = 0
    total = case.scale.tracked
    with (
        Eye(house.url, house.postgres.token, settings) as eye,
        Application(eye, case.numbers(total)).running() as application,
    ):
        while application.tracks or kills < case.scale.rounds:
            wait_until(_passed(KILL_SECONDS, application), KILL_SECONDS + 10, lambda: "the clock stands still")
            house.api.kill()
            kills += 1
            case.mended()
            house.api.start()
            house.api.wait_until_ready()
        wait_until(lambda: application.accepted() == total, FINISH_SECONDS, lambda: str(eye.counters))
    seconds = time.monotonic() - start
    counters = eye.counters
    case.seen.answers = Counter({"events accepted": counters.sent, "requests sent again": counters.retried})
    case.seen.accepted_at = application.accepted_at
    kept = "in its spool" if spooled else "in memory"
    case.note_stored(FINISH_SECONDS)
    case.close(how=f"{kills} times in {seconds:.0f} s, while what waits is {kept}; {total / seconds:,.0f} events/s")
    assert (counters.refused, counters.dropped, counters.queued) == (0, 0, 0)


def _passed(seconds: float, application: Application) -> Callable[[], bool]:
    """Make the condition that so much time has passed, during which what is accepted is noted."""
    until = time.monotonic() + seconds
    return lambda: application.accepted() >= 0 and time.monotonic() > until
