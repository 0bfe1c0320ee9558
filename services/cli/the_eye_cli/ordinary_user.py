"""Running a program that refuses root, as root, and leaving every owner and mode as it is."""

import os
import pwd
import subprocess


class RootRefusedError(Exception):
    """Raised when root cannot run such a program here."""


def as_ordinary_user() -> list[str]:
    """Give what to put before the command; nothing when this process is not root.

    As root it is ``unshare``, which shows the command another user's number in a user namespace of its own. To the rest
    of the system it is still root, so that it owns what root owns, but without root's power over what others own.
    Raises RootRefusedError where the system does not allow that.
    """
    if os.geteuid() != 0:
        return []
    # initdb wants the number to have a name, and a small container has no user 1000.
    number = min((user.pw_uid for user in pwd.getpwall() if user.pw_uid), default=1000)
    prefix = ["unshare", "--user", f"--map-user={number}", f"--map-group={number}"]
    if not _works([*prefix, "true"]):
        message = (
            "PostgreSQL does not run as root, and this system refuses a user namespace: run as an ordinary user, "
            "allow user namespaces, or set THE_EYE_DATABASE_URL to a server of your own"
        )
        raise RootRefusedError(message)
    return prefix


def _works(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603 - ours
    except FileNotFoundError:
        return False
