"""The log files of child processes."""

import os
from pathlib import Path

ROTATE_BYTES = 20 * 1024 * 1024
TAIL_BYTES = 16 * 1024


class LogFile:
    """A file with what one child process printed; what was before is kept once, as ``<name>.log.1``."""

    def __init__(self, path: Path) -> None:
        """Begin anew. Raises OSError when the file cannot be written."""
        self.path = path
        self._file = self._begin()

    def _begin(self) -> int:
        if self.path.exists():
            self.path.replace(self.path.with_name(self.path.name + ".1"))
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def fileno(self) -> int:
        """Give the descriptor, for a child that writes to the file by itself; such a file never rotates."""
        return self._file

    def write(self, line: bytes) -> None:
        """Append, and rotate past ``ROTATE_BYTES``."""
        os.write(self._file, line)
        if os.fstat(self._file).st_size > ROTATE_BYTES:
            os.close(self._file)
            self._file = self._begin()

    def close(self) -> None:
        """Give the descriptor back; what is in the file stays readable."""
        os.close(self._file)

    def last_lines(self, count: int) -> list[str]:
        """Read the end of the file."""
        with self.path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()[-count:]
