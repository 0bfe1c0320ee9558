"""A lease in Redis: what several processes could do and one is to do, done by whoever holds it."""

import time
from uuid import uuid4

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from the_eye.settings import QueueSettings

HOLD_SECONDS = 10.0
RENEW_SECONDS = 3.0
"""With ``HOLD_SECONDS`` the longest until another one has the lease of a process that died: 13 s."""

# Also when the server has no memory left: that is when one wants to be told.
_TAKE = """#!lua flags=allow-oom
if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) end
return redis.call('set', KEYS[1], ARGV[1], 'PX', ARGV[2], 'NX') and 1 or 0
"""
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then redis.call('del', KEYS[1]) end"


class Lease:
    """One process's share in a lease; whoever wants to hold it calls ``take`` every ``RENEW_SECONDS``."""

    def __init__(self, settings: QueueSettings, name: str) -> None:
        self._key = f"{settings.queue_namespace}:__lease__.{name}"
        self._holder = str(uuid4())
        self._held_until = 0.0
        seconds = min(settings.queue_timeout_seconds, RENEW_SECONDS)
        self._client = redis.Redis.from_url(
            settings.redis_url,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            # Once: a connection that the server closed while idle is found out only by using it.
            retry=Retry(NoBackoff(), 1),
        )
        self._take = self._client.register_script(_TAKE)

    @property
    def held(self) -> bool:
        """Whether this process is the one, also while the server does not answer; no two are at any time."""
        return time.monotonic() < self._held_until

    def take(self) -> None:
        """Take the lease if nobody has it, and hold it for longer if this process does. Raises redis.RedisError."""
        asked_at = time.monotonic()
        taken = self._take(keys=[self._key], args=[self._holder, int(HOLD_SECONDS * 1000)])
        self._held_until = asked_at + HOLD_SECONDS if taken else 0.0

    def release(self) -> None:
        """Let another one have it at once. Raises redis.RedisError."""
        self._held_until = 0.0
        self._client.eval(_RELEASE, 1, self._key, self._holder)
        self._client.close()
