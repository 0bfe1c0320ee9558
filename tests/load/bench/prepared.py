"""HTTP requests made ready before they are sent, up to the time in each event, which has to be a recent one."""

import random
import time
from collections.abc import Iterator, Sequence
from itertools import cycle

_HEAD = (
    "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    "Authorization: Bearer {token}\r\nContent-Length: %d\r\n\r\n"
)
_STAMP = b"@"
"""Stands in a prepared body where the current second goes: nothing else in it holds this character."""

_END = b'.%06dZ"}'
_LENGTH_OF_REST = len('2026-01-02T03:04:05.678901Z"}')


def singles(heads: Sequence[bytes], token: str) -> Iterator[bytes]:
    """Make requests of one event each, without end; an event's time is when it is taken from here."""
    http = _HEAD.format(path="/events", token=token).encode()
    second, text = 0, b""
    for begun in cycle([http % (len(head) + _LENGTH_OF_REST) + head for head in heads]):
        now = time.time()
        if int(now) != second:
            second = int(now)
            text = _text(second)
        yield begun + text + _END % (now % 1 * 1e6)


class Batch:
    """A request with many events."""

    def __init__(self, heads: Sequence[bytes], http: bytes, chance: random.Random) -> None:
        events = (head + _STAMP + _END % chance.randrange(1_000_000) for head in heads)
        self._http = http
        self._body = b"[" + b",".join(events) + b"]"
        self._second = 0
        self._request = b""

    def at(self, second: int) -> bytes:
        """Give the request with its events in a second; made once for each."""
        if second != self._second:
            body = self._body.replace(_STAMP, _text(second))
            self._second, self._request = second, self._http % len(body) + body
        return self._request


def batches(heads: Sequence[bytes], token: str, size: int) -> list[Batch]:
    """Make batches of ``size`` events each; together they hold all events."""
    http = _HEAD.format(path="/events/batch", token=token).encode()
    chance = random.Random(2)  # noqa: S311 - no secret
    return [Batch(heads[first : first + size], http, chance) for first in range(0, len(heads), size)]


def _text(second: int) -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
