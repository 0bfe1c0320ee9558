"""Who may do what: bearer tokens, looked up in a snapshot that never costs a request a database read."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus

import psycopg
import structlog

from the_eye.token_copy import TokenCopy
from the_eye.tokens import Caller, Scope, token_hash
from the_eye_api import metrics
from the_eye_api.problems import ProblemError, problem, unavailable

Tokens = Mapping[bytes, Caller]
"""Live tokens by their hash."""

READ_SECONDS = 2.0
"""Deadline of reading the tokens: together with the longest refresh, a revoked token is out within 10 seconds."""

USES_SECONDS = 60.0
"""How often it is written which tokens were used."""

log = structlog.get_logger(__name__)


class TokenSnapshot:
    """The live tokens, read again every ``refresh_seconds``.

    While the database is away the last snapshot stays in force: accepting does not depend on PostgreSQL. A process that
    has none takes the copy that ``load_copy`` gives. It lets senders in and no reader: what it may be wrong about, a
    token that was revoked meanwhile, then shows nothing to anyone.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[Tokens]],
        load_copy: Callable[[], Awaitable[TokenCopy | None]],
        refresh_seconds: float,
    ) -> None:
        self._read = read
        self._load_copy = load_copy
        self._refresh_seconds = refresh_seconds
        self._tokens: Tokens | None = None
        self._copied = False
        self._callers: dict[str, Caller] = {}
        """Who was let in since the tokens were read, by header."""
        self._used: set[str] = set()
        """The same since they were last written."""
        self.live: Tokens | None = None
        """What the database said at the last refresh; None when it did not answer."""

    @property
    def loaded(self) -> bool:
        """Whether there are tokens; before that no request can be told from another."""
        return self._tokens is not None

    async def refresh(self) -> None:
        """Read the tokens once; what cannot be read is logged and tried again later.

        Whatever goes wrong: a snapshot that is never refreshed again would let revoked tokens in for ever.
        """
        self.live = await self._read_live()
        if self.live is not None:
            self._replace(self.live, copied=False)
        elif self._tokens is None:
            await self._take_copy()

    async def _read_live(self) -> Tokens | None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                return await self._read()
        except (psycopg.Error, TimeoutError) as error:
            log.warning("tokens_not_refreshed", error=str(error).partition("\n")[0] or type(error).__name__)
        except Exception:
            log.exception("tokens_not_refreshed")
        return None

    async def _take_copy(self) -> None:
        try:
            copy = await self._load_copy()
        except Exception:
            log.exception("token_copy_not_read")
            return
        if copy is not None:
            self._replace(copy.tokens, copied=True)
            log.warning("tokens_taken_from_copy", read_at=copy.read_at.isoformat(), tokens=len(copy.tokens))

    def _replace(self, tokens: Tokens, *, copied: bool) -> None:
        self._used.update(self._callers)
        self._tokens, self._copied = tokens, copied
        self._callers = {}

    async def keep_uses(self, write: Callable[[Iterable[bytes]], Awaitable[None]]) -> None:
        """Have the hashes of tokens that were used written once a minute, until cancelled.

        What cannot be written is tried again with what was used meanwhile.
        """
        while True:
            await asyncio.sleep(USES_SECONDS)
            used, self._used = self._used, set()
            try:
                if used:
                    await write([token_hash(header.removeprefix("Bearer ")) for header in used])
            except psycopg.Error as error:
                self._used |= used
                log.warning("token_uses_not_written", error=str(error).partition("\n")[0])

    async def keep_fresh(self) -> None:
        """Refresh until cancelled."""
        while True:
            await asyncio.sleep(self._refresh_seconds)
            await self.refresh()

    def authorize(self, authorization: str, *scopes: Scope) -> Caller:
        """Find who sent the ``Authorization`` header and see that one of ``scopes`` is granted.

        Raises ProblemError: 401 without a live token, 403 without the scope, 503 before any snapshot; with a copy also
        503 for a token that is not in it, and for whatever is not sending events.
        """
        if self._tokens is None or (self._copied and scopes != (Scope.INGEST,)):
            raise _not_loaded()
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _unauthorized("missing_token", "Send a token: Authorization: Bearer <token>", "")
        caller = self._tokens.get(token_hash(token.strip()))
        if caller is None and self._copied:  # it may be newer than the copy
            raise _not_loaded()
        if caller is None or _expired(caller):
            raise _unauthorized("invalid_token", "The token is unknown, expired or revoked.", ', error="invalid_token"')
        if not caller.may(*scopes):
            raise _forbidden(scopes)
        if authorization == f"Bearer {token.strip()}":  # one entry a token: the ways to write it are without number
            self._callers[authorization] = caller
        return caller

    def recall(self, authorization: str, scope: Scope) -> Caller | None:
        """Give whom ``authorize`` has let in with the same header, if it still would, for less than hashing a token."""
        caller = self._callers.get(authorization)
        return caller if caller is not None and not _expired(caller) and caller.may(scope) else None


def _expired(caller: Caller) -> bool:
    return caller.expires_at is not None and caller.expires_at <= datetime.now(UTC)


def _not_loaded() -> ProblemError:
    return _counted(unavailable("tokens_not_loaded", "Tokens cannot be checked yet."))


def _unauthorized(code: str, detail: str, challenge: str) -> ProblemError:
    headers = {"WWW-Authenticate": f'Bearer realm="the-eye"{challenge}'}
    return _counted(problem(HTTPStatus.UNAUTHORIZED, code, detail, headers=headers))


def _forbidden(scopes: tuple[Scope, ...]) -> ProblemError:
    wanted = " or ".join(scopes)
    headers = {"WWW-Authenticate": f'Bearer realm="the-eye", error="insufficient_scope", scope="{" ".join(scopes)}"'}
    detail = f"The token lacks the scope {wanted}."
    return _counted(problem(HTTPStatus.FORBIDDEN, "insufficient_scope", detail, headers=headers))


def _counted(refusal: ProblemError) -> ProblemError:
    metrics.TOKEN_REFUSALS.labels(refusal.problem.code).inc()
    return refusal
