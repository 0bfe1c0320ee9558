"""Clocks jump, as when a machine has slept or its time service corrects it."""

from pathlib import Path

import pytest
from tests.faults.case import Case
from tests.faults.clock import Clock
from tests.faults.house import House
from tests.faults.processes import Process
from tests.faults.sender import Load
from tests.servers import wait_until

DEADLINE = 30.0
HOUR = 60 * 60.0
JUMPS = (HOUR, -HOUR, 0.0)
TAKEN_OVER_SECONDS = 15.0


@pytest.fixture
def clock(folder: Path) -> Clock:
    """A clock that is right so far."""
    return Clock(folder / "clock")


def jump(clock: Clock, process: Process, seconds: float) -> None:
    """Set a process's clock and wait until it goes by it."""
    clock.jump(seconds)
    wait_until(lambda: abs(process.clock() - seconds) < 10, DEADLINE, lambda: f"it is {process.clock():.0f} s ahead")


@pytest.mark.fault("a worker's clock jumps an hour ahead and an hour back, beside a worker whose clock is right")
def test_a_worker_whose_clock_jumps_doubles_no_row(house: House, case: Case, clock: Clock) -> None:
    """They take each other for dead, and each other's messages: work is done twice, rows are not."""
    jumping = house.make_worker(**clock.environ)
    jumping.start()
    jumping.wait_until_ready()
    with case.sending() as sender:
        for seconds in JUMPS:
            sender.wait_for_more(case.scale.between)
            jump(clock, jumping, seconds)
            case.wait(case.scale.outage_seconds)
        case.mended()
        case.recover()
    case.close()
    assert case.seen.only_202


@pytest.mark.fault("the API's clock jumps an hour ahead and an hour back")
def test_an_api_whose_clock_jumps_loses_nothing(house: House, case: Case, clock: Clock) -> None:
    """While it is behind, senders' times lie in its future, which the verdict says."""
    house.api.kill()
    api = house.make_api(house.url.removeprefix("http://"), **clock.environ)
    api.start()
    api.wait_until_ready()
    with case.sending() as sender:
        for seconds in JUMPS:
            sender.wait_for_more(case.scale.between)
            jump(clock, api, seconds)
            case.wait(case.scale.outage_seconds)
        case.mended()
        case.recover()
    case.close(judged=False)
    assert case.seen.only_202


@pytest.mark.fault("a worker whose clock is a minute ahead killed with messages in hand while another one runs")
def test_the_messages_of_a_worker_whose_clock_was_ahead_are_taken_over(house: House, case: Case, clock: Clock) -> None:
    """No later than those of any other."""
    house.worker.kill()
    ahead = house.make_worker(**clock.environ)
    ahead.start()
    ahead.wait_until_ready()
    jump(clock, ahead, 60.0)
    with house.postgres.connect() as lock, lock.transaction():
        lock.execute("LOCK TABLE events IN SHARE ROW EXCLUSIVE MODE")
        with case.sending(Load(singles=0, batches=4, total=400)) as sender:
            sender.wait_until_done(DEADLINE)
        wait_until(lambda: house.waiting() == 0, DEADLINE, lambda: "the worker does not take all messages")
        house.worker.start()
        house.worker.wait_until_ready()
        ahead.kill()
        case.mended()
    case.note_stored(TAKEN_OVER_SECONDS)
    case.close()
