"""Cursors: opaque, bound to a filter, and refused in one way whatever is sent in their place."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from the_eye.store.event_query import CursorError, CursorMismatchError, EventFilter, Position

filters = st.builds(
    EventFilter,
    application_id=st.none() | st.integers(1, 2**31 - 1),
    session_id=st.none() | st.uuids(),
    category=st.none() | st.text(),
    name=st.none() | st.text(),
    valid=st.none() | st.booleans(),
    rule=st.none() | st.text(),
    since=st.none() | st.datetimes(timezones=st.just(UTC)),
    until=st.none() | st.datetimes(timezones=st.just(UTC)),
    oldest_first=st.booleans(),
)
positions = st.builds(Position, st.datetimes(timezones=st.just(UTC)), st.uuids())


@given(positions, filters)
def test_a_position_comes_back_from_its_cursor(position: Position, filter_: EventFilter) -> None:
    assert Position.parse(position.cursor(filter_), filter_) == position


@given(positions, filters, filters)
def test_a_cursor_fits_its_own_filter_only(position: Position, one: EventFilter, other: EventFilter) -> None:
    cursor = position.cursor(one)
    if one == other:
        assert Position.parse(cursor, other) == position
    else:
        with pytest.raises(CursorMismatchError):
            Position.parse(cursor, other)


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")) | st.from_regex(r"[A-Za-z0-9_-]{44}"))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(CursorError):
        Position.parse(text, EventFilter())


def test_a_cursor_can_stand_in_a_url_as_it_is() -> None:
    cursor = Position(datetime(2026, 1, 1, tzinfo=UTC), UUID(int=2**128 - 1)).cursor(EventFilter())

    assert cursor.isascii()
    assert set(cursor).isdisjoint("+/=&?%")
