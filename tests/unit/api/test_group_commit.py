"""How requests share writes to the queue. That a write is durable is shown against the real queue elsewhere."""

import asyncio
from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec
import pytest
from prometheus_client import REGISTRY

from the_eye.queue import QueuedEvent, QueueUnavailableError
from the_eye_api.group_commit import GroupCommit


class Disk:
    """A place to write that takes as long as a test wants."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.open = asyncio.Event()
        self.error: Exception | None = None

    async def write(self, events: Sequence[QueuedEvent], _: Sequence[Mapping[str, str]]) -> None:
        """Note what arrived, then wait until the test lets it pass."""
        self.groups.append([event.received_at for event in events])
        await self.open.wait()
        if self.error is not None:
            raise self.error


@pytest.fixture
def disk() -> Disk:
    """Make a disk that is closed."""
    return Disk()


@pytest.fixture
def group_commit(disk: Disk) -> GroupCommit:
    """Group at most 4 events or 100 bytes, and let at most 200 bytes wait."""
    return GroupCommit(disk.write, max_events=4, max_bytes=100, pending_max_bytes=200)


def event(number: int, size: int = 1, application_id: int = 1) -> QueuedEvent:
    """Make an event that is known by its number."""
    return QueuedEvent(UUID(int=0), application_id, "demo", number, b"x" * size)


async def start(group_commit: GroupCommit, *requests: list[QueuedEvent]) -> list[asyncio.Task[None]]:
    """Begin requests and let each get as far as it can."""
    tasks = [asyncio.create_task(group_commit.commit(events)) for events in requests]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def test_a_lone_event_waits_for_nobody(disk: Disk, group_commit: GroupCommit) -> None:
    """There is no timer: the first write starts at once."""
    await start(group_commit, [event(1)])

    assert disk.groups == [[1]]


async def test_requests_gather_while_a_write_is_in_flight(disk: Disk, group_commit: GroupCommit) -> None:
    """What arrives meanwhile goes out together with the next write, in order of arrival."""
    first = await start(group_commit, [event(1)])
    others = await start(group_commit, [event(2)], [event(3)], [event(4)])
    assert disk.groups == [[1]]

    disk.open.set()
    await asyncio.gather(*first, *others)

    assert disk.groups == [[1], [2, 3, 4]]


async def test_nobody_is_answered_before_the_write_is_done(disk: Disk, group_commit: GroupCommit) -> None:
    """202 means on disk."""
    (task,) = await start(group_commit, [event(1)])
    assert not task.done()

    disk.open.set()
    await task


async def test_a_group_is_bounded_in_events_and_bytes(disk: Disk, group_commit: GroupCommit) -> None:
    """So that a worker's memory is bounded."""
    tasks = await start(group_commit, [event(0)])
    tasks += await start(group_commit, *([event(number)] for number in range(1, 6)), [event(6, 60)], [event(7, 60)])

    disk.open.set()
    await asyncio.gather(*tasks)

    assert disk.groups == [[0], [1, 2, 3, 4], [5, 6], [7]]


async def test_a_requests_events_stay_together(disk: Disk, group_commit: GroupCommit) -> None:
    """A request is answered once, so it is written once, also when it is larger than a group."""
    tasks = await start(group_commit, [event(1)])
    tasks += await start(group_commit, [event(number, 20) for number in range(2, 9)])

    disk.open.set()
    await asyncio.gather(*tasks)

    assert disk.groups == [[1], [2, 3, 4, 5, 6, 7, 8]]


async def test_applications_take_turns(disk: Disk, group_commit: GroupCommit) -> None:
    """However much one has waiting, another's event is in the next group or in the one after it."""
    tasks = await start(group_commit, [event(0)])
    tasks += await start(group_commit, *([event(number)] for number in range(1, 10)), [event(100, application_id=2)])
    large = [event(number) for number in range(200, 210)]
    tasks += await start(group_commit, large, [event(101, application_id=2)], [event(300, application_id=3)])

    disk.open.set()
    await asyncio.gather(*tasks)

    assert disk.groups[:3] == [[0], [1, 100, 300, 2], [101, 3, 4, 5]]
    assert sorted(number for group in disk.groups for number in group) == [*range(10), 100, 101, *range(200, 210), 300]


async def test_all_of_a_group_hear_of_its_failure(disk: Disk, group_commit: GroupCommit) -> None:
    """And the next group is tried all the same."""
    tasks = await start(group_commit, [event(1)], [event(2)])
    disk.error = QueueUnavailableError("away")
    disk.open.set()

    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(result) for result in results] == [QueueUnavailableError, QueueUnavailableError]
    disk.error = None
    await group_commit.commit([event(3)])
    assert disk.groups == [[1, 2], [3]]


async def test_what_waits_is_bounded(disk: Disk, group_commit: GroupCommit) -> None:
    """A queue that does not answer must not fill the memory: the refusal is immediate."""
    await start(group_commit, [event(1, 150)])

    with pytest.raises(QueueUnavailableError):
        await group_commit.commit([event(2, 60)])

    disk.open.set()
    await group_commit.drain()
    await group_commit.commit([event(3, 60)])


async def test_a_cancelled_request_does_not_disturb_its_neighbours(disk: Disk, group_commit: GroupCommit) -> None:
    """A sender that hangs up leaves its event in the group."""
    first = await start(group_commit, [event(1)])
    gone, stays = await start(group_commit, [event(2)], [event(3)])
    gone.cancel()

    disk.open.set()
    await asyncio.gather(*first, stays)

    assert disk.groups == [[1], [2, 3]]


async def test_one_who_cannot_take_the_news_does_not_keep_it_from_others(disk: Disk, group_commit: GroupCommit) -> None:
    """An answer that cannot be written is a fault of its own connection."""
    heard: list[Exception | None] = []

    def fail(_: Exception | None) -> None:
        raise RuntimeError

    disk.open.set()
    for settle in (fail, heard.append):
        group_commit.add([event(1)], settle)
    await group_commit.drain()

    assert heard == [None]


async def test_draining_waits_for_all_that_waits(disk: Disk, group_commit: GroupCommit) -> None:
    """A process that stops answers everyone first."""
    tasks = await start(group_commit, [event(1)], [event(2)])
    disk.open.set()

    await group_commit.drain()
    await asyncio.sleep(0)

    assert all(task.done() for task in tasks)


def accepted(application: str) -> float:
    """Read how many events of an application were counted."""
    return REGISTRY.get_sample_value("the_eye_events_accepted_total", {"application": application}) or 0.0


async def test_what_is_on_disk_is_counted_for_its_application(disk: Disk, group_commit: GroupCommit) -> None:
    """Each of a group for its own, and nothing of a write that failed."""
    before = {name: accepted(name) for name in ("demo", "other")}
    other = [msgspec.structs.replace(event(number, application_id=2), application="other") for number in (4, 5)]
    disk.open.set()

    await asyncio.gather(*await start(group_commit, [event(1)], other, [event(2)]))
    disk.error = QueueUnavailableError("away")
    await asyncio.gather(*await start(group_commit, [event(6)]), return_exceptions=True)

    assert {name: accepted(name) - count for name, count in before.items()} == {"demo": 2, "other": 2}
