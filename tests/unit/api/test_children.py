"""A process that works for the pages gives its answer, or is stopped with a word about why."""

import asyncio

import pytest

from the_eye_api.pages import children as children_module
from the_eye_api.pages.children import BusyError, ChildError, Children

CHILD = "tests.unit.api.child"


async def ask(children: Children, wish: str, seconds: float = 60.0) -> bytes:
    """Start the process."""
    return await children.run(CHILD, wish.encode(), seconds=seconds, output_bytes=2**20)


async def test_it_answers() -> None:
    assert await ask(Children(), "word " * 100_000) == b"word " * 100_000


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        ("loop", "too much of the processor's time and was stopped"),
        ("devour", "too much memory and was stopped"),
        ("abort", "too much memory and was stopped"),
        ("spill", "more than 1,048,576 bytes and was stopped"),
        ("fail", "ended with status 3"),
    ],
)
async def test_it_is_stopped_or_ends_without_an_answer(wish: str, why: str) -> None:
    """The next one has its turn."""
    children = Children()

    with pytest.raises(ChildError, match=why):
        await ask(children, wish)

    assert await ask(children, "next") == b"next"


@pytest.mark.parametrize("reads_store", [False, True])
async def test_it_is_told_of_the_database_only_if_it_reads_it(
    monkeypatch: pytest.MonkeyPatch, *, reads_store: bool
) -> None:
    """Of the queue, and of what is not The Eye's, it is never told."""
    for name in ("THE_EYE_DATABASE_URL", "PGPASSWORD", "THE_EYE_REDIS_URL", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "secret")

    answer = await Children().run(CHILD, b"environ", seconds=60.0, output_bytes=2**20, reads_store=reads_store)

    names = set(answer.decode().split())
    database = {"THE_EYE_DATABASE_URL", "PGPASSWORD"}
    assert names & database == (database if reads_store else set())
    assert names.isdisjoint({"THE_EYE_REDIS_URL", "AWS_SECRET_ACCESS_KEY"})


async def test_it_is_stopped_when_it_takes_too_long() -> None:
    with pytest.raises(ChildError, match=r"did not end within 0\.5 seconds"):
        await ask(Children(), "wait", seconds=0.5)


async def test_one_runs_at_a_time_and_whoever_waits_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children_module, "TURN_SECONDS", 0.1)
    children = Children()
    first = asyncio.create_task(ask(children, "wait"))
    await asyncio.sleep(0)  # its turn begins

    with pytest.raises(BusyError, match="try again in a few seconds"):
        await ask(children, "second")

    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    monkeypatch.undo()
    assert await ask(children, "third") == b"third"
