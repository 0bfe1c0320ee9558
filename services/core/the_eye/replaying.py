"""Dead events, put back into the queue."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from the_eye.queue import REPLAYS_QUEUE, QueuedEvent, enqueue_events, enqueue_message
from the_eye.settings import QueueSettings
from the_eye.store.dead_events import DeadEntry

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Replayer:
    """Puts dead events back into the queue and remembers why it could not."""

    def __init__(self, settings: QueueSettings) -> None:
        self._settings = settings
        self.refused: dict[int, str] = {}

    def enqueue(self, entries: Sequence[DeadEntry]) -> list[int]:
        """Queue what can be queued; its ids are returned once it is on disk.

        Raises QueueUnavailableError when the queue is away.
        """
        events = {entry.id: queued(entry) for entry in entries if entry.kind == "event"}
        if events:
            enqueue_events(self._settings, list(events.values()), REPLAYS_QUEUE)
        return [*events, *(entry.id for entry in entries if entry.kind == "message" and self._whole(entry))]

    def _whole(self, entry: DeadEntry) -> bool:
        try:
            enqueue_message(self._settings, entry.original)
        except ValueError as error:
            self.refused[entry.id] = " ".join(str(error).split())
            return False
        return True


def queued(entry: DeadEntry) -> QueuedEvent:
    """Make a dead event the queued event it was, with its own id, so that a replay can be repeated."""
    event_id, application_id, received_at = entry.event_id, entry.application_id, entry.received_at
    if event_id is None or application_id is None or received_at is None:  # the table's constraint says otherwise
        raise AssertionError(entry.id)
    return QueuedEvent(
        event_id=event_id,
        application_id=application_id,
        application=entry.application or "",
        received_at=(received_at - _EPOCH) // timedelta(microseconds=1),
        body=entry.original,
        trace_id=entry.trace_id,
    )
