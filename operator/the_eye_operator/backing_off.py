"""Waiting after failures: longer with each, never forever, and as long as the server asks."""

import random

from the_eye_operator.cluster import ClusterError

FIRST, LONGEST = 0.5, 30.0
"""Seconds."""


def growing(first: float, times: int, longest: float) -> float:
    """Double a pause so many times, up to the longest; after hours of failures, too, when a power of 2 is no float."""
    return float(min(first * 2 ** min(times, 64), longest))


class BackOff:
    """Counts failures in a row."""

    def __init__(self) -> None:
        self.failures = 0

    def succeeded(self) -> None:
        """Begin anew."""
        self.failures = 0

    def failed(self, error: ClusterError) -> float:
        """Tell how many seconds to wait, some of them by chance so that not all operators come back at once."""
        self.failures += 1
        pause = growing(FIRST, self.failures - 1, LONGEST)
        return max(error.retry_after, pause * random.uniform(0.75, 1.25))  # noqa: S311 - no secret
