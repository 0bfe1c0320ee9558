"""Sends batches: ``python -m tests.load.bench.batches ADDRESS TOKEN SIZE SECONDS MOST [REDIS_URL KEY LENGTH]``.

With a Redis list to look at, a batch is sent only while that list is shorter than LENGTH: what is measured then is
what the workers can sustain with next to nothing waiting, and no rate has to be guessed.
"""

import http.client
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from itertools import cycle

import msgspec
import redis
from tests.load.bench import events
from tests.load.bench.fixed_rate import percentile
from tests.load.bench.generators import Load

CONNECTIONS = 4
LOOK_SECONDS = 0.002
ANSWER_SECONDS = 30.0


class Sender:
    """Several connections that take turns at the prepared batches."""

    def __init__(self, address: str, token: str, size: int, may_send: Callable[[], bool]) -> None:
        self._address = address
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._batches: Iterator[bytes] = cycle(events.prepared_batches(size))
        self._may_send = may_send
        self._lock = threading.Lock()
        self.taken: list[float] = []
        self.failed = 0
        self._sent = 0

    def run(self, seconds: float, most: int) -> None:
        """Send on all connections until the time is over or ``most`` batches were sent; 0 is no limit."""
        deadline = time.monotonic() + seconds
        threads = [threading.Thread(target=self._send_all, args=(deadline, most)) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _send_all(self, deadline: float, most: int) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=ANSWER_SECONDS)
        while (body := self._next(deadline, most)) is not None:
            begun = time.perf_counter()
            connection.request("POST", "/events/batch", body, self._headers)
            answer = connection.getresponse()
            answer.read()
            with self._lock:
                self.taken.append(time.perf_counter() - begun)
                self.failed += answer.status != HTTPStatus.ACCEPTED
        connection.close()

    def _next(self, deadline: float, most: int) -> bytes | None:
        """Wait for leave to send, one connection at a time, so that leave for one is not taken by all."""
        with self._lock:
            while time.monotonic() < deadline and (not most or self._sent < most):
                if self._may_send():
                    self._sent += 1
                    return events.stamped(next(self._batches))
                time.sleep(LOOK_SECONDS)
        return None


def main(address: str, token: str, size: int, seconds: float, most: int, *backlog: str) -> Load:
    """Send and say what came of it, in events."""
    sender = Sender(address, token, size, _shorter_than(*backlog) if backlog else lambda: True)
    begun = time.monotonic()
    sender.run(seconds, most)
    taken = sorted(sender.taken)
    return Load(
        answers=len(taken) * size,
        seconds=time.monotonic() - begun,
        failed=sender.failed * size,
        p50_ms=percentile(taken, 0.5) * 1e3,
        p99_ms=percentile(taken, 0.99) * 1e3,
    )


def _shorter_than(url: str, key: str, length: str) -> Callable[[], bool]:
    client = redis.Redis.from_url(url, socket_timeout=ANSWER_SECONDS)
    return lambda: int(client.llen(key)) < int(length)


if __name__ == "__main__":
    given = sys.argv[1:]
    result = main(given[0], given[1], int(given[2]), float(given[3]), int(given[4]), *given[5:])
    sys.stdout.buffer.write(msgspec.json.encode(result))
