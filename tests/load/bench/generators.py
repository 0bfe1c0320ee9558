"""What sends events: wrk for maxima, and our own senders for fixed rates and for batches."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec
from tests.load.bench import events
from tests.load.bench.answers import Load
from tests.load.bench.processes import BenchError, finish, python, start

WRK_THREADS = 1
SLACK_SECONDS = 30.0
"""How much longer than it should a generator may take."""

ANSWER_SECONDS = 10
"""An answer that takes longer counts as failed. wrk takes 2 s when it is not told; a machine may pause for longer."""

FLOOD_SECONDS = 60.0
"""Longer than any flood lasts: it is stopped, and ends by itself only when nobody is left to do that."""

_SCRIPT = Path(__file__).with_name("post.lua")


def require_wrk() -> None:
    """See that wrk is there, and install Debian's where that can be done.

    Raises BenchError.
    """
    if shutil.which("wrk"):
        return
    if shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "-q", "wrk"], check=False, capture_output=True)  # noqa: S607
    if not shutil.which("wrk"):
        message = "the load generator wrk is missing and could not be installed; on Debian: apt-get install wrk"
        raise BenchError(message)


class Generators:
    """Senders to one address; the events are written to a file once."""

    def __init__(self, folder: Path, token: str) -> None:
        self._heads = folder / "events"
        self._heads.write_bytes(b"\n".join(events.heads()) + b"\n")
        self._token = token

    def maximum(self, address: str, connections: int, seconds: float) -> Load:
        """Send single events as fast as they are answered: each connection sends the next when it has its answer."""
        (load,) = maxima([(self, address)], connections, seconds)
        return load

    def wrk(self, address: str, connections: int, seconds: float) -> list[str]:
        """Give the command of the generator that sends single events."""
        url = f"http://{address}/events"
        duration, timeout = f"{max(1, round(seconds))}s", f"{ANSWER_SECONDS}s"
        options = ["-t", str(WRK_THREADS), "-c", str(connections), "-d", duration, "--timeout", timeout]
        return ["wrk", *options, "-s", str(_SCRIPT), url, "--", str(self._heads), self._token]

    def fixed(self, address: str, connections: int, rate: float, seconds: float) -> Load:
        """Send single events at a fixed rate, whatever the answers."""
        arguments = [address, self._token, str(self._heads), str(connections), str(rate), str(seconds)]
        (printed,) = finish([start([*python("fixed_rate"), *arguments])], seconds + SLACK_SECONDS)
        return msgspec.json.decode(printed, type=Load)

    def batches(
        self, address: str, size: int, seconds: float, *, most: int = 0, backlog: tuple[str, str, int] | None = None
    ) -> Load:
        """Send batches on a few connections for so long, or until ``most`` were sent.

        With ``backlog`` (Redis URL of a socket, key of the waiting list, length) only while fewer messages than that
        wait.
        """
        command = self._batches(address, size, seconds, most)
        if backlog:
            url, key, length = backlog
            command += [unquote(urlsplit(url).path), key, str(length)]
        (printed,) = finish([start(command)], seconds + SLACK_SECONDS)
        return msgspec.json.decode(printed, type=Load)

    def _batches(self, address: str, size: int, seconds: float, most: int) -> list[str]:
        return [*python("batches"), address, self._token, str(self._heads), str(size), str(seconds), str(most)]

    @contextmanager
    def flood_of_singles(self, address: str, connections: int) -> Iterator[None]:
        """Send single events as fast as they are answered, whatever the answers, for as long as this lasts."""
        with _meanwhile(self.wrk(address, connections, FLOOD_SECONDS)):
            yield

    @contextmanager
    def flood_of_batches(self, address: str, size: int) -> Iterator[None]:
        """Send batches as fast as they are answered, whatever the answers, for as long as this lasts."""
        with _meanwhile(self._batches(address, size, FLOOD_SECONDS, 0)):
            yield


def maxima(senders: Sequence[tuple[Generators, str]], connections: int, seconds: float) -> list[Load]:
    """Have several generators send to an address each as fast as they are answered, all at the same time."""
    started = [start(generators.wrk(address, connections, seconds)) for generators, address in senders]
    printed = finish(started, seconds + SLACK_SECONDS)
    return [msgspec.json.decode(each.splitlines()[-1], type=Load) for each in printed]


@contextmanager
def _meanwhile(command: list[str]) -> Iterator[None]:
    """Have a generator send; raises BenchError when it does not do so to the end."""
    flood = start(command)
    try:
        yield
        if flood.poll() is not None:
            message = f"{command!r} ended before it was stopped"
            raise BenchError(message)
    finally:
        flood.kill()
        flood.communicate()
