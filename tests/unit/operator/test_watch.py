"""The watch's thread: when it watches and when it begins anew. What kopf does in it, the tests of the whole show."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import kopf
import pytest
from structlog.testing import capture_logs

from the_eye_operator import watch
from the_eye_operator.watch import Watch

NAMESPACES = frozenset({"shop", "billing"})


class Kopf:
    """In the place of kopf's operator: watches until it is told to stop or to fail."""

    def __init__(self) -> None:
        self.begun = 0
        self.at_work = 0
        self.lost = 0
        self.fails = False
        self.namespaces: frozenset[str] = frozenset()

    async def operator(self, *, stop_flag: threading.Event, namespaces: frozenset[str], **_: Any) -> None:
        """Watch."""
        self.begun += 1
        self.namespaces = namespaces
        if self.fails:
            message = "no permission"
            raise RuntimeError(message)
        self.at_work += 1
        await asyncio.to_thread(stop_flag.wait)
        self.at_work -= 1

    def lose(self) -> None:
        """Count the calls."""
        self.lost += 1


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Kopf:
    fake = Kopf()
    monkeypatch.setattr(kopf, "operator", fake.operator)
    monkeypatch.setattr(watch, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(watch, "LONGEST_PAUSE", 0.01)
    return fake


@pytest.fixture
def watching(fake: Kopf) -> Iterator[Watch]:
    """A watch that has been started, and ends with the test."""
    watching = Watch(NAMESPACES, on_event=lambda *_: None, on_lost=fake.lose)
    watching.start()
    yield watching
    watching.stop()
    assert fake.at_work == 0
    assert not [thread for thread in threading.enumerate() if thread.name == "watch"]


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, and fail when it does not come."""
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def stays(condition: Callable[[], bool]) -> None:
    """See a condition hold for many times as long as it would take to break."""
    deadline = time.monotonic() + 0.1
    while time.monotonic() < deadline:
        assert condition()
        time.sleep(0.001)


def test_it_watches_once_it_may(fake: Kopf, watching: Watch) -> None:
    stays(lambda: fake.begun == 0)
    watching.allow(NAMESPACES)
    until(lambda: fake.at_work == 1)


def test_it_stops_without_ever_having_watched(fake: Kopf, watching: Watch) -> None:
    watching.stop()

    assert fake.begun == 0


def test_being_allowed_again_and_again_changes_nothing(fake: Kopf, watching: Watch) -> None:
    watching.allow(NAMESPACES)
    until(lambda: fake.at_work == 1)
    watching.allow(NAMESPACES)

    assert (fake.begun, fake.lost) == (1, 0)


def test_what_is_forbidden_ends_and_waits_until_it_is_allowed(fake: Kopf, watching: Watch) -> None:
    watching.allow(NAMESPACES)
    until(lambda: fake.at_work == 1)
    watching.forbid()
    until(lambda: fake.at_work == 0 and fake.lost == 1)
    stays(lambda: fake.begun == 1)

    watching.allow(NAMESPACES)
    until(lambda: fake.begun == 2)


def test_where_rules_may_not_be_listed_it_does_not_watch(fake: Kopf, watching: Watch) -> None:
    """There kopf would fail, and with it the watching of all."""
    watching.allow(NAMESPACES)
    until(lambda: fake.at_work == 1)
    watching.allow({"shop"})
    until(lambda: fake.begun == 2 and fake.at_work == 1)
    assert fake.namespaces == {"shop"}
    assert fake.lost == 1

    watching.allow(NAMESPACES)
    until(lambda: fake.begun == 3)
    assert fake.namespaces == NAMESPACES


def test_a_restart_asks_for_a_list_and_watches_anew(fake: Kopf, watching: Watch) -> None:
    watching.allow(NAMESPACES)
    until(lambda: fake.at_work == 1)
    watching.restart()
    until(lambda: fake.begun == 2 and fake.at_work == 1)

    assert fake.lost == 1


def test_a_failure_is_told_and_watching_begins_anew_for_as_long_as_it_takes(fake: Kopf, watching: Watch) -> None:
    fake.fails = True
    with capture_logs() as logs:
        watching.allow(NAMESPACES)
        until(lambda: fake.begun >= 5)
        fake.fails = False
        until(lambda: fake.at_work == 1)

    assert {(entry["event"], entry["error"]) for entry in logs} == {("watch_lost", "RuntimeError: no permission")}
    assert fake.lost == fake.begun - 1
