"""An OpenTelemetry Collector, compiled from the modules that go/go.mod pins."""

import os
from pathlib import Path

import pytest
from tests.golang import SMALL, MissingPartError, Programs
from tests.suites import left_out

TEST_SECONDS = 300.0

OTELCOL = "otelcol"
PROGRAMS = Programs(
    "collector", Path(__file__).parent / "go", {OTELCOL: "."}, (*SMALL, "-ldflags=-s -w"), "4 to 10 minutes"
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave these tests out of a run that does not name them: their first build takes minutes."""
    return left_out(Path(__file__).parent, collection_path, config)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bound the tests in time but not their fixture, which may build for minutes."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TEST_SECONDS, func_only=True))


@pytest.fixture(scope="session")
def otelcol(pytestconfig: pytest.Config) -> Path:
    """The program; without Go its tests are skipped, but in CI they fail."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            return PROGRAMS.folder(lambda line: print(f"\n{line}", end="", flush=True)) / OTELCOL  # noqa: T201 - for who waits
    except MissingPartError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
