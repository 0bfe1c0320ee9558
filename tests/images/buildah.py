"""buildah, with a store of its own: images that are built here do not mix with those of this machine."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

BUILD_SECONDS = 20 * 60.0


class BuildahError(Exception):
    """Raised when buildah fails; holds what it says."""


class Image(msgspec.Struct, frozen=True):
    """What an image says of itself."""

    name: str
    config: Mapping[str, Any]
    """User, Env, Entrypoint, Cmd, Labels and so on, as the OCI's image specification has them."""
    history: tuple[Mapping[str, Any], ...]
    layers: tuple[str, ...]
    """Digests of the layers' uncompressed contents, the base's first."""

    @property
    def labels(self) -> dict[str, str]:
        """Labels by their keys."""
        return dict(self.config.get("Labels", {}))

    @property
    def environment(self) -> dict[str, str]:
        """Variables by their names."""
        return dict(variable.split("=", 1) for variable in self.config.get("Env", []))

    @property
    def command(self) -> list[str]:
        """What is run when nothing is asked for."""
        return [*self.entrypoint, *self.config.get("Cmd", [])]

    @property
    def entrypoint(self) -> list[str]:
        """What is run with other arguments."""
        return list(self.config.get("Entrypoint", []))


class Buildah:
    """A store of images and layers in a folder."""

    def __init__(self, folder: Path) -> None:
        self._options = ["--root", str(folder / "storage"), "--runroot", str(folder / "run")]

    def empty(self) -> None:
        """Delete all images and layers."""
        self._run("rmi", "--all", "--force")

    def release_mounts(self) -> None:
        """Give up what a run that was killed has left mounted."""
        self._run("rm", "--all")

    def forget(self, name: str) -> None:
        """Delete an image, but none of the layers that another is built from."""
        if self.has(name):
            self._run("rmi", name)

    def has(self, name: str) -> bool:
        """See whether there is an image."""
        return self._result("inspect", "--type", "image", name).returncode == 0

    def take(self, folder: Path, name: str) -> None:
        """Make a file system an image of one layer."""
        container = self._run("from", "scratch")
        try:
            self._run("add", "--quiet", container, str(folder), "/")
            self._run("commit", "--quiet", container, name)
        finally:
            self._run("rm", container)

    def build(
        self, context: Path, target: str, name: str, arguments: Mapping[str, str], secrets: Mapping[str, Path]
    ) -> None:
        """Build a target of the Dockerfile in ``context``; layers whose inputs are as before are taken as they are.

        Commands run on this machine's network, for the way to the package index may lead over it alone.
        """
        # For buildah's cache a LABEL with another argument in it is the same step (1.28 of Debian 12).
        self.forget(name)
        given = [f"--build-arg={key}={value}" for key, value in arguments.items()]
        hidden = [f"--secret=id={key},src={path}" for key, path in secrets.items()]
        options = ["--isolation=chroot", "--layers", "--format=oci", "--pull-never", f"--target={target}"]
        self._run("build", *options, *given, *hidden, f"--tag={name}", str(context))

    def inspect(self, name: str) -> Image:
        """Read an image's configuration."""
        found = msgspec.json.decode(self._run("inspect", "--type", "image", name))["OCIv1"]
        return Image(name, found["config"], tuple(found["history"]), tuple(found["rootfs"]["diff_ids"]))

    @contextmanager
    def mounted(self, name: str) -> Iterator[Path]:
        """Have an image's file system in a folder."""
        container = self._run("from", "--pull-never", name)
        try:
            yield Path(self._run("mount", container))
        finally:
            self._run("rm", container)

    def push(self, name: str, folder: Path) -> None:
        """Write an image's manifest, configuration and layers to a folder, uncompressed."""
        self._run("push", "--quiet", "--disable-compression", name, f"dir:{folder}")

    def _run(self, *arguments: str) -> str:
        result = self._result(*arguments)
        if result.returncode != 0:
            message = f"buildah {arguments[0]} failed:\n{result.stdout[-2_000:]}{result.stderr[-4_000:]}"
            raise BuildahError(message)
        return result.stdout.strip()

    def _result(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        program = shutil.which("buildah") or "buildah"
        return subprocess.run(  # noqa: S603 - nothing in the arguments comes from outside
            [program, *self._options, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
