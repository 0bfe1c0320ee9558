"""A histogram of Prometheus for values that come many at once."""

import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import REGISTRY
from prometheus_client.core import Exemplar, HistogramMetricFamily
from prometheus_client.utils import floatToGoString


class BatchHistogram:
    """Observes many values at once, at a fraction of the price of ``Histogram.observe`` for each."""

    def __init__(self, name: str, documentation: str, buckets: Sequence[float], label: str | None = None) -> None:
        """With ``label`` there is a series for each of its values."""
        self._name = name
        self._documentation = documentation
        self._bounds = [*buckets, float("inf")]
        self._series: dict[str, Series] = {}
        self.label_names = () if label is None else (label,)
        if label is None:
            self.labels("")
        REGISTRY.register(self)

    def labels(self, value: str) -> "Series":
        """Find or begin the series of a value of the label."""
        return self._series.setdefault(value, Series(self._bounds))

    def observe_all(self, values: Sequence[float], exemplar: dict[str, str] | None = None) -> None:
        """Observe each of ``values`` where there is no label."""
        self._series[""].observe_all(values, exemplar)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Say what was observed, as prometheus_client asks for it."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self.label_names)
        for value, series in list(self._series.items()):
            buckets, total = series.read()
            family.add_metric((value,) if self.label_names else (), buckets, total)
        yield family


class Series:
    """What was observed for one value of the label."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._lock = threading.Lock()
        self._counts = [0] * len(bounds)
        self._exemplars: list[Exemplar | None] = [None] * len(bounds)
        self._sum = 0.0

    def observe_all(self, values: Sequence[float], exemplar: dict[str, str] | None = None) -> None:
        """Observe each of ``values``; the largest is what ``exemplar`` is an example of."""
        buckets = [bisect_left(self._bounds, value) for value in values]
        with self._lock:
            for bucket in buckets:
                self._counts[bucket] += 1
            self._sum += sum(values)
        if exemplar is not None and values:
            self.exemplify(max(values), exemplar)

    def exemplify(self, value: float, exemplar: dict[str, str]) -> None:
        """Say what a value that was observed is an example of."""
        with self._lock:
            self._exemplars[bisect_left(self._bounds, value)] = Exemplar(exemplar, value, time.time())

    def read(self) -> tuple[Sequence[tuple[str, float] | tuple[str, float, Exemplar]], float]:
        """Give the buckets, each with those below it, and the sum."""
        with self._lock:
            counts, exemplars, total = list(accumulate(self._counts)), list(self._exemplars), self._sum
        bounds = map(floatToGoString, self._bounds)
        return [
            (bound, float(count)) if exemplar is None else (bound, float(count), exemplar)
            for bound, count, exemplar in zip(bounds, counts, exemplars, strict=True)
        ], total
