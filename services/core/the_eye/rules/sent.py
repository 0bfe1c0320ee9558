"""Events that were not accepted, to be judged as if they had been."""

from datetime import UTC, datetime

from uuid_utils.compat import uuid7

from the_eye.event import Event, SentEvent


def as_received(sent: SentEvent, application: str) -> Event:
    """Make the event that ``application`` would have sent just now."""
    return Event(
        event_id=sent.event_id or uuid7(),
        application_id=0,
        application=application,
        session_id=sent.session_id,
        category=sent.category,
        name=sent.name,
        data=bytes(sent.data),
        timestamp=sent.timestamp,
        received_at=datetime.now(UTC),
    )
