"""A real Prometheus for all tests of the run, and The Eye for it to look at.

Prometheus is Debian's package; where it is missing it is installed, or the tests are skipped, but in CI they fail.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import debian
from tests.observability.stand import Stand, standing
from tests.suites import left_out

TEST_SECONDS = 300.0
"""A slow machine takes its time until an alert fires."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave these tests out of a run that does not name them: they take minutes, and Prometheus."""
    return left_out(Path(__file__).parent, collection_path, config)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bound the tests in time but not their fixtures, which have deadlines of their own."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TEST_SECONDS, func_only=True))


@pytest.fixture(scope="session")
def programs() -> None:
    """Prometheus and promtool, which one package holds."""
    try:
        debian.require("prometheus")
    except debian.MissingPartError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def stand(programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:  # noqa: ARG001 - comes first
    """All of The Eye under load, observed; a test that breaks something mends it again."""
    with standing(tmp_path_factory.mktemp("stand")) as stand:
        yield stand
