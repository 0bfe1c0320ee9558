"""Keeps the copy of the live tokens, and gives it to an API that starts while PostgreSQL is away."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import msgspec
import psycopg
import redis
import redis.asyncio
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from the_eye.settings import QueueSettings
from the_eye.token_copy import TokenCopy, TokenCopyUnavailableError, copy_key, withdrawals_key
from the_eye_api.auth import READ_SECONDS, Tokens

REWRITE_SECONDS = 60.0
"""How long a copy that is still right is left as it is: writing it again renews its time and costs an fsync."""

_WRITE = """
if (redis.call('get', KEYS[2]) or '') ~= ARGV[1] then return 0 end
redis.call('set', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""

log = structlog.get_logger(__name__)


class _Look(msgspec.Struct, frozen=True):
    """What the server says before the tokens are read."""

    withdrawals: bytes
    now: datetime


class _Written(msgspec.Struct, frozen=True):
    """What this process has written last."""

    tokens: Tokens
    withdrawals: bytes
    at: float
    """Monotonic."""


class TokenCopyKeeper:
    """The copy, as one API process writes and reads it.

    That the queue's server is away never harms the tokens in memory: the copy alone is not kept then.
    """

    def __init__(
        self,
        settings: QueueSettings,
        read: Callable[[], Awaitable[Tokens]],
        *,
        max_age_seconds: float,
        look_seconds: float,
    ) -> None:
        """``read`` asks PostgreSQL; a ``max_age_seconds`` of 0 switches the copy off."""
        self._timeout_seconds = settings.queue_timeout_seconds
        self._read = read
        self._max_age_seconds = max_age_seconds
        self._look_seconds = look_seconds
        self._copy_key = copy_key(settings.queue_namespace)
        self._withdrawals_key = withdrawals_key(settings.queue_namespace)
        self._client = redis.asyncio.Redis.from_url(
            settings.redis_url,
            socket_connect_timeout=settings.queue_timeout_seconds,
            # Once: a connection that the server closed while idle is found out only by using it.
            retry=Retry(NoBackoff(), 1),
        )
        self._write = self._client.register_script(_WRITE)
        self._written: _Written | None = None
        self._right_at = math.nan
        """When the copy that this process knows was right, by the monotonic clock."""
        self._failing = False

    @property
    def age_seconds(self) -> float:
        """Since when PostgreSQL may have said otherwise than the copy; NaN before it was read or written."""
        return time.monotonic() - self._right_at

    async def load(self) -> TokenCopy | None:
        """Read the copy. None when there is none, and, with a line in the log, when it cannot be used."""
        if not self._max_age_seconds:
            return None
        try:
            raw, now = await self._get(self._copy_key)
            return None if raw is None else self._young(TokenCopy.decode(raw), now)
        except TokenCopyUnavailableError as error:
            log.warning("token_copy_not_read", error=str(error))
        except msgspec.MsgspecError as error:
            log.warning("token_copy_unreadable", error=str(error))
        return None

    def _young(self, copy: TokenCopy, now: datetime) -> TokenCopy | None:
        age = now - copy.read_at
        if age <= timedelta(seconds=self._max_age_seconds):
            self._right_at = time.monotonic() - age.total_seconds()
            return copy
        log.warning("token_copy_too_old", read_at=copy.read_at.isoformat(), max_age_seconds=self._max_age_seconds)
        return None

    async def keep(self, live: Callable[[], Tokens | None]) -> None:
        """Keep the copy up to date with ``live`` until cancelled."""
        while self._max_age_seconds:
            await self.update(live())
            await asyncio.sleep(self._look_seconds)

    async def update(self, live: Tokens | None) -> None:
        """Write the copy if that is due; what cannot be done is logged once and tried again later.

        ``live`` is what PostgreSQL has said last; None when it did not answer, and then there is nothing to write.
        """
        if live is None:
            return
        try:
            look = await self._look()
            if self._is_due(live, look):
                await self._renew(look)
            self._failing = False
        except TokenCopyUnavailableError as error:
            self._written = None  # the next answer may come from another server
            if not self._failing:
                log.warning("token_copy_not_kept", error=str(error))
            self._failing = True
        except (psycopg.Error, TimeoutError):
            pass  # whoever refreshes the tokens in memory meets the same and says so
        except Exception:  # without this task the copy would grow old unnoticed
            log.exception("token_copy_not_kept")

    async def _look(self) -> _Look:
        withdrawals, now = await self._get(self._withdrawals_key)
        return _Look(withdrawals or b"", now)

    async def _get(self, key: str) -> tuple[bytes | None, datetime]:
        """Get a value and the server's time."""
        async with self._deadline(), self._client.pipeline(transaction=False) as pipeline:
            pipeline.get(key)
            pipeline.time()
            value, (seconds, microseconds) = await pipeline.execute()
        return value, datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)

    def _is_due(self, live: Tokens, look: _Look) -> bool:
        written = self._written
        return (
            written is None
            or written.withdrawals != look.withdrawals
            or written.tokens != live
            or time.monotonic() - written.at >= REWRITE_SECONDS
        )

    async def _renew(self, look: _Look) -> None:
        """Write what PostgreSQL says now, unless a token was taken back since ``look``.

        ``live`` will not do: it may have been read before a withdrawal that ``look`` counts already.
        """
        async with asyncio.timeout(READ_SECONDS):
            tokens = await self._read()
        copy, milliseconds = TokenCopy(look.now, tokens).encode(), math.ceil(self._max_age_seconds * 1000)
        async with self._deadline():
            done = await self._write(
                keys=[self._copy_key, self._withdrawals_key], args=[look.withdrawals, copy, milliseconds]
            )
        if done:
            self._right_at = time.monotonic()
            self._written = _Written(tokens, look.withdrawals, self._right_at)

    @contextlib.asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                yield
        except (redis.RedisError, OSError, TimeoutError) as error:
            raise TokenCopyUnavailableError(str(error) or type(error).__name__) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
