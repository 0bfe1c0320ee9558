"""Programs of Debian's packages that tests run, installed where they are missing."""

import os
import shutil
import subprocess
from collections.abc import Sequence

APT_SECONDS = 300.0


class MissingPartError(Exception):
    """Raised when a program is not there and cannot be installed; its text says what would help."""


def require(*programs: str) -> None:
    """Install the programs that this machine lacks, each of which is the name of its package, too.

    In CI a user becomes root unasked. Raises MissingPartError.
    """
    missing = [program for program in programs if shutil.which(program) is None]
    if not missing:
        return
    named = ", ".join(missing)
    if shutil.which("apt-get") is None:
        message = f"{named} are not installed, and this system has no apt-get to install them with"
        raise MissingPartError(message)
    if os.geteuid() != 0 and not os.environ.get("CI"):
        message = f"{named} are not installed, which takes root: sudo apt-get install {' '.join(missing)}"
        raise MissingPartError(message)
    _install(missing)


def _install(packages: Sequence[str]) -> None:
    install = ["install", "--yes", "--no-install-recommends", *packages]
    # Lists that are missing or old name files that are not there: only then it has to be made up to date.
    if _apt_get(install).returncode != 0:
        _apt_get(["update"])
        result = _apt_get(install)
        if result.returncode != 0:
            message = f"apt-get cannot install {', '.join(packages)}:\n{result.stderr.strip()}"
            raise MissingPartError(message)


def _apt_get(arguments: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    as_root = [] if os.geteuid() == 0 else ["sudo", "--non-interactive", "--preserve-env=DEBIAN_FRONTEND"]
    return subprocess.run(  # noqa: S603 - nothing in the arguments comes from outside
        [*as_root, "apt-get", "--quiet", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=APT_SECONDS,
        check=False,
    )
