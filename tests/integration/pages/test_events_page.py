"""The page of events shows what its URL says, and whatever senders write is text."""

import asyncio
import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

import pytest
from tests.integration.pages.conftest import Browser
from tests.integration.store.rows import NOON, SESSION, event, insert, violating
from tests.integration.test_edge import Edge

from the_eye.settings import StoreSettings
from the_eye.store.applications import create_application, create_token
from the_eye.store.connect import Connection, make_async_pool
from the_eye.store.event_kinds import KindsSeen
from the_eye.store.event_query import EventFilter, Position
from the_eye.tokens import Scope
from the_eye_api.pages import export

OTHER = UUID("11111111-2222-4333-8444-555555555555")
EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


def store(connection: Connection, *events: dict[str, Any]) -> list[str]:
    """Store events with the kinds that they have."""
    KindsSeen().tell(connection, {(one["category"], one["name"]) for one in events})
    return [str(event_id) for event_id in insert(connection, *events)]


def shown(browser: Browser, query: str) -> list[str]:
    """List the ids of the events that the page links to, in its order."""
    answer = browser.get(f"/ui/events?{query}")
    assert answer.status_code == 200, answer.text
    return re.findall(r'href="/ui/events/([0-9a-f-]{36})"', answer.text)


@pytest.fixture
def three(people: Connection) -> list[str]:
    """Three events that differ in all that can be asked for."""
    create_application(people, "shop")
    create_application(people, "blog")
    return store(
        people,
        event(),
        event(timestamp=NOON + timedelta(hours=1), application_id=2, name="pageview", **violating("shop/a")),
        event(
            timestamp=NOON + timedelta(hours=2), category="form", session_id=OTHER, **violating("b/c", action="Audit")
        ),
    )


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("last=all", [2, 1, 0]),
        ("last=all&order=oldest", [0, 1, 2]),
        ("last=24h", []),
        ("", []),
        ("last=all&application=blog", [1]),
        ("last=all&category=form", [2]),
        ("last=all&name=pageview", [1]),
        ("last=all&valid=false", [1]),
        ("last=all&valid=true", [2, 0]),
        ("last=all&rule=b/c", [2]),
        (f"last=all&session_id={SESSION}", [1, 0]),
        ("from=2026-03-10T13:00:00Z", [2, 1]),
        ("to=2026-03-10+13:00:00", [0]),
        ("from=2026-03-10T12:30&to=2026-03-10T13:30&last=15m", [1]),
        ("last=all&text=CLICK", [2, 0]),
        ("last=all&text=form", [2]),
        (f"last=all&text={str(OTHER)[:13]}", [2]),
        ("last=all&text=nothing", []),
        ("last=all&text=&valid=&application=&category=+", [2, 1, 0]),
        ("last=all&application=blog&valid=true", []),
    ],
)
def test_a_url_says_which_events_are_shown(viewer: Browser, three: list[str], query: str, found: list[int]) -> None:
    """What a form sends empty is not asked for."""
    assert shown(viewer, query) == [three[number] for number in found]


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("session_id=x", "a UUID"),
        ("from=yesterday", "RFC 3339"),
        ("last=2h", "one of"),
        ("application=none", "no application has this name"),
        ("from=2026-03-11&to=2026-03-10", "not after"),
        ("last=all&cursor=x", "cursor"),
        ("unknown=1", "known parameters"),
        ("category=%00", "NUL"),
        ("category=" + "x" * 256, "255 characters"),
    ],
)
def test_a_faulty_filter_is_told_beside_its_field(viewer: Browser, query: str, said: str) -> None:
    answer = viewer.get(f"/ui/events?{query}")

    assert answer.status_code == 400
    assert said in answer.text


def test_a_list_goes_on_where_its_page_ended(viewer: Browser, people: Connection) -> None:
    """Over a range up to now as well: the next page is of the same now."""
    now = datetime.now(UTC)
    stored = store(people, *(event(timestamp=now - timedelta(seconds=number)) for number in range(1, 121)))

    found, path = [], "/ui/events?last=1h"
    while path:
        text = viewer.get(path).text
        found += re.findall(r'href="/ui/events/([0-9a-f-]{36})"', text)
        older = re.search(r'rel="next" href="([^"]+)"', text)
        path = unescape(older[1]) if older else ""

    assert found == stored


def test_what_senders_write_is_text(viewer: Browser, people: Connection) -> None:
    """In the list, the filter, the histogram, and wherever it comes from the URL."""
    create_application(people, "shop")
    rule = 'x/"><script>alert(3)</script>'
    store(people, event(category=EVIL, name=EVIL, **violating(rule)))

    for path in ("/ui/events", "/ui/events/histogram"):
        query = urlencode({"last": "all", "category": EVIL, "name": EVIL, "text": "script"})
        text = viewer.get(f"{path}?{query}").text
        assert "<script>alert" not in text
        assert "<img src=x" not in text
    text = viewer.get("/ui/events?last=all").text
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert" not in text
    assert "<script>alert" not in viewer.get(f"/ui/events?{quote(EVIL)}={quote(EVIL)}").text


def test_the_histogram_counts_what_the_list_shows(viewer: Browser, three: list[str]) -> None:
    """And each of its bars leads to its events."""
    text = viewer.get("/ui/events/histogram?from=2026-03-10T12:00Z&to=2026-03-10T15:00Z").text

    assert re.findall(r"<strong>(\d+)</strong>", text) == ["2", "1"]
    bars = re.findall(r'<a href="([^"]+)" aria-label', text)
    assert len(bars) == 3
    assert shown(viewer, unescape(bars[1]).partition("?")[2]) == [three[1]]
    assert "Nothing to count" in viewer.get("/ui/events/histogram?to=2020-01-01T00:00Z").text


def test_the_list_is_exported_whole_as_it_was_stored(viewer: Browser, people: Connection) -> None:
    """As NDJSON with each payload's own numbers, and as CSV that no spreadsheet runs."""
    create_application(people, "shop")
    data = '{"n": 1.10, "a":\n"x,\\n"}'
    stored = store(people, event(data=data, name="=cmd()"), *(event(timestamp=NOON - timedelta(1)) for _ in range(250)))

    answer = viewer.get("/ui/events/export/ndjson?last=all")
    lines = answer.text.splitlines()
    assert answer.headers["content-disposition"].endswith('.ndjson"')
    assert {json.loads(line)["event_id"] for line in lines} == set(stored)
    assert len(lines) == len(stored)
    assert '"data":{"n":1.10,"a":"x,\\n"}' in lines[0]

    first, *rows = csv.DictReader(io.StringIO(viewer.get("/ui/events/export/csv?last=all").text))
    assert len(rows) == 250
    assert first["name"] == "'=cmd()"
    assert first["application"] == "shop"
    assert first["data"] == data
    assert first["valid"] == "true"
    assert viewer.get("/ui/events/export/xml").status_code == 404
    assert viewer.get("/ui/events/export/csv?last=x").status_code == 400


@pytest.mark.parametrize("form", ["ndjson", "csv"])
async def test_a_file_that_was_cut_says_where_the_rest_is(
    store_settings: StoreSettings, connection: Connection, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """In its last line, which is no event; together the files have each event once."""
    monkeypatch.setattr(export, "MAX_EXPORT_EVENTS", 400)
    stored = store(connection, *(event() for _ in range(500)))

    first = await exported(store_settings, form, None)
    cut = re.search(r"/next\?cursor=([\w=-]+)", first[-1])
    assert cut is not None
    rest = await exported(store_settings, form, Position.parse(cut[1], EventFilter()))

    if form == "csv":
        assert first[-1] == f"# cut after 400 events; the next: {cut[0]}"
    else:
        assert json.loads(first[-1]) == {"cut": {"events": 400, "next": cut[0]}}
    assert sorted(re.findall("|".join(stored), "".join([*first, *rest]))) == sorted(stored)
    assert "cut" not in rest[-1]


async def exported(store_settings: StoreSettings, form: str, position: Position | None) -> list[str]:
    """Give the lines of a file that begins at a position."""
    wanted = export.Wanted(EventFilter(), position, form, lambda cursor: f"/next?cursor={cursor}")
    async with make_async_pool(store_settings, "test", 1) as pool:
        chunks = [chunk async for chunk in export.export(pool, wanted, asyncio.Semaphore())]
    return b"".join(chunks).decode().splitlines()


def test_an_export_goes_on_from_a_cursor(viewer: Browser, people: Connection) -> None:
    """With the address that a file ends with, which is as that of the next page of the list."""
    store(people, *(event() for _ in range(60)))
    page = viewer.get("/ui/events?last=all").text
    older = re.search(r'rel="next" href="/ui/events\?([^"]+)"', page)
    assert older is not None

    rest = viewer.get(f"/ui/events/export/ndjson?{unescape(older[1])}").text.splitlines()

    assert len(rest) == 10
    assert "at most 100,000 of them or 256 MiB" in page


def test_the_curl_line_reads_the_same_events(
    viewer: Browser, three: list[str], served: Edge, people: Connection
) -> None:
    token = create_token(people, "shop", [Scope.ADMIN]).text
    text = viewer.get("/ui/events?last=all&text=click&order=oldest").text

    curl = re.search(r'id="curl">([^<]+)<', text)
    assert curl is not None
    address = re.search(r"'(http[^']+)'", unescape(curl[1]))
    assert address is not None
    assert address[1].startswith(served.url)
    assert "$TOKEN" in curl[1]
    answer = served.get(address[1].removeprefix(served.url), token)
    for _ in range(100):  # the token is known within a moment
        if answer.status_code == 200:
            break
        answer = served.get(address[1].removeprefix(served.url), token)
    assert [one["event_id"] for one in answer.json()["events"]] == [three[0], three[2]]


@pytest.mark.parametrize(
    ("query", "said"),
    [("", "last=all"), ("last=all", "the-eye token create"), ("last=all&valid=false", "Leave out the filter")],
)
def test_an_empty_list_says_what_to_do(viewer: Browser, query: str, said: str) -> None:
    assert said in viewer.get(f"/ui/events?{query}").text
