"""A directory of manifests, watched: what is in it is in force, what breaks in it stays as it was.

It is looked at by ``stat``, not by inotify, which knows nothing of the symbolic links that kubelets swap under a
mounted ConfigMap, and is blind on network file systems.
"""

import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event as Signal
from threading import Thread
from typing import TypeAlias

import msgspec
import structlog

from the_eye.rules.assembly import Assembly, Problem, assemble, nothing_assembled
from the_eye.rules.documents import MAX_TEXT_BYTES
from the_eye.rules.manifest import FieldError
from the_eye.rules.ruleset import RuleSet
from the_eye.settings import SettingsError

SUFFIXES = (".yaml", ".yml", ".json")

OnChange = Callable[[RuleSet], object]

Signature: TypeAlias = tuple[tuple[str, tuple[int, ...] | None], ...]
"""Each file's name with what changes about it when it is written or replaced; None where it cannot be looked at."""

_LOAD_ATTEMPTS = 10
"""How often a directory that changes while it is read is read again at start."""

_log = structlog.get_logger(__name__)


def manifest_names(directory: Path) -> list[str]:
    """The files of a directory that count: by suffix, at the top level, not hidden (kubelets keep ``..data`` there).

    Raises OSError when the directory cannot be listed.
    """
    return sorted(
        path.name for path in directory.iterdir() if path.name.endswith(SUFFIXES) and not path.name.startswith(".")
    )


def read_file(path: Path) -> bytes | Problem:
    """Read a file that should hold manifests."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return _unreadable(path.name, "it is not a regular file")  # opening a pipe would wait for a writer
        with path.open("rb") as file:
            content = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        return _unreadable(path.name, f"it cannot be read: {error.strerror or error}")
    return content if len(content) <= MAX_TEXT_BYTES else _unreadable(path.name, f"more than {MAX_TEXT_BYTES} bytes")


def _unreadable(name: str, message: str) -> Problem:
    return Problem(name, "", FieldError("", "InvalidFile", message))


def _signature(directory: Path) -> Signature:
    return tuple((name, _look(directory / name)) for name in manifest_names(directory))


def _look(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class _State(msgspec.Struct, frozen=True):
    assembly: Assembly
    loaded_at: datetime


class RuleDirectory:
    """Keeps a ruleset true to a directory. Without a directory the ruleset stays empty."""

    def __init__(
        self,
        directory: Path | None,
        *,
        poll_seconds: float,
        future_tolerance: timedelta,
        on_change: OnChange | None = None,
    ) -> None:
        """``on_change`` is called with each new ruleset once it is in force, in the thread that loaded it."""
        self._directory = directory
        self._poll_seconds = poll_seconds
        self._on_change = on_change
        self._state = _State(nothing_assembled(future_tolerance=future_tolerance), datetime.now(UTC))
        self._directory_problem: Problem | None = None
        self._reported: frozenset[Problem] = frozenset()
        self._taken: Signature | None = None
        self._seen: Signature | None = None
        self._stop = Signal()
        self._thread: Thread | None = None

    @property
    def current(self) -> RuleSet:
        """The ruleset in force. A caller that needs it twice for one event keeps it: it may change in between."""
        return self._state.assembly.ruleset

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with the directory now; empty when all of it is in force."""
        of_directory = self._directory_problem
        return (of_directory, *self._state.assembly.problems) if of_directory else self._state.assembly.problems

    @property
    def loaded_at(self) -> datetime:
        """Since when the current ruleset has been in force, in UTC."""
        return self._state.loaded_at

    def load(self) -> None:
        """Take what the directory holds.

        Raises SettingsError when the directory cannot be listed, which at start is a mistake and not an outage.
        """
        if self._directory is None:
            return
        try:
            for _ in range(_LOAD_ATTEMPTS):
                if self._take(_signature(self._directory), self._directory):
                    return
        except OSError as error:
            message = f"THE_EYE_RULES_DIR={str(self._directory)!r} does not fit: {error.strerror or error}"
            raise SettingsError(message) from error
        _log.warning("rules_directory_unsteady", directory=str(self._directory))

    def start(self) -> None:
        """Watch the directory from a thread of its own, until ``stop``."""
        if self._directory is not None and self._thread is None:
            self._stop.clear()
            self._thread = Thread(target=self._watch, name="rules", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the watching; the ruleset stays."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _watch(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            try:
                self.poll()
            except Exception:  # noqa: BLE001 - logged with its traceback
                # The rules in force stay, and the next look may succeed: without this thread no repair would be seen.
                _log.exception("rules_not_loaded", directory=str(self._directory))

    def poll(self) -> None:
        """Look once, and take what is there when it is new and two looks in a row agree on it."""
        if self._directory is None:
            return
        try:
            signature = _signature(self._directory)
            if signature == self._seen and signature != self._taken:
                self._take(signature, self._directory)
            else:
                self._seen = signature
        except OSError as error:
            self._lose(self._directory, error)

    def _lose(self, directory: Path, error: OSError) -> None:
        message = f"the directory cannot be listed: {error.strerror or error}"
        self._directory_problem = Problem(str(directory), "", FieldError("", "InvalidFile", message), kept=True)
        self._seen = self._taken = None
        self._report()

    def _take(self, signature: Signature, directory: Path) -> bool:
        """Put in force what is there; false when it changed while it was read, so that half of it may be new."""
        contents = {name: read_file(directory / name) for name, _ in signature}
        if _signature(directory) != signature:
            return False
        assembly = assemble(contents, self._state.assembly)
        changed = assembly.ruleset.revision != self.current.revision
        self._state = _State(assembly, datetime.now(UTC) if changed else self.loaded_at)
        self._taken = self._seen = signature
        self._directory_problem = None
        self._report()
        if changed:
            self._announce(assembly.ruleset)
        return True

    def _report(self) -> None:
        """Log each problem once, when it comes and when it goes."""
        problems = frozenset(self.problems)
        for problem in self.problems:
            if problem not in self._reported:
                _log.warning("rules_problem", problem=str(problem), last_good_kept=problem.kept)
        for problem in self._reported - problems:
            _log.info("rules_problem_solved", problem=str(problem))
        self._reported = problems

    def _announce(self, ruleset: RuleSet) -> None:
        _log.info("ruleset_loaded", revision=ruleset.revision, rules=len(ruleset.rules))
        if self._on_change is not None:
            self._on_change(ruleset)
