"""Events for tests."""

from uuid import UUID

from the_eye_client import Eye

SESSION = UUID("e2085be5-9137-4e4e-80b5-f1ffddc25423")


def track(eye: Eye, number: int = 0, session_id: UUID | str = SESSION) -> str:
    """Track an event that is taken; gives its id."""
    event_id = eye.track(session_id, "page interaction", "pageview", {"n": number})
    assert event_id is not None, eye.counters
    return str(event_id)


def track_many(eye: Eye, count: int) -> set[str]:
    """Track events that are taken; gives their ids."""
    return {track(eye, number) for number in range(count)}
