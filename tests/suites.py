"""Suites with a make target of their own."""

from pathlib import Path

import pytest


def left_out(suite: Path, collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the tests of a folder out of a run that does not name them; for ``pytest_ignore_collect``."""
    named = any(
        suite == path or suite in path.parents for path in (Path(arg.split("::")[0]).resolve() for arg in config.args)
    )
    return None if named or suite not in collection_path.parents else True
