"""Sends batches: ``python -m tests.load.bench.batches ADDRESS TOKEN EVENTS SIZE SECONDS MOST [SOCKET KEY LENGTH]``.

With a list of the Redis server at SOCKET to look at, a batch is sent only while that list is shorter than LENGTH: what
is measured then is what the workers can sustain with next to nothing waiting, and no rate has to be guessed.
"""

import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path

import msgspec
from tests.load.bench.answers import ACCEPTED, RECEIVE_BYTES, Load, is_whole, percentile
from tests.load.bench.prepared import Batch, batches

CONNECTIONS = 4
LOOK_SECONDS = 0.005
"""A worker needs about as long for a hundred events, and more than one batch waits for it: none is idle for this."""

ANSWER_SECONDS = 30.0


class Sender:
    """Several connections that take turns at the prepared batches."""

    def __init__(self, address: str, prepared: Sequence[Batch], may_send: Callable[[], bool]) -> None:
        host, _, port = address.partition(":")
        self._address = host, int(port)
        self._batches = cycle(prepared)
        self._may_send = may_send
        self._lock = threading.Lock()
        self._sent = 0
        self._accepted = 0
        self.taken: list[float] = []

    def run(self, seconds: float, most: int) -> None:
        """Send on all connections until the time is over or ``most`` batches were sent; 0 is no limit."""
        deadline = time.monotonic() + seconds
        threads = [threading.Thread(target=self._send_all, args=(deadline, most)) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    @property
    def failed(self) -> int:
        """Batches that were not answered with 2xx, or not at all."""
        return self._sent - self._accepted

    def _send_all(self, deadline: float, most: int) -> None:
        with socket.create_connection(self._address, timeout=ANSWER_SECONDS) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while (request := self._next(deadline, most)) is not None:
                begun = time.perf_counter()
                connection.sendall(request)
                answer = whole_answer(connection.recv)
                self.taken.append(time.perf_counter() - begun)
                with self._lock:
                    self._accepted += answer.startswith(ACCEPTED)

    def _next(self, deadline: float, most: int) -> bytes | None:
        """Wait for leave to send, one connection at a time, so that leave for one is not taken by all."""
        with self._lock:
            while time.monotonic() < deadline and (not most or self._sent < most):
                if self._may_send():
                    self._sent += 1
                    return next(self._batches).at(int(time.time()))
                time.sleep(LOOK_SECONDS)
        return None


def whole_answer(receive: Callable[[int], bytes]) -> bytes:
    """Receive until an answer has come to its end; raises ConnectionError when the connection ends before."""
    answer = b""
    while not is_whole(answer):
        piece = receive(RECEIVE_BYTES)
        if not piece:
            message = f"the connection was closed after {answer!r}"
            raise ConnectionError(message)
        answer += piece
    return answer


class Waiting:
    """The length of a list in Redis, asked for without the client library: importing that takes longer than a look."""

    def __init__(self, path: str, key: str) -> None:
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(path)
        # The kernel's deadline: for its own Python would ask before each call whether the socket is ready.
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", round(ANSWER_SECONDS), 0))
        self._question = f"*2\r\n$4\r\nLLEN\r\n${len(key.encode())}\r\n{key}\r\n".encode()

        self.close = self._server.close

    def __len__(self) -> int:
        """Ask; raises ValueError when the answer is no number."""
        self._server.sendall(self._question)
        answer = b""
        while not answer.endswith(b"\r\n"):
            answer += (piece := self._server.recv(RECEIVE_BYTES))
            if not piece:
                break
        return int(answer.removeprefix(b":"))


def main(arguments: Sequence[str]) -> Load:
    """Send and say what came of it, in events."""
    address, token, heads, *numbers = arguments[:6]
    size, seconds, most, backlog = int(numbers[0]), float(numbers[1]), int(numbers[2]), arguments[6:]
    prepared = batches(Path(heads).read_bytes().splitlines(), token, size)
    sender = Sender(address, prepared, _shorter_than(*backlog) if backlog else lambda: True)
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


def _shorter_than(path: str, key: str, length: str) -> Callable[[], bool]:
    waiting, most = Waiting(path, key), int(length)
    return lambda: len(waiting) < most


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(main(sys.argv[1:])))
