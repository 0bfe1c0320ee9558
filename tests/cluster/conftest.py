"""A Kubernetes control plane for all tests of the run, and a namespace for each.

Where the programs come from is in ``control_plane/binaries.py``. THE_EYE_TEST_KUBECONFIG names a cluster to use
instead; it must be one for tests, since they act on it as administrators.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from secrets import token_hex
from typing import Any, NoReturn

import msgspec
import pytest
from tests import debian
from tests.cluster import autoscaling_document, scraping
from tests.cluster.autoscaling_document import COURSE
from tests.cluster.control_plane import binaries, cluster, local
from tests.cluster.control_plane.binaries import Binaries
from tests.cluster.control_plane.cluster import ControlPlane
from tests.cluster.control_plane.kubectl import Kubectl
from tests.cluster.foreign_definitions import definition_files
from tests.golang import MissingPartError
from tests.suites import left_out

TEST_SECONDS = 120.0

FIGURES = pytest.StashKey[dict[str, Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the choice of writing the documentation."""
    parser.addoption(
        "--write-autoscaling", action="store_true", help="cluster: write the plot into docs/autoscaling.md"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Add the marker of the test that takes longest, which ``-m "not large"`` leaves out."""
    config.addinivalue_line("markers", "large: thousands of rules, which takes a minute or two")
    config.stash[FIGURES] = {}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: pytest.ExitCode) -> None:
    """Show what was measured, and write it into the documentation when that is asked for and all went well."""
    config = terminalreporter.config
    if course := config.stash.get(COURSE, None):
        terminalreporter.section("autoscaling")
        terminalreporter.write(course.table())
        if config.getoption("--write-autoscaling") and exitstatus == pytest.ExitCode.OK:
            autoscaling_document.write(course)
    if measured := config.stash[FIGURES]:
        terminalreporter.section("figures of the operator")
        terminalreporter.write_line(msgspec.json.format(msgspec.json.encode(measured)).decode())


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave these tests out of a run that does not name them: their first build takes minutes."""
    return left_out(Path(__file__).parent, collection_path, config)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bound the tests in time but not their fixtures, which may build for minutes and have deadlines of their own.

    Those with thousands of rules come last: deleting what they have made keeps the API server busy for a while.
    """
    items.sort(key=lambda item: item.get_closest_marker("large") is not None)
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_SECONDS, func_only=True))


@pytest.fixture(scope="session")
def control_plane(pytestconfig: pytest.Config) -> Iterator[ControlPlane]:
    """A control plane that is up; its tests are skipped where there is none to be had, but in CI they fail."""
    try:
        chosen = _chosen(pytestconfig)
    except MissingPartError as error:
        _without(str(error))
    with chosen as up:
        yield up


def _chosen(config: pytest.Config) -> AbstractContextManager[ControlPlane]:
    if given := os.environ.get("THE_EYE_TEST_KUBECONFIG"):
        return cluster.existing(Path(given))
    return local.running(_binaries(config))


def _binaries(config: pytest.Config) -> Binaries:
    """Find the programs, and show the steps of a build as they come."""
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        return binaries.find(lambda line: print(f"\n{line}", end="", flush=True))  # noqa: T201 - for who waits


def _without(missing: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def kubectl(control_plane: ControlPlane) -> Kubectl:
    """Runs kubectl as the administrator."""
    return control_plane.kubectl


@pytest.fixture(scope="module")
def foreign_definitions(kubectl: Kubectl) -> Iterator[None]:
    """Have the definitions of other projects' kinds that the chart makes objects of."""
    try:
        files = list(definition_files())
    except MissingPartError as error:
        _without(str(error))
    made = [f"--filename={file}" for file in files if not kubectl("get", f"-f={file}", "--ignore-not-found").stdout]
    if made:
        kubectl("apply", "--server-side", *made)
        kubectl("wait", "--for=condition=Established", "--timeout=60s", *made)
    yield
    if made:
        kubectl("delete", *made)


@pytest.fixture(scope="session")
def kubeconfig_of(control_plane: ControlPlane) -> Callable[[str, str], Path]:
    """Writes a kubeconfig for a namespace's service account, with a token that the API server has given for it."""
    return control_plane.kubeconfig_of


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> dict[str, Any]:
    """What was measured, by the name of the measurement; shown at the end of the run."""
    return pytestconfig.stash[FIGURES]


@pytest.fixture
def namespace(control_plane: ControlPlane, kubectl: Kubectl) -> Iterator[str]:
    """A namespace of the test's own; it goes after the test, without being waited for."""
    name = f"eye-{token_hex(4)}"
    kubectl("create", "namespace", name)
    if control_plane.controllers:
        defaults = ("serviceaccount/default", "configmap/kube-root-ca.crt")
        kubectl("wait", "--for=create", "--timeout=30s", *defaults, namespace=name)
    else:
        # The API server lets no pod in without it.
        kubectl("create", "serviceaccount", "default", namespace=name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def stoppable_control_plane(control_plane: ControlPlane) -> ControlPlane:
    """The control plane where its API server can be stopped, which that of someone else's cluster cannot."""
    if control_plane.api_server is None:
        pytest.skip("the API server of THE_EYE_TEST_KUBECONFIG's cluster is not ours to stop")
    return control_plane


@pytest.fixture
def audited_control_plane(control_plane: ControlPlane) -> ControlPlane:
    """The control plane where it writes down what it is asked for, which someone else's cluster shows to nobody."""
    if control_plane.audit_log is None:
        pytest.skip("the API server of THE_EYE_TEST_KUBECONFIG's cluster shows no audit log")
    return control_plane


@pytest.fixture(scope="session")
def controllers(control_plane: ControlPlane) -> None:
    """Whether anything acts on what is stored: KUBEBUILDER_ASSETS may hold an API server alone."""
    if not control_plane.controllers:
        _without("KUBEBUILDER_ASSETS has no kube-controller-manager")


@pytest.fixture(scope="session")
def aggregating_control_plane(control_plane: ControlPlane) -> ControlPlane:
    """The control plane where servers of tests may serve APIs, which someone else's cluster cannot reach."""
    if control_plane.front_proxy_ca_file is None:
        pytest.skip("the API server of THE_EYE_TEST_KUBECONFIG's cluster has no way to a server of ours")
    return control_plane


@pytest.fixture(scope="session")
def prometheus_program() -> None:
    """Debian's Prometheus, installed where that can be done."""
    try:
        debian.require(scraping.PROGRAM)
    except debian.MissingPartError as error:
        _without(str(error))
