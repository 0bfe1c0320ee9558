"""How batches are told apart, slice by slice. What is accepted is shown against a real server in test_edge.py."""

import asyncio
from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec
import pytest

from the_eye.queue import Backlog, QueuedEvent
from the_eye.tokens import Caller, RateLimit, Scope
from the_eye_api.backlog import BacklogBound
from the_eye_api.group_commit import GroupCommit
from the_eye_api.ingest import MAX_PARSED_BYTES, Ingest, split_array
from the_eye_api.limits import RateLimitedError, RateLimiter
from the_eye_api.problems import ProblemError
from the_eye_api.turns import SHARE, Turns

EVENT = {
    "session_id": "e2085be5-9137-4e4e-80b5-f1ffddc25423",
    "category": "page interaction",
    "name": "cta click",
    "data": {"text": "x" * 1000},
    "timestamp": "2026-01-01T00:00:00Z",
}
BATCH = msgspec.json.encode([EVENT] * 100)
ONE = msgspec.json.encode(EVENT | {"event_id": "6f1c1a3e-5b0f-4f52-9a44-0d4a3f3e8a11"})
SHOP = Caller(1, "shop", frozenset({Scope.INGEST}))
BLOG = Caller(2, "blog", frozenset({Scope.INGEST}))


async def write(_: Sequence[QueuedEvent], __: Sequence[Mapping[str, str]]) -> None:
    """Put nothing anywhere."""


async def look() -> Backlog:
    """See nothing."""
    return Backlog(0, 0, 0.0)


def make_ingest(
    limit: RateLimit | None = None, pending_max_bytes: int = 10**9, waiting_max_bytes: int = 10**9
) -> Ingest:
    """Make what accepts events, with a queue that takes no time."""
    return Ingest(
        GroupCommit(write, max_events=500, max_bytes=10**6, pending_max_bytes=pending_max_bytes),
        RateLimiter(limit),
        BacklogBound(look, max_bytes=10**9, max_age_seconds=1e9),
        Turns(waiting_max_bytes=waiting_max_bytes),
    )


async def test_an_iteration_of_the_event_loop_has_one_slice_of_all_batches() -> None:
    """Whoever else sends waits for a slice, not for one of each batch."""
    ingest = make_ingest()
    batches = [asyncio.create_task(ingest.accept_batch(SHOP, BATCH, split_array)) for _ in range(SHARE)]

    iterations = 0
    while not all(batch.done() for batch in batches):
        iterations += 1
        await asyncio.sleep(0)

    assert iterations >= SHARE * len(BATCH) // (MAX_PARSED_BYTES + 2000)


async def test_a_batch_that_waited_for_its_turn_pays_for_those_before_it() -> None:
    """What its application sent meanwhile has used up the limit."""
    ingest = make_ingest(RateLimit(events_per_second=1.0, burst=50))
    await ingest.accept_batch(BLOG, BATCH, split_array)  # somebody else sends, too

    sent = [ingest.accept_batch(SHOP, BATCH, split_array) for _ in range(SHARE + 3)]
    results = await asyncio.gather(*sent, return_exceptions=True)

    assert [type(result) for result in results[-3:]] == [RateLimitedError] * 3


@pytest.mark.parametrize("body", [b"[]", b"[1]", b"no json"])
async def test_a_batch_that_is_refused_gives_its_turn_back(body: bytes) -> None:
    """However often that happens."""
    ingest = make_ingest()
    await ingest.accept_batch(BLOG, BATCH, split_array)

    for _ in range(SHARE + 1):
        with pytest.raises(Exception, match="Bad Request"):
            await ingest.accept_batch(SHOP, body, split_array)

    async with asyncio.timeout(5):
        await ingest.accept_batch(SHOP, BATCH, split_array)


async def test_a_good_event_need_not_be_waited_for() -> None:
    """Whoever sent it hears of it when it is on disk."""
    ingest = make_ingest()
    settled: asyncio.Queue[tuple[UUID, Exception | None]] = asyncio.Queue()

    taken = ingest.accept_one_at_once(SHOP, ONE, None, lambda *result: settled.put_nowait(result))

    assert (taken, settled.empty()) == (True, True)
    assert await settled.get() == (UUID("6f1c1a3e-5b0f-4f52-9a44-0d4a3f3e8a11"), None)


async def test_what_need_not_be_waited_for_has_its_turn_all_the_same() -> None:
    """It is given back, whether an event was good or not, and whoever is next in line follows."""
    ingest = make_ingest()
    await ingest.accept_batch(BLOG, BATCH, split_array)  # somebody else sends, too
    settled: asyncio.Queue[tuple[UUID, Exception | None]] = asyncio.Queue()

    for _ in range(SHARE):
        assert not ingest.accept_one_at_once(SHOP, b"no json", None, lambda *_: None)
    taken = [
        ingest.accept_one_at_once(SHOP, ONE, None, lambda *result: settled.put_nowait(result)) for _ in range(3 * SHARE)
    ]

    assert taken == [True] * 3 * SHARE
    async with asyncio.timeout(5):
        for _ in range(3 * SHARE):
            assert (await settled.get())[1] is None


async def test_what_may_not_even_wait_is_left_to_be_refused() -> None:
    """Nothing is done for it, and nothing is charged."""
    ingest = make_ingest(RateLimit(events_per_second=0.001, burst=SHARE + 2), waiting_max_bytes=4 * len(ONE))
    await ingest.accept_one(BLOG, ONE)  # somebody else sends, too

    taken = [ingest.accept_one_at_once(SHOP, ONE, None, lambda *_: None) for _ in range(SHARE + 2)]

    assert taken == [True] * (SHARE + 1) + [False]
    ingest.let_in(SHOP)  # one event is left of the burst
    with pytest.raises(ProblemError, match="Service Unavailable"):
        await ingest.accept_one(SHOP, ONE)


def test_a_large_event_is_not_parsed_before_its_turn() -> None:
    """Of many that come together each would hold up whoever sends little."""
    large = msgspec.json.encode(EVENT | {"data": {"text": "x" * MAX_PARSED_BYTES}})

    assert not make_ingest().accept_one_at_once(SHOP, large, None, lambda *_: None)


async def test_an_event_that_the_queue_has_no_room_for_is_refused() -> None:
    """Its sender is told at once, and its turn is given back."""
    ingest = make_ingest(pending_max_bytes=2 * len(ONE))
    await ingest.accept_one(BLOG, ONE)  # somebody else sends, too
    settled: asyncio.Queue[Exception | None] = asyncio.Queue()

    for _ in range(SHARE + 2):
        assert ingest.accept_one_at_once(SHOP, ONE, None, lambda _, error: settled.put_nowait(error))

    assert settled.empty()  # nobody is answered in the midst of another one's request
    async with asyncio.timeout(5):
        errors = [await settled.get() for _ in range(SHARE + 2)]
    assert sorted(type(error).__name__ for error in errors) == ["NoneType"] * 2 + ["QueueUnavailableError"] * SHARE


async def test_events_that_are_taken_at_once_use_up_the_limit() -> None:
    ingest = make_ingest(RateLimit(events_per_second=0.001, burst=1))
    ingest.let_in(SHOP)

    ingest.accept_one_at_once(SHOP, ONE, None, lambda *_: None)

    with pytest.raises(RateLimitedError):
        ingest.let_in(SHOP)
