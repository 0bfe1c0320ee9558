"""How the edge counts its answers. What it answers is shown against the real queue elsewhere."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from the_eye.queue import QueueUnavailableError
from the_eye_api.edge import Edge
from the_eye_api.problems import unavailable

SCOPE: dict[str, Any] = {"type": "http", "method": "POST", "path": "/events", "headers": []}


def edge(**ingest: Callable[..., Any]) -> Edge:
    """Make an edge that knows every caller and accepts as the test says."""
    tokens = SimpleNamespace(authorize=lambda *_: "caller", recall=lambda *_: "caller")
    return Edge(cast("Any", None), cast("Any", tokens), cast("Any", SimpleNamespace(**ingest)))


def refusals(code: str) -> float | None:
    """Read how many requests were refused with a code."""
    return REGISTRY.get_sample_value("the_eye_http_refusals_total", {"route": "/events", "code": code})


async def ignore(*_: object) -> None:
    """Take in an answer."""


def fail(error: Exception) -> Callable[..., None]:
    """Make something that raises ``error``."""

    def raising(*_: object) -> None:
        raise error

    return raising


@pytest.mark.parametrize("route", ["/events", "/events/batch"])
@pytest.mark.parametrize("status", ["202", "500", "503"])
def test_answers_that_alerts_wait_for_are_counted_from_0_on(route: str, status: str) -> None:
    """Otherwise the first one would be there without having risen."""
    edge()

    assert REGISTRY.get_sample_value("the_eye_http_requests_total", {"route": route, "status": status}) is not None


@pytest.mark.parametrize(
    ("error", "code"),
    [(unavailable("queue_full", ""), "queue_full"), (ValueError("a fault of ours"), "internal_error")],
)
async def test_a_refused_request_is_counted_by_its_code(error: Exception, code: str) -> None:
    """Whatever refused it: there is no 5xx that the dashboard cannot explain."""
    refusing = edge(let_in=fail(error))
    before = refusals(code)
    assert before is not None

    await refusing(cast("Any", SCOPE), cast("Any", ignore), ignore)

    assert refusals(code) == before + 1


def test_a_request_that_was_answered_later_is_counted_by_its_code_too() -> None:
    """That way most requests go."""

    def settle_at_once(
        _: object, __: bytes, ___: None, settle: Callable[[UUID, Exception | None], None], ____: None
    ) -> bool:
        settle(UUID(int=0), QueueUnavailableError("away"))
        return True

    accepting = edge(let_in=lambda _: None, accept_one_at_once=settle_at_once)
    before = refusals("queue_unavailable")
    assert before is not None
    answers: list[int] = []

    assert accepting.accept_at_once(cast("Any", SCOPE), b"{}", lambda status, *_: answers.append(status))

    assert answers == [503]
    assert refusals("queue_unavailable") == before + 1
