"""Clocks that jump: libfaketime gives a process a clock of its own, which a file sets."""

import platform
from importlib.util import find_spec
from pathlib import Path

import pytest


class Clock:
    """The wall clock of one process; its monotonic clock stays true."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.jump(0)
        self.environ = {
            "LD_PRELOAD": _library(),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",  # seconds after which it looks into the file again
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",  # children, of which there are none, would start anew
        }

    def jump(self, seconds: float) -> None:
        """Set the clock so many seconds ahead of the true one, or behind; it takes a second."""
        # Never half a file: it is read at any time.
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+f}\n")
        fresh.replace(self._file)


def _library() -> str:
    """Find libfaketime, as its wheel or as Debian has it."""
    places = list(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    spec = find_spec("libfaketime")
    if spec is not None and spec.origin is not None and platform.machine() == "x86_64":  # the wheel has no other
        places.insert(0, Path(spec.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1")
    found = next((str(place) for place in places if place.is_file()), None)
    if found is None:
        pytest.skip("there is no libfaketime for this machine")
    return found
