"""The traffic of the benchmark: the same events for every figure, all matched by the sample rules, 3 % invalid."""

import random
from datetime import datetime
from uuid import UUID

import msgspec

COUNT = 2_000
"""How many different events there are; their ids and times differ each time they are sent."""

EVENTS_PER_SESSION = 20
INVALID = 0.03
END = b'"}'

_HOSTS = {True: "www.consumeraffairs.com", False: "www.example.com"}
_ELEMENTS = {True: "chat bubble", False: "banner"}


def heads() -> list[bytes]:
    """Make the events as JSON up to the text of their timestamp, which stands last; ``END`` goes behind it."""
    chance = random.Random(1)  # noqa: S311 - no secret
    return [_head(chance, number // EVENTS_PER_SESSION) for number in range(COUNT)]


def _head(chance: random.Random, session: int) -> bytes:
    valid = chance.random() >= INVALID
    category, name, data = chance.choices([_page_view, _click, _submit], [60, 25, 15])[0](chance, valid)
    event = {
        "session_id": UUID(bytes=random.Random(session).randbytes(16), version=4),  # noqa: S311
        "category": category,
        "name": name,
        "data": data,
        "timestamp": "",
    }
    return msgspec.json.encode(event).removesuffix(END)


_Made = tuple[str, str, dict[str, object]]


def _page_view(chance: random.Random, valid: bool) -> _Made:  # noqa: FBT001 - one of three alike
    path = f"/{chance.choice(['', 'reviews', 'search'])}/{chance.randrange(1_000_000)}"
    data = {"host": _HOSTS[valid], "path": path, "referrer": "https://www.example.com/", "width": 1280.5}
    return "page interaction", "pageview", data


def _click(chance: random.Random, valid: bool) -> _Made:  # noqa: FBT001
    path = f"/{chance.randrange(1_000_000)}"
    return "page interaction", "cta click", {"host": _HOSTS[True], "path": path, "element": _ELEMENTS[valid]}


def _submit(chance: random.Random, valid: bool) -> _Made:  # noqa: FBT001
    form = {"first_name": "Ada" if valid else "A" * 256, "last_name": "Lovelace", "zip": chance.randrange(99_999)}
    return "form interaction", "submit", {"host": _HOSTS[True], "path": "/", "form": form}


def whole(head: bytes, at: datetime) -> bytes:
    """Complete an event with its time."""
    return head + at.strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode() + END
