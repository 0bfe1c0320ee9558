"""A scripted server for each test, and clients that do not wait long."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from tests.client.scripted import ScriptedServer, serving

from the_eye_client import Eye, Lost, Settings

TOKEN = "eye_test"  # noqa: S105 - no secret

MakeEye = Callable[..., Eye]


def settings(**changes: Any) -> Settings:
    """Make settings with which nothing is waited for longer than a test needs."""
    quick = {
        "batch_seconds": 0.02,
        "first_backoff_seconds": 0.02,
        "longest_backoff_seconds": 0.05,
        "request_seconds": 20.0,
        "close_seconds": 0.2,
    }
    return Settings(**(quick | changes))


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A server that accepts everything until a test says otherwise."""
    with serving() as running:
        yield running


@pytest.fixture
def make_eye(server: ScriptedServer) -> Iterator[MakeEye]:
    """Make clients, which are closed at the end."""
    with ExitStack() as clients:

        def make(**changes: Any) -> Eye:
            return clients.enter_context(Eye(server.url, TOKEN, settings(**changes)))

        yield make


@pytest.fixture
def lost() -> list[Lost]:
    """What a client has reported as lost, if it was made with ``on_lost=lost.append``."""
    return []
