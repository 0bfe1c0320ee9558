"""The traffic: sessions of people who look around, and the requests in which their events are sent.

Nothing here needs Locust or The Eye, so that it runs wherever Locust does, and is tested where Locust is not. What is
called invalid breaks the sample rules in ``k8s/rules`` or lies in the future; other rules may judge otherwise.
"""

import gzip
import json
import math
import random
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

INVALID = 0.02
REFUSED = 0.005
"""Shares of the events."""

MARK_BITS = 32

EVENTS_PER_SESSION = 12
"""On average."""

THINK_SECONDS = 2.0
"""Median of the time between two things that someone does."""

LONGEST_THINK_SECONDS = 30.0

MOST_GATHERED = 20
"""Events of a session that an app sends at once."""

AHEAD = timedelta(hours=2)
"""How far a clock that is wrong runs ahead."""

NIGHT = 0.1
"""Users at midnight, as a share of those at noon."""

HOST = "www.consumeraffairs.com"

_JsonObject = dict[str, Any]


class Fate(StrEnum):
    """What should become of an event."""

    VALID = "valid"
    INVALID = "invalid"
    """Accepted and stored with its violations."""
    REFUSED = "refused"
    """Malformed: answered with 400, or named in the answer to its batch."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event as it is sent."""

    body: bytes
    fate: Fate


@dataclass(frozen=True, slots=True)
class Request:
    """A request that sends events."""

    path: str
    name: str
    """What it is called in the statistics."""
    headers: dict[str, str]
    body: bytes
    fates: tuple[Fate, ...]


def single(event: Event) -> Request:
    """Send one event, as a page does."""
    return Request("/events", "/events", {"Content-Type": "application/json"}, event.body, (event.fate,))


def array(events: Sequence[Event]) -> Request:
    """Send a JSON array, compressed, as an app or the-eye-client does."""
    body = b"[" + b",".join(event.body for event in events) + b"]"
    return _batch("array", "application/json", body, events)


def lines(events: Sequence[Event]) -> Request:
    """Send NDJSON, compressed, as a collector of logs does."""
    return _batch("lines", "application/x-ndjson", b"\n".join(event.body for event in events), events)


def _batch(form: str, media_type: str, body: bytes, events: Iterable[Event]) -> Request:
    headers = {"Content-Type": media_type, "Content-Encoding": "gzip"}
    fates = tuple(event.fate for event in events)
    return Request("/events/batch", f"/events/batch ({form})", headers, gzip.compress(body, 6, mtime=0), fates)


def think_seconds(chance: random.Random) -> float:
    """Draw how long someone looks at what is there: mostly seconds, now and then half a minute."""
    return min(chance.lognormvariate(math.log(THINK_SECONDS), 0.8), LONGEST_THINK_SECONDS)


def pick(chance: random.Random, count: int) -> int:
    """Draw one of ``count`` applications: the second sends half as much as the first, the third a third, and so on."""
    return chance.choices(range(count), [1 / rank for rank in range(1, count + 1)])[0]


def users_at(passed: float, peak: int) -> int:
    """Give the users when a share of the day has passed, midnight being 0: few at night, ``peak`` at noon."""
    risen = (1 - math.cos(2 * math.pi * passed)) / 2
    return max(1, round(peak * (NIGHT + (1 - NIGHT) * risen)))


def marked(event_id: UUID, marks: Container[int]) -> bool:
    """Whether an event was made with one of these marks."""
    return event_id.int & (1 << MARK_BITS) - 1 in marks


@dataclass(slots=True)
class Session:
    """What one person does, from the first page to the last."""

    chance: random.Random
    mark: int
    """A number in the ids of all events of a run, by which they are found again."""
    id: UUID = field(init=False)
    left: int = field(init=False)
    """Events until the person leaves."""
    _path: str = field(init=False, default="/")

    def __post_init__(self) -> None:
        """Begin."""
        self.id = _uuid(self.chance, self.chance.getrandbits(MARK_BITS))
        self.left = 1 + int(self.chance.expovariate(1 / (EVENTS_PER_SESSION - 1)))

    def event(self, at: datetime) -> Event:
        """Do the next thing."""
        self.left -= 1
        kind = self.chance.choices(KINDS, _SHARES)[0]
        if kind.moves:
            self._path = f"/{self.chance.choice(_SECTIONS)}/{self.chance.randrange(5_000)}"
        made = {
            "event_id": str(_uuid(self.chance, self.mark)),
            "session_id": str(self.id),
            "category": kind.category,
            "name": kind.name,
            "data": {"host": HOST, "path": self._path, **kind.make(self.chance)},
            "timestamp": _text(at),
        }
        fate = self.chance.choices(_FATES, _FATE_SHARES)[0]
        if fate is Fate.INVALID:
            self.chance.choice(BREACHES)(made, at)
        elif fate is Fate.REFUSED:
            self.chance.choice(FAULTS)(made)
        return Event(json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode(), fate)

    def gathered(self, now: datetime) -> list[Event]:
        """Do several things, the last of them now, as an app that sends late has kept them."""
        count = min(self.chance.randint(3, MOST_GATHERED), max(self.left, 1))
        pauses = [think_seconds(self.chance) for _ in range(count)]
        times = [now - timedelta(seconds=sum(pauses[i + 1 :])) for i in range(len(pauses))]
        return [self.event(at) for at in times]


def _uuid(chance: random.Random, mark: int) -> UUID:
    return UUID(int=chance.getrandbits(128 - MARK_BITS) << MARK_BITS | mark, version=4)


def _text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


_FATES = (Fate.VALID, Fate.INVALID, Fate.REFUSED)
_FATE_SHARES = (1 - INVALID - REFUSED, INVALID, REFUSED)
_SECTIONS = ("reviews", "compare", "news", "solar", "moving", "insurance")
_WORDS = ("how", "much", "does", "a", "new", "roof", "cost", "and", "who", "puts", "it", "up", "before", "winter")


def _words(chance: random.Random, count: int) -> str:
    return " ".join(chance.choices(_WORDS, k=count))


def _page_view(chance: random.Random) -> _JsonObject:
    return {
        "title": _words(chance, 6),
        "referrer": chance.choice(("", "https://www.example.com/", f"https://{HOST}/")),
        "width": chance.choice((390, 412, 820, 1280, 1920, 2560)),
        "loaded_ms": round(chance.lognormvariate(6.5, 0.5), 1),
    }


def _click(chance: random.Random) -> _JsonObject:
    return {"element": chance.choice(("chat bubble", "buy button")), "x": chance.randrange(1280), "y": 640}


def _scroll(chance: random.Random) -> _JsonObject:
    return {"depth": round(chance.random(), 3)}


def _search(chance: random.Random) -> _JsonObject:
    return {"query": _words(chance, chance.randint(1, 6)), "results": chance.randrange(200)}


def _result(chance: random.Random) -> _JsonObject:
    return {"position": chance.randint(1, 20), "sponsored": chance.random() < 0.1}


def _submit(chance: random.Random) -> _JsonObject:
    """Fill in a form, one in ten with a long message."""
    message = _words(chance, 800 if chance.random() < 0.1 else 12)
    return {"form": {"first_name": chance.choice(("Ada", "Grace", "Zoë")), "zip": "10115", "message": message}}


def _purchase(chance: random.Random) -> _JsonObject:
    count = chance.randint(1, 5)
    items = [{"sku": f"SKU-{chance.randrange(10_000)}", "price": chance.randrange(9_900) / 100} for _ in range(count)]
    return {"currency": "USD", "items": items}


def _error(chance: random.Random) -> _JsonObject:
    """Tell of a failed script with where it was."""
    frames = [f"at {_words(chance, 1)} (https://{HOST}/app.js:{chance.randrange(9_000)}:7)" for _ in range(12)]
    return {"message": "undefined is not a function", "stack": "\n".join(frames)}


@dataclass(frozen=True, slots=True)
class Kind:
    """Something that people do."""

    category: str
    name: str
    share: float
    make: Callable[[random.Random], _JsonObject]
    moves: bool = False
    """Whether it leads to another page."""


KINDS = (
    Kind("page interaction", "pageview", 46, _page_view, moves=True),
    Kind("page interaction", "scroll", 16, _scroll),
    Kind("page interaction", "cta click", 15, _click),
    Kind("search", "query", 9, _search),
    Kind("search", "result click", 6, _result, moves=True),
    Kind("form interaction", "submit", 4, _submit),
    Kind("form interaction", "abandon", 2, lambda _: {}),
    Kind("checkout", "purchase", 1.5, _purchase),
    Kind("diagnostics", "script error", 0.5, _error),
)
_SHARES = [kind.share for kind in KINDS]


def _be(made: _JsonObject, category: str, name: str, **data: object) -> None:
    made.update(category=category, name=name, data=made["data"] | data)


def _foreign_host(made: _JsonObject, _: datetime) -> None:
    _be(made, "page interaction", "pageview", host="www.example.com")


def _unknown_element(made: _JsonObject, _: datetime) -> None:
    _be(made, "page interaction", "cta click", element="banner")


def _endless_name(made: _JsonObject, _: datetime) -> None:
    _be(made, "form interaction", "submit", form={"first_name": "A" * 256})


def _clock_ahead(made: _JsonObject, at: datetime) -> None:
    made["timestamp"] = _text(at + AHEAD)


BREACHES: tuple[Callable[[_JsonObject, datetime], None], ...] = (
    _foreign_host,
    _unknown_element,
    _endless_name,
    _clock_ahead,
)


def _session_without_id(made: _JsonObject) -> None:
    made["session_id"] = "anonymous"


def _misspelt_field(made: _JsonObject) -> None:
    made["sessionId"] = made.pop("session_id")


def _no_name(made: _JsonObject) -> None:
    made["name"] = ""


def _time_in_words(made: _JsonObject) -> None:
    made["timestamp"] = "just now"


def _list_of_data(made: _JsonObject) -> None:
    made["data"] = [made["data"]]


def _nul(made: _JsonObject) -> None:
    made["data"]["title"] = "\0"


FAULTS: tuple[Callable[[_JsonObject], None], ...] = (
    _session_without_id,
    _misspelt_field,
    _no_name,
    _time_in_words,
    _list_of_data,
    _nul,
)
