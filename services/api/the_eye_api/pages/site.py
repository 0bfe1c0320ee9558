"""What the pages of a process share."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from the_eye.settings import ApiSettings, QueueSettings, RuleSettings, StoreSettings
from the_eye.store.connect import AsyncPool, Connection, Pool, open_pool
from the_eye_api.pages.children import Children
from the_eye_api.pages.ruleset import Ruleset
from the_eye_api.pages.viewers import Live

T = TypeVar("T")

WRITERS = 2
"""Connections for signing in and for what admins do."""

PASSWORDS_AT_ONCE = 1
"""Each takes 19 MiB and a processor for some 50 ms, which is not to be had for guessing."""

EXPORTS_AT_ONCE = 2


class Site:
    """Made with its process, open while it serves."""

    def __init__(
        self,
        settings: ApiSettings,
        store: StoreSettings,
        queue: QueueSettings,
        rules: RuleSettings,
        pool: AsyncPool,
    ) -> None:
        self.settings = settings
        self.queue = queue
        self.pool = pool
        self._store = store
        self._pool: Pool | None = None
        self.live = Live(pool)
        self.children = Children()
        self.ruleset = Ruleset(rules.rules_dir, self.children)
        self.passwords = asyncio.Semaphore(PASSWORDS_AT_ONCE)
        self.exports = asyncio.Semaphore(EXPORTS_AT_ONCE)

    def open(self) -> None:
        """Open the connections that wait in threads of their own."""
        self._pool = open_pool(self._store, "the-eye api, pages", WRITERS)

    def close(self) -> None:
        """Close them."""
        if self._pool is not None:
            self._pool.close()

    async def act(self, do: Callable[[Connection], T]) -> T:
        """Do something that was written for a command, beside the event loop. Raises psycopg.Error."""
        return await asyncio.to_thread(self._act, do)

    def _act(self, do: Callable[[Connection], T]) -> T:
        if self._pool is None:
            message = "the site is not open"
            raise RuntimeError(message)
        with self._pool.connection() as connection:
            return do(connection)
