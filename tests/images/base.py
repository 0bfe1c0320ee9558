"""A base image's file system, made by debootstrap: this machine's own release, with Python and little else.

It stands in for ``python:3.13-slim``, which only a registry has. The packages come from where apt has its own.
"""

import platform
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

PACKAGES = ("ca-certificates", "python3", "python3-venv")
MADE_SECONDS = 20 * 60.0
ASK_SECONDS = 60.0

LEFT_OVER = ("var/cache/apt", "var/lib/apt/lists", "var/log", "etc/apt/sources.list")
"""What no image needs; the last of them names the mirror."""

TARGET = "$(CODENAME) $(RELEASE) $(REPO_URI) $(COMPONENT)"
MIRROR_LIST = "mirror+file:"


class BaseError(Exception):
    """Raised when there is no base to be had; holds what apt or debootstrap says."""


class Source(msgspec.Struct, frozen=True):
    """Where a release's packages are."""

    release: str
    mirror: str
    components: tuple[str, ...]


def release() -> str:
    """Give the code name of this machine's release, such as ``bookworm``."""
    return platform.freedesktop_os_release()["VERSION_CODENAME"]


@contextmanager
def made(folder: Path) -> Iterator[Path]:
    """Make the file system in a new folder, which is gone after the block. Raises BaseError."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        _debootstrap(read_source(_apt_targets(), release()), folder)
        for name in LEFT_OVER:
            _empty(folder / name)
        yield folder
    finally:
        shutil.rmtree(folder)


def read_source(targets: Iterable[str], name: str) -> Source:
    """Find a release among apt's targets, of which each is a line in the form of ``TARGET``.

    Raises BaseError when apt has no source for it.
    """
    found = [line.split() for line in targets]
    # Before apt's lists are there, no code name is known.
    ours = [parts[-2:] for parts in found if name in parts[:-2]]
    if not ours:
        message = f"apt has no source for {name}"
        raise BaseError(message)
    mirror = ours[0][0]
    components = dict.fromkeys(component for uri, component in ours if uri == mirror)
    return Source(name, _first_of_list(mirror), tuple(components))


def _first_of_list(uri: str) -> str:
    """Resolve apt's lists of mirrors, which debootstrap does not know."""
    if not uri.startswith(MIRROR_LIST):
        return uri
    lines = Path(uri.removeprefix(MIRROR_LIST).rstrip("/")).read_text().splitlines()
    return next(line.split()[0] for line in lines if line and not line.startswith("#"))


def _apt_targets() -> list[str]:
    asked = _run(["apt-get", "indextargets", "--format", TARGET, "Created-By: Packages"], ASK_SECONDS)
    return asked.splitlines()


def _debootstrap(source: Source, folder: Path) -> None:
    options = ["--variant=minbase", f"--components={','.join(source.components)}", f"--include={','.join(PACKAGES)}"]
    _run(["debootstrap", *options, source.release, str(folder), source.mirror], MADE_SECONDS)


def _run(command: list[str], seconds: float) -> str:
    result = subprocess.run(  # noqa: S603 - names and addresses of apt's own configuration
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
    )
    if result.returncode != 0:
        message = f"{command[0]} failed:\n{result.stdout[-2_000:]}{result.stderr[-2_000:]}"
        raise BaseError(message)
    return result.stdout


def _empty(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
        path.mkdir()
    else:
        path.unlink(missing_ok=True)
