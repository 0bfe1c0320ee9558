"""Whether the loop goes round, and how long ago that did any good."""

import time
from collections.abc import Iterable
from typing import Any

STUCK_RESYNCS = 3
STUCK_SECONDS = 60.0
"""A loop that did not come round for three resyncs and a minute is stuck."""


class Health:
    """When the loop last came to an end, and when it last succeeded."""

    def __init__(self, resync_seconds: float) -> None:
        self._stuck_after = STUCK_RESYNCS * resync_seconds + STUCK_SECONDS
        self._ended = time.monotonic()
        self._succeeded: float | None = None
        self._error = ""
        self._workers_error = ""
        self._unseen = ""

    def succeeded(self) -> None:
        """Note a reconcile that succeeded."""
        self._ended = self._succeeded = time.monotonic()
        self._error = ""

    def failed(self, error: str) -> None:
        """Note one that failed."""
        self._ended = time.monotonic()
        self._error = error

    def listed(self, refused: Iterable[str] = ()) -> None:
        """Note which namespaces' rules may not be listed."""
        self._unseen = "".join(f"the rules of {namespace} may not be listed; " for namespace in refused).rstrip("; ")

    def observed(self, error: str = "") -> None:
        """Note whether the workers could be looked at."""
        self._workers_error = error

    @property
    def is_stuck(self) -> bool:
        """Whether no reconcile has come to an end, good or bad, for so long that a restart is the only way on.

        An API server that is away is no reason: a restart would not bring it back.
        """
        return time.monotonic() - self._ended > self._stuck_after

    def report(self) -> dict[str, Any]:
        """Tell the age in seconds of the last successful reconcile, null before the first, and what failed since."""
        age = None if self._succeeded is None else round(time.monotonic() - self._succeeded, 1)
        return {
            "status": "stuck" if self.is_stuck else "ok",
            "last_success_age_seconds": age,
            "last_error": self._error or self._unseen or self._workers_error or None,
        }
