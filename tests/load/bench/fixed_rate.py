"""Sends single events at a fixed rate.

``python -m tests.load.bench.fixed_rate ADDRESS TOKEN EVENTS CONNECTIONS RATE SECONDS``

The rate does not depend on the answers (an open loop): a request that finds no idle connection waits, and its time
counts from when it was due. So a server that hesitates is charged with all that it kept waiting.

The generator takes its processor time from the servers it measures. So from some thousand requests a second on it
works in turns: what became due and what was answered since the last one is dealt with together. A time is too long by
up to two turns then, and never too short.
"""

import select
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
from tests.load.bench.answers import ACCEPTED, RECEIVE_BYTES, Load, is_whole, percentile
from tests.load.bench.prepared import singles

TURN_SECONDS = 0.000_75
"""The least time between two turns: each costs a wake-up. An event is stored in some milliseconds at the least."""

LATE_SECONDS = 10.0
"""How long answers are waited for after the last request was due."""

WARM_UP_SECONDS = 0.5
_LOOK_SECONDS = 0.1


class Schedule:
    """When each request is due."""

    def __init__(self, rate: float, total: int, start: float) -> None:
        self._rate = rate
        self._start = start
        self._total = total
        self._next = 0

    def due(self, now: float) -> bool:
        """Say whether a request should be on its way that is not."""
        return self._next < self._total and self._at(self._next) <= now

    def take(self) -> float:
        """Take the oldest request that was not taken; gives when it is due."""
        self._next += 1
        return self._at(self._next - 1)

    def pause(self, now: float) -> float:
        """How long nothing will become due."""
        return max(0.0, self._at(self._next) - now) if self._next < self._total else LATE_SECONDS

    @property
    def rest(self) -> float:
        """How long to rest between two turns: not at all where no two requests would become due meanwhile."""
        return TURN_SECONDS if self._rate * TURN_SECONDS > 0.1 else 0.0

    def _at(self, number: int) -> float:
        return self._start + number / self._rate


class Connection:
    """One connection, with at most one request under way."""

    __slots__ = ("_partial", "close", "due", "receive", "send")

    def __init__(self, opened: socket.socket) -> None:
        self.close = opened.close
        self.send = opened.sendall
        self.receive = opened.recv
        self.due = 0.0
        self._partial = b""

    def answer(self, piece: bytes) -> bytes:
        """Add what was received; gives the answer when it is whole, nothing before."""
        whole = self._partial + piece
        if is_whole(whole):
            self._partial = b""
            return whole
        self._partial = whole
        return b""


class Sender:
    """Idle and busy connections to the server."""

    def __init__(self, address: str, connections: int, requests: Iterator[bytes]) -> None:
        host, _, port = address.partition(":")
        self._requests = requests
        self._ready = select.epoll()
        self._connections: dict[int, Connection] = {}
        for _ in range(connections):
            opened = socket.create_connection((host, int(port)), timeout=LATE_SECONDS)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # With a timeout Python would ask whether a socket is ready before each call. epoll has said that it is, and
            # a request fits into an empty buffer.
            opened.setblocking(False)  # noqa: FBT003 - socket's way
            self._connections[opened.fileno()] = Connection(opened)
            self._ready.register(opened, select.EPOLLIN)
        self._idle = deque(self._connections.values())
        """The one that has been idle for longest first: a server closes those that are not used."""
        self.taken: list[float] = []
        self.late: list[float] = []
        self.failed = 0

    def close(self) -> None:
        """Close all connections."""
        self._ready.close()
        for connection in self._connections.values():
            connection.close()

    def run(self, schedule: Schedule, total: int, deadline: float) -> None:
        """Send what is due and take answers until all have come or the deadline has passed."""
        turn = time.perf_counter()
        while len(self.taken) < total and turn < deadline:
            earlier, turn = turn, time.perf_counter()
            self._send_due(schedule, earlier)
            time.sleep(schedule.rest)
            pause = schedule.pause(time.perf_counter()) if self._idle else _LOOK_SECONDS
            if pause:
                # epoll's own timeout counts in milliseconds; select's does not.
                select.select([self._ready], [], [], min(pause, _LOOK_SECONDS))
            for number, _ in self._ready.poll(0):
                self._receive(number)
        missing = total - len(self.taken)
        self.failed += missing
        self.taken += [LATE_SECONDS] * missing

    def _send_due(self, schedule: Schedule, earlier: float) -> None:
        """Send what is due on the connections that are idle.

        What was due in an ``earlier`` turn already found no idle connection then, for which this generator can be
        blamed from that turn on at most: it may have been slow to see that an answer had come.
        """
        while self._idle and schedule.due(now := time.perf_counter()):
            connection = self._idle.popleft()
            connection.due = due = schedule.take()
            connection.send(next(self._requests))
            self.late.append(now - max(due, earlier))

    def _receive(self, number: int) -> None:
        connection = self._connections[number]
        piece = connection.receive(RECEIVE_BYTES)
        if not piece:  # closed by the server; what it owed counts as failed
            self._ready.unregister(number)
            self._idle = deque(idle for idle in self._idle if idle is not connection)
        elif answer := connection.answer(piece):
            self.taken.append(time.perf_counter() - connection.due)
            self.failed += not answer.startswith(ACCEPTED)
            self._idle.append(connection)


def measure(sender: Sender, rate: float, seconds: float) -> Load:
    """Send for so long."""
    sender.taken, sender.late, sender.failed = [], [], 0
    total = max(1, round(rate * seconds))
    begun = time.perf_counter()
    sender.run(Schedule(rate, total, begun), total, begun + seconds + LATE_SECONDS)
    taken, late = sorted(sender.taken), sorted(sender.late)
    return Load(
        answers=len(taken),
        seconds=time.perf_counter() - begun,
        failed=sender.failed,
        p50_ms=percentile(taken, 0.5) * 1e3,
        p99_ms=percentile(taken, 0.99) * 1e3,
        late_p99_ms=percentile(late, 0.99) * 1e3,
    )


def main(arguments: list[str]) -> Load:
    """Send, after a moment that does not count."""
    address, token, heads, connections, rate, seconds = arguments
    requests = singles(Path(heads).read_bytes().splitlines(), token)
    with closing(Sender(address, int(connections), requests)) as sender:
        measure(sender, float(rate), WARM_UP_SECONDS)
        return measure(sender, float(rate), float(seconds))


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(main(sys.argv[1:])))
