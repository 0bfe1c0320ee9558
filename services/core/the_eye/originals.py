"""What could not be stored, as people can read it."""

import msgspec

from the_eye.queue.messages import bodies_of
from the_eye.store.dead_events import DeadEntry


def original_text(entry: DeadEntry) -> str:
    """Give an event as it was sent, a message as its events, one after the other; what is neither, in hexadecimal."""
    try:
        bodies = bodies_of(entry.original) if entry.kind == "message" else [entry.original]
        return "\n".join(body.decode() for body in bodies)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return entry.original.hex()
