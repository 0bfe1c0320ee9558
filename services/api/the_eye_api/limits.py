"""How much an application may send: a token bucket for each, in every API process."""

import math
import random
import time
from collections.abc import Callable
from http import HTTPStatus

from the_eye.settings import ApiSettings
from the_eye.tokens import Caller, RateLimit
from the_eye_api.problems import ProblemError, problem


class RateLimiter:
    """Holds applications to their limits, so that one that floods leaves room for the others.

    A request is let in while its application's bucket is not empty, and then takes as much as it has events, if need
    be on credit: a batch that is larger than what is left is not torn apart, it delays the next request.
    """

    def __init__(self, default: RateLimit | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Applications without a limit of their own have ``default``; None is no limit."""
        self._default = default
        self._clock = clock
        self._buckets: dict[int, _Bucket] = {}

    def check(self, caller: Caller) -> None:
        """Let a request in. Raises RateLimitedError with the seconds until the bucket has something again."""
        bucket = self._bucket(caller)
        if bucket is not None and (seconds := bucket.empty_for(self._clock())) > 0:
            raise RateLimitedError(seconds)

    def charge(self, caller: Caller, events: int) -> None:
        """Take for ``events`` that a request has brought, good or not."""
        bucket = self._bucket(caller)
        if bucket is not None:
            bucket.take(events)

    def _bucket(self, caller: Caller) -> "_Bucket | None":
        limit = caller.limit or self._default
        if limit is None:
            return None
        bucket = self._buckets.get(caller.application_id)
        if bucket is None or (bucket.limit is not limit and bucket.limit != limit):
            bucket = self._buckets[caller.application_id] = _Bucket(limit, self._clock())
        return bucket


class _Bucket:
    def __init__(self, limit: RateLimit, now: float) -> None:
        self.limit = limit
        self._level = float(limit.burst)
        self._filled_at = now

    def empty_for(self, now: float) -> float:
        """Fill up to ``now``; give the seconds until a whole event fits, 0 when one does."""
        rate = self.limit.events_per_second
        self._level = min(float(self.limit.burst), self._level + (now - self._filled_at) * rate)
        self._filled_at = now
        return max(0.0, (1.0 - self._level) / rate)

    def take(self, events: int) -> None:
        self._level -= events


HOLD_SECONDS = (0.5, 1.0)
"""Bounds of how long the answer 429 is held back: for senders who do not listen to it that is a pause, and what they
send comes evenly, since no two of their connections pause for as long, instead of all at once."""


class RateLimitedError(ProblemError):
    """Raised to answer 429."""

    def __init__(self, seconds: float) -> None:
        """``seconds`` are those until the application may send again."""
        detail = "The application sends more events than it may."
        headers = {"Retry-After": str(math.ceil(seconds))}
        answer = problem(HTTPStatus.TOO_MANY_REQUESTS, "rate_limited", detail, headers=headers)
        super().__init__(answer.problem, answer.headers)
        self.hold_seconds = random.uniform(*HOLD_SECONDS)  # noqa: S311 - no secret
        """How long to hold the answer back."""


def default_limit(settings: ApiSettings) -> RateLimit | None:
    """Read the limit of applications that have none of their own."""
    if settings.rate_limit_events_per_second == 0:
        return None
    return RateLimit(settings.rate_limit_events_per_second, settings.rate_limit_burst)
