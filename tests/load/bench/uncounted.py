"""``the-eye`` with its metrics switched off: they stay what they are at the start, for nothing is counted or observed.

What is worked out only to be counted is worked out all the same, and so is the ledger, which is a part of the queue.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from the_eye.batch_histogram import Series
from the_eye_cli.main import main


def _nothing(*_: Any, **__: Any) -> None:
    """Count nothing."""


def _itself(metric: Any, *_: Any, **__: Any) -> Any:
    """Be one metric for all labels."""
    return metric


def _no_timer(_: Any) -> AbstractContextManager[None]:
    """Time nothing."""
    return nullcontext()


def switch_off() -> None:
    """Do so before the services are imported, which look up some metrics then."""
    for kind, name, instead in (
        *((kind, "labels", _itself) for kind in (Counter, Gauge, Histogram)),
        *((Gauge, name, _nothing) for name in ("inc", "dec", "set", "set_function")),
        (Counter, "inc", _nothing),
        (Histogram, "observe", _nothing),
        (Histogram, "time", _no_timer),
        (Series, "observe_all", _nothing),
        (Series, "exemplify", _nothing),
    ):
        setattr(kind, name, instead)


if __name__ == "__main__":
    switch_off()
    main()
