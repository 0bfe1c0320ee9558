"""What the copy of the tokens holds, as bytes; writing and reading it is tested with a real server."""

from datetime import UTC, datetime

import msgspec
import pytest

from the_eye.token_copy import TokenCopy
from the_eye.tokens import Caller, RateLimit, Scope, new_token, token_hash

READ_AT = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


def test_a_copy_is_read_as_it_was_written() -> None:
    tokens = {
        token_hash("one"): Caller(1, "shop", frozenset(Scope), READ_AT, RateLimit(0.5, 3)),
        token_hash("two"): Caller(2, "blög", frozenset()),
    }

    assert TokenCopy.decode(TokenCopy(READ_AT, tokens).encode()) == TokenCopy(READ_AT, tokens)


def test_a_copy_holds_no_token() -> None:
    token = new_token()
    raw = TokenCopy(READ_AT, {token_hash(token): Caller(1, "shop", frozenset({Scope.INGEST}))}).encode()

    assert token_hash(token) in raw
    assert token.encode() not in raw
    assert token[4:].encode() not in raw


def test_what_a_newer_version_adds_is_left_out() -> None:
    """A scope, and a field at the end of a token."""
    raw = msgspec.msgpack.encode([1, READ_AT, [[b"hash", 1, "shop", ["ingest", "replay"], None, None, "new"]]])

    assert TokenCopy.decode(raw).tokens == {b"hash": Caller(1, "shop", frozenset({Scope.INGEST}))}


@pytest.mark.parametrize(
    "raw",
    [b"", b"garbage", msgspec.msgpack.encode([2, READ_AT, []]), msgspec.msgpack.encode([1, "yesterday", []])],
    ids=["empty", "garbage", "another version", "another form"],
)
def test_a_copy_that_cannot_be_read_is_one_error(raw: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        TokenCopy.decode(raw)
