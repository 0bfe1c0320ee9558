"""Where figures in the documentation come from."""

import os
import platform
import subprocess
from datetime import UTC, datetime


def line() -> str:
    """Say when, of what revision, and on what machine something was measured."""
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S607 - git is where the system has it
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d} at revision {revision.stdout.strip() or 'unknown'}, "
        f"on {os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}."
    )
