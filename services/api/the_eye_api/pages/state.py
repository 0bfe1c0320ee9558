"""The state of a list of events, all of which is in its URL: the parameters of the API, and a range up to now."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec
from litestar.openapi.spec import Schema

from the_eye.event import Fault
from the_eye.store.connect import AsyncConnection
from the_eye.store.event_query import EventFilter, find_application
from the_eye_api.queries import make_filter
from the_eye_api.queries_parameters import LIST_PARAMETERS, QueryParameter, one_of, parse_parameters, read_time

RANGES: Mapping[str, timedelta | None] = {
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "24h": timedelta(days=1),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
    "all": None,
}
RANGE_NAMES = {
    "15m": "last 15 minutes",
    "1h": "last hour",
    "24h": "last 24 hours",
    "7d": "last 7 days",
    "30d": "last 30 days",
    "all": "all time",
}
DEFAULT_RANGE = "24h"

LONGEST_HISTOGRAM = timedelta(days=90)

_LAST = QueryParameter("last", "Events up to now of this long.", one_of({key: key for key in RANGES}), Schema())
_AT = QueryParameter("at", "The now of the range, for the pages of one list.", read_time, Schema())
_PARAMETERS = (*(parameter for parameter in LIST_PARAMETERS if parameter.name != "limit"), _LAST, _AT)


class ListState(msgspec.Struct, frozen=True):
    """What a URL says of a list."""

    given: Mapping[str, str]
    """The parameters as they were spelt, without empty ones."""
    values: Mapping[str, Any]
    faults: tuple[Fault, ...]
    now: datetime

    @property
    def range(self) -> str:
        """The name of the range up to now; empty when the range is exact."""
        if "from" in self.given or "to" in self.given:
            return ""
        return str(self.values.get("last") or DEFAULT_RANGE)

    @property
    def since(self) -> datetime | None:
        """Where the range begins; None is the beginning of all events."""
        length = RANGES.get(self.range)
        return self.values.get("from") if length is None else self.now - length

    @property
    def until(self) -> datetime | None:
        """Where an exact range ends; what is said to have happened later than now is shown as well."""
        return self.values.get("to")

    @property
    def narrowed(self) -> bool:
        """Whether anything but the range is asked for."""
        return not self.given.keys() <= {"last", "at", "order", "cursor"}

    @property
    def narrow_fields(self) -> bool:
        """Whether any of the filters is given that a form shows only when asked to."""
        return not self.given.keys().isdisjoint({"category", "name", "rule", "session_id", "from", "to"})

    def query(self, **changes: str | None) -> str:
        """Write the URL's query with other parameters; None leaves one out."""
        kept = {**self.given, **changes}
        return urlencode({name: value for name, value in kept.items() if value})

    def older(self, cursor: str) -> str:
        """Write the query of the next page: a cursor fits the range that it was made for."""
        return self.query(cursor=cursor, at=f"{self.now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")

    def api_query(self) -> str:
        """Write the query that gives the same events over the API."""
        since = self.since
        times = {} if since is None else {"from": f"{since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"}
        return self.query(**{"last": None, "at": None, "cursor": None, **({} if "from" in self.given else times)})

    async def filter(self, connection: AsyncConnection) -> tuple[EventFilter | None, tuple[Fault, ...]]:
        """Make the filter, or find what is wrong."""
        faults = self.faults
        if not faults and self.since and self.until and self.since > self.until:
            faults = (Fault("from", "after_to", "from is not after to"),)
        application = self.values.get("application")
        application_id = None
        if application is not None:
            application_id = await find_application(connection, application)
            if application_id is None:
                faults += (Fault("application", "unknown_application", "no application has this name"),)
        if faults:
            return None, faults
        filter_ = await make_filter(connection, application_id, self.values)
        return msgspec.structs.replace(filter_, since=self.since, until=self.until), ()


_TIMES = frozenset({"from", "to"})
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_MINUTE = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\dZ?")


def _whole_time(text: str) -> str:
    """Add to a day or a minute what people leave out."""
    if _DAY.fullmatch(text):
        return f"{text} 00:00:00"
    return f"{text.removesuffix('Z')}:00" if _MINUTE.fullmatch(text) else text


def read_state(query: bytes, now: datetime) -> ListState:
    """Read a URL's query; a form sends what was left empty, too."""
    pairs = [
        (name, _whole_time(value.strip()) if name in _TIMES else value.strip())
        for name, value in parse_qsl(query.decode(errors="replace"))
    ]
    filled = urlencode([(name, value) for name, value in pairs if value])
    values, faults = parse_parameters(filled.encode(), _PARAMETERS)
    return ListState(dict(parse_qsl(filled)), values, faults, values.get("at") or now.replace(microsecond=0))
