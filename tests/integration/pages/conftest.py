"""The pages as `the-eye api` serves them, and someone who is signed in."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from tests.integration.conftest import clean
from tests.integration.test_edge import Edge, running
from tests.servers import Valkey

from the_eye.passwords import hash_password
from the_eye.settings import QueueSettings, StoreSettings
from the_eye.store.connect import Connection, connect
from the_eye.store.users import Role, create_user

PASSWORD = "correct horse battery"  # noqa: S105 - of this test's users
TRACE_URL = "http://grafana.example/explore?left=%7B%22query%22:%22{trace_id}%22%7D&orgId=1"
HASHED = hash_password(PASSWORD)


@pytest.fixture(scope="session")
def rules_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of rules, which tests write to."""
    return tmp_path_factory.mktemp("rules")


@pytest.fixture(scope="session")
def served(valkey: Valkey, migrated_url: str, rules_folder: Path) -> Iterator[Edge]:
    """One process for all tests of pages."""
    queue = QueueSettings(redis_url=valkey.url(), queue_namespace=f"pages-{uuid4().hex}")
    clean(migrated_url)
    store = StoreSettings(database_url=migrated_url)
    with (
        connect(store, "test") as connection,
        running(
            Edge(queue, connection),
            store,
            THE_EYE_FORWARDED_HOPS="1",
            THE_EYE_TRACE_URL=TRACE_URL,
            THE_EYE_RULES_DIR=str(rules_folder),
        ) as ready,
    ):
        yield ready


@pytest.fixture
def people(connection: Connection) -> Connection:
    """An empty store but for a viewer and an admin."""
    create_user(connection, "vera", HASHED, Role.VIEWER)
    create_user(connection, "alice", HASHED, Role.ADMIN)
    return connection


class Browser(httpx.Client):
    """A browser without scripts."""

    def form(self, path: str) -> dict[str, str]:
        """Open a page and give what its forms hold against forgery."""
        found = re.search(r'name="csrf_token" value="(\w+)"', self.get(path).text)
        assert found is not None
        return {"csrf_token": found[1]}

    def sign_in(self, name: str, password: str = PASSWORD, **fields: str) -> httpx.Response:
        """Fill in the form."""
        return self.post("/ui/sign-in", data={**self.form("/ui/sign-in"), "name": name, "password": password, **fields})


@pytest.fixture
def open_browser(served: Edge, people: Connection) -> Iterator[Callable[[], Browser]]:
    """Open browsers that know nothing of one another."""
    del people
    opened: list[Browser] = []

    def open_() -> Browser:
        opened.append(Browser(base_url=served.url, timeout=20))
        return opened[-1]

    yield open_
    for browser in opened:
        browser.close()


@pytest.fixture
def browser(open_browser: Callable[[], Browser]) -> Browser:
    """A browser in which nobody is signed in."""
    return open_browser()


@pytest.fixture
def viewer(browser: Browser) -> Browser:
    """A browser in which a viewer is signed in."""
    assert browser.sign_in("vera").status_code == 303
    return browser


@pytest.fixture
def admin(open_browser: Callable[[], Browser]) -> Browser:
    """A browser in which an admin is signed in."""
    opened = open_browser()
    assert opened.sign_in("alice").status_code == 303
    return opened
