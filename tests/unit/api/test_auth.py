"""Which tokens are in force, and for what, when PostgreSQL and the copy come and go; both are functions of the test."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

import psycopg
import pytest
from prometheus_client import REGISTRY

from the_eye.token_copy import TokenCopy
from the_eye.tokens import Caller, Scope, token_hash
from the_eye_api.auth import Tokens, TokenSnapshot
from the_eye_api.problems import ProblemError

BOTH = frozenset({Scope.INGEST, Scope.READ})
OLD, NEW = {token_hash("old"): Caller(1, "shop", BOTH)}, {token_hash("new"): Caller(1, "shop", BOTH)}


class Sources:
    """What PostgreSQL and the copy would say; an exception is raised."""

    def __init__(self) -> None:
        self.database: Tokens | Exception = psycopg.OperationalError("away")
        self.copy: Tokens | Exception | None = None
        self.copies_asked_for = 0

    async def read(self) -> Tokens:
        """Ask PostgreSQL."""
        if isinstance(self.database, Exception):
            raise self.database
        return self.database

    async def load_copy(self) -> TokenCopy | None:
        """Ask for the copy."""
        self.copies_asked_for += 1
        if isinstance(self.copy, Exception):
            raise self.copy
        return None if self.copy is None else TokenCopy(datetime.now(UTC), self.copy)


@pytest.fixture
def sources() -> Sources:
    return Sources()


@pytest.fixture
def snapshot(sources: Sources) -> TokenSnapshot:
    return TokenSnapshot(sources.read, sources.load_copy, refresh_seconds=3.0)


def status(snapshot: TokenSnapshot, token: str, *scopes: Scope) -> int:
    """Give the status with which a request is refused, 200 when it is let in."""
    try:
        snapshot.authorize(f"Bearer {token}", *(scopes or (Scope.INGEST,)))
    except ProblemError as error:
        return error.problem.status
    return HTTPStatus.OK


async def test_without_the_database_and_a_copy_nobody_can_be_told_from_another(snapshot: TokenSnapshot) -> None:
    await snapshot.refresh()

    assert (snapshot.loaded, status(snapshot, "old")) == (False, 503)


async def test_the_copy_lets_senders_in_while_the_database_is_away(sources: Sources, snapshot: TokenSnapshot) -> None:
    sources.copy = OLD

    await snapshot.refresh()

    assert (snapshot.loaded, status(snapshot, "old")) == (True, 200)


async def test_the_copy_lets_no_reader_in(sources: Sources, snapshot: TokenSnapshot) -> None:
    """It may hold a token that was revoked since; and it is in a server that others write to."""
    sources.copy = OLD | {token_hash("admin"): Caller(2, "ops", frozenset(Scope))}

    await snapshot.refresh()

    assert status(snapshot, "old", Scope.READ, Scope.ADMIN) == 503
    assert status(snapshot, "admin", Scope.READ, Scope.ADMIN) == 503


async def test_a_token_that_is_not_in_the_copy_may_be_newer(sources: Sources, snapshot: TokenSnapshot) -> None:
    """503, which is tried again, and not 401, which is given up; without any token it is 401 as ever."""
    sources.copy = OLD

    await snapshot.refresh()

    assert (status(snapshot, "new"), status(snapshot, "")) == (503, 401)


@pytest.mark.parametrize("seconds", [-1, 60])
async def test_a_token_of_the_copy_expires(sources: Sources, snapshot: TokenSnapshot, seconds: int) -> None:
    expires_at = datetime.now(UTC) + timedelta(seconds=seconds)
    sources.copy = {token_hash("old"): Caller(1, "shop", BOTH, expires_at)}

    await snapshot.refresh()

    assert status(snapshot, "old") == (401 if seconds < 0 else 200)


async def test_what_the_database_says_takes_the_place_of_the_copy(sources: Sources, snapshot: TokenSnapshot) -> None:
    sources.copy = OLD
    await snapshot.refresh()

    sources.database = NEW
    await snapshot.refresh()

    assert snapshot.live == NEW
    assert (status(snapshot, "old"), status(snapshot, "new"), status(snapshot, "new", Scope.READ)) == (401, 200, 200)


async def test_a_copy_never_takes_the_place_of_what_the_database_said(
    sources: Sources, snapshot: TokenSnapshot
) -> None:
    sources.database, sources.copy = NEW, OLD
    await snapshot.refresh()

    sources.database = psycopg.OperationalError("away")
    await snapshot.refresh()

    assert (status(snapshot, "old"), status(snapshot, "new"), status(snapshot, "new", Scope.READ)) == (401, 200, 200)
    assert (snapshot.live, sources.copies_asked_for) == (None, 0)


FAULTS: list[Callable[[Sources], None]] = [
    lambda sources: setattr(sources, "database", RuntimeError("a fault of ours")),
    lambda sources: setattr(sources, "copy", RuntimeError("a fault of ours")),
]


@pytest.mark.parametrize("fault", FAULTS, ids=["database", "copy"])
async def test_a_fault_does_not_end_the_refreshing(
    sources: Sources, snapshot: TokenSnapshot, fault: Callable[[Sources], None]
) -> None:
    fault(sources)

    await snapshot.refresh()

    assert not snapshot.loaded


async def test_refusals_are_counted_by_their_code(snapshot: TokenSnapshot, sources: Sources) -> None:
    """And who is let in is not."""

    def refusals() -> dict[str, float]:
        codes = ("tokens_not_loaded", "invalid_token", "insufficient_scope")
        samples = {code: REGISTRY.get_sample_value("the_eye_token_refusals_total", {"code": code}) for code in codes}
        return {code: value or 0.0 for code, value in samples.items()}

    before = refusals()
    status(snapshot, "new")
    sources.database = NEW
    await snapshot.refresh()
    status(snapshot, "new")
    status(snapshot, "old")
    status(snapshot, "new", Scope.ADMIN)

    assert {code: count - before[code] for code, count in refusals().items()} == dict.fromkeys(before, 1)


async def test_who_was_let_in_is_recalled(sources: Sources, snapshot: TokenSnapshot) -> None:
    """As long as the tokens are those that were read then, and for what was granted."""
    sources.database = OLD
    await snapshot.refresh()
    assert snapshot.recall("Bearer old", Scope.INGEST) is None

    assert status(snapshot, "old") == 200
    assert snapshot.recall("Bearer old", Scope.INGEST) == OLD[token_hash("old")]
    assert snapshot.recall("Bearer old", Scope.ADMIN) is None

    sources.database = NEW
    await snapshot.refresh()
    assert snapshot.recall("Bearer old", Scope.INGEST) is None


async def test_who_was_let_in_is_recalled_until_the_token_expires(sources: Sources, snapshot: TokenSnapshot) -> None:
    expires_at = datetime.now(UTC) + timedelta(seconds=0.5)
    sources.database = {token_hash("new"): Caller(1, "shop", BOTH, expires_at)}
    await snapshot.refresh()
    assert status(snapshot, "new") == 200

    await asyncio.sleep(0.6)

    assert snapshot.recall("Bearer new", Scope.INGEST) is None


@pytest.mark.parametrize("header", ["bearer new", "Bearer  new", "Bearer new "])
async def test_one_header_of_a_token_is_recalled(sources: Sources, snapshot: TokenSnapshot, header: str) -> None:
    """It can be written in ways without number, which would fill the memory."""
    sources.database = NEW
    await snapshot.refresh()

    assert snapshot.authorize(header, Scope.INGEST).application == "shop"

    assert snapshot.recall(header, Scope.INGEST) is None
