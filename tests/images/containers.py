"""An image's process as a pod of the chart has it: read-only, as the image's user, with no capability left.

runc starts it, as the runtimes of Kubernetes do, with the system calls that Kubernetes' default profile lets through.
What differs: the network is this machine's, so that it finds the stores, and nothing bounds memory and processors.
"""

import platform
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

import msgspec
from tests.images.buildah import Image

SECCOMP = Path("/usr/share/containers/seccomp.json")
"""Of the package that buildah brings with it: what Docker and Podman let through, in a form with conditions."""

ARCHITECTURES = {"x86_64": ("amd64", "SCMP_ARCH_X86_64"), "aarch64": ("arm64", "SCMP_ARCH_AARCH64")}
"""What a profile calls a machine, in its conditions and in its map."""
WRITABLE = "/tmp"  # noqa: S108 - a container's own
"""The one directory that the chart lets a process write to."""

STOP_SECONDS = 30.0
NOTHING: Mapping[str, str] = {}
NO_MOUNTS: Mapping[str, Path] = {}

Json = dict[str, Any]


class Container:
    """A process that was started."""

    def __init__(self, process: "subprocess.Popen[bytes]", folder: Path) -> None:
        self.process = process
        self._folder = folder

    @property
    def out(self) -> str:
        """Standard output so far."""
        return (self._folder / "out").read_text()

    @property
    def err(self) -> str:
        """Standard error so far."""
        return (self._folder / "err").read_text()

    def stop(self) -> int:
        """Ask it to stop as a kubelet does; gives the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)


class Containers:
    """Starts one image's processes."""

    def __init__(self, image: Image, root: Path, folder: Path) -> None:
        self.image = image
        self.root = root
        """The image's file system."""
        self._folder = folder

    @contextmanager
    def running(
        self, environment: Mapping[str, str] = NOTHING, mounts: Mapping[str, Path] = NO_MOUNTS
    ) -> Iterator[Container]:
        """Run what the image runs by itself until the end of the block; ``mounts`` are read-only."""
        with self._started(self.image.command, environment, mounts) as container:
            yield container

    def run(
        self, *command: str, environment: Mapping[str, str] = NOTHING, seconds: float = 60.0
    ) -> "subprocess.CompletedProcess[str]":
        """Run another command to its end."""
        with self._started(command, environment, {}) as container:
            status = container.process.wait(seconds)
            return subprocess.CompletedProcess(command, status, container.out, container.err)

    @contextmanager
    def _started(
        self, command: Sequence[str], environment: Mapping[str, str], mounts: Mapping[str, Path]
    ) -> Iterator[Container]:
        name = f"eye-{token_hex(4)}"
        bundle = self._folder / name
        bundle.mkdir(parents=True)
        config = configuration(self.image, self.root, command, environment, mounts)
        (bundle / "config.json").write_bytes(msgspec.json.encode(config))
        runc = [shutil.which("runc") or "runc", "--root", str(self._folder / "runc")]
        with (bundle / "out").open("wb") as out, (bundle / "err").open("wb") as err:
            process = subprocess.Popen(  # noqa: S603 - nothing in the command comes from outside
                [*runc, "run", "--bundle", str(bundle), name], stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
        try:
            yield Container(process, bundle)
        finally:
            # It takes the container with it, also one that does not listen to SIGTERM.
            subprocess.run([*runc, "delete", "--force", name], capture_output=True, check=False)  # noqa: S603 - as above
            process.wait(STOP_SECONDS)


def configuration(
    image: Image, root: Path, command: Sequence[str], environment: Mapping[str, str], mounts: Mapping[str, Path]
) -> Json:
    """Write down a container in the OCI's runtime specification."""
    user, _, group = image.config["User"].partition(":")
    variables = {**image.environment, **environment}
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(root), "readonly": True},
        "process": {
            "user": {"uid": int(user), "gid": int(group)},
            "args": list(command),
            "env": [f"{key}={value}" for key, value in variables.items()],
            "cwd": image.config.get("WorkingDir") or "/",
            "capabilities": {sort: [] for sort in ("bounding", "effective", "inheritable", "permitted", "ambient")},
            "noNewPrivileges": True,
        },
        "mounts": [*_file_systems(), *(_bound(source, target) for target, source in mounts.items())],
        "linux": {
            "namespaces": [{"type": sort} for sort in ("pid", "ipc", "uts", "mount")],
            "seccomp": seccomp(msgspec.json.decode(SECCOMP.read_bytes())),
        },
    }


def _file_systems() -> list[Json]:
    nothing_special = ["nosuid", "nodev", "noexec"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": nothing_special},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
        {"destination": WRITABLE, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "size=64m"]},
    ]


def _bound(source: Path, target: str) -> Json:
    return {"destination": target, "type": "bind", "source": str(source), "options": ["bind", "ro"]}


def seccomp(profile: Mapping[str, Any]) -> Json:
    """Decide the conditions of a profile for a process without capabilities, as runc knows none."""
    name, architecture = ARCHITECTURES[platform.machine()]
    (ours,) = [found for found in profile["archMap"] if found["architecture"] == architecture]
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": [architecture, *(ours["subArchitectures"] or [])],
        "syscalls": [_plain(rule) for rule in profile["syscalls"] if _holds(rule.get("includes") or {}, name)],
    }


def _holds(includes: Mapping[str, Any], architecture: str) -> bool:
    architectures = includes.get("arches")
    return not includes.get("caps") and (not architectures or architecture in architectures)


def _plain(rule: Mapping[str, Any]) -> Json:
    kept = {key: rule[key] for key in ("names", "action", "args", "errnoRet") if rule.get(key) is not None}
    return {**kept, "args": rule.get("args") or []}
