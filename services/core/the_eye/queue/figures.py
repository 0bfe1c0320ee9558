"""What the queue and its server tell of themselves, for whoever watches them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from the_eye.queue.backlog import QUEUES, Backlog, ask_backlog, read_backlog
from the_eye.queue.broker import EventBroker
from the_eye.queue.ledger import ACCEPTED, SNAPSHOT, STATES, WRITING_OFF
from the_eye.queue.message_ids import age_seconds
from the_eye.queue.writer import QueueUnavailableError
from the_eye.settings import QueueSettings

COUNTED_MESSAGES = 5_000
"""The most messages whose events are counted: the server does nothing else meanwhile."""


_SECTIONS = ("memory", "persistence", "clients", "stats")


class QueueSnapshot(msgspec.Struct, frozen=True):
    """The messages and the ledger as of one moment."""

    ready: int
    delayed: int
    unacknowledged: int
    ledger: Mapping[str, int]
    """Events by state: all that were accepted, those that ended by their outcome, those that were written off."""
    counted_events: int | None
    """Events of the messages that the ledger knows; None while there are too many messages to count."""
    uncounted_messages: int
    """Messages that the ledger does not know, as an older version queued them."""
    age_seconds: float | None
    """Age of the oldest message, wherever it is; 0 when there is none, None while there are too many to look at."""

    @property
    def events(self) -> int | None:
        """Events of all messages; None while they are not known."""
        return None if self.uncounted_messages else self.counted_events

    @property
    def difference(self) -> int | None:
        """Accepted events that have neither an outcome nor a place in the queue; None while they are not known.

        Less than 0 where events ended whose acceptance is not known any more.
        """
        if self.counted_events is None:
            return None
        return 2 * self.ledger[ACCEPTED] - sum(self.ledger.values()) - self.counted_events


class QueueFigures(msgspec.Struct, frozen=True):
    """All there is to tell."""

    backlog: Backlog
    snapshot: QueueSnapshot
    server: Mapping[str, Any]
    """Fields of the server's ``INFO``; a managed server may keep some to itself."""


class QueueObserver:
    """Asks the queue's server, and waits for its answers."""

    def __init__(self, settings: QueueSettings) -> None:
        self._broker = EventBroker(settings)
        self._client = redis.Redis.from_url(
            settings.redis_url,
            socket_timeout=settings.queue_timeout_seconds,
            socket_connect_timeout=settings.queue_timeout_seconds,
            # Once: a connection that the server closed while idle is found out only by using it.
            retry=Retry(NoBackoff(), 1),
        )
        self._snapshot = self._client.register_script(SNAPSHOT)
        self._writing_off = self._client.register_script(WRITING_OFF)

    def read(self) -> QueueFigures:
        """Ask for all figures. Raises QueueUnavailableError."""
        with _unavailable():
            with self._client.pipeline(transaction=False) as pipeline:
                ask_backlog(pipeline, self._broker)
                backlog = read_backlog(pipeline.execute())
            return QueueFigures(backlog, self._read_snapshot(), self._client.info(*_SECTIONS))

    def snapshot(self) -> QueueSnapshot:
        """Look at the messages and the ledger. Raises QueueUnavailableError."""
        with _unavailable():
            return self._read_snapshot()

    def write_off(self, difference: int) -> bool:
        """Close the ledger again over a difference that someone has looked into. Raises QueueUnavailableError.

        False, with nothing done, where the difference is another one by now.
        """
        with _unavailable():
            return bool(self._ask(self._writing_off, difference))

    def _read_snapshot(self) -> QueueSnapshot:
        ready, delayed, held, events, uncounted, oldest, flat = self._ask(self._snapshot)
        found = {name.decode(): int(count) for name, count in zip(flat[::2], flat[1::2], strict=True)}
        return QueueSnapshot(
            ready=ready,
            delayed=delayed,
            unacknowledged=max(0, held - ready),
            ledger={state: found.get(state, 0) for state in STATES},
            counted_events=None if events < 0 else events,
            uncounted_messages=uncounted,
            age_seconds=None if events < 0 else age_seconds(oldest.decode()),
        )

    def _ask(self, script: Script, argument: int = 0) -> Any:
        return script(keys=[self._broker.namespace], args=[COUNTED_MESSAGES, argument, *QUEUES])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise QueueUnavailableError(str(error) or type(error).__name__) from error
