"""The Eye as `the-eye up` runs it, and chromium to look at its pages with.

chromium is Debian's package; where it is missing it is installed, or the tests are skipped, but in CI they fail.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright
from tests import debian
from tests.machine import Machine, running
from tests.pages.house import House
from tests.suites import left_out

TEST_SECONDS = 180.0
WAIT_MILLISECONDS = 30_000
SCREENSHOTS = Path(__file__).parents[2] / "docs" / "pages"
WIDE, NARROW = (1280, 900), (390, 844)

_ANSWERED = re.compile("status of 40[03]|Status Error Code 40[03]|htmx:afterRequest|htmx:sendAbort")
"""What is said of a form that was refused and of a request that another took the place of, which happen on purpose."""

OpenPage = Callable[..., Page]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the choice of writing the documentation."""
    parser.addoption(
        "--write-screenshots", action="store_true", help="pages: write what they look like into docs/pages"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave these tests out of a run that does not name them: they take minutes, and chromium."""
    return left_out(Path(__file__).parent, collection_path, config)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bound the tests in time but not their fixtures, which have deadlines of their own."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TEST_SECONDS, func_only=True))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The browser."""
    try:
        debian.require("chromium")
    except debian.MissingPartError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    with sync_playwright() as playwright:
        # As root chromium runs without its sandbox or not at all; what it is shown here is our own.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """All of The Eye."""
    with running(tmp_path_factory.mktemp("pages")) as up:
        yield up


@pytest.fixture(scope="session")
def house(machine: Machine) -> Iterator[House]:
    """The same with something to see."""
    with House(machine) as seen:
        yield seen


@pytest.fixture
def open_page(chromium: Browser, house: House) -> Iterator[OpenPage]:
    """Open pages, each in a browser of its own in which nobody is signed in.

    Whatever a browser complains of fails the test: a script, a file that is missing, a breach of the policy.
    """
    complaints: list[str] = []
    contexts = []

    def hear(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not _ANSWERED.search(message.text):
            complaints.append(message.text)

    def open_(*, dark: bool = False, size: tuple[int, int] = WIDE) -> Page:
        scheme = "dark" if dark else "light"
        context = chromium.new_context(
            base_url=house.machine.api,
            color_scheme=scheme,  # type: ignore[arg-type]
            viewport={"width": size[0], "height": size[1]},
        )
        context.set_default_timeout(WAIT_MILLISECONDS)
        contexts.append(context)
        page = context.new_page()
        page.on("console", hear)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not complaints


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    """A page of a browser."""
    return open_page()


@pytest.fixture
def admin(page: Page, house: House) -> Page:
    """A page in which the admin is signed in."""
    house.sign_in(page)
    return page
