"""When a process that has just started can be sent requests."""

import asyncio

import psycopg
import structlog

from the_eye.queue import QueueUnavailableError, QueueWriter
from the_eye.store.connect import AsyncPool
from the_eye.store.schema import applied_migration, newest_migration
from the_eye_api.auth import TokenSnapshot
from the_eye_api.problems import unavailable

READ_SECONDS = 2.0

log = structlog.get_logger(__name__)


class Readiness:
    """Sees to it that a new process is sent nothing before it can do its work, and then remembers that it could.

    What goes away later changes nothing: all processes would notice at once, their Service would have nobody left, and
    senders would be refused a connection instead of being answered 503 with the time to come back.
    """

    def __init__(self, tokens: TokenSnapshot, queue: QueueWriter, pool: AsyncPool) -> None:
        self._tokens = tokens
        self._queue = queue
        self._pool = pool
        self._reached = False

    async def check(self) -> None:
        """Let a probe through. Raises ProblemError: 503 with what is still missing.

        It takes up to READ_SECONDS more than the queue's deadline.
        """
        if self._reached:
            return
        if not self._tokens.loaded:
            raise unavailable("tokens_not_loaded", "Tokens were not read yet: no database, and no copy of them.")
        await self._see_queue()
        await self._see_schema()
        self._reached = True

    async def _see_queue(self) -> None:
        try:
            await self._queue.check()
        except QueueUnavailableError as error:
            log.warning("not_ready", error=str(error))
            raise unavailable(
                "queue_unavailable", "The queue does not answer, or does not put every write on disk."
            ) from error

    async def _see_schema(self) -> None:
        """Wait for the migrations of this version; an older one goes on beside a schema that is newer than it.

        Without a database there is no waiting: whoever has the tokens can accept events.
        """
        try:
            async with asyncio.timeout(READ_SECONDS), self._pool.connection() as connection:
                applied = await applied_migration(connection)
        except (psycopg.OperationalError, TimeoutError) as error:
            if self._tokens.live is None:
                return
            raise unavailable("schema_unknown", "The database did not tell its migrations.") from error
        except psycopg.Error as error:  # a permission that is missing, say
            log.warning("not_ready", error=str(error).partition("\n")[0])
            raise unavailable("schema_unknown", "The database does not tell its migrations.") from error
        if applied < newest_migration():
            log.warning("not_ready", error=f"the schema is {applied or 'empty'}, not {newest_migration()}")
            raise unavailable("schema_outdated", "The database has yet to be migrated.")
