"""Whether the loop goes round, and how long ago that did any good."""

import time
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
        self._concerns: dict[str, str] = {}

    def succeeded(self) -> None:
        """Note a reconcile that succeeded."""
        self._ended = self._succeeded = time.monotonic()
        self._error = ""

    def failed(self, error: str) -> None:
        """Note one that failed."""
        self._ended = time.monotonic()
        self._error = error

    def note(self, part: str, error: str = "") -> None:
        """Note what is wrong with a part of the work while the rest goes on; nothing, once it is well again."""
        self._concerns[part] = error

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
            "last_error": "; ".join(filter(None, (self._error, *self._concerns.values()))) or None,
        }
