"""What the worker counts."""

import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import Exemplar, HistogramMetricFamily
from prometheus_client.utils import floatToGoString


class BatchHistogram:
    """A histogram that observes many values at once, at a fraction of the price of ``Histogram.observe`` for each."""

    def __init__(self, name: str, documentation: str, buckets: Sequence[float]) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = [*buckets, float("inf")]
        self._lock = threading.Lock()
        self._counts = [0] * len(self._bounds)
        self._exemplars: list[Exemplar | None] = [None] * len(self._bounds)
        self._sum = 0.0
        REGISTRY.register(self)

    def observe_all(self, values: Sequence[float], exemplar: dict[str, str] | None = None) -> None:
        """Observe each of ``values``; the largest is what ``exemplar`` is an example of."""
        with self._lock:
            for value in values:
                self._counts[bisect_left(self._bounds, value)] += 1
                self._sum += value
            if exemplar is not None and values:
                largest = max(values)
                self._exemplars[bisect_left(self._bounds, largest)] = Exemplar(exemplar, largest, time.time())

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Say what was observed, as prometheus_client asks for it."""
        with self._lock:
            counts, exemplars, total = list(accumulate(self._counts)), list(self._exemplars), self._sum
        bounds = map(floatToGoString, self._bounds)
        buckets = [
            (bound, float(count)) if exemplar is None else (bound, float(count), exemplar)
            for bound, count, exemplar in zip(bounds, counts, exemplars, strict=True)
        ]
        yield HistogramMetricFamily(self._name, self._documentation, buckets=buckets, sum_value=total)


EVENTS = Counter(
    "the_eye_events",
    "Events by what became of them, each time that they were delivered: redelivered ones had been stored before.",
    ["outcome"],
)
UNMATCHED = Counter("the_eye_events_unmatched", "Stored events that no rule matched.")
VIOLATIONS = Counter("the_eye_violations", "Violations by rule.", ["rule", "action"])
IGNORED = Counter(
    "the_eye_checks_ignored", "Checks that could not be evaluated and whose failurePolicy is Ignore.", ["rule"]
)
MESSAGE_EVENTS = Histogram(
    "the_eye_message_events",
    "Events that were stored at once: those of a message, or of several that waited together.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000),
)
WRITE_SECONDS = Histogram(
    "the_eye_write_duration_seconds",
    "Time of one write of a message's events.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
WRITE_RETRIES = Counter("the_eye_write_retries", "Writes put off because the database could not take them.")
STORED_AFTER_SECONDS = BatchHistogram(
    "the_eye_stored_after_seconds",
    "Time from accepting an event to having it stored.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600),
)
RULESET_INFO = Gauge("the_eye_ruleset_info", "The ruleset in force, as a label; always 1.", ["revision"])
RULESET_LOADED = Gauge("the_eye_ruleset_loaded_timestamp_seconds", "When the ruleset in force was loaded.")
RULESET_RULES = Gauge("the_eye_ruleset_rules", "Rules in force.")
RULE_PROBLEMS = Gauge("the_eye_rule_problems", "Rules or files that were refused.")
DEAD_MESSAGES = Counter("the_eye_dead_messages", "Whole messages set aside because nothing could take them.")
