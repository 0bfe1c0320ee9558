"""Bounds on a process that runs what a person typed: a rule may loop, or take all memory there is."""

import os
import resource

LOWEST_PRIORITY = 19


def confine(*, processor_seconds: int, memory_bytes: int) -> None:
    """Bound this process from now on; whoever started it need not live for that.

    Past ``processor_seconds`` the kernel ends it, by SIGXCPU. Memory beyond ``memory_bytes`` is not given: Python
    raises MemoryError, other code ends the process. It runs when nothing else wants to.
    """
    os.nice(LOWEST_PRIORITY)
    resource.setrlimit(resource.RLIMIT_CPU, (processor_seconds, processor_seconds + 1))
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
