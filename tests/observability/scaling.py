"""Rules with all their durations made shorter, so that what takes minutes in production takes seconds in a test.

There is one set of rules: a test runs it with windows and ``for`` divided by a factor. Numbers in expressions stay, as
do the bounds of histograms' buckets (250 ms, 10 s).
"""

import re
from typing import Any

import yaml

FACTOR = 60
"""A minute becomes a second: the least that still holds several samples when scraped once a second."""

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = r"(\d+)(ms|s|m|h|d)"


def scaled(text: str, factor: int = FACTOR) -> str:
    """Make the durations in a file of rules shorter: in brackets and offsets of expressions, and ``for``."""
    groups: dict[str, Any] = yaml.safe_load(text)
    for group in groups["groups"]:
        for rule in group["rules"]:
            rule["expr"] = re.sub(
                rf"(\[|offset ){_DURATION}", lambda found: found[1] + _shorter(found[2], found[3], factor), rule["expr"]
            )
            if "for" in rule:
                rule["for"] = re.sub(_DURATION, lambda found: _shorter(found[1], found[2], factor), rule["for"])
    return yaml.safe_dump(groups)


def _shorter(number: str, unit: str, factor: int) -> str:
    return f"{max(1, int(number) * _UNITS[unit] // factor)}ms"
