"""What is accepted as an event, and what each fault is called.

That PostgreSQL can hold whatever is accepted is shown against the real one in tests/integration.
"""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from the_eye.event import (
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_EVENT_BYTES,
    MAX_FAULTS,
    Fault,
    SentEvent,
    decode_data,
    json_path,
    parse_event,
    parse_events,
)

GOOD: dict[str, Any] = {
    "session_id": "e2085be5-9137-4e4e-80b5-f1ffddc25423",
    "category": "page interaction",
    "name": "cta click",
    "data": {"host": "www.consumeraffairs.com", "path": "/", "element": "chat bubble"},
    "timestamp": "2023-01-01 09:15:27.243860Z",
}


def body(**changes: object) -> bytes:
    """Encode a good event with changes; a field changed to ``...`` is left out."""
    return json.dumps({key: value for key, value in (GOOD | changes).items() if value is not ...}).encode()


def with_data(data: bytes) -> bytes:
    """Encode a good event whose data is these bytes."""
    return body(data=0).replace(b'"data": 0', b'"data": ' + data)


def parsed(raw: bytes) -> SentEvent | tuple[Fault, ...]:
    """Parse an event, which comes to the same alone and among others."""
    alone = parse_event(raw)
    assert parse_events([raw]) == [alone]
    assert parse_events([body(), raw, body()])[1] == alone
    return alone


def accepted(raw: bytes) -> SentEvent:
    """Parse what must be accepted."""
    event = parsed(raw)
    assert isinstance(event, SentEvent), event
    return event


def faults(raw: bytes) -> list[tuple[str, str]]:
    """Parse what must be refused, into path and code of each fault."""
    found = parsed(raw)
    assert isinstance(found, tuple)
    assert found
    return [(fault.path, fault.code) for fault in found]


def test_the_predecessors_event_is_accepted() -> None:
    """Its senders write a space for the T."""
    event = accepted(body())

    assert event.session_id == UUID("e2085be5-9137-4e4e-80b5-f1ffddc25423")
    assert event.timestamp == datetime(2023, 1, 1, 9, 15, 27, 243860, tzinfo=UTC)


def test_data_stays_as_it_was_sent() -> None:
    """Digits, spaces, order and repeated keys are the sender's."""
    data = (
        b'{ "pi":3.14159265358979323846264338327950288, "n" : 123456789012345678901234567890, "a":1, "a":2, "e":1E+2 }'
    )

    assert bytes(accepted(with_data(data)).data) == data


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2023-01-01T09:15:27Z", datetime(2023, 1, 1, 9, 15, 27, tzinfo=UTC)),
        ("2023-01-01t09:15:27z", datetime(2023, 1, 1, 9, 15, 27, tzinfo=UTC)),
        ("2023-01-01T09:15:27", datetime(2023, 1, 1, 9, 15, 27, tzinfo=UTC)),
        ("2023-01-01 09:15:27.5", datetime(2023, 1, 1, 9, 15, 27, 500_000, tzinfo=UTC)),
        ("2023-01-01T09:15:27+05:30", datetime(2023, 1, 1, 3, 45, 27, tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999Z", datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
    ],
)
def test_times_are_read_as_utc(text: str, expected: datetime) -> None:
    """A time without a zone is UTC; any other is converted."""
    timestamp = accepted(body(timestamp=text)).timestamp

    assert timestamp == expected
    assert timestamp.tzinfo is UTC


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", [("$", "malformed_json")]),
        (b"{", [("$", "malformed_json")]),
        (b"[]", [("$", "invalid_type")]),
        (b"null", [("$", "invalid_type")]),
        (b"\xff", [("$", "malformed_json")]),
        (body() + b"x", [("$", "malformed_json")]),
        (body(session_id=...), [("$.session_id", "missing_field")]),
        (body(session_id=5), [("$.session_id", "invalid_type")]),
        (body(session_id="5"), [("$.session_id", "invalid_uuid")]),
        (body(event_id="z"), [("$.event_id", "invalid_uuid")]),
        (body(event_id=None), [("$.event_id", "invalid_type")]),
        (body(category=""), [("$.category", "invalid_length")]),
        (body(category="é" * 256), [("$.category", "invalid_length")]),
        (body(name=["x"]), [("$.name", "invalid_type")]),
        (body(name="a\0b"), [("$.name", "unstorable_text")]),
        (body(category="\0"), [("$.category", "unstorable_text")]),
        (body(timestamp=1672564527), [("$.timestamp", "invalid_type")]),
        (body(timestamp="yesterday"), [("$.timestamp", "invalid_timestamp")]),
        (body(timestamp="2023-02-30T00:00:00Z"), [("$.timestamp", "invalid_timestamp")]),
        (body(timestamp="0001-01-01T00:00:00+14:00"), [("$.timestamp", "invalid_timestamp")]),
        (body(data=[]), [("$.data", "invalid_type")]),
        (body(data=None), [("$.data", "invalid_type")]),
        (body(data={"a": [{"b c": "\0"}]}), [('$.data.a[0]["b c"]', "unstorable_text")]),
        (body(data={"\0": 1}), [("$.data", "unstorable_text")]),
        (with_data(b'{"a": "\\u0000", "a": 1}'), [("$.data", "unstorable_text")]),
        (body(sesion_id=1), [("$.sesion_id", "unknown_field")]),
        (with_data(b'{"a": "\\ud800"}'), [("$", "unstorable_text")]),
        (with_data(b'{"a": "\xff"}'), [("$.data", "invalid_utf8")]),
        (with_data(b'{"a": 1e400, "b": "\xff"}'), [("$.data", "invalid_utf8")]),
        (with_data(b'{"a": "\x00"}'), [("$", "malformed_json")]),
        (with_data(b'{"\x1f": 1}'), [("$", "malformed_json")]),
        (with_data(b'{"a": "\\q"}'), [("$", "malformed_json")]),
        (body().replace(b"page", b"\xff"), [("$.category", "invalid_utf8")]),
        (with_data(b'{"a": NaN}'), [("$", "malformed_json")]),
        (with_data(b'{"a": 1e1000}'), [("$.data", "number_out_of_range")]),
        (with_data(b'{"a": -1.5E-1000}'), [("$.data", "number_out_of_range")]),
        (with_data(b'{"a": 1e99999999999999999999}'), [("$.data", "number_out_of_range")]),
        (with_data(b'{"a": ' + b"9" * (MAX_DIGITS + 1) + b"}"), [("$.data", "number_out_of_range")]),
        (with_data(b'{"a": 0.' + b"9" * (MAX_DIGITS + 1) + b"}"), [("$.data", "number_out_of_range")]),
        (with_data(b'{"a": ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}"), [("$.data", "too_deep")]),
        (with_data(b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"), [("$", "too_deep")]),
        (b'{"a":' * 100_000, [("$", "too_deep")]),
        (b'"' + b"a" * MAX_EVENT_BYTES + b'"', [("$", "too_large")]),
    ],
)
def test_a_fault_names_its_place_and_its_kind(raw: bytes, expected: list[tuple[str, str]]) -> None:
    """Senders may branch on the code, so each is stable."""
    assert faults(raw) == expected


def test_every_fault_is_found_at_once() -> None:
    """Nobody has to send an event six times to learn of six faults."""
    raw = json.dumps({"session_id": 5, "category": "", "data": [], "timestamp": "x", "nmae": "y"}).encode()

    assert sorted(faults(raw)) == [
        ("$.category", "invalid_length"),
        ("$.data", "invalid_type"),
        ("$.name", "missing_field"),
        ("$.nmae", "unknown_field"),
        ("$.session_id", "invalid_type"),
        ("$.timestamp", "invalid_timestamp"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": "\\\\u0000"}',
        b'{"a": "\\ud83d\\ude00"}',
        b'{"a": "' + b"[" * 500 + b'"}',
        b'{"a": ' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}",
        b'{"a": 1e400, "b": -1e-400, "c": 18446744073709551616}',
        b'{"a": ' + b"9" * MAX_DIGITS + b"." + b"9" * MAX_DIGITS + b"}",
        b'{"a": 1e999, "b": -1.5E-999}',
        b'{"a": "' + b"9" * (MAX_DIGITS + 1) + b'", "b": "1e1000", "c": "\\\\\\"1e1000"}',
        b"{}",
    ],
)
def test_what_only_looks_dangerous_is_accepted(data: bytes) -> None:
    """An escaped backslash makes no NUL of u0000, brackets in a text are no nesting, numbers may be large."""
    assert bytes(accepted(with_data(data)).data) == data


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_any_data_is_accepted_or_refused_with_a_reason(value: object) -> None:
    """Nothing that parses as Python's JSON makes the parser fail."""
    event = parse_event(body(data={"value": value}))

    assert isinstance(event, SentEvent) or all(isinstance(fault, Fault) for fault in event)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_a_reason(raw: bytes) -> None:
    """No short run of bytes is an event, and none makes the parser fail."""
    assert faults(raw)


_pieces = st.sampled_from(
    [
        *(
            b'"',
            b"\\",
            b"/",
            b"u",
            b"\\u0000",
            b"\\u00e9",
            b"\\ud800",
            b"\\ud83d\\ude00",
            b"\\u12",
            b"\\q",
            b"\xc3\xa9",
        ),
        *(
            b"\xc3",
            b"\xa9",
            b"\xed\xa0\x80",
            b"\x00",
            b"\x1f",
            b"\n",
            b" ",
            b"{",
            b"}",
            b"[",
            b"]",
            b'"a":',
            b",",
            b"1",
        ),
        *(b"0", b"-", b".", b"e", b"e9999", b"1e501", b"null", b"tru", b"9" * (MAX_DIGITS + 1), b"[" * 65 + b"]" * 65),
    ]
)
_bodies = st.one_of(
    st.builds(with_data, st.lists(_pieces, max_size=5).map(lambda inside: b'{"a": "' + b"".join(inside) + b'"}')),
    st.builds(with_data, st.lists(_pieces, max_size=5).map(lambda inside: b'{"a": ' + b"".join(inside) + b"}")),
    st.builds(with_data, st.lists(_pieces, max_size=3).map(b"".join)),
    st.lists(_pieces, max_size=3).map(lambda inside: body().replace(b"page", b"".join(inside))),
    st.just(body()),
    st.just(body(timestamp="0001-01-01T00:00:00+14:00")),
)


@given(st.lists(_bodies, max_size=4))
def test_events_are_read_together_as_they_are_one_by_one(bodies: list[bytes]) -> None:
    """What is looked for in all of them at once is all that reading one finds."""
    assert list(parse_events(bodies)) == [parse_event(one) for one in bodies]


def test_rules_see_numbers_beyond_a_double_as_infinite() -> None:
    """JSON Schema and CEL compute in doubles; the stored digits stay."""
    decoded = decode_data(b'{"a": 1e400, "b": -1e400, "d": 18446744073709551616}')

    assert decoded == {"a": float("inf"), "b": float("-inf"), "d": 18446744073709551616}


@pytest.mark.parametrize(
    "value",
    [
        b"[" + b",".join([b"1"] * 450_000) + b"]",
        b"[" + b",".join([b"1e-1"] * 180_000) + b"]",
        b"[" + b",".join([b'"e1000"'] * 110_000) + b"]",
        b"[" + b",".join([b"[]"] * 300_000) + b"]",
        b"[" + b",".join([b"9" * MAX_DIGITS] * 220) + b"]",
        b'"' + b"\\\\" * 450_000 + b'"',
        b'"' + b"\\\\" * 450_000 + b'\\u0000"',
        b'"' + b'\\"' * 450_000 + b'"',
    ],
    ids=["numbers", "exponents", "texts", "arrays", "digits", "backslashes", "backslashes before NUL", "quotes"],
)
def test_no_payload_takes_out_of_proportion_long(value: bytes) -> None:
    """The edge's event loop waits for it: a payload made for it costs no more than 30 times what decoding it costs."""
    raw = with_data(b'{"a": ' + value + b"}")

    assert _seconds(lambda: parse_event(raw)) < 30 * _seconds(lambda: json.loads(raw))


def _seconds(call: Callable[[], object]) -> float:
    start = time.thread_time()
    call()
    return time.thread_time() - start


def test_the_faults_that_are_listed_are_bounded() -> None:
    """An answer must not be larger than what it answers."""
    assert len(faults(json.dumps({str(number): number for number in range(1000)}).encode())) == MAX_FAULTS


def test_json_paths_follow_rfc_9535() -> None:
    """Names that are no identifiers are quoted, indexes stand in brackets."""
    assert json_path("$", "data", "a b", 3, 'q"', "é") == '$.data["a b"][3]["q\\""]["é"]'
