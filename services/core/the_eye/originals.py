"""What could not be stored, as people can read it."""

from collections.abc import Iterator

import msgspec

from the_eye.queue.messages import bodies_of
from the_eye.store.dead_events import DeadEntry


def original_parts(entry: DeadEntry) -> Iterator[str]:
    """Give an event as it was sent, and the events of a message one by one; what is no text, in hexadecimal."""
    yield from map(_text, _bodies(entry))


def _bodies(entry: DeadEntry) -> list[bytes]:
    if entry.kind == "message":
        try:
            return bodies_of(entry.original)
        except msgspec.MsgspecError:  # a message of another program, whatever that may be
            pass
    return [entry.original]


def _text(original: bytes) -> str:
    try:
        return original.decode()
    except UnicodeDecodeError:
        return original.hex()
