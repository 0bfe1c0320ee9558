"""How answers to queries and pages are counted."""

from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
from litestar import Litestar, get
from litestar.params import FromPath
from litestar.response import Stream
from prometheus_client import REGISTRY

from the_eye_api.counted import UNKNOWN_ROUTE, Counted

DETAIL = "/counted/{number:int}"


@get(DETAIL)
async def detail(number: FromPath[int]) -> int:
    """Answer with a number, or with a fault for 0."""
    return 1 // number


@get("/counted/stream")
async def stream() -> Stream:
    """Answer without end, as the live page does, until the test has looked."""

    async def pieces() -> AsyncIterator[str]:
        yield str(counted("/counted/stream", 200))

    return Stream(pieces())


def counted(route: str, status: int) -> float:
    """Read how many answers were counted."""
    labels = {"route": route, "status": str(status)}
    return REGISTRY.get_sample_value("the_eye_http_other_requests_total", labels) or 0.0


async def get_from_app(path: str) -> httpx.Response:
    """Ask an application that counts."""
    app = Counted(Litestar([detail, stream], openapi_config=None))
    transport = httpx.ASGITransport(app=cast("Any", app))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(path)


async def test_answers_are_counted_by_route_and_status() -> None:
    """By the route's template: paths are as many as there are ids."""
    route = "/counted/{number}"
    before = {status: counted(route, status) for status in (200, 500)}

    for path in ("/counted/1", "/counted/2", "/counted/0"):
        await get_from_app(path)

    assert {status: counted(route, status) - count for status, count in before.items()} == {200: 2, 500: 1}


async def test_paths_that_lead_nowhere_are_one_route() -> None:
    """Whoever makes up paths makes no series."""
    before = counted(UNKNOWN_ROUTE, 404)

    for path in ("/nowhere", "/elsewhere"):
        await get_from_app(path)

    assert counted(UNKNOWN_ROUTE, 404) - before == 2


async def test_a_stream_is_counted_when_it_begins() -> None:
    """It may never end."""
    before = counted("/counted/stream", 200)

    assert float((await get_from_app("/counted/stream")).text) - before == 1
