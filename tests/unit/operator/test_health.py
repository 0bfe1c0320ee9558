"""Whether the loop goes round."""

import pytest

from the_eye_operator import health
from the_eye_operator.health import Health


class Clock:
    """A clock that goes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(health, "time", clock)
    return clock


def test_a_loop_that_has_just_begun_is_healthy(clock: Clock) -> None:
    assert Health(120.0).report() == {"status": "ok", "last_success_age_seconds": None, "last_error": None}
    assert clock.now == 1000.0


def test_the_age_of_the_last_success_is_told(clock: Clock) -> None:
    looked = Health(120.0)
    looked.succeeded()
    clock.now += 12.34

    assert looked.report() == {"status": "ok", "last_success_age_seconds": 12.3, "last_error": None}


def test_what_failed_since_is_told_until_it_succeeds(clock: Clock) -> None:
    looked = Health(120.0)
    looked.succeeded()
    clock.now += 5
    looked.failed("the server is away")
    assert looked.report() == {"status": "ok", "last_success_age_seconds": 5.0, "last_error": "the server is away"}

    looked.succeeded()
    assert looked.report()["last_error"] is None


@pytest.mark.parametrize(("after", "is_stuck"), [(420.0, False), (420.1, True)])
def test_a_loop_that_does_not_come_round_for_three_resyncs_and_a_minute_is_stuck(
    clock: Clock, after: float, *, is_stuck: bool
) -> None:
    looked = Health(120.0)
    clock.now += after

    assert looked.is_stuck == is_stuck
    assert looked.report()["status"] == ("stuck" if is_stuck else "ok")


def test_a_loop_that_fails_again_and_again_is_not_stuck(clock: Clock) -> None:
    """A restart would not bring an API server back."""
    looked = Health(120.0)
    for _ in range(100):
        clock.now += 60
        looked.failed("the server is away")

    assert not looked.is_stuck
