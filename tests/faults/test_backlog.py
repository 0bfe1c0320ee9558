"""The worker is away for long, and then has all of it to do."""

import time

import pytest
from tests.faults.case import Case
from tests.faults.house import House
from tests.faults.sender import Load

FILL_SECONDS = 900.0
DRAIN_SECONDS = 900.0
MIB = 1024 * 1024

pytestmark = pytest.mark.timeout(2_000)


@pytest.fixture
def postgres_options() -> list[str]:
    """As `the-eye up` starts it, since how fast it takes rows is part of the answer."""
    return ["-c", "shared_buffers=256MB", "-c", "max_wal_size=2GB"]


@pytest.mark.fault("a backlog with the worker away, then one worker to drain it")
def test_a_backlog_is_drained_whole(house: House, case: Case) -> None:
    """Neither the edge nor the worker needs more memory for it than at any other time."""
    house.worker.terminate()
    started = time.monotonic()
    with case.sending(
        Load(singles=0, batches=4, batch_events=1_000, pause_seconds=0, total=case.scale.backlog)
    ) as sender:
        sender.wait_until_done(FILL_SECONDS)
    filled = case.sent / (time.monotonic() - started)
    case.mended()
    house.worker.start()
    case.note_stored(DRAIN_SECONDS)
    drained = case.sent / case.stored_after
    memory = {name: process.peak_memory / MIB for name, process in (("API", house.api), ("worker", house.worker))}
    case.close(
        how=f"{filled:,.0f} events/s in, {drained:,.0f} events/s out, at most {memory['API']:.0f} MiB in the API and "
        f"{memory['worker']:.0f} MiB in the worker"
    )
    assert case.seen.only_202
    assert memory["API"] < 150
    assert memory["worker"] < 300
