"""Programs that tests need, compiled from the modules that a go.mod pins and kept.

The finished programs lie in a cache folder of The Eye's; another pin, source, flag or Go makes another folder beside
it. Go's own caches are left to Go (``go clean -cache -modcache`` empties them).
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

ENVIRONMENT = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}
"""What would make other programs of the same pins: C libraries, another Go than the folder's name says, a workspace."""

SMALL = ("-mod=readonly", "-trimpath")
"""Flags of programs that know no path of this machine."""

ASK_SECONDS = 60.0
BUILD_SECONDS = 60 * 60.0

Say = Callable[[str], None]


class MissingPartError(Exception):
    """Raised when there are no programs to run and nothing to build them with; its text says what would help."""


class BuildError(Exception):
    """Raised when Go cannot build a program; holds what Go says."""


class Programs(msgspec.Struct, frozen=True):
    """Programs that are built together."""

    name: str
    module: Path
    """Folder of the go.mod."""
    packages: Mapping[str, str]
    """The Go package of each program."""
    flags: Sequence[str]
    takes: str
    """How long a first build takes, in words."""

    def folder(self, say: Say) -> Path:
        """Give the folder with the programs, and build what the cache lacks; ``say`` is told of each step.

        Raises MissingPartError and BuildError.
        """
        self._require_go()
        folder = _cache() / f"{self.name}-{self._key()}"
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _lock(folder.with_name(f"{self.name}.lock"), say):
                # Another build may have made it while this one waited for the lock.
                if not folder.exists():
                    self._compile(folder, say)
        return folder

    def _require_go(self) -> None:
        if shutil.which("go") is None:
            message = f"{self.name} is built with Go, which is not installed"
            raise MissingPartError(message)
        asked = self._go("list", "-m", seconds=ASK_SECONDS)
        if asked.returncode != 0:
            raise MissingPartError(asked.stderr.strip())

    def _key(self) -> str:
        """Name all that the programs depend on."""
        go = self._go("env", "GOVERSION", "GOOS", "GOARCH", seconds=ASK_SECONDS).stdout
        files = [self.module / name for name in ("go.mod", "go.sum")] + sorted(self.module.glob("*.go"))
        settled = [file.read_text() for file in files]
        parts = [*settled, *self.flags, *ENVIRONMENT.values(), *self.packages.values(), go]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def _compile(self, folder: Path, say: Say) -> None:
        """Build all programs; the folder comes into being with the last of them."""
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        say(f"building {self.name} once, which takes {self.takes} on two processors")
        for name, package in self.packages.items():
            begun = time.monotonic()
            say(f"building {name}")
            self._build(package, unfinished / name)
            say(f"built {name} in {time.monotonic() - begun:.0f} s")
        unfinished.rename(folder)

    def _build(self, package: str, out: Path) -> None:
        built = self._go("build", *self.flags, "-o", str(out), package, seconds=BUILD_SECONDS)
        if built.returncode != 0:
            message = f"{package} cannot be built:\n{built.stderr[-4_000:]}"
            raise BuildError(message)

    def _go(self, *args: str, seconds: float) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(  # noqa: S603 - nothing in the arguments comes from outside
            ["go", *args],  # noqa: S607 - whichever Go this machine has
            cwd=self.module,
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )


def _cache() -> Path:
    if chosen := os.environ.get("THE_EYE_CACHE"):
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "the-eye"


@contextmanager
def _lock(file: Path, say: Say) -> Iterator[None]:
    """Let one build at a time into the cache; the lock goes with the process, however it ends."""
    with file.open("ab") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build of the same")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
