"""The programs that build and run images without a daemon: Debian's packages, installed where they are missing."""

import os
import shutil
import subprocess
from collections.abc import Sequence

PROGRAMS = ("buildah", "debootstrap", "runc")
"""Each is the name of its package, too."""

APT_SECONDS = 300.0


class MissingPartError(Exception):
    """Raised when images cannot be built on this machine; its text says what would help."""


def require() -> None:
    """Install what this machine lacks; raises MissingPartError where that or the building is not possible."""
    if os.geteuid() != 0:
        message = "images are built by root, since their base is a system with owners of its own: sudo make images"
        raise MissingPartError(message)
    if missing := _missing():
        _install(missing)


def _missing() -> list[str]:
    return [program for program in PROGRAMS if shutil.which(program) is None]


def _install(packages: Sequence[str]) -> None:
    if shutil.which("apt-get") is None:
        message = f"{', '.join(packages)} are not installed, and this system has no apt-get to install them with"
        raise MissingPartError(message)
    install = ["install", "--yes", "--no-install-recommends", *packages]
    # Lists that are missing or old name files that are not there: only then it has to be made up to date.
    if _apt_get(install).returncode != 0:
        _apt_get(["update"])
        result = _apt_get(install)
        if result.returncode != 0:
            message = f"apt-get cannot install {', '.join(packages)}:\n{result.stderr.strip()}"
            raise MissingPartError(message)


def _apt_get(arguments: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603 - nothing in the arguments comes from outside
        ["apt-get", "--quiet", *arguments],  # noqa: S607 - where the system has it
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=APT_SECONDS,
        check=False,
    )
