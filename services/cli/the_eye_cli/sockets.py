"""The directory of the embedded servers' sockets."""

import hashlib
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path

MAX_PATH_BYTES = 103
"""The longest path of a Unix socket that all systems take: macOS has 104 with the closing NUL, Linux 108."""

_LONGEST_NAME = ".s.PGSQL.5432.lock"
_PLAIN = re.compile(r"[A-Za-z0-9/._+-]+")


class SocketDirectoryError(Exception):
    """Raised when there is no place for sockets; its text says what to do."""


def make_socket_directory(data: Path) -> Path:
    """Make ``run`` in the data directory, which only its owner can open.

    Where that path is too long for a socket, or holds characters that connection strings keep for themselves, it is a
    directory in the system's folder for temporary files instead, with the same name at each start.
    Raises SocketDirectoryError when someone else has that name.
    """
    directory = data / "run"
    if not _suits(directory):
        directory = _temporary(data)
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) != stat.S_IRWXU:
        message = f"{directory} is not a directory that only you can open: remove it"
        raise SocketDirectoryError(message)
    return directory


def remove_socket_directory(directory: Path, data: Path) -> None:
    """Remove a directory that stands outside of the data directory."""
    if directory.parent != data:
        shutil.rmtree(directory, ignore_errors=True)


def _temporary(data: Path) -> Path:
    mark = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
    directory = Path(tempfile.gettempdir()) / f"the-eye-{os.geteuid()}-{mark}"
    if not _suits(directory):
        message = f"{directory} does not suit a socket, whose path is short and plain: set TMPDIR=/tmp"
        raise SocketDirectoryError(message)
    return directory


def _suits(directory: Path) -> bool:
    path = str(directory / _LONGEST_NAME)
    return _PLAIN.fullmatch(path) is not None and len(path) <= MAX_PATH_BYTES
