"""Measures what open pages cost the way of an event: writes the figures into docs/pages.md.

Run from the root of the repository: ``.venv/bin/python -m docs.measure_watchers``. In one run the same API and the same
worker take as many single events as they can, in turns with nobody and with 20 people who watch Live and one who
clicks through the pages without a rest. It takes three minutes.
"""

import asyncio
import os
import re
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import httpx
import msgspec
from docs.measure_pages import replace_in_document
from tests.load.bench import services
from tests.load.bench.figures import Runs
from tests.load.bench.generators import require_wrk
from tests.load.bench.processes import Usage
from tests.load.bench.services import SINGLES, Service
from tests.load.bench.stand import REST_SECONDS, STORED, Stand, stand
from tests.load.bench.stores import temporary_stores

from the_eye.logs import configure_logging
from the_eye.passwords import hash_password
from the_eye.settings import LogSettings
from the_eye.store.sign_ins import sign_in
from the_eye.store.users import Role, create_user
from the_eye_api.pages.access import SIGN_IN_COOKIE

MARK = "<!-- What follows is written by docs/measure_watchers.py. -->\n"

TURNS = 6
TURN_SECONDS = 10.0
CONNECTIONS = 64
WATCHERS = 20
PAUSE_SECONDS = 1.0
"""How long the one who clicks looks at a page."""

NAME, PASSWORD = "measurer", "a password of this run"


class Turn(msgspec.Struct, frozen=True):
    """What was stored in a turn."""

    per_second: float
    processor: Mapping[str, float]
    """Seconds of each process for a thousand events."""


class People:
    """Twenty who watch and one who clicks, in a thread of their own."""

    def __init__(self, address: str, cookie: str) -> None:
        self._address = address
        self._headers = {"Cookie": f"{SIGN_IN_COOKIE}={cookie}"}
        self.bytes_watched = 0
        self.page_seconds: list[float] = []

    @contextmanager
    def there(self) -> Iterator[None]:
        """Have them look for as long as this lasts."""
        over = threading.Event()
        with ThreadPoolExecutor(1) as executor:
            looking = executor.submit(lambda: asyncio.run(self._look(over)))
            try:
                yield
            finally:
                over.set()
            looking.result()

    async def _look(self, over: threading.Event) -> None:
        people = asyncio.gather(*(self._watch() for _ in range(WATCHERS)), self._click())
        leaving = asyncio.ensure_future(asyncio.to_thread(over.wait))
        either: list[asyncio.Future[Any]] = [people, leaving]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        people.cancel()
        with suppress(asyncio.CancelledError):
            await people

    async def _watch(self) -> None:
        """Read as a browser does, without looking at what it is: that would take the servers' processors."""
        host, _, port = self._address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=2**22)
        head = f"GET /ui/live/stream HTTP/1.1\r\nHost: {self._address}\r\nCookie: {self._headers['Cookie']}\r\n\r\n"
        writer.write(head.encode())
        try:
            while piece := await reader.read(2**20):
                self.bytes_watched += len(piece)
        finally:
            writer.close()

    async def _click(self) -> None:
        async with httpx.AsyncClient(base_url=f"http://{self._address}", headers=self._headers, timeout=30) as browser:
            while True:
                listed = await self._get(browser, "/ui/events")
                await self._get(browser, "/ui/events/histogram")
                for page in re.findall(r"/ui/(?:events|sessions)/[0-9a-f-]{36}", listed)[:2]:
                    await self._get(browser, page)
                await self._get(browser, "/ui/problems")

    async def _get(self, browser: httpx.AsyncClient, path: str) -> str:
        begun = time.perf_counter()
        answer = await browser.get(path)
        self.page_seconds.append(time.perf_counter() - begun)
        answer.raise_for_status()
        await asyncio.sleep(PAUSE_SECONDS)
        return answer.text


class Measured(msgspec.Struct, frozen=True):
    """Turns with nobody and with people, and what these saw."""

    alone: list[Turn]
    watched: list[Turn]
    bytes_per_second: float
    """Of all who watched."""
    page_seconds: list[float]


def measure(machine: Stand) -> Measured:
    """Take turns, after one that does not count."""
    people = People(machine.api.address, _signed_in(machine))
    alone: list[Turn] = []
    watched: list[Turn] = []
    with machine.working(SINGLES) as workers:
        _stored(machine, workers)
        for _ in range(TURNS):
            alone.append(_stored(machine, workers))
            with people.there():
                watched.append(_stored(machine, workers))
            click.echo(f"{alone[-1]} {watched[-1]}", err=True)
    return Measured(alone, watched, people.bytes_watched / (TURNS * TURN_SECONDS), people.page_seconds)


def _signed_in(machine: Stand) -> str:
    with machine.stores.connect() as connection:
        create_user(connection, NAME, hash_password(PASSWORD), Role.VIEWER)
        cookie = sign_in(connection, NAME, PASSWORD, "127.0.0.1", timedelta(hours=1))
    if cookie is None:
        raise AssertionError
    return cookie


def _stored(machine: Stand, workers: list[Service]) -> Turn:
    """Send all that is taken, and wait until it is stored."""
    processes = [machine.api.process, machine.stores.postgres, *(worker.process for worker in workers)]
    before, stored, begun = Usage.now(processes), services.total(workers, STORED), time.monotonic()
    machine.checked(machine.generators.maximum(machine.api.address, CONNECTIONS, TURN_SECONDS))
    machine.stores.wait_until_stored(REST_SECONDS)
    events, used = services.total(workers, STORED) - stored, before.until(Usage.now(processes))
    processor = {name: seconds * 1e3 / events for name, seconds in used.items()}
    return Turn(events / (time.monotonic() - begun), processor)


def written(measured: Measured) -> str:
    """Write the figures as a table."""
    pages = statistics.quantiles(measured.page_seconds, n=20)
    how = (
        f"The same API and worker stored what {CONNECTIONS} senders of single events sent as fast as they could, in "
        f"{TURNS} turns of {TURN_SECONDS:.0f} s with nobody and {TURNS} with {WATCHERS} people who watch Live at that "
        f"API and one who opens a page each second. All of it shared {os.cpu_count()} processors."
    )
    seen = (
        f"The people were sent {measured.bytes_per_second / 1e6:.1f} MB a second. The {len(measured.page_seconds)} "
        f"pages of the one who clicked took {pages[9] * 1e3:.0f} ms (median) and {pages[18] * 1e3:.0f} ms (95th "
        "percentile) on these busy processors."
    )
    names = measured.alone[0].processor
    rows = [
        _row("stored, events/s", measured, lambda turn: turn.per_second),
        *(_row(f"{name}, ms of processor for 1,000 events", measured, _processor_of(name)) for name in names),
    ]
    table = "\n".join(("| | nobody | people | ratio (of each pair of turns) |", "|---|--:|--:|--:|", *rows))
    return f"{how}\n\n{table}\n\n{seen}\n"


def _processor_of(name: str) -> Callable[[Turn], float]:
    return lambda turn: turn.processor[name] * 1e3


def _row(name: str, measured: Measured, value: Callable[[Turn], float]) -> str:
    alone, watched = ([value(turn) for turn in turns] for turns in (measured.alone, measured.watched))
    ratios = sorted(two / one for one, two in zip(alone, watched, strict=True))
    one, two, ratio = (statistics.median(values) for values in (alone, watched, ratios))
    return f"| {name} | {one:,.0f} | {two:,.0f} | {ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |"


@click.command()
def main() -> None:
    """Measure and write."""
    configure_logging(LogSettings(log_level="warning"))
    require_wrk()
    with temporary_stores(Path("/tmp")) as stores, stand(stores, Runs()) as machine:  # noqa: S108 - a folder of its own is made in it
        replace_in_document(MARK, written(measure(machine)))


if __name__ == "__main__":
    main()
