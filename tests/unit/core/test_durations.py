"""Lengths of time as people write them."""

from datetime import timedelta

import pytest

from the_eye.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("24h", timedelta(days=1)),
        (" 7d ", timedelta(days=7)),
        ("366d", timedelta(days=366)),
    ],
)
def test_a_number_and_a_unit_is_a_duration(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "24", "h", "0h", "-1h", "1.5h", "1h30m", "24 h", "1w", "24H", "٣h", "1h\n2h"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="such as 24h"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["367d", "999999999h", "999999999d"])
def test_more_than_a_year_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="at most 366d"):
        parse_duration(text)
