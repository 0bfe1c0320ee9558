"""Ids of messages in Redis: a UUIDv7 and the number of the message's events, as in ``01a2…-42397912.500``.

Dramatiq takes them as they are. They tell how old a message is and how many events it has without reading it. Messages
that an older version has queued, or something else, do not tell.
"""

import re
import time

import uuid_utils

_COUNTED = re.compile(r"[^.]*\.([0-9]+)")


def new_id(events: int | None) -> str:
    """Make an id for a message of so many events; None where nobody knows how many."""
    made = str(uuid_utils.uuid7())
    return made if events is None else f"{made}.{events}"


def event_count(message_id: str) -> int | None:
    """Tell how many events a message has; None when its id does not say."""
    counted = _COUNTED.fullmatch(message_id)
    return None if counted is None else int(counted[1])


def age_seconds(message_id: str) -> float:
    """Tell the age of a message by this machine's clock; 0 when its id does not say."""
    try:
        made_at = uuid_utils.UUID(message_id.partition(".")[0]).timestamp
    except ValueError:  # no UUID, or one of a kind without a time
        return 0.0
    return max(0.0, time.time() - made_at / 1000)
