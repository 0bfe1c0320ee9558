"""What every case has: stores that are its own, The Eye in front of them, and a row in the table at the end."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults import report
from tests.faults.case import LONG, SHORT, Case, Scale
from tests.faults.house import House
from tests.faults.report import Row
from tests.faults.stores import BreakableValkey, CopiedPostgres, MigratedPostgres, clean_up
from tests.suites import left_out

CASE_SECONDS = {"short": 150.0, "long": 600.0}
ROWS = pytest.StashKey[list[Row]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the choice of the form."""
    parser.addoption("--short", action="store_true", help="faults: small numbers, for every change")
    parser.addoption("--document", action="store_true", help="faults: write the table into docs/reliability.md")


def pytest_configure(config: pytest.Config) -> None:
    """Add the marker that names a case's row in the table."""
    config.addinivalue_line("markers", "fault(text): what is broken, as the table says it")
    config.stash[ROWS] = []


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the faults out of a run that does not name them: they take minutes, and they have a target of their own."""
    return left_out(Path(__file__).parent, collection_path, config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Bound each case in time."""
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(CASE_SECONDS[_form(config)]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: pytest.ExitCode) -> None:
    """Show the table, and write it into the documentation when that is asked for and all went well."""
    config = terminalreporter.config
    rows = config.stash[ROWS]
    if rows:
        terminalreporter.section("faults")
        terminalreporter.write(report.table(rows))
    if rows and config.getoption("--document") and exitstatus == pytest.ExitCode.OK:
        report.write(rows)


def _form(config: pytest.Config) -> str:
    return "short" if config.getoption("--short") else "long"


@pytest.fixture(scope="session")
def scale(pytestconfig: pytest.Config) -> Scale:
    """How long and how often things are broken."""
    return SHORT if _form(pytestconfig) == "short" else LONG


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name is short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="eye-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def migrated() -> Iterator[MigratedPostgres]:
    """What every case's PostgreSQL is a copy of."""
    path = Path(tempfile.mkdtemp(prefix="eye-", dir="/tmp"))
    try:
        yield MigratedPostgres(path)
    finally:
        shutil.rmtree(path)


@pytest.fixture
def postgres_options() -> list[str]:
    """Options of the server; a case that wants others has a fixture of this name."""
    return []


@pytest.fixture
def postgres(folder: Path, migrated: MigratedPostgres, postgres_options: list[str]) -> Iterator[CopiedPostgres]:
    """A PostgreSQL of the case's own."""
    home = folder / "p"
    home.mkdir(exist_ok=True)
    server = CopiedPostgres(home, migrated, *postgres_options)
    try:
        server.start()
        yield server
    finally:
        clean_up(server)


@pytest.fixture
def valkey(folder: Path) -> Iterator[BreakableValkey]:
    """A Valkey of the case's own."""
    home = folder / "v"
    home.mkdir(exist_ok=True)
    server = BreakableValkey(home)
    try:
        server.start()
        yield server
    finally:
        clean_up(server)


@pytest.fixture
def house(folder: Path, postgres: CopiedPostgres, valkey: BreakableValkey) -> Iterator[House]:
    """The Eye, up and ready."""
    with House(folder, postgres, valkey).opened() as opened:
        yield opened


@pytest.fixture
def case(request: pytest.FixtureRequest, house: House, scale: Scale) -> Iterator[Case]:
    """A case that ends with a row in the table."""
    marker = request.node.get_closest_marker("fault")
    assert marker is not None, "a case says what is broken: @pytest.mark.fault(...)"
    made = Case(house, scale, *marker.args)
    yield made
    if made.row is not None:
        request.config.stash[ROWS].append(made.row)
