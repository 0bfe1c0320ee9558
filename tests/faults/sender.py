"""A client as it should be: it sends an event again, with the same id, until it is answered with 202."""

import asyncio
import bisect
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import msgspec
from tests.faults import numbered
from tests.servers import wait_until

ANSWER_SECONDS = 30.0
"""Past this a request counts as hung."""

FINISH_SECONDS = 90.0
FIRST_BACKOFF_SECONDS = 0.1
LONGEST_BACKOFF_SECONDS = 1.0
REFUSED_EVERY_SECONDS = 0.25


class Load(msgspec.Struct, frozen=True):
    """What is sent; the numbers are modest, for the sender shares the machine with all that it tests."""

    singles: int = 8
    """Connections that send events one by one."""
    batches: int = 2
    """Connections that send batches."""
    batch_events: int = 50
    pause_seconds: float = 0.02
    """Between an answer and the next request on the same connection."""
    total: int | None = None
    """Stop after so many events; None: when the test says so."""


class Seen(msgspec.Struct):
    """What a sender saw."""

    answers: Counter[str] = msgspec.field(default_factory=Counter)
    """Requests by their status, or by what came instead of one."""
    accepted: int = 0
    """Events that were answered with 202."""
    accepted_at: list[float] = msgspec.field(default_factory=list)
    """Times of the 202s, monotonic."""
    slowest_seconds: float = 0.0
    """The longest that an answer took, whatever it said."""

    @property
    def longest_outage(self) -> float:
        """The longest time without any 202, in seconds."""
        return max((later - earlier for earlier, later in itertools.pairwise(self.accepted_at)), default=0.0)

    def first_accepted_after(self, moment: float) -> float | None:
        """Give the time of the first 202 after a moment."""
        place = bisect.bisect_right(self.accepted_at, moment)
        return self.accepted_at[place] if place < len(self.accepted_at) else None

    @property
    def only_202(self) -> bool:
        """Whether no request failed."""
        return set(self.answers) == {"202"}

    def __str__(self) -> str:
        counts = ", ".join(f"{answer}: {count:,}" for answer, count in sorted(self.answers.items()))
        return f"{counts}, nothing else" if self.only_202 else counts


class Sender:
    """Sends numbered events over several connections, from a thread of its own."""

    def __init__(self, url: str, token: str, load: Load, first: int) -> None:
        self.seen = Seen()
        self.next_number = first
        """The number that the next event would get; all below were sent, and in the end accepted."""
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._load = load
        self._last = None if load.total is None else first + load.total
        self._enough = threading.Event()
        self._aborted = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    @contextmanager
    def running(self) -> Iterator["Sender"]:
        """Send during the block, and after it until every event that was begun is accepted."""
        self._thread.start()
        try:
            yield self
        except BaseException:
            self._aborted.set()
            raise
        finally:
            self._enough.set()
            self._thread.join(FINISH_SECONDS)
            self._aborted.set()
        assert not self._thread.is_alive(), f"not all events were accepted: {self.seen}"
        if self._error is not None:
            raise self._error

    def wait_for_more(self, events: int, seconds: float = 60.0) -> None:
        """Wait until so many more events were accepted."""
        goal = self.seen.accepted + events
        wait_until(lambda: self.seen.accepted >= goal, seconds, lambda: f"no more are accepted: {self.seen}")

    def wait_until_done(self, seconds: float) -> None:
        """Wait until ``Load.total`` events were accepted."""
        wait_until(lambda: not self._thread.is_alive(), seconds, lambda: f"not all were accepted: {self.seen}")

    def _run(self) -> None:
        try:
            asyncio.run(self._send())
        except BaseException as error:  # noqa: BLE001 - raised again in the test's thread
            self._error = error

    async def _send(self) -> None:
        self.seen.accepted_at.append(time.monotonic())
        timeout = httpx.Timeout(ANSWER_SECONDS)
        async with (
            httpx.AsyncClient(base_url=self._url, headers=self._headers, timeout=timeout) as client,
            asyncio.TaskGroup() as tasks,
        ):
            for _ in range(self._load.singles):
                tasks.create_task(self._send_events(client, "/events", 1))
            for _ in range(self._load.batches):
                tasks.create_task(self._send_events(client, "/events/batch", self._load.batch_events))
            tasks.create_task(self._send_what_is_refused(client))

    async def _send_events(self, client: httpx.AsyncClient, path: str, count: int) -> None:
        while numbers := self._take(count):
            body = numbered.batch(numbers) if path.endswith("batch") else numbered.event(numbers[0])
            if not await self._send_until_accepted(client, path, body):
                return
            self.seen.accepted += len(numbers)
            await asyncio.sleep(self._load.pause_seconds)

    def _take(self, count: int) -> range:
        """Give the next numbers, or none when it is enough."""
        if self._enough.is_set() and self._last is None:
            return range(0)
        first = self.next_number
        self.next_number = first + count if self._last is None else min(first + count, self._last)
        return range(first, self.next_number)

    async def _send_until_accepted(self, client: httpx.AsyncClient, path: str, body: bytes) -> bool:
        """Send the same bytes again and again; false when the test has given up."""
        backoff = FIRST_BACKOFF_SECONDS
        while not self._aborted.is_set():
            response = await self._post(client, path, body)
            if response is not None and response.status_code == httpx.codes.ACCEPTED:
                self.seen.accepted_at.append(time.monotonic())
                return True
            asked = response.headers.get("retry-after") if response is not None else None
            await asyncio.sleep(float(asked) if asked else backoff * random.uniform(0.5, 1))  # noqa: S311 - no secret
            backoff = min(backoff * 2, LONGEST_BACKOFF_SECONDS)
        return False

    async def _post(self, client: httpx.AsyncClient, path: str, body: bytes) -> httpx.Response | None:
        start = time.monotonic()
        response = None
        try:
            response = await client.post(path, content=body)
            answer = str(response.status_code)
        except httpx.TimeoutException:
            answer = "hung"
        except httpx.TransportError:
            answer = "broken connection"
        self.seen.answers[answer] += 1
        self.seen.slowest_seconds = max(self.seen.slowest_seconds, time.monotonic() - start)
        return response

    async def _send_what_is_refused(self, client: httpx.AsyncClient) -> None:
        """Send events that must be found nowhere: malformed ones, and good ones with a token that is none."""
        for number in itertools.count():
            if self._aborted.is_set() or (self._enough.is_set() and self._last is None) or self._is_done():
                return
            stranger = number % 2 == 1
            headers = {"Authorization": "Bearer eye_unknown"} if stranger else {}
            body = numbered.refused(number) if stranger else numbered.malformed(number)
            try:
                response = await client.post("/events", content=body, headers=headers)
            except httpx.TransportError:
                continue
            finally:
                await asyncio.sleep(REFUSED_EVERY_SECONDS)
            assert response.status_code in ({401, 503} if stranger else {400, 429, 503}), response.text

    def _is_done(self) -> bool:
        return self._last is not None and self.seen.accepted >= (self._load.total or 0)
