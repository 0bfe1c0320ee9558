"""The load test has a target of its own, ``make test-load``: it takes Locust, and a minute."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.machine import Machine, running
from tests.suites import left_out


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave these tests out of a run that does not name them."""
    return left_out(Path(__file__).parent, collection_path, config)


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """All of The Eye."""
    with running(tmp_path_factory.mktemp("load")) as up:
        yield up
