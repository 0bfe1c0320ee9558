"""CloudEvents as their own library makes them, sent to the running edge in every mode."""

import json
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

import httpx
import msgspec
import pytest
from cloudevents.core.bindings.http import HTTPMessage, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from tests.integration.test_edge import Edge, renewed, shared
from tests.servers import Valkey

from the_eye.event import SentEvent, parse_event
from the_eye.store.connect import Connection
from the_eye_api import cloudevents

SESSION = "e2085be5-9137-4e4e-80b5-f1ffddc25423"
DATA = {"element": "chat bubble", "text": "Käse % \U0001f9c0"}


@pytest.fixture(scope="module")
def process(valkey: Valkey, migrated_url: str) -> Iterator[Edge]:
    """One process for the tests of this module."""
    with shared(valkey, migrated_url) as ready:
        yield ready


@pytest.fixture
def edge(process: Edge, connection: Connection) -> Edge:
    """The edge with an empty queue, an empty store and a new token."""
    return renewed(process, connection)


def made(data: dict[str, Any] | None = None, **changes: Any) -> CloudEvent:
    """Make a CloudEvent; an attribute that is None is left out."""
    attributes = {
        "id": "17",
        "source": "/shop",
        "type": "com.example.page interaction.cta click",
        "time": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        "sessionid": SESSION,
        "specversion": "1.0",
        "datacontenttype": "application/json",
    } | changes
    return CloudEvent({name: value for name, value in attributes.items() if value is not None}, data or DATA)


def post(edge: Edge, message: HTTPMessage, path: str = "/events") -> httpx.Response:
    """Send a message as the library has it."""
    with edge.client() as client:
        return client.post(path, content=message.body, headers=message.headers)


def structured(event: CloudEvent) -> bytes:
    """Give the body of structured mode."""
    return to_structured_event(event).body


def read(body: bytes) -> SentEvent:
    """Read what a CloudEvent was made into."""
    sent = parse_event(body)
    assert isinstance(sent, SentEvent), sent
    return sent


def test_a_cloudevent_is_accepted_with_an_id_that_each_retry_has(edge: Edge) -> None:
    for to_message in (to_binary_event, to_structured_event):
        response = post(edge, to_message(made()))
        assert response.status_code == 202, response.text
        assert response.json() == {"event_id": str(uuid5(uuid5(NAMESPACE_URL, "/shop"), "17"))}
        assert post(edge, to_message(made(sessionid="no uuid"))).status_code == 400


def test_a_batch_of_cloudevents_is_accepted_but_for_the_bad_ones(edge: Edge) -> None:
    untimed = structured(made()).replace(b'"time"', b'"thyme"')
    events = [structured(made()), structured(made(sessionid="no uuid")), untimed, structured(made(id="18"))]
    body = b"[" + b",".join([*events, b'{"specversion": "0.3"}', b"3"]) + b"]"
    message = HTTPMessage({"Content-Type": "application/cloudevents-batch+json; charset=utf-8"}, body)
    response = post(edge, message, "/events/batch")
    assert response.status_code == 202, response.text
    assert response.json()["accepted"] == 2
    faults = {one["index"]: (one["errors"][0]["path"], one["errors"][0]["code"]) for one in response.json()["refused"]}
    assert faults[1] == ("$.session_id", "invalid_uuid")
    assert faults[2] == ("$.timestamp", "missing_field")
    assert faults.keys() == {1, 2, 4, 5}


def test_an_event_has_the_trace_in_which_it_was_made(edge: Edge) -> None:
    """That of the request is a broker's, and counts where the CloudEvent names none, or what is no trace."""
    trace_id, broker = uuid4(), uuid4()
    header = {"traceparent": f"00-{broker.hex}-b7ad6b7169203331-01"}
    traceparents = [f"00-{trace_id.hex}-b7ad6b7169203331-01", None, "none"]

    events = [made(traceparent=traceparent) for traceparent in traceparents]
    batch = (
        b"[" + b",".join([*map(structured, events), structured(made()).replace(b"{", b'{"traceparent":3,', 1)]) + b"]"
    )
    for to_message in (to_binary_event, to_structured_event):
        for message in map(to_message, events):
            assert post(edge, HTTPMessage({**message.headers, **header}, message.body)).status_code == 202
    message = HTTPMessage({"Content-Type": "application/cloudevents-batch+json", **header}, batch)
    assert post(edge, message, "/events/batch").json()["accepted"] == 4

    one = [trace_id, broker, broker]
    assert [event.trace_id for event in edge.queued()] == [*one, *one, *one, broker]


def test_a_traceparent_that_is_no_text_makes_no_objects() -> None:
    """A body of commas would otherwise take many times its size, and hold the event loop."""
    body = structured(made()).replace(b"{", b'{"traceparent":[' + b"[]," * 100_000 + b"[]],", 1)

    tracemalloc.start()
    try:
        translated = cloudevents.from_structured(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert translated.trace_id is None
    assert read(translated.body).event_id
    assert peak < 2 * len(body)


def test_data_that_look_like_an_event_are_data_in_binary_mode(edge: Edge) -> None:
    """What is nearest to the native form must not be taken for it."""
    native = {"session_id": SESSION, "category": "a", "name": "b", "data": {}, "timestamp": "2026-01-01T00:00:00Z"}
    event_id = str(uuid4())
    response = post(edge, to_binary_event(made(native | {"event_id": str(uuid4())}, id=event_id)))
    assert (response.status_code, response.json()) == (202, {"event_id": event_id})


def test_a_body_that_is_no_json_is_refused_in_every_mode(edge: Edge) -> None:
    binary = to_binary_event(made())
    bodies = [b"", b"{", b'{}, "event_id": "x"', b"\xff", b"[" * 100_000]
    for body in bodies:
        assert post(edge, HTTPMessage(binary.headers, body)).status_code == 400
        structured_type = {"Content-Type": "application/cloudevents+json"}
        assert post(edge, HTTPMessage(structured_type, body)).status_code == 400


def test_attributes_become_fields() -> None:
    event_id = uuid4()
    for body in (
        cloudevents.from_structured(structured(made(id=str(event_id)))).body,
        from_binary(made(id=str(event_id))),
    ):
        sent = read(body)
        assert (sent.event_id, str(sent.session_id)) == (event_id, SESSION)
        assert (sent.category, sent.name) == ("com.example.page interaction", "cta click")
        assert sent.timestamp == datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
        assert msgspec.json.decode(sent.data) == DATA


def from_binary(event: CloudEvent) -> bytes:
    """Make an event of binary mode."""
    message = to_binary_event(event)
    headers = {name.lower().encode(): value.encode() for name, value in message.headers.items()}
    return cloudevents.from_binary(headers, message.body).body


def test_what_an_event_needs_a_cloudevent_needs() -> None:
    """Without its time, a retry would be another event."""
    untimed = structured(made()).replace(b'"time"', b'"thyme"')
    without_session = structured(made(sessionid=None))
    for body, path in ((untimed, "$.timestamp"), (without_session, "$.session_id")):
        faults = parse_event(cloudevents.from_structured(body).body)
        assert isinstance(faults, tuple)
        assert [(fault.path, fault.code) for fault in faults] == [(path, "missing_field")]


def test_the_subject_is_the_session_where_no_extension_names_one() -> None:
    other = str(uuid4())
    assert str(read(from_binary(made(sessionid=None, subject=other))).session_id) == other
    assert str(read(from_binary(made(subject=other))).session_id) == SESSION


@pytest.mark.parametrize(
    ("type_", "category", "name"), [("click", "click", "click"), ("a.b.c", "a.b", "c"), ("Käse.süß", "Käse", "süß")]
)
def test_a_type_is_divided_at_its_last_dot(type_: str, category: str, name: str) -> None:
    """Also one that headers hold only percent-encoded."""
    sent = read(from_binary(made(type=type_)))
    assert (sent.category, sent.name) == (category, name)


def test_ids_of_different_sources_differ() -> None:
    pairs = [("a", "b/c"), ("a/b", "c"), ("a", "c"), ("c", "a")]
    ids = {read(from_binary(made(source=source, id=id_))).event_id for source, id_ in pairs}
    assert len(ids) == len(pairs)


def test_data_keep_their_bytes() -> None:
    """A number that no double holds is stored as it was sent."""
    body = json.loads(structured(made()))
    raw = json.dumps(body).encode().replace(json.dumps(DATA).encode(), b'{"n": 0.10000000000000000001}')
    assert bytes(read(cloudevents.from_structured(raw).body).data) == b'{"n": 0.10000000000000000001}'
