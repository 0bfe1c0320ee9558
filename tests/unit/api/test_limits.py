"""How much an application may send, by a clock that the test sets."""

import pytest

from the_eye.tokens import Caller, RateLimit, Scope
from the_eye_api.limits import HOLD_SECONDS, RateLimitedError, RateLimiter
from the_eye_api.problems import ProblemError

DEFAULT = RateLimit(events_per_second=10.0, burst=20)
SHOP = Caller(1, "shop", frozenset({Scope.INGEST}))
BLOG = Caller(2, "blog", frozenset({Scope.INGEST}))
LARGE = Caller(3, "large", frozenset({Scope.INGEST}), limit=RateLimit(events_per_second=1.0, burst=100))


class Clock:
    """Stands still until it is set forward."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(clock: Clock) -> RateLimiter:
    return RateLimiter(DEFAULT, clock)


def send(limiter: RateLimiter, caller: Caller, events: int = 1) -> int:
    """Send a request and give the seconds after which to come back, 0 when it was let in."""
    try:
        limiter.check(caller)
    except ProblemError as error:
        return int(error.headers["Retry-After"])
    limiter.charge(caller, events)
    return 0


def test_a_burst_passes_and_what_is_beyond_is_told_when_to_return(limiter: RateLimiter, clock: Clock) -> None:
    assert [send(limiter, SHOP) for _ in range(20)] == [0] * 20
    assert send(limiter, SHOP) == 1

    clock.now += 1.0

    assert [send(limiter, SHOP) for _ in range(10)] == [0] * 10
    assert send(limiter, SHOP) == 1


def test_a_batch_larger_than_what_is_left_passes_and_delays_the_next(limiter: RateLimiter, clock: Clock) -> None:
    assert send(limiter, SHOP, 120) == 0
    assert send(limiter, SHOP) == 11

    clock.now += 10.0
    assert send(limiter, SHOP) == 1
    clock.now += 0.1
    assert send(limiter, SHOP) == 0


def test_who_comes_back_when_told_is_let_in(limiter: RateLimiter, clock: Clock) -> None:
    send(limiter, SHOP, 137)

    clock.now += send(limiter, SHOP)

    assert send(limiter, SHOP) == 0


def test_refusals_are_held_back_for_different_times(limiter: RateLimiter) -> None:
    """Or those who were refused together and do not listen would come back together."""
    limiter.charge(SHOP, 1000)

    holds = []
    for _ in range(100):
        with pytest.raises(RateLimitedError) as caught:
            limiter.check(SHOP)
        holds.append(caught.value.hold_seconds)

    shortest, longest = HOLD_SECONDS
    assert all(shortest <= hold <= longest for hold in holds)
    assert max(holds) - min(holds) > (longest - shortest) / 2


def test_one_application_takes_nothing_from_another(limiter: RateLimiter) -> None:
    send(limiter, SHOP, 1000)

    assert send(limiter, BLOG) == 0


def test_a_pause_saves_up_no_more_than_the_burst(limiter: RateLimiter, clock: Clock) -> None:
    clock.now += 1_000_000.0

    assert [send(limiter, SHOP) for _ in range(21)] == [0] * 20 + [1]


def test_an_application_s_own_limit_counts_and_its_change_too(limiter: RateLimiter) -> None:
    assert [send(limiter, LARGE, 50) for _ in range(3)] == [0, 0, 1]

    raised = Caller(3, "large", LARGE.scopes, limit=RateLimit(events_per_second=1.0, burst=200))

    assert send(limiter, raised) == 0


def test_without_any_limit_all_pass() -> None:
    limiter = RateLimiter(None)

    assert [send(limiter, SHOP, 1_000_000) for _ in range(5)] == [0] * 5
