"""A new process is ready when it can do its work, and stays so whatever goes away later."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import psycopg
import pytest
from tests.servers import Postgres, Valkey

from the_eye.queue import QueueWriter
from the_eye.settings import QueueSettings, StoreSettings
from the_eye.store.connect import Connection, make_async_pool
from the_eye.store.schema import newest_migration
from the_eye.token_copy import TokenCopy
from the_eye_api.auth import Tokens, TokenSnapshot
from the_eye_api.problems import ProblemError
from the_eye_api.readiness import Readiness

READY = ""


class Probe:
    """Asks a process that begins anew with each round of questions."""

    def __init__(self, queue: QueueSettings, store: StoreSettings, *, has_copy: bool = False) -> None:
        self._queue = queue
        self._store = store
        self._has_copy = has_copy

    def ask(self, *between: Callable[[], object]) -> list[str]:
        """Ask once, and again after each of these calls; gives what was missing, or READY."""
        return asyncio.run(self._ask(between))

    async def _ask(self, between: tuple[Callable[[], object], ...]) -> list[str]:
        pool = make_async_pool(self._store, "test", 2)
        queue = QueueWriter(self._queue)

        async def read() -> Tokens:
            async with pool.connection() as connection:
                await connection.execute("SELECT 1")
            return {}

        async def load_copy() -> TokenCopy | None:
            return TokenCopy(datetime.now(UTC), {}) if self._has_copy else None

        tokens = TokenSnapshot(read, load_copy, 1.0)
        readiness = Readiness(tokens, queue, pool)
        await pool.open()
        try:
            await tokens.refresh()
            answers = [await _answer(readiness)]
            for call in between:
                await asyncio.to_thread(call)
                await tokens.refresh()
                answers.append(await _answer(readiness))
            return answers
        finally:
            await queue.close()
            await pool.close()


async def _answer(readiness: Readiness) -> str:
    try:
        await readiness.check()
    except ProblemError as error:
        return error.problem.code
    return READY


@contextmanager
def outdated(connection: Connection) -> Iterator[None]:
    """Take the record of the newest migration away for a block."""
    delete = "DELETE FROM schema_migrations WHERE version = %s"
    connection.execute(delete, (newest_migration(),))
    try:
        yield
    finally:
        migrate(connection)


def migrate(connection: Connection) -> None:
    """Put the record of the newest migration there."""
    insert = "INSERT INTO schema_migrations (version) VALUES (%s) ON CONFLICT DO NOTHING"
    connection.execute(insert, (newest_migration(),))


def test_a_new_version_waits_for_its_migration(
    queue_settings: QueueSettings, store_settings: StoreSettings, connection: Connection
) -> None:
    with outdated(connection):
        answers = Probe(queue_settings, store_settings).ask(lambda: migrate(connection))

    assert answers == ["schema_outdated", READY]


def test_a_database_that_does_not_tell_its_migrations_is_an_answer_and_no_error(
    queue_settings: QueueSettings, store_settings: StoreSettings, connection: Connection
) -> None:
    connection.execute("ALTER TABLE schema_migrations RENAME version TO other")
    back = "ALTER TABLE schema_migrations RENAME other TO version"
    try:
        answers = Probe(queue_settings, store_settings).ask(lambda: connection.execute(back))
    except BaseException:
        connection.execute(back)
        raise

    assert answers == ["schema_unknown", READY]


def test_a_version_goes_on_beside_a_schema_that_is_newer(
    queue_settings: QueueSettings, store_settings: StoreSettings, connection: Connection
) -> None:
    connection.execute("INSERT INTO schema_migrations (version) VALUES ('99991231000001')")
    try:
        assert Probe(queue_settings, store_settings).ask() == [READY]
    finally:
        connection.execute("DELETE FROM schema_migrations WHERE version = '99991231000001'")


def test_a_database_that_was_never_migrated_is_waited_for(queue_settings: QueueSettings, postgres: Postgres) -> None:
    empty = StoreSettings(database_url=postgres.create_database("never_migrated"))

    assert Probe(queue_settings, empty).ask() == ["schema_outdated"]


def test_it_stays_ready_without_its_stores(
    queue_settings: QueueSettings, store_settings: StoreSettings, postgres: Postgres, valkey: Valkey
) -> None:
    """So that there is someone to answer 503."""
    try:
        assert Probe(queue_settings, store_settings).ask(valkey.kill, postgres.stop) == [READY] * 3
    finally:
        valkey.start()
        postgres.start()


def test_it_waits_for_a_queue_that_it_never_saw(
    queue_settings: QueueSettings, store_settings: StoreSettings, valkey: Valkey
) -> None:
    valkey.kill()

    assert Probe(queue_settings, store_settings).ask(valkey.start) == ["queue_unavailable", READY]


@pytest.mark.parametrize(("has_copy", "answer"), [(True, READY), (False, "tokens_not_loaded")])
def test_without_a_database_a_copy_of_the_tokens_is_enough(
    queue_settings: QueueSettings, store_settings: StoreSettings, postgres: Postgres, *, has_copy: bool, answer: str
) -> None:
    postgres.stop()
    try:
        answers = Probe(queue_settings, store_settings, has_copy=has_copy).ask()
    finally:
        postgres.start()

    assert answers == [answer]


def test_dbmate_keeps_its_record_where_it_is_looked_for(store_settings: StoreSettings) -> None:
    with psycopg.connect(store_settings.database_url) as connection:
        (newest,) = connection.execute("SELECT max(version) FROM schema_migrations").fetchall()

    assert newest == (newest_migration(),)
