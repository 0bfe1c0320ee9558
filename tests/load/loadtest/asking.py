"""Questions to the API beside the load: whether it lets a token in, and which events of a run it has stored."""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from tests.load.loadtest.tally import Stored
from tests.load.loadtest.traffic import AHEAD, LONGEST_THINK_SECONDS, MOST_GATHERED, marked

PAGE = 200
"""Events in an answer; the API gives no more."""

ANSWER_SECONDS = 30.0
PAUSE_SECONDS = 1.0

READ_SECONDS = 120.0
"""How long reading what is stored may go on when the time to wait for it is over."""

KNOWN_SECONDS = 10.0
"""How long a token that was made just now may be unknown: the API reads them every few seconds."""

SLACK = timedelta(minutes=1)
"""By how much the clocks of this machine and of those that made the events may differ."""

EARLIER = timedelta(seconds=MOST_GATHERED * LONGEST_THINK_SECONDS)
"""An app sends late what happened before."""

# What is asked for is on the way of the load itself, which takes no proxy either.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class RefusedError(Exception):
    """Raised when there is no use in sending; its text is one line that says what to do."""


class _SilentError(Exception):
    """Raised when there is no answer."""


@dataclass(frozen=True, slots=True)
class Api:
    """The API as one application sees it."""

    url: str
    token: str

    def see_that_it_takes_events(self) -> None:
        """Send an event that is none, which is refused for that reason alone. Raises RefusedError."""
        deadline = time.monotonic() + KNOWN_SECONDS
        while (status := self._try()) == HTTPStatus.UNAUTHORIZED and time.monotonic() < deadline:
            time.sleep(PAUSE_SECONDS)
        match status:
            case HTTPStatus.BAD_REQUEST | HTTPStatus.TOO_MANY_REQUESTS:
                return
            case HTTPStatus.UNAUTHORIZED:
                message = (
                    f"{self.url} does not know the token; make one: the-eye token create --scope ingest --scope read"
                )
            case HTTPStatus.FORBIDDEN:
                message = f"{self.url} lets the token not send; make one with --scope ingest --scope read"
            case HTTPStatus.SERVICE_UNAVAILABLE:
                message = f"{self.url} takes no events now: 503; GET /readyz says why"
            case _:
                message = f"{self.url} answers {status} to POST /events: is it The Eye?"
        raise RefusedError(message)

    def _try(self) -> int:
        try:
            return self._ask("/events", b"{}")[0]
        except _SilentError as error:
            message = f"{self.url} does not answer: {error}"
            raise RefusedError(message) from error

    def stored(self, marks: Container[int], since: datetime, until: datetime, deadline: float) -> Stored:
        """Count the events with these marks that were sent in a time.

        Raises TimeoutError when there is more than can be read until ``deadline``, of the monotonic clock.
        """
        valid = invalid = 0
        try:
            for event in self._events(since - EARLIER - SLACK, until + AHEAD + SLACK, deadline):
                if marked(UUID(event["event_id"]), marks):
                    valid += event["valid"]
                    invalid += not event["valid"]
        except _SilentError as error:
            return Stored(unread=str(error))
        return Stored(valid, invalid)

    def _events(self, since: datetime, until: datetime, deadline: float) -> Iterator[dict[str, Any]]:
        parameters = {"from": since.isoformat(), "to": until.isoformat(), "limit": PAGE}
        cursor = ""
        while cursor is not None:
            if time.monotonic() > deadline:
                raise TimeoutError
            status, answer = self._ask(f"/events?{urlencode(parameters | ({'cursor': cursor} if cursor else {}))}")
            if status != HTTPStatus.OK:
                message = f"{status} to GET /events" + (
                    ": it lacks the scope read" if status == HTTPStatus.FORBIDDEN else ""
                )
                raise _SilentError(message)
            page = json.loads(answer)
            yield from page["events"]
            cursor = page["next_cursor"]

    def _ask(self, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, body, headers)  # noqa: S310 - the scheme was looked at
        try:
            with _open(request, timeout=ANSWER_SECONDS) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except (OSError, http.client.HTTPException) as error:
            raise _SilentError(getattr(error, "reason", error)) from error


def wait_until_stored(
    apis: Mapping[int, Api], owed: Mapping[int, int], marks: Container[int], since: datetime, seconds: float
) -> dict[int, Stored]:
    """Count what is stored of each application, and again while less is stored than was accepted, for some seconds.

    Reading may take READ_SECONDS more; what is not counted by then is not known.
    """
    until = datetime.now(UTC)
    settled = time.monotonic() + seconds
    deadline = settled + READ_SECONDS
    found: dict[int, Stored] = {}
    for number, api in apis.items():
        try:
            while True:
                found[number] = api.stored(marks, since, until, deadline)
                if found[number].events >= owed[number] or time.monotonic() > settled:
                    break
                time.sleep(PAUSE_SECONDS)
        except TimeoutError:
            found[number] = Stored(unread=f"more than could be read in {seconds + READ_SECONDS:g} s")
    return found
