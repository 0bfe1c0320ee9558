"""Cursors: opaque, bound to a filter, and refused in one way whatever is sent in their place."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import assume, given
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
    assume(filter_.spans(position.timestamp))
    assert Position.parse(position.cursor(filter_), filter_) == position


@given(positions, filters, filters)
def test_a_cursor_fits_its_own_filter_only(position: Position, one: EventFilter, other: EventFilter) -> None:
    assume(other.spans(position.timestamp))
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


@pytest.mark.parametrize("oldest_first", [False, True])
def test_a_position_outside_of_the_range_is_refused(*, oldest_first: bool) -> None:
    """No list gives one, and a page from there would show what the range leaves out."""
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    filter_ = EventFilter(since=noon, until=noon + timedelta(hours=1), oldest_first=oldest_first)

    for minutes in (-1, 60):
        cursor = Position(noon + timedelta(minutes=minutes), UUID(int=0)).cursor(filter_)
        with pytest.raises(CursorError):
            Position.parse(cursor, filter_)


def test_a_cursor_can_stand_in_a_url_as_it_is() -> None:
    cursor = Position(datetime(2026, 1, 1, tzinfo=UTC), UUID(int=2**128 - 1)).cursor(EventFilter())

    assert cursor.isascii()
    assert set(cursor).isdisjoint("+/=&?%")
