"""Events as they are stored: one look into the database for all who watch, told to each by server-sent events."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextvars import Context

import psycopg
import structlog
from litestar.response import ServerSentEventMessage

from the_eye.store.connect import AsyncPool
from the_eye.store.event_query import EventFilter
from the_eye.store.new_events import NewEvent, Watch
from the_eye_api.pages.rendering import environment
from the_eye_api.problems import unavailable

LOOK_SECONDS = 1.0
LOOK_SHARE = 10
"""Looks are as many times their own length apart: so much of a connection's time they take at most."""

FAILED_SECONDS = 5.0
HEARTBEAT_SECONDS = 15.0
"""Proxies close what is silent, commonly after a minute."""

MAX_VIEWERS = 100
BUFFERED = 500
"""Events that wait for a viewer at most; of the others it is told how many there were."""

log = structlog.get_logger(__name__)


class Viewer:
    """Someone who watches, and what waits for them."""

    def __init__(self, filter_: EventFilter) -> None:
        self.filter = filter_
        self._waiting: deque[str] = deque()
        self._missed = 0
        self._woken = asyncio.Event()

    def give(self, row: str) -> None:
        """Let an event wait, or count it as missed."""
        if len(self._waiting) >= BUFFERED:
            self.miss(1)
            return
        self._waiting.append(row)
        self._woken.set()

    def miss(self, events: int) -> None:
        """Count events that will not be shown."""
        self._missed += events
        self._woken.set()

    def wake(self) -> None:
        """Have it look whether there is a reason to go on."""
        self._woken.set()

    async def take(self) -> Iterable[ServerSentEventMessage]:
        """Wait for something to tell, or long enough for a heartbeat."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                await self._woken.wait()
        self._woken.clear()
        return list(self._messages())

    def _messages(self) -> Iterator[ServerSentEventMessage]:
        if self._missed:
            yield ServerSentEventMessage(event="missed", data=str(self._missed))
            self._missed = 0
        if self._waiting:
            yield ServerSentEventMessage(event="events", data="".join(self._waiting))
            self._waiting.clear()
        else:
            yield ServerSentEventMessage(comment="still here")


class Live:
    """Looks for new events while anyone watches."""

    def __init__(self, pool: AsyncPool) -> None:
        self._pool = pool
        self._viewers: set[Viewer] = set()
        self._looking: asyncio.Task[None] | None = None
        self._closing = False

    @contextlib.contextmanager
    def viewer(self, filter_: EventFilter) -> Iterator[Viewer]:
        """Let someone watch. Raises ProblemError when there are too many, or the process is stopping."""
        if self._closing or len(self._viewers) >= MAX_VIEWERS:
            raise unavailable("too_many_viewers", "Too many are watching here just now.", retry_after=10)
        viewer = Viewer(filter_)
        self._viewers.add(viewer)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), context=Context())  # not of one viewer's request
        try:
            yield viewer
        finally:
            self._viewers.discard(viewer)

    @property
    def closing(self) -> bool:
        """Whether streams have to end."""
        return self._closing

    @property
    def looking(self) -> bool:
        """Whether the database is being asked."""
        return self._looking is not None

    def close(self) -> None:
        """End all streams, which would keep the process from stopping; browsers come again, elsewhere."""
        self._closing = True
        for viewer in self._viewers:
            viewer.wake()

    async def _look(self) -> None:
        watch = Watch()
        while self._viewers and not self._closing:
            began = time.monotonic()
            try:
                async with self._pool.connection() as connection:
                    new = await watch.look(connection)
            except psycopg.Error as error:
                log.warning("live_look_failed", error=str(error).partition("\n")[0])
                await asyncio.sleep(FAILED_SECONDS)
                continue
            for event in new.events:
                self._tell(event)
            if new.left_out:
                for viewer in self._viewers:
                    viewer.miss(new.left_out)
            await asyncio.sleep(max(LOOK_SECONDS, LOOK_SHARE * (time.monotonic() - began)))
        self._looking = None

    def _tell(self, event: NewEvent) -> None:
        """Give an event to those whose filter it fits; it is made into a row once for all of them."""
        viewers = [viewer for viewer in self._viewers if fits(viewer.filter, event)]
        if viewers:
            row = environment().get_template("live_row.html").render(event=event).replace("\n", "")
            for viewer in viewers:
                viewer.give(row)


def fits(filter_: EventFilter, event: NewEvent) -> bool:
    """Whether a filter wants an event, as it would in the list."""
    return (
        filter_.application_id in {None, event.application_id}
        and filter_.session_id in {None, event.session_id}
        and filter_.category in {None, event.category}
        and filter_.name in {None, event.name}
        and filter_.valid in {None, event.valid}
        and (filter_.rule is None or filter_.rule in event.violated_rules)
        and (filter_.text is None or _has_text(filter_, event))
    )


def _has_text(filter_: EventFilter, event: NewEvent) -> bool:
    if filter_.text is None:
        return True
    wanted = filter_.text.text.lower()
    if any(wanted in text.lower() for text in (event.category, event.name)):
        return True
    ids = filter_.text.ids
    return ids is not None and any(ids[0] <= each <= ids[1] for each in (event.event_id, event.session_id))
