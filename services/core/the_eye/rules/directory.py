"""A directory, watched: what is in it is in force, what breaks in it stays as it was.

It holds manifests, each file for itself; or the shards of one ruleset, as the operator writes them, which with their
index are taken as a whole or not at all.

It is looked at by ``stat``, not by inotify, which knows nothing of the symbolic links that kubelets swap under a
mounted ConfigMap, and is blind on network file systems.
"""

import stat
import time
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event as Signal
from threading import Thread

import msgspec
import structlog

from the_eye.rules.assembly import Assembly, Problem, assemble, nothing_assembled
from the_eye.rules.documents import MAX_TEXT_BYTES
from the_eye.rules.files import Signature, signature_of
from the_eye.rules.manifest import FieldError
from the_eye.rules.ruleset import RuleSet
from the_eye.rules.shards import (
    INDEX,
    RuleSetIndex,
    Shard,
    is_index,
    is_shard_name,
    manifests_of,
    read_index,
    read_shards,
)
from the_eye.settings import SettingsError

OnChange = Callable[[RuleSet], object]

WAIT_SECONDS = 60.0
"""How long a ruleset in shards may take to be whole at start: kubelets look at ConfigMaps about once a minute."""

_LOAD_ATTEMPTS = 10
"""How often a directory that changes while it is read is read again at start."""

_MOUNTED = "..data"
"""The link that a kubelet puts into whatever it mounts, an empty ConfigMap too."""

_log = structlog.get_logger(__name__)


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


def _index(directory: Path, names: Collection[str], *, expected: bool) -> RuleSetIndex | Problem | None:
    """Read the index of a directory of shards; None for a directory of manifests."""
    content = read_file(directory / INDEX) if INDEX in names else None
    declared = isinstance(content, bytes) and is_index(content)
    return read_index(content) if expected or declared or any(map(is_shard_name, names)) else None


def _shards(directory: Path, index: RuleSetIndex | Problem) -> tuple[Shard, ...] | Problem:
    if isinstance(index, Problem):
        return index
    return read_shards(index, {name: read_file(directory / name) for name in index.shards})


class State(msgspec.Struct, frozen=True):
    """What is in force at one moment, and what should be."""

    assembly: Assembly
    loaded_at: datetime
    """Since when the ruleset has been in force, in UTC."""
    declared: str | None = None
    """The revision that the directory's index asks for; None for a directory of manifests.

    It is in force when no problem is, even where this version of the software writes the same rules as another
    revision.
    """
    fault: Problem | None = None
    """Why nothing of the directory is taken; what was taken before stays in force."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with the directory now; empty when all of it is in force."""
        return (self.fault, *self.assembly.problems) if self.fault else self.assembly.problems


class RuleDirectory:
    """Keeps a ruleset true to a directory. Without a directory the ruleset stays empty."""

    def __init__(
        self,
        directory: Path | None,
        *,
        poll_seconds: float,
        future_tolerance: timedelta,
        on_change: OnChange | None = None,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        """``on_change`` is called with each new ruleset once it is in force, in the thread that loaded it."""
        self._directory = directory
        self._poll_seconds = poll_seconds
        self._on_change = on_change
        self._wait_seconds = wait_seconds
        self._state = State(nothing_assembled(future_tolerance=future_tolerance), datetime.now(UTC))
        self._reported: frozenset[Problem] = frozenset()
        self._loaded = False
        self._settled: Signature | None = None
        self._seen: Signature | None = None
        self._stop = Signal()
        self._thread: Thread | None = None

    @property
    def current(self) -> RuleSet:
        """The ruleset in force. A caller that needs it twice for one event keeps it: it may change in between."""
        return self._state.assembly.ruleset

    @property
    def state(self) -> State:
        """The ruleset in force with all there is to say of it."""
        return self._state

    @property
    def problems(self) -> tuple[Problem, ...]:
        """As in ``state``."""
        return self._state.problems

    @property
    def loaded_at(self) -> datetime:
        """As in ``state``."""
        return self._state.loaded_at

    def load(self, stopping: Signal | None = None) -> bool:
        """Take what the directory holds; false when ``stopping`` was set before there was a ruleset to take.

        Manifests are taken as they are, the good ones of them. A ruleset in shards is waited for until it is whole,
        and so is one in a directory that a kubelet mounted and that holds nothing yet: events that were judged by no
        rules, only because the operator had not written them yet, would be stored as valid. Until then they are queued.

        Raises SettingsError when the directory cannot be listed, which at start is a mistake and not an outage, and
        when the ruleset is not whole after ``wait_seconds``.
        """
        if self._directory is None:
            return True
        try:
            return self._load(self._directory, stopping or Signal())
        except OSError as error:
            raise self._does_not_fit(error.strerror or str(error)) from error

    def _load(self, directory: Path, stopping: Signal) -> bool:
        deadline = time.monotonic() + self._wait_seconds
        self._take_now(directory)
        while self._state.fault is not None:
            if time.monotonic() >= deadline:
                reason = f"no whole ruleset came within {self._wait_seconds:g} seconds: {self._state.fault}"
                raise self._does_not_fit(reason)
            if stopping.wait(self._poll_seconds):
                return False
            self._take_now(directory)
        return True

    def _take_now(self, directory: Path) -> None:
        for _ in range(_LOAD_ATTEMPTS):
            if self._settle(signature_of(directory), directory, agreed=True):
                return
        _log.warning("rules_directory_unsteady", directory=str(directory))

    def _does_not_fit(self, reason: str) -> SettingsError:
        return SettingsError(f"THE_EYE_RULES_DIR={str(self._directory)!r} does not fit: {reason}")

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
        """Look once, and take what is there when it is new.

        A ruleset in shards is taken at once when it is whole; manifests when two looks in a row agree on them.
        """
        if self._directory is None:
            return
        try:
            signature = signature_of(self._directory)
            agreed, self._seen = signature == self._seen, signature
            if signature != self._settled:
                self._settle(signature, self._directory, agreed=agreed)
        except OSError as error:
            self._lose(self._directory, error)

    def _lose(self, directory: Path, error: OSError) -> None:
        message = f"the directory cannot be listed: {error.strerror or error}"
        self._keep(Problem(str(directory), "", FieldError("", "InvalidFile", message)), self._state.declared)
        self._seen = self._settled = None

    def _keep(self, fault: Problem, declared: str | None) -> None:
        """Leave in force what is."""
        fault = msgspec.structs.replace(fault, kept=self._loaded)
        self._state = msgspec.structs.replace(self._state, fault=fault, declared=declared)
        self._report()

    def _settle(self, signature: Signature, directory: Path, *, agreed: bool) -> bool:
        """Take what is there, or tell why not; false when that needs another look."""
        names = {name for name, _ in signature}
        index = _index(directory, names, expected=self._expects_index(directory, names))
        if index is None:
            return agreed and self._take_manifests(signature, directory)
        declared = self._state.declared if isinstance(index, Problem) else index.revision
        shards = _shards(directory, index)
        if not isinstance(shards, Problem):
            self._take_shards(signature, shards, declared)
        elif agreed:
            self._settled = signature
            self._keep(shards, declared)
        else:  # a kubelet may just be swapping its links
            return False
        return True

    def _expects_index(self, directory: Path, names: Collection[str]) -> bool:
        """A directory that has had an index does not turn into one of manifests when that is lost."""
        awaited = not self._loaded and not names and (directory / _MOUNTED).is_symlink()
        return self._state.declared is not None or awaited

    def _take_shards(self, signature: Signature, shards: Iterable[Shard], declared: str | None) -> None:
        """Put in force what an index names, even when it changed meanwhile: it is whole, and the next look sees it."""
        known = {rule.document: rule.manifest for rule in self.current.rules}
        contents = {shard.name: shard.content for shard in shards}
        parsed = {shard.content: tuple(manifests_of(shard, known)) for shard in shards}
        previous = msgspec.structs.replace(self._state.assembly, parsed=parsed)
        self._put_in_force(signature, assemble(contents, previous), declared)

    def _take_manifests(self, signature: Signature, directory: Path) -> bool:
        """Put in force what is there; false when it changed while it was read, so that half of it may be new."""
        contents = {name: read_file(directory / name) for name, _ in signature}
        if signature_of(directory) != signature:
            return False
        self._put_in_force(signature, assemble(contents, self._state.assembly), declared=None)
        return True

    def _put_in_force(self, signature: Signature, assembly: Assembly, declared: str | None) -> None:
        changed = assembly.ruleset.revision != self.current.revision
        self._state = State(assembly, datetime.now(UTC) if changed else self.loaded_at, declared)
        self._loaded = True
        self._settled = self._seen = signature
        self._report()
        if changed:
            self._announce(assembly.ruleset)

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
