"""When the queue is full, when it has room again, and when to come back; by backlogs that the test makes up."""

import pytest
from prometheus_client import REGISTRY

from the_eye.queue import Backlog
from the_eye_api.backlog import FIRST_RETRY_SECONDS, BacklogBound
from the_eye_api.problems import ProblemError


async def nothing() -> Backlog:
    return Backlog(0, 0, 0.0)


@pytest.fixture
def bound() -> BacklogBound:
    return BacklogBound(nothing, max_bytes=1000, max_age_seconds=60.0)


def refused(bound: BacklogBound) -> int:
    """Give the seconds after which to come back, 0 when a request is let in."""
    try:
        bound.check()
    except ProblemError as error:
        return int(error.headers["Retry-After"])
    return 0


def test_events_are_accepted_up_to_the_bound(bound: BacklogBound) -> None:
    assert refused(bound) == 0
    bound.note(Backlog(9, 999, 59.0), 1.0)
    assert refused(bound) == 0
    bound.note(Backlog(9, 1000, 0.0), 2.0)
    assert refused(bound) == FIRST_RETRY_SECONDS


def test_a_queue_of_old_events_is_full_too(bound: BacklogBound) -> None:
    bound.note(Backlog(1, 10, 60.0), 1.0)

    assert refused(bound) > 0


def test_there_is_room_again_well_below_the_bound(bound: BacklogBound) -> None:
    bound.note(Backlog(9, 1000, 0.0), 1.0)

    bound.note(Backlog(9, 950, 0.0), 2.0)
    assert refused(bound) > 0
    assert REGISTRY.get_sample_value("the_eye_backlog_full") == 1
    bound.note(Backlog(9, 899, 0.0), 3.0)
    assert refused(bound) == 0
    assert REGISTRY.get_sample_value("the_eye_backlog_full") == 0


def test_the_time_to_return_follows_the_rate_at_which_workers_drain(bound: BacklogBound) -> None:
    bound.note(Backlog(9, 2000, 0.0), 1.0)
    bound.note(Backlog(9, 1900, 0.0), 2.0)
    assert refused(bound) == 10

    bound.note(Backlog(9, 1400, 0.0), 3.0)
    assert refused(bound) == 1

    bound.note(Backlog(9, 1400, 0.0), 4.0)
    assert refused(bound) == FIRST_RETRY_SECONDS
