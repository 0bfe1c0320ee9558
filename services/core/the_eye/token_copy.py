"""A copy of the live tokens beside the queue, for an API that starts while PostgreSQL is away.

It holds hashes, never tokens. A second key counts withdrawals: who takes a token back raises the count and deletes the
copy in one step, and a copy is written only while the count is what it was before its tokens were read. So tokens that
were read before a revocation are never written after it.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from the_eye.settings import QueueSettings
from the_eye.tokens import Caller, RateLimit, Scope

WITHDRAW_SECONDS = 1.0
"""Deadline of each wait of ``withdraw_copy``: a person waits for it, and an API that runs makes up for it."""


class TokenCopyUnavailableError(Exception):
    """Raised when the server that holds the copy does not answer, or refuses."""


_SCOPES = {scope.value: scope for scope in Scope}


def copy_key(namespace: str) -> str:
    """Name the key that holds the copy."""
    return f"{namespace}:tokens"


def withdrawals_key(namespace: str) -> str:
    """Name the key that counts how often the copy was withdrawn."""
    return f"{namespace}:tokens.withdrawals"


class _Token(msgspec.Struct, frozen=True, array_like=True):
    """New fields go to the end with a default, as those of a queued event do."""

    hash: bytes
    application_id: int
    application: str
    scopes: tuple[str, ...]
    expires_at: datetime | None
    limit: RateLimit | None


class _Envelope(msgspec.Struct, frozen=True, array_like=True):
    version: Literal[1]
    read_at: datetime
    tokens: tuple[_Token, ...]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Envelope).decode


class TokenCopy(msgspec.Struct, frozen=True):
    """The live tokens as PostgreSQL had them."""

    read_at: datetime
    """By the clock of the queue's server: those of the machines that write and read the copy need not agree."""
    tokens: Mapping[bytes, Caller]
    """By their hash."""

    def encode(self) -> bytes:
        """Make what is kept."""
        tokens = (
            _Token(hash_, one.application_id, one.application, tuple(one.scopes), one.expires_at, one.limit)
            for hash_, one in self.tokens.items()
        )
        return _encode(_Envelope(1, self.read_at, tuple(tokens)))

    @classmethod
    def decode(cls, raw: bytes) -> "TokenCopy":
        """Read what is kept; raises msgspec.MsgspecError when a program of another version wrote something else."""
        envelope = _decode(raw)
        return cls(envelope.read_at, {token.hash: _caller(token) for token in envelope.tokens})


def _caller(token: _Token) -> Caller:
    return Caller(token.application_id, token.application, _known(token.scopes), token.expires_at, token.limit)


def _known(scopes: Iterable[str]) -> frozenset[Scope]:
    """Leave out a scope that only a newer version knows, as reading from PostgreSQL does."""
    return frozenset(_SCOPES[scope] for scope in scopes if scope in _SCOPES)


def withdraw_copy(settings: QueueSettings) -> None:
    """Delete the copy, and see that nothing that was read before now becomes one.

    Raises TokenCopyUnavailableError.
    """
    try:
        with (
            redis.Redis.from_url(
                settings.redis_url,
                socket_timeout=WITHDRAW_SECONDS,
                socket_connect_timeout=WITHDRAW_SECONDS,
                retry=Retry(NoBackoff(), 0),
            ) as client,
            client.pipeline() as transaction,
        ):
            transaction.incr(withdrawals_key(settings.queue_namespace))
            transaction.delete(copy_key(settings.queue_namespace))
            transaction.execute()
    except (redis.RedisError, OSError) as error:
        raise TokenCopyUnavailableError(str(error) or type(error).__name__) from error
