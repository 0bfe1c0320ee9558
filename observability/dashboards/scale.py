"""Where values and times lie in a graph, and which of them are marked."""

from collections.abc import Iterator
from math import floor, log

import msgspec

TICKS = 4
TIMES = 8
"""Of values and of times, how many are marked about."""


class Box(msgspec.Struct, frozen=True):
    """A rectangle, in pixels."""

    x: float
    y: float
    width: float
    height: float


class Round(msgspec.Struct, frozen=True):
    """Round numbers: powers of a base, and these multiples of them."""

    base: float
    factors: tuple[int, ...]


DECIMAL = Round(10.0, (1, 2, 5, 10))
BINARY = Round(1024.0, (1, 2, 5, 10, 20, 50, 100, 200, 256, 512, 1024))
BINARY_UNITS = ("bytes", "binBps")


class Scale(msgspec.Struct, frozen=True):
    """From values and times to pixels."""

    plot: Box
    begin: float
    end: float
    least: float
    most: float
    step: float

    @classmethod
    def of(cls, plot: Box, times: tuple[float, float], values: tuple[float, float], unit: str) -> "Scale":
        """Fit the first and the last time, and the smallest and the largest value with zero among them."""
        least, most = min(values[0], 0.0), max(values[1], 0.0)
        step = _round_step((most - least) / TICKS, BINARY if unit in BINARY_UNITS else DECIMAL)
        return cls(plot, *times, floor(least / step) * step, max(most, step), step)

    def x(self, time: float) -> float:
        """Place a time."""
        return self.plot.x + (time - self.begin) / max(self.end - self.begin, 1) * self.plot.width

    def y(self, value: float) -> float:
        """Place a value."""
        share = (value - self.least) / (self.most - self.least)
        return self.plot.y + self.plot.height * (1 - min(max(share, 0), 1))

    def ticks(self) -> Iterator[float]:
        """Give the values that are marked."""
        count = floor((self.most - self.least) / self.step + 1e-9) + 1
        return (self.least + place * self.step for place in range(count))

    def minutes(self) -> Iterator[float]:
        """Give the times that are marked."""
        seconds = self.end - self.begin
        step = next(step for step in (60, 120, 300, 600, 1_800, 3_600, 21_600, 86_400) if seconds / step <= TIMES)
        time = (self.begin // step + 1) * step
        while time <= self.end:
            yield time
            time += step


def _round_step(least: float, round_: Round) -> float:
    """Choose the smallest round number that is not below ``least``."""
    if least <= 0:
        return 1.0
    power = round_.base ** floor(log(least, round_.base) + 1e-9)
    return next(power * factor for factor in round_.factors if power * factor >= least * (1 - 1e-9))
