"""The files of a directory of rules, by their names and by what changes when they are written."""

from pathlib import Path
from typing import TypeAlias

SUFFIXES = (".yaml", ".yml", ".json")

Signature: TypeAlias = tuple[tuple[str, tuple[int, ...] | None], ...]
"""Each file's name with what changes about it when it is written or replaced; None where it cannot be looked at."""


def manifest_names(directory: Path) -> list[str]:
    """The files of a directory that count: by suffix, at the top level, not hidden (kubelets keep ``..data`` there).

    Raises OSError when the directory cannot be listed.
    """
    return sorted(
        path.name for path in directory.iterdir() if path.name.endswith(SUFFIXES) and not path.name.startswith(".")
    )


def signature_of(directory: Path) -> Signature:
    """Look at a directory without reading its files. Raises OSError when it cannot be listed."""
    return tuple((name, _look(directory / name)) for name in manifest_names(directory))


def _look(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
