"""Sends single events at a fixed rate.

``python -m tests.load.bench.fixed_rate ADDRESS TOKEN EVENTS CONNECTIONS RATE SECONDS``

The rate does not depend on the answers (an open loop): a request that finds no idle connection waits, and its time
counts from when it was due. So a server that hesitates is charged with all that it kept waiting.
"""

import re
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

import msgspec
from tests.load.bench.events import whole
from tests.load.bench.generators import Load

LATE_SECONDS = 10.0
"""How long answers are waited for after the last request was due."""

WARM_UP_SECONDS = 0.5
_ACCEPTED = b"HTTP/1.1 2"
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Schedule:
    """When each request is due; what was not answered yet."""

    def __init__(self, rate: float, total: int, start: float) -> None:
        self._rate = rate
        self._start = start
        self._total = total
        self._next = 0
        self._waiting: deque[float] = deque()

    def due(self, now: float) -> bool:
        """Say whether a request should be on its way that is not."""
        while self._next < self._total and self._at(self._next) <= now:
            self._waiting.append(self._at(self._next))
            self._next += 1
        return bool(self._waiting)

    def take(self) -> float:
        """Take the oldest request that is due; gives when it was."""
        return self._waiting.popleft()

    def pause(self, now: float) -> float:
        """How long nothing will become due."""
        return max(0.0, self._at(self._next) - now) if self._next < self._total else LATE_SECONDS

    def _at(self, number: int) -> float:
        return self._start + number / self._rate


def percentile(ordered: Sequence[float], share: float) -> float:
    """Give the smallest value that ``share`` of the values do not exceed."""
    return ordered[max(0, -(-len(ordered) * round(share * 10_000) // 10_000) - 1)]


class Sender:
    """Idle and busy connections to the server."""

    def __init__(self, address: str, connections: int, requests: Iterator[bytes]) -> None:
        host, _, port = address.partition(":")
        self._requests = requests
        self._ready = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        for _ in range(connections):
            opened = socket.create_connection((host, int(port)), timeout=LATE_SECONDS)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets[opened.fileno()] = opened
            self._ready.register(opened, select.EPOLLIN)
        self._idle = list(self._sockets)
        self._due: dict[int, float] = {}
        self._partial: dict[int, bytes] = {}
        self.taken: list[float] = []
        self.failed = 0

    def run(self, schedule: Schedule, total: int, deadline: float) -> None:
        """Send what is due and take answers until all have come or the deadline has passed."""
        while len(self.taken) < total and (now := time.perf_counter()) < deadline:
            while self._idle and schedule.due(now):
                self._send(schedule.take())
            # epoll's own timeout counts in milliseconds; select's does not.
            select.select([self._ready], [], [], min(schedule.pause(time.perf_counter()), 0.1))
            for number, _ in self._ready.poll(0):
                self._receive(number)
        missing = total - len(self.taken)
        self.failed += missing
        self.taken += [LATE_SECONDS] * missing

    def _send(self, due: float) -> None:
        number = self._idle.pop()
        self._due[number] = due
        self._sockets[number].sendall(next(self._requests))

    def _receive(self, number: int) -> None:
        piece = self._sockets[number].recv(65_536)
        if not piece:  # closed by the server; what it owed counts as failed
            self._ready.unregister(number)
            self._idle = [idle for idle in self._idle if idle != number]
            return
        answer = self._partial.pop(number, b"") + piece
        if not is_whole(answer):
            self._partial[number] = answer
            return
        self.taken.append(time.perf_counter() - self._due.pop(number))
        self.failed += not answer.startswith(_ACCEPTED)
        self._idle.append(number)


def is_whole(answer: bytes) -> bool:
    """Say whether an HTTP answer with a Content-Length has come to its end."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return bool(end) and length is not None and len(body) >= int(length[1])


def requests(heads: Sequence[bytes], token: str) -> Iterator[bytes]:
    """Make HTTP requests without end."""
    http = (
        "POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: "
    ).encode()
    for head in cycle(heads):
        body = whole(head, datetime.now(UTC))
        yield b"%s%d\r\n\r\n%s" % (http, len(body), body)


def measure(sender: Sender, rate: float, seconds: float) -> Load:
    """Send for so long."""
    sender.taken, sender.failed = [], 0
    total = max(1, round(rate * seconds))
    begun = time.perf_counter()
    sender.run(Schedule(rate, total, begun), total, begun + seconds + LATE_SECONDS)
    taken = sorted(sender.taken)
    return Load(
        answers=len(taken),
        seconds=time.perf_counter() - begun,
        failed=sender.failed,
        p50_ms=percentile(taken, 0.5) * 1e3,
        p99_ms=percentile(taken, 0.99) * 1e3,
    )


def main(arguments: list[str]) -> Load:
    """Send, after a moment that does not count."""
    address, token, heads, connections, rate, seconds = arguments
    sender = Sender(address, int(connections), requests(Path(heads).read_bytes().splitlines(), token))
    measure(sender, float(rate), WARM_UP_SECONDS)
    return measure(sender, float(rate), float(seconds))


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(main(sys.argv[1:])))
