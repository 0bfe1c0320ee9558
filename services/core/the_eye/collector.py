"""Python's cyclic garbage collector, set for a process that makes and drops many objects and hardly any cycle."""

import gc

FIRST_THRESHOLD = 20_000
"""Objects made and not dropped before the youngest are looked through; Python's own 700 are those of two events."""


def spare_collector() -> None:
    """Call it once the process has loaded what it needs: those objects are never looked through again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(FIRST_THRESHOLD, 50, 50)
