"""The programs that build and run images without a daemon."""

import os

from tests import debian

PROGRAMS = ("buildah", "debootstrap", "runc")


def require() -> None:
    """Install what this machine lacks; raises MissingPartError where that or the building is not possible."""
    if os.geteuid() != 0:
        message = "images are built by root, since their base is a system with owners of its own: sudo make images"
        raise debian.MissingPartError(message)
    debian.require(*PROGRAMS)
