"""GET /events and its like, over the store: what may be asked, who sees what, and what goes wrong how.

How the edge as a whole checks tokens and shapes the framework's own errors is shown elsewhere.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest
from litestar import Litestar, Request, Response
from litestar.di import Provide
from tests.integration.store.rows import NOON, SESSION, event, insert, violating

from the_eye.settings import StoreSettings
from the_eye.store.applications import create_application
from the_eye.store.connect import Connection, make_async_pool
from the_eye.tokens import Caller, Scope
from the_eye_api.problems import PROBLEM_MEDIA_TYPE, Problem, ProblemError
from the_eye_api.queries import query_handlers

READER = Caller(1, "shop", frozenset({Scope.READ}))
ADMIN = Caller(2, "blog", frozenset({Scope.ADMIN}))


def answer(_: Request[Any, Any, Any], error: ProblemError) -> Response[Problem]:
    """Answer with a problem, as the edge does."""
    return Response(
        error.problem, status_code=error.problem.status, headers=error.headers, media_type=PROBLEM_MEDIA_TYPE
    )


@asynccontextmanager
async def api(settings: StoreSettings, caller: Caller) -> AsyncIterator[httpx.AsyncClient]:
    """The handlers as the edge mounts them, for one caller."""
    async with make_async_pool(settings, "test", 2) as pool:
        app = Litestar(
            query_handlers,
            dependencies={
                "caller": Provide(lambda: caller, sync_to_thread=False),
                "pool": Provide(lambda: pool, sync_to_thread=False),
            },
            exception_handlers={ProblemError: answer},
            openapi_config=None,
        )
        transport = httpx.ASGITransport(app)  # type: ignore[arg-type] # Litestar names the kinds of scope
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            yield client


@pytest.fixture
async def reader(store_settings: StoreSettings, connection: Connection) -> AsyncIterator[httpx.AsyncClient]:
    """A client of application `shop` (1) that may read, beside `blog` (2)."""
    create_application(connection, "shop")
    create_application(connection, "blog")
    async with api(store_settings, READER) as client:
        yield client


@pytest.fixture
async def admin(store_settings: StoreSettings, reader: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    """A client that may read all."""
    del reader
    async with api(store_settings, ADMIN) as client:
        yield client


def ids(response: httpx.Response) -> list[str]:
    """Read the ids of a page's events."""
    assert response.status_code == 200, response.text
    return [one["event_id"] for one in response.json()["events"]]


def faults(response: httpx.Response) -> list[tuple[str, str]]:
    """Read path and code of what was wrong."""
    assert response.headers["content-type"] == PROBLEM_MEDIA_TYPE
    return [(fault["path"], fault["code"]) for fault in response.json()["errors"]]


async def test_a_payload_passes_through_byte_for_byte(reader: httpx.AsyncClient, connection: Connection) -> None:
    data = '{"n": 1.10, "big": 123456789012345678901234567890,\n "a" :2}'
    (event_id,) = insert(connection, event(data=data))

    for path in ("/events", f"/events/{event_id}", f"/sessions/{SESSION}/events"):
        assert data.encode() in (await reader.get(path)).content


async def test_every_parameter_filters(reader: httpx.AsyncClient, connection: Connection) -> None:
    (wanted,) = insert(connection, event(**violating("shop/a")))
    insert(
        connection,
        event(session_id=uuid4(), **violating("shop/a")),
        event(category="search", **violating("shop/a")),
        event(name="query", **violating("shop/a")),
        event(timestamp=NOON - timedelta(seconds=1), **violating("shop/a")),
        event(timestamp=NOON + timedelta(seconds=1), **violating("shop/a")),
        event(**violating("shop/a", action="Audit")),
        event(**violating("shop/b")),
    )
    parameters = {
        "session_id": str(SESSION),
        "category": "page interaction",
        "name": "cta click",
        "application": "shop",
        "from": "2026-03-10T13:00:00+01:00",
        "to": "2026-03-10 12:00:01",
        "valid": "false",
        "rule": "shop/a",
    }

    assert ids(await reader.get("/events", params=parameters)) == [str(wanted)]
    for left_out in parameters:
        fewer = {name: value for name, value in parameters.items() if name != left_out}
        found = ids(await reader.get("/events", params=fewer))
        assert len(found) == (1 if left_out == "application" else 2), left_out


async def test_a_plus_that_was_not_encoded_is_understood(reader: httpx.AsyncClient, connection: Connection) -> None:
    """In a query string it arrives as a space; it is the most frequent mistake with times in URLs."""
    insert(connection, event())

    assert len(ids(await reader.get("/events?from=2026-03-10T13:00:00+01:00"))) == 1
    assert len(ids(await reader.get("/events?from=2026-03-10T13:00:00.5+01:00"))) == 0


async def test_pages_follow_one_another_in_both_orders(reader: httpx.AsyncClient, connection: Connection) -> None:
    made = [str(one) for one in insert(connection, *(event(timestamp=NOON + timedelta(seconds=n)) for n in range(5)))]

    for order, expected in (("newest", made[::-1]), ("oldest", made)):
        seen, cursor = [], ""
        while True:
            parameters = {"order": order, "limit": "2"} | ({"cursor": cursor} if cursor else {})
            response = await reader.get("/events", params=parameters)
            seen += ids(response)
            cursor = response.json()["next_cursor"]
            if cursor is None:
                break
        assert seen == expected


async def test_a_session_is_shown_in_the_order_it_occurred(reader: httpx.AsyncClient, connection: Connection) -> None:
    insert(connection, event(session_id=uuid4()), event(application_id=2))
    made = [str(one) for one in insert(connection, *(event(timestamp=NOON + timedelta(seconds=n)) for n in range(3)))]

    first = await reader.get(f"/sessions/{SESSION}/events?limit=2")
    second = await reader.get(f"/sessions/{SESSION}/events", params={"cursor": first.json()["next_cursor"]})

    assert ids(first) + ids(second) == made
    assert ids(await reader.get(f"/sessions/{uuid4()}/events")) == []


async def test_a_reader_sees_its_own_application_only(reader: httpx.AsyncClient, connection: Connection) -> None:
    own, other = insert(connection, event(application_id=1), event(application_id=2))

    assert ids(await reader.get("/events")) == [str(own)]
    assert ids(await reader.get("/events?application=shop")) == [str(own)]
    assert (await reader.get("/events?application=blog")).status_code == 403
    assert (await reader.get(f"/events/{own}")).status_code == 200
    unseen = await reader.get(f"/events/{other}")
    assert (unseen.status_code, unseen.json()["code"]) == (404, "unknown_event")
    assert unseen.content == (await reader.get(f"/events/{uuid4()}")).content


async def test_an_admin_sees_all(admin: httpx.AsyncClient, connection: Connection) -> None:
    one, two = insert(connection, event(application_id=1), event(application_id=2, timestamp=NOON - timedelta(1)))

    assert ids(await admin.get("/events")) == [str(one), str(two)]
    assert ids(await admin.get("/events?application=shop")) == [str(one)]
    assert ids(await admin.get("/events?application=blog")) == [str(two)]
    assert (await admin.get(f"/events/{one}")).json()["application"] == "shop"
    unknown = await admin.get("/events?application=shpo")
    assert (unknown.status_code, faults(unknown)) == (422, [("application", "unknown_application")])


async def test_every_fault_is_named_at_once(reader: httpx.AsyncClient) -> None:
    response = await reader.get(
        "/events?limit=0&limit=7&session_id=x&from=yesterday&valid=yes&rule=a&order=up&category=&nmae=y&name=%FF"
    )

    assert response.status_code == 400
    assert faults(response) == [
        ("limit", "invalid_limit"),
        ("limit", "repeated_parameter"),
        ("session_id", "invalid_uuid"),
        ("from", "invalid_timestamp"),
        ("valid", "invalid_value"),
        ("rule", "invalid_rule"),
        ("order", "invalid_value"),
        ("category", "invalid_length"),
        ("nmae", "unknown_parameter"),
        ("name", "invalid_utf8"),
    ]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("name=%00", "unstorable_text"),
        ("rule=a/%00", "unstorable_text"),
        ("application=%00", "unstorable_text"),
        ("name=%ED%A0%80", "invalid_utf8"),
        ("name=" + "x" * 256, "invalid_length"),
        ("limit=201", "invalid_limit"),
        ("limit=-1", "invalid_limit"),
        ("limit=1e2", "invalid_limit"),
        ("limit=" + quote("\N{ARABIC-INDIC DIGIT FIVE}"), "invalid_limit"),
        ("limit=" + "9" * 5_000, "invalid_limit"),
        ("from=2026-02-30T00:00:00Z", "invalid_timestamp"),
        ("from=0001-01-01T00:00:00%2B01:00", "invalid_timestamp"),
        ("from=1773144000", "invalid_timestamp"),
        ("valid=TRUE", "invalid_value"),
        ("rule=a/b/c", "invalid_rule"),
        ("cursor=", "invalid_cursor"),
        ("cursor=x", "invalid_cursor"),
        ("cursor=%C3%A9", "invalid_cursor"),
        ("cursor=" + "A" * 44, "invalid_cursor"),
        ("cursor=" + "_" * 44, "invalid_cursor"),
        ("cursor=" + "A" * 200, "invalid_cursor"),
    ],
)
async def test_a_value_that_cannot_be_used_is_named(reader: httpx.AsyncClient, query: str, code: str) -> None:
    response = await reader.get(f"/events?{query}")

    assert response.status_code == 400
    assert faults(response) == [(query.partition("=")[0], code)]


async def test_thousands_of_faults_make_a_short_answer(reader: httpx.AsyncClient) -> None:
    response = await reader.get("/events?" + "&".join(f"{'x' * 300}{number}" for number in range(200)))

    assert response.status_code == 400
    assert len(response.content) < 20_000


async def test_an_id_that_is_no_uuid_is_named(reader: httpx.AsyncClient) -> None:
    assert faults(await reader.get("/events/x%00")) == [("event_id", "invalid_uuid")]
    assert faults(await reader.get("/sessions/x/events")) == [("session_id", "invalid_uuid")]
    assert faults(await reader.get(f"/events/{uuid4()}?limit=1")) == [("limit", "unknown_parameter")]
    assert faults(await reader.get(f"/sessions/{SESSION}/events?order=newest")) == [("order", "unknown_parameter")]


async def test_a_time_range_that_ends_before_it_begins_does_not_fit(reader: httpx.AsyncClient) -> None:
    response = await reader.get("/events?from=2026-03-10T12:00:01Z&to=2026-03-10T12:00:00Z")

    assert (response.status_code, faults(response)) == (422, [("from", "after_to")])
    assert (await reader.get("/events?from=2026-03-10T12:00:00Z&to=2026-03-10T12:00:00Z")).status_code == 200


async def test_a_cursor_fits_the_list_that_gave_it(
    reader: httpx.AsyncClient, admin: httpx.AsyncClient, connection: Connection
) -> None:
    insert(connection, *(event() for _ in range(3)))
    cursor = (await reader.get("/events?limit=1")).json()["next_cursor"]

    assert (await reader.get(f"/events?limit=2&cursor={cursor}")).status_code == 200
    for other in (
        await reader.get(f"/events?valid=true&cursor={cursor}"),
        await reader.get(f"/events?order=oldest&cursor={cursor}"),
        await reader.get(f"/sessions/{SESSION}/events?cursor={cursor}"),
        await admin.get(f"/events?cursor={cursor}"),
    ):
        assert (other.status_code, faults(other)) == (422, [("cursor", "other_query")])


async def test_a_database_that_is_away_is_503(store_settings: StoreSettings) -> None:
    """It says when to ask again, and nothing of the inside."""
    away = StoreSettings(database_url="postgresql://x@/x?host=/nowhere", database_connect_seconds=0.2)
    async with api(away, READER) as client:
        response = await client.get("/events")

    assert (response.status_code, response.json()["code"]) == (503, "database_unavailable")
    assert response.headers["retry-after"] == "2"
    assert "nowhere" not in response.text
    assert store_settings.database_url not in response.text


async def test_a_query_that_takes_too_long_is_503(store_settings: StoreSettings, connection: Connection) -> None:
    settings = StoreSettings(database_url=store_settings.database_url, database_statement_seconds=0.2)
    async with api(settings, READER) as client:
        with connection.transaction():
            connection.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
            responses = [await client.get(path) for path in ("/events", f"/events/{uuid4()}")]
        after = await client.get("/events")

    assert [(one.status_code, one.json()["code"]) for one in responses] == [(503, "query_too_slow")] * 2
    assert after.status_code == 200


async def test_a_database_without_a_schema_is_503(store_settings: StoreSettings) -> None:
    settings = StoreSettings(database_url=store_settings.database_url.replace("/the_eye?", "/postgres?"))
    async with api(settings, READER) as client:
        response = await client.get("/events")

    assert (response.status_code, response.json()["code"]) == (503, "query_failed")
    assert "relation" not in response.text


async def test_connections_that_the_server_has_closed_are_not_used_again(
    reader: httpx.AsyncClient, connection: Connection
) -> None:
    """After a restart of the database the first reader is answered, not refused."""
    assert (await reader.get("/events")).status_code == 200
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'test' AND pid <> pg_backend_pid()"
    )

    assert (await reader.get("/events")).status_code == 200
