"""What an answer says of the events of its request."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from tests.load.loadtest.traffic import Fate, Request

LATER = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}

DEFAULT_RETRY_SECONDS = 1.0
"""Where an answer that asks to wait does not say how long."""

_PLACE = re.compile(r"\$\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Settled:
    """Each event was accepted or refused."""

    accepted: Counter[Fate]
    """Accepted events by what they were made to be."""
    refused: Counter[str]
    """Refused events by the code of their first fault."""
    surprises: tuple[str, ...]
    """How the answer differs from what the events were made for."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The server asks to send it again after some seconds: 429 or 503."""

    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Broken:
    """No answer, or an error of the server's: whether the events were accepted is open."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """Nothing was accepted, for a reason that lies in no event."""

    reason: str


Outcome = Settled | Asked | Broken | Rejected


def read(request: Request, status: int, headers: Mapping[str, str] | None, body: bytes | None) -> Outcome:
    """Read an answer; status 0 is none."""
    answer = _json(body)
    code = str(answer.get("code") or "no problem details")
    if status == HTTPStatus.ACCEPTED:
        return _settled(request, dict(_refused_of_batch(answer)))
    if status == HTTPStatus.BAD_REQUEST and code == "malformed":
        return _settled(request, _all_refused(request, answer))
    if status in LATER:
        return Asked(f"{status} {code}", _seconds(headers or {}))
    if status == 0 or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Broken(f"{status} {code}" if status else "no answer")
    return Rejected(f"{status} {code}")


def _settled(request: Request, refusals: Mapping[int, str]) -> Settled:
    accepted = Counter(fate for place, fate in enumerate(request.fates) if place not in refusals)
    surprises = [
        f"refused, though well-formed: {code}"
        for place, code in refusals.items()
        if request.fates[place] is not Fate.REFUSED
    ]
    if accepted[Fate.REFUSED]:
        surprises.append("accepted, though malformed")
    return Settled(accepted, Counter(refusals.values()), tuple(surprises))


def _refused_of_batch(answer: dict[str, Any]) -> Iterator[tuple[int, str]]:
    for refused in answer.get("refused", ()):
        yield refused["index"], refused["errors"][0]["code"]


def _all_refused(request: Request, answer: dict[str, Any]) -> dict[int, str]:
    """Find the first fault of each event; a fault of the whole body is one of each."""
    whole = answer["errors"][0]["code"]
    first: dict[int, str] = {}
    for fault in answer["errors"]:
        if place := _PLACE.match(fault["path"]):
            first.setdefault(int(place[1]), fault["code"])
    return {place: first.get(place, whole) for place in range(len(request.fates))}


def _json(body: bytes | None) -> dict[str, Any]:
    """Decode what The Eye says; a proxy may say anything else."""
    try:
        decoded = json.loads(body or b"{}")
    except ValueError:
        return {}
    return decoded if isinstance(decoded, dict) else {}


def _seconds(headers: Mapping[str, str]) -> float:
    try:
        return float(headers["Retry-After"])
    except (KeyError, ValueError):
        return DEFAULT_RETRY_SECONDS
