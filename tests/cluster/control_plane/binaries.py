"""The programs of the control plane, compiled from the modules that ../go/go.mod pins, or those that a person names.

The finished programs, 330 MB, lie in a cache folder of The Eye's; another pin, flag or Go makes another folder beside
it. Go's own caches are left to Go: a first build fills them with 0.8 GB of sources and 3.7 GB of compiled packages,
with which the next build is a matter of half a minute (``go clean -cache -modcache`` empties them).
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

MODULE = Path(__file__).parent.parent / "go"

ETCD = "etcd"
API_SERVER = "kube-apiserver"
CONTROLLER_MANAGER = "kube-controller-manager"
SCHEDULER = "kube-scheduler"

PACKAGES = {
    ETCD: "go.etcd.io/etcd/server/v3",
    API_SERVER: "k8s.io/kubernetes/cmd/kube-apiserver",
    CONTROLLER_MANAGER: "k8s.io/kubernetes/cmd/kube-controller-manager",
    SCHEDULER: "k8s.io/kubernetes/cmd/kube-scheduler",
}
STAMPED = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
"""Go packages whose variables hold the version; without a stamp it reads ``v0.0.0-master+$Format:%H$``."""

ENVIRONMENT = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}
"""What would make other programs of the same pins: C libraries, another Go than the folder's name says, a workspace."""

ASK_SECONDS = 60.0
BUILD_SECONDS = 60 * 60.0

Say = Callable[[str], None]


class MissingPartError(Exception):
    """Raised when there are no programs to run and nothing to build them with; its text says what would help."""


class BuildError(Exception):
    """Raised when Go cannot build a program; holds what Go says."""


class Binaries(msgspec.Struct, frozen=True):
    """A folder of programs."""

    folder: Path
    built: bool
    """Whether they come from our go.mod, and so have its versions."""

    def has(self, name: str) -> bool:
        """See whether a program is there: a folder of the caller's may have etcd and kube-apiserver alone."""
        return (self.folder / name).is_file()

    def path(self, name: str) -> Path:
        """Give a program's path."""
        return self.folder / name


def find(say: Say) -> Binaries:
    """Take the programs in KUBEBUILDER_ASSETS, or else build what the cache lacks; ``say`` is told of each step.

    Raises MissingPartError and BuildError.
    """
    if given := os.environ.get("KUBEBUILDER_ASSETS"):
        return _checked(Binaries(Path(given), built=False))
    return Binaries(_built(say), built=True)


def _checked(binaries: Binaries) -> Binaries:
    missing = [name for name in (ETCD, API_SERVER) if not binaries.has(name)]
    if missing:
        message = f"KUBEBUILDER_ASSETS={binaries.folder} has no {' and no '.join(missing)}"
        raise MissingPartError(message)
    return binaries


def _built(say: Say) -> Path:
    _require_go()
    folder = _cache() / f"control-plane-{_key()}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.with_name("control-plane.lock"), say):
            # Another build may have made it while this one waited for the lock.
            if not folder.exists():
                _compile(folder, say)
    return folder


def _require_go() -> None:
    if shutil.which("go") is None:
        message = (
            "the control plane is built with Go, which is not installed; or set KUBEBUILDER_ASSETS to a folder with "
            "etcd and kube-apiserver, or THE_EYE_TEST_KUBECONFIG to a cluster for tests"
        )
        raise MissingPartError(message)
    asked = _go("list", "-m", seconds=ASK_SECONDS)
    if asked.returncode != 0:
        raise MissingPartError(asked.stderr.strip())


def _cache() -> Path:
    if chosen := os.environ.get("THE_EYE_CACHE"):
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "the-eye"


def _key() -> str:
    """Name all that the programs depend on."""
    go = _go("env", "GOVERSION", "GOOS", "GOARCH", seconds=ASK_SECONDS).stdout
    settled = [(MODULE / name).read_text() for name in ("go.mod", "go.sum")]
    parts = [*settled, *flags(), *ENVIRONMENT.values(), *PACKAGES.values(), go]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def kubernetes_version() -> str:
    """Give the version of Kubernetes that go.mod pins, such as v1.37.2."""
    found = re.search(r"^\s*k8s\.io/kubernetes (v\S+)", (MODULE / "go.mod").read_text(), re.MULTILINE)
    assert found is not None, "go.mod requires no k8s.io/kubernetes"
    return found[1]


def flags() -> list[str]:
    """Give the flags of each build: small programs that know their version and no path of this machine."""
    version = kubernetes_version()
    major, minor = version.removeprefix("v").split(".")[:2]
    stamps = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitCommit": "", "gitTreeState": "clean"}
    stamped = [f"-X {package}.{name}={value}" for package in STAMPED for name, value in stamps.items()]
    return ["-mod=readonly", "-trimpath", f"-ldflags={' '.join(['-s', '-w', *stamped])}"]


@contextmanager
def _lock(file: Path, say: Say) -> Iterator[None]:
    """Let one build at a time into the cache; the lock goes with the process, however it ends."""
    with file.open("ab") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build of the control plane")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _compile(folder: Path, say: Say) -> None:
    """Build all programs; the folder comes into being with the last of them."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    say(f"building Kubernetes {kubernetes_version()} once, which takes 7 to 20 minutes on two processors")
    for name, package in PACKAGES.items():
        begun = time.monotonic()
        say(f"building {name}")
        _build(package, unfinished / name)
        say(f"built {name} in {time.monotonic() - begun:.0f} s")
    unfinished.rename(folder)


def _build(package: str, out: Path) -> None:
    built = _go("build", *flags(), "-o", str(out), package, seconds=BUILD_SECONDS)
    if built.returncode != 0:
        message = f"{package} cannot be built:\n{built.stderr[-4_000:]}"
        raise BuildError(message)


def _go(*args: str, seconds: float) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603 - nothing in the arguments comes from outside
        ["go", *args],  # noqa: S607 - whichever Go this machine has
        cwd=MODULE,
        env={**os.environ, **ENVIRONMENT},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
