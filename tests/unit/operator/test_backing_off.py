"""Waiting after failures."""

import random

import pytest

from the_eye_operator.backing_off import FIRST, LONGEST, BackOff
from the_eye_operator.cluster import ClusterError

AWAY = ClusterError("away")


@pytest.fixture(autouse=True)
def _without_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: (low + high) / 2)


def test_each_failure_in_a_row_waits_twice_as_long_and_none_forever() -> None:
    back_off = BackOff()
    pauses = [back_off.failed(AWAY) for _ in range(2000)]

    assert pauses[:4] == [FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST]
    assert set(pauses[10:]) == {LONGEST}


def test_a_success_begins_anew() -> None:
    back_off = BackOff()
    back_off.failed(AWAY)
    back_off.failed(AWAY)
    back_off.succeeded()

    assert back_off.failed(AWAY) == FIRST


def test_it_waits_as_long_as_the_server_asks() -> None:
    assert BackOff().failed(ClusterError("busy", 429, 60.0)) == 60.0


def test_it_waits_no_less_than_it_would_without_being_asked() -> None:
    assert BackOff().failed(ClusterError("busy", 429, 0.001)) == FIRST


def test_chance_keeps_operators_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return high

    monkeypatch.setattr(random, "uniform", uniform)

    assert BackOff().failed(AWAY) == FIRST * 1.25
    assert asked == [(0.75, 1.25)]


@pytest.mark.parametrize("status", [403, 404, 409, 413, 422])
def test_some_refusals_concern_one_object(status: int) -> None:
    assert ClusterError("refused", status).concerns_one_object


@pytest.mark.parametrize("status", [None, 401, 429, 500, 503, 504])
def test_other_failures_concern_all(status: int | None) -> None:
    assert not ClusterError("refused", status).concerns_one_object
