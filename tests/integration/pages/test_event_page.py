"""The page of an event shows it as it was sent, with what is wrong where it is wrong; a session shows its course."""

import json
import re
from datetime import timedelta
from html import unescape
from uuid import UUID, uuid4

import pytest
from psycopg.types.json import Jsonb
from tests.integration.pages.conftest import TRACE_URL, Browser
from tests.integration.store.rows import NOON, SESSION, event, insert, violating

from the_eye.store.applications import create_application
from the_eye.store.connect import Connection

EVIL = "</code><script>alert(1)</script>"
NOWHERE = "41a5a1b4-8f5c-4c1e-9d0f-6f4d2b6b6f5e"  # of no event and no session


def violation(path: str, **changes: str) -> dict[str, object]:
    """Make a violation as it is stored."""
    made = {"rule": "shop/a", "generation": 2, "action": "Enforce", "code": "schema.enum", "message": "one of a, b"}
    return {**made, "path": path, **changes}


def lines(text: str) -> list[str]:
    """Take the payload's lines out of the page, as text."""
    found = re.findall(r'<div class="line [^"]*">(.*?)</div>', text, re.DOTALL)
    return [unescape(re.sub("<[^>]+>", "", line)).strip() for line in found]


def test_an_event_is_shown_with_its_violations_in_their_places(viewer: Browser, people: Connection) -> None:
    create_application(people, "shop")
    broken = [violation("$.data.element"), violation("$.timestamp", code="timestamp.future", message="in the future")]
    changes = {"valid": False, "violations": Jsonb(broken), "violated_rules": ["shop/a"]}
    (event_id,) = insert(people, event(data='{"n": 1.10, "element": "c"}', **changes))

    text = viewer.get(f"/ui/events/{event_id}").text

    assert lines(text)[:2] == ["{", '"n": 1.10,']
    assert lines(text)[2].startswith('"element": "c"')
    assert "one of a, b" in lines(text)[2]
    assert "in the future" in text[: text.index("Payload")]
    assert f"/ui/sessions/{SESSION}" in text
    assert f"sha256:{bytes(range(32)).hex()}" in text
    assert "1.0 s after it occurred" in text
    assert "1.0 s after it was received" in text


def test_an_events_trace_is_a_link_to_where_traces_are(viewer: Browser, people: Connection) -> None:
    traced, untraced = insert(people, event(trace_id=UUID("0af7651916cd43dd8448eb211c80319c")), event())

    text = viewer.get(f"/ui/events/{traced}").text

    link = re.search(r'<a id="trace" href="([^"]*)">(\w+)</a>', text)
    assert link is not None
    assert unescape(link[1]) == TRACE_URL.replace("{trace_id}", "0af7651916cd43dd8448eb211c80319c")
    assert link[2] == "0af7651916cd43dd8448eb211c80319c"
    assert 'data-copy="trace"' in text
    assert "Trace" not in viewer.get(f"/ui/events/{untraced}").text


def test_a_payload_is_text_and_downloaded_byte_for_byte(viewer: Browser, people: Connection) -> None:
    create_application(people, "shop")
    data = json.dumps({EVIL: [EVIL, "x" * 10_000]}, indent=3)
    broken = [violation(f'$.data["{EVIL}"]', message=EVIL, rule=f"a/{EVIL}", code=EVIL)]
    changes = {"valid": False, "violations": Jsonb(broken), "violated_rules": ["shop/a"]}
    (event_id,) = insert(people, event(data=data, category=EVIL, name=EVIL, **changes))

    answer = viewer.get(f"/ui/events/{event_id}")

    assert "<script>alert" not in answer.text
    assert "x" * 10_000 in answer.text
    download = viewer.get(f"/ui/events/{event_id}/data")
    assert download.content == data.encode()
    assert download.headers["content-disposition"] == f'attachment; filename="{event_id}.json"'
    assert download.headers["x-content-type-options"] == "nosniff"


def test_a_payload_of_a_megabyte_is_shown_in_part(viewer: Browser, people: Connection) -> None:
    create_application(people, "shop")
    (event_id,) = insert(people, event(data=json.dumps({"a": list(range(150_000))})))

    text = viewer.get(f"/ui/events/{event_id}").text

    assert len(text) < 1_000_000
    assert "The first 2,000 lines" in text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/ui/events/{NOWHERE}", 404),
        (f"/ui/events/{NOWHERE}/data", 404),
        (f"/ui/sessions/{NOWHERE}", 200),
        ("/ui/events/x", 400),
        ("/ui/sessions/x", 400),
        (f"/ui/sessions/{NOWHERE}?cursor=x", 400),
    ],
)
def test_what_is_not_there_is_said_on_a_page(viewer: Browser, path: str, status: int) -> None:
    answer = viewer.get(path)

    assert answer.status_code == status
    assert "<!doctype html>" in answer.text


def test_a_session_is_shown_in_its_order_with_its_pauses(viewer: Browser, people: Connection) -> None:
    create_application(people, "shop")
    insert(
        people,
        event(timestamp=NOON + timedelta(minutes=10), name="third", **violating("shop/a")),
        event(timestamp=NOON, name="first"),
        event(timestamp=NOON + timedelta(seconds=2), name="second"),
        event(session_id=uuid4(), name="another"),
    )

    text = viewer.get(f"/ui/sessions/{SESSION}").text

    names = re.findall(r"<strong>(\w+)</strong>", text)
    assert names == ["first", "second", "third"]
    assert "+2.0 s" in text
    assert "10.0 min without an event" in text
    assert '<li class="invalid">' in text
    assert "3 events, 1 invalid" in text


def test_a_long_session_goes_on_on_the_next_page(viewer: Browser, people: Connection) -> None:
    create_application(people, "shop")
    insert(people, *(event(timestamp=NOON + timedelta(seconds=number)) for number in range(210)))

    first = viewer.get(f"/ui/sessions/{SESSION}").text
    later = re.search(r'rel="next" href="([^"]+)"', first)

    assert later is not None
    second = viewer.get(unescape(later[1])).text
    assert first.count('<li class="valid">') + second.count('<li class="valid">') == 210
    assert 'rel="next"' not in second
