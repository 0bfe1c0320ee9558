"""The copy of the tokens in a real queue's server: when it is written, when it is taken, and what takes it away."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import redis
from click.testing import CliRunner, Result
from structlog.testing import capture_logs
from tests.integration.test_edge import DEADLINE, Edge, body, problem, running
from tests.servers import Postgres, Valkey, wait_until

from the_eye.settings import QueueSettings, StoreSettings
from the_eye.store.applications import create_application, create_token
from the_eye.store.connect import Connection
from the_eye.token_copy import TokenCopy, TokenCopyUnavailableError, copy_key, withdraw_copy
from the_eye.tokens import Caller, Scope, token_hash
from the_eye_api import token_copy
from the_eye_api.auth import Tokens
from the_eye_api.token_copy import TokenCopyKeeper
from the_eye_cli.applications import application, token

UNKNOWN = "eye_unknown"
DAY = 24 * 60 * 60.0
ONE = {token_hash("one"): Caller(1, "shop", frozenset({Scope.INGEST}))}
TWO = ONE | {token_hash("two"): Caller(2, "blog", frozenset({Scope.READ}))}


class Database:
    """What stands for PostgreSQL where only the copy is of interest."""

    def __init__(self) -> None:
        self.live: Tokens = ONE
        self.withdraws: QueueSettings | None = None
        """Someone takes a token back right after the next reading."""
        self.readings = 0

    async def read(self) -> Tokens:
        """Read the live tokens."""
        self.readings += 1
        found = self.live
        if self.withdraws is not None:
            withdraw_copy(self.withdraws)
            self.withdraws = None
        return found


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
async def keeper(queue_settings: QueueSettings, database: Database) -> AsyncIterator[TokenCopyKeeper]:
    async with keeping(queue_settings, database) as keeper:
        yield keeper


@contextlib.asynccontextmanager
async def keeping(
    settings: QueueSettings, database: Database, max_age_seconds: float = DAY
) -> AsyncIterator[TokenCopyKeeper]:
    """Make a keeper, as another process would."""
    settings = msgspec.structs.replace(settings, queue_timeout_seconds=0.5)
    keeper = TokenCopyKeeper(settings, database.read, max_age_seconds=max_age_seconds, look_seconds=3.0)
    try:
        yield keeper
    finally:
        await keeper.close()


@pytest.fixture
def client(queue_settings: QueueSettings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(queue_settings.redis_url) as client:
        yield client


async def loaded(keeper: TokenCopyKeeper) -> Tokens | None:
    """Give the tokens of the copy."""
    copy = await keeper.load()
    return None if copy is None else copy.tokens


async def test_another_process_takes_the_copy(
    queue_settings: QueueSettings, database: Database, keeper: TokenCopyKeeper
) -> None:
    """With the time of its reading."""
    assert await keeper.load() is None

    await keeper.update(ONE)

    async with keeping(queue_settings, database) as other:
        copy = await other.load()
    assert copy is not None
    assert copy.tokens == ONE
    assert abs(datetime.now(UTC) - copy.read_at) < timedelta(seconds=10)


async def test_the_age_of_the_copy_is_told(
    queue_settings: QueueSettings, database: Database, keeper: TokenCopyKeeper, client: redis.Redis
) -> None:
    """By whoever has written it, and by whoever has read it."""
    assert math.isnan(keeper.age_seconds)
    await keeper.update(ONE)
    assert 0 <= keeper.age_seconds < 10
    hours_old = TokenCopy(datetime.now(UTC) - timedelta(hours=3), ONE).encode()
    client.set(copy_key(queue_settings.queue_namespace), hours_old)

    async with keeping(queue_settings, database) as other:
        await other.load()

        assert other.age_seconds == pytest.approx(3 * 60 * 60, abs=60)


async def test_a_copy_that_is_right_is_left_as_it_is(
    queue_settings: QueueSettings, database: Database, keeper: TokenCopyKeeper, client: redis.Redis
) -> None:
    """Each write costs the server an fsync; nor is PostgreSQL asked in vain."""
    await keeper.update(ONE)
    written = client.get(copy_key(queue_settings.queue_namespace))

    for _ in range(3):
        await keeper.update(dict(ONE))

    assert client.get(copy_key(queue_settings.queue_namespace)) == written
    assert database.readings == 1


async def test_a_copy_is_renewed_after_a_while(keeper: TokenCopyKeeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that its age is how long ago PostgreSQL was last asked."""
    await keeper.update(ONE)
    first = await keeper.load()
    monkeypatch.setattr(token_copy, "REWRITE_SECONDS", 0.0)

    await keeper.update(ONE)

    second = await keeper.load()
    assert first is not None
    assert second is not None
    assert first.read_at < second.read_at


async def test_a_change_is_copied_at_once(database: Database, keeper: TokenCopyKeeper) -> None:
    await keeper.update(ONE)
    database.live = TWO

    await keeper.update(TWO)

    assert await loaded(keeper) == TWO


async def test_a_copy_is_not_renewed_while_the_database_does_not_answer(
    database: Database, keeper: TokenCopyKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its age has to say how old it is."""
    await keeper.update(ONE)
    first = await keeper.load()
    monkeypatch.setattr(token_copy, "REWRITE_SECONDS", 0.0)

    await keeper.update(None)

    assert await keeper.load() == first
    assert database.readings == 1


async def test_a_copy_that_was_withdrawn_is_made_anew(
    queue_settings: QueueSettings, database: Database, keeper: TokenCopyKeeper
) -> None:
    """From what PostgreSQL says now, though the tokens in memory are still those of before."""
    database.live = TWO
    await keeper.update(TWO)

    database.live = ONE
    withdraw_copy(queue_settings)

    assert await keeper.load() is None
    await keeper.update(TWO)
    assert await loaded(keeper) == ONE


@pytest.mark.parametrize("there_is_one", [False, True])
async def test_what_was_read_before_a_withdrawal_is_not_written_after_it(
    queue_settings: QueueSettings, database: Database, keeper: TokenCopyKeeper, *, there_is_one: bool
) -> None:
    """However slow a process is between the two."""
    if there_is_one:
        await keeper.update(ONE)
    database.live, database.withdraws = TWO, queue_settings

    await keeper.update(TWO)

    assert await keeper.load() is None
    database.live = ONE
    await keeper.update(ONE)
    assert await loaded(keeper) == ONE


async def test_a_copy_that_is_too_old_is_not_taken(
    queue_settings: QueueSettings, database: Database, client: redis.Redis
) -> None:
    """By the server's clock; and one day the server itself forgets it."""
    key = copy_key(queue_settings.queue_namespace)
    async with keeping(queue_settings, database, max_age_seconds=100) as keeper:
        await keeper.update(ONE)
        assert 90_000 < int(str(client.pttl(key))) <= 100_000
        client.set(key, TokenCopy(datetime.now(UTC) - timedelta(seconds=95), ONE).encode())
        assert await loaded(keeper) == ONE

        client.set(key, TokenCopy(datetime.now(UTC) - timedelta(seconds=101), ONE).encode())

        with capture_logs() as logs:
            assert await keeper.load() is None
        assert [line["event"] for line in logs] == ["token_copy_too_old"]


async def test_zero_switches_the_copy_off(
    queue_settings: QueueSettings, database: Database, client: redis.Redis
) -> None:
    """It is neither kept nor taken."""
    key = copy_key(queue_settings.queue_namespace)
    async with keeping(queue_settings, database, max_age_seconds=0) as keeper:
        await keeper.keep(lambda: ONE)
        assert (client.get(key), database.readings) == (None, 0)

        client.set(key, TokenCopy(datetime.now(UTC) + timedelta(hours=1), ONE).encode())
        assert await keeper.load() is None


async def test_a_copy_that_cannot_be_read_is_ignored_and_replaced(
    queue_settings: QueueSettings, keeper: TokenCopyKeeper, client: redis.Redis
) -> None:
    client.set(copy_key(queue_settings.queue_namespace), b"garbage")

    with capture_logs() as logs:
        assert await keeper.load() is None

    assert [(line["event"], line["log_level"]) for line in logs] == [("token_copy_unreadable", "warning")]
    await keeper.update(ONE)
    assert await loaded(keeper) == ONE


async def test_a_server_that_is_away_is_waited_for_no_longer_than_its_deadline(
    queue_settings: QueueSettings, valkey: Valkey, keeper: TokenCopyKeeper, client: redis.Redis
) -> None:
    """It is said once, and the copy is made anew as soon as the server answers: it may have come back empty."""
    await keeper.update(ONE)
    valkey.pause()
    try:
        with capture_logs() as logs:
            async with asyncio.timeout(3.0):
                for _ in range(2):
                    await keeper.update(ONE)
                assert await keeper.load() is None
        with pytest.raises(TokenCopyUnavailableError):
            withdraw_copy(queue_settings)
    finally:
        valkey.resume()
    client.delete(copy_key(queue_settings.queue_namespace))

    await keeper.update(ONE)

    assert [line["event"] for line in logs] == ["token_copy_not_kept", "token_copy_not_read"]
    assert await loaded(keeper) == ONE


def run(store: StoreSettings, redis_url: str, namespace: str, *arguments: str) -> Result:
    """Run `the-eye application ...` or `the-eye token ...`."""
    command = {"application": application, "token": token}[arguments[0]]
    environ = {
        "THE_EYE_DATABASE_URL": store.database_url,
        "THE_EYE_REDIS_URL": redis_url,
        "THE_EYE_QUEUE_NAMESPACE": namespace,
    }
    return CliRunner().invoke(command, arguments[1:], env=environ)


TAKING_BACK = [("token", "revoke", "1"), ("application", "disable", "shop")]


@pytest.mark.parametrize("arguments", TAKING_BACK)
async def test_what_is_taken_back_does_not_come_back_through_the_copy(
    queue_settings: QueueSettings,
    store_settings: StoreSettings,
    connection: Connection,
    keeper: TokenCopyKeeper,
    arguments: tuple[str, ...],
) -> None:
    create_application(connection, "shop")
    create_token(connection, "shop", [Scope.INGEST])
    await keeper.update(ONE)

    result = run(store_settings, queue_settings.redis_url, queue_settings.queue_namespace, *arguments)

    assert (result.exit_code, result.stderr) == (0, "")
    assert await keeper.load() is None


@pytest.mark.parametrize("arguments", TAKING_BACK)
@pytest.mark.parametrize(
    ("redis_url", "reason"), [("", "THE_EYE_REDIS_URL is not set"), ("redis://127.0.0.1:9", "refused")]
)
def test_taking_back_does_not_depend_on_the_queue(
    store_settings: StoreSettings, connection: Connection, arguments: tuple[str, ...], redis_url: str, reason: str
) -> None:
    """It is said in one line that the copy is still there."""
    create_application(connection, "shop")
    create_token(connection, "shop", [Scope.INGEST])

    result = run(store_settings, redis_url, "test", *arguments)

    assert result.exit_code == 0
    assert len(result.stderr.splitlines()) == 1
    assert "was not deleted" in result.stderr
    assert reason in result.stderr


def test_an_api_that_starts_while_the_database_is_away_accepts_events(
    queue_settings: QueueSettings, store_settings: StoreSettings, connection: Connection, postgres: Postgres
) -> None:
    """From those whom PostgreSQL let in when it was last asked; it lets nobody read, and asks again."""
    edge = Edge(queue_settings, connection)
    with running(edge, store_settings), redis.Redis.from_url(queue_settings.redis_url) as client:
        key = copy_key(queue_settings.queue_namespace)
        wait_until(lambda: client.get(key) is not None, DEADLINE, lambda: "no copy was made")
    with contextlib.ExitStack() as outage:
        postgres.stop()
        outage.callback(postgres.start)
        with running(edge, store_settings):
            assert edge.send(body()).status_code == 202
            assert problem(edge.get("/events"), 503)["code"] == "tokens_not_loaded"
            assert problem(edge.send(body(), token=UNKNOWN), 503)["code"] == "tokens_not_loaded"

            outage.close()
            wait_until(lambda: edge.get("/events").status_code == 200, DEADLINE, lambda: "the tokens were not read")
            problem(edge.send(body(), token=UNKNOWN), 401)
    assert len(edge.queued()) == 1
