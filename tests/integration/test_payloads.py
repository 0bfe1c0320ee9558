"""What the edge accepts, PostgreSQL holds: byte for byte as ``json``, and convertible to ``jsonb``."""

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from the_eye.event import MAX_DEPTH, MAX_DIGITS, SentEvent, parse_event

PREFIX = (
    b'{"session_id":"e2085be5-9137-4e4e-80b5-f1ffddc25423","category":"c","name":"n",'
    b'"timestamp":"2023-01-01T00:00:00Z","data":'
)

digits = st.text("0123456789", min_size=1, max_size=30).map(lambda text: text.lstrip("0") or "0")
exponents = st.integers(-2_000, 2_000) | st.integers(-20, 20)
numbers = st.builds(
    lambda sign, whole, fraction, exponent: f"{sign}{whole}{fraction}{exponent}",
    st.sampled_from(["", "-"]),
    digits,
    st.just("") | digits.map(lambda text: f".{text}"),
    st.just("") | st.builds(lambda e, n: f"{e}{n:+d}", st.sampled_from("eE"), exponents),
)
escapes = st.sampled_from(
    ["\\n", "\\u0000", "\\\\u0000", "\\u00e9", "\\ud83d\\ude00", "\\ud800", "\\udc00", "\\/", '\\"']
)
characters = st.characters(exclude_characters='"\\', exclude_categories=["Cs", "Cc"])
strings = st.lists(escapes | characters, max_size=8).map(lambda parts: '"' + "".join(parts) + '"')
spaces = st.sampled_from(["", " ", "\t", "\n "])
values = st.recursive(
    numbers | strings | st.sampled_from(["true", "false", "null"]),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: "[" + ",".join(items) + "]")
        | st.lists(st.tuples(strings, spaces, inner), max_size=4).map(
            lambda items: "{" + ",".join(f"{key}:{space}{value}" for key, space, value in items) + "}"
        )
    ),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def database(migrated_url: str) -> Iterator[psycopg.Connection]:
    """A connection that every example uses."""
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        yield connection


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=values)
@example(value="9" * MAX_DIGITS + "." + "9" * MAX_DIGITS + "e999")
@example(value="9" * MAX_DIGITS + "." + "9" * MAX_DIGITS + "e-999")
@example(value="-1.5e999")
@example(value="0e-999")
@example(value="[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1))
def test_what_is_accepted_is_held_exactly(database: psycopg.Connection, value: str) -> None:
    """No accepted payload is changed, and none fails later where someone queries it as jsonb."""
    data = b'{"value":' + value.encode() + b"}"

    if isinstance(parse_event(PREFIX + data + b"}"), SentEvent):
        row = database.execute("SELECT (%s::json)::text, (%s::jsonb) IS NOT NULL", (data.decode(),) * 2).fetchone()
        assert row == (data.decode(), True)


@pytest.mark.parametrize(
    "value", ["9" * 131_073, "1e131072", "1e-16384", "0." + "1" * 16_384, '"\\u0000"', '"\\ud800"']
)
def test_what_could_not_be_held_is_refused(database: psycopg.Connection, value: str) -> None:
    """PostgreSQL says so itself."""
    with pytest.raises(psycopg.DataError):
        database.execute("SELECT %s::jsonb", (value,))

    assert not isinstance(parse_event(PREFIX + b'{"value":' + value.encode() + b"}}"), SentEvent)
