"""The histogram as a picture: where its bars stand."""

from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from the_eye.store.event_histogram import Histogram

WIDTH = 1_200
HEIGHT = 120
GAP = 2
LEAST = 2
"""Height of a bar of few events beside one of many, so that it can be seen; of invalid ones above all."""


class ChartBar(msgspec.Struct, frozen=True):
    """A bar: valid events, and invalid ones on top of them."""

    x: float
    width: float
    valid_y: float
    valid_height: float
    invalid_y: float
    invalid_height: float
    since: str
    until: str
    """RFC 3339, as a link narrows the list to this bar."""
    valid: int
    invalid: int


class Chart:
    """A histogram with the geometry of its bars."""

    def __init__(self, histogram: Histogram) -> None:
        self.histogram = histogram
        self.exact = histogram.exact
        self.valid = sum(bar.valid for bar in histogram.bars)
        self.invalid = sum(bar.invalid for bar in histogram.bars)
        self.most = max(bar.valid + bar.invalid for bar in histogram.bars)
        self.width, self.height = WIDTH, HEIGHT
        self.bars = list(self._bars())

    def _bars(self) -> Iterator[ChartBar]:
        number = len(self.histogram.bars)
        step = WIDTH / number
        length = (self.histogram.until - self.histogram.since) / number
        for index, bar in enumerate(self.histogram.bars):
            valid, invalid = self._height(bar.valid), self._height(bar.invalid)
            valid = min(valid, HEIGHT - invalid)
            yield ChartBar(
                x=round(index * step, 2),
                width=round(max(step - GAP, 1), 2),
                valid_y=round(HEIGHT - valid, 2),
                valid_height=round(valid, 2),
                invalid_y=round(HEIGHT - valid - invalid, 2),
                invalid_height=round(invalid, 2),
                since=_rfc3339(bar.since),
                until=_rfc3339(bar.since + length),
                valid=bar.valid,
                invalid=bar.invalid,
            )

    def _height(self, events: int) -> float:
        return max(LEAST, HEIGHT * events / self.most) if events else 0.0


def _rfc3339(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
