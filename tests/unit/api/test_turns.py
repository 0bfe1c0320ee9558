"""Whose turn it is, by a clock that the test sets."""

import asyncio
from functools import partial

import pytest

from the_eye_api.turns import MEMORY_SECONDS, SHARE, CrowdedError, Turns

FLOODING, QUIET = 1, 2


class Clock:
    """Stands still until it is set forward."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def turns(clock: Clock) -> Turns:
    return Turns(waiting_max_bytes=100, clock=clock)


async def settle() -> None:
    """Let every task get as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def ask(turns: Turns, application_id: int, count: int) -> list[asyncio.Task[None]]:
    """Ask for turns, of a byte each."""
    tasks = [asyncio.create_task(turns.take(application_id, 1)) for _ in range(count)]
    await settle()
    return tasks


def have(tasks: list[asyncio.Task[None]]) -> int:
    """Count those who have their turn."""
    return sum(task.done() for task in tasks)


async def test_an_application_that_is_alone_waits_for_nobody(turns: Turns, clock: Clock) -> None:
    """However much it sends: there is nobody to be fair to."""
    await ask(turns, QUIET, 1)
    turns.give_back(QUIET)
    tasks = await ask(turns, FLOODING, 1)
    clock.now += MEMORY_SECONDS

    tasks += await ask(turns, FLOODING, 10 * SHARE)

    assert have(tasks) == len(tasks)


async def test_the_first_application_is_alone(turns: Turns) -> None:
    """That there was none before it does not make it one of several."""
    assert have(await ask(turns, FLOODING, 10 * SHARE)) == 10 * SHARE


async def test_beside_others_it_has_its_share(turns: Turns) -> None:
    """And who sends little never waits."""
    await ask(turns, QUIET, 1)
    turns.give_back(QUIET)

    flood = await ask(turns, FLOODING, 3 * SHARE)
    quiet = await ask(turns, QUIET, SHARE)

    assert (have(flood), have(quiet)) == (SHARE, SHARE)


async def test_turns_are_passed_on_in_order(turns: Turns) -> None:
    """Each that ends is the next one's."""
    await ask(turns, QUIET, 1)
    flood = await ask(turns, FLOODING, SHARE + 3)

    turns.give_back(FLOODING)
    turns.give_back(FLOODING)
    await settle()

    assert [task.done() for task in flood] == [True] * (SHARE + 2) + [False]


async def test_once_it_is_alone_again_nobody_waits(turns: Turns, clock: Clock) -> None:
    """A share is for as long as there are others."""
    await ask(turns, QUIET, 1)
    flood = await ask(turns, FLOODING, 5 * SHARE)
    clock.now += MEMORY_SECONDS

    turns.give_back(FLOODING)
    await settle()

    assert have(flood) == len(flood)


async def test_who_gives_up_costs_nobody_a_turn(turns: Turns) -> None:
    """Neither while it waits nor when its turn has just come."""
    await ask(turns, QUIET, 1)
    flood = await ask(turns, FLOODING, SHARE + 3)
    flood[SHARE].cancel()
    await settle()

    turns.give_back(FLOODING)
    flood[SHARE + 1].cancel()  # its turn has come, but it has not gone on yet
    await settle()

    assert flood[SHARE + 2].done()
    assert not flood[SHARE + 2].cancelled()


async def test_a_turn_that_is_not_taken_is_the_next_ones(turns: Turns) -> None:
    """Whether it is offered at once or later."""
    await ask(turns, QUIET, 1)
    begun: list[str] = []

    def begin(name: str) -> bool:
        begun.append(name)
        return True

    turns.at_turn(FLOODING, 1, lambda: False)
    await ask(turns, FLOODING, SHARE)
    turns.at_turn(FLOODING, 1, lambda: False)
    turns.at_turn(FLOODING, 1, partial(begin, "second"))
    turns.at_turn(FLOODING, 1, partial(begin, "third"))

    turns.give_back(FLOODING)

    assert begun == ["second"]


async def test_what_waits_is_bounded(turns: Turns) -> None:
    """The bodies of those who wait are in memory."""
    await ask(turns, QUIET, 1)
    await ask(turns, FLOODING, SHARE)
    waiting = asyncio.create_task(turns.take(FLOODING, 20))
    await settle()

    with pytest.raises(CrowdedError):
        await turns.take(FLOODING, 10)

    turns.give_back(FLOODING)
    await waiting
    assert not (await ask(turns, FLOODING, 1))[0].done()  # it waits, and there is room for it


async def test_what_one_application_has_waiting_leaves_room_for_others(turns: Turns) -> None:
    """It takes several to use up all there is."""
    await ask(turns, QUIET, 1)
    for application_id in (3, 4, 5, 6):
        await ask(turns, application_id, SHARE)
        assert not (await ask(turns, application_id, 25))[-1].done()

    await ask(turns, FLOODING, SHARE)
    with pytest.raises(CrowdedError):
        await turns.take(FLOODING, 1)


async def test_nothing_is_kept_of_applications_that_are_gone(turns: Turns) -> None:
    """There may be many of them over time."""
    for application_id in range(1000):
        await turns.take(application_id, 1)
        turns.give_back(application_id)

    assert turns._lines == {}  # noqa: SLF001 - what cannot be seen otherwise
