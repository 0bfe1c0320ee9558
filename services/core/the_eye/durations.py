"""Lengths of time as people write them: ``30m``, ``24h``, ``7d``."""

import re
from datetime import timedelta

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

LONGEST = timedelta(days=366)

_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd])")


def parse_duration(text: str) -> timedelta:
    """Read a whole number and its unit.

    Raises ValueError with a text that says what was expected.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        expected = "expected a whole number with s, m, h or d after it, such as 24h"
        raise ValueError(expected)
    duration = timedelta(**{UNITS[found[2]]: int(found[1])})
    if duration > LONGEST:
        most = f"expected at most {LONGEST.days}d"
        raise ValueError(most)
    return duration
