"""More than one part is away at once."""

import pytest
from tests.faults.case import Case
from tests.faults.house import House
from tests.faults.stores import BreakableValkey, CopiedPostgres


@pytest.mark.fault("PostgreSQL and Valkey killed at once; Valkey comes back first")
def test_both_stores_away_lose_nothing(
    house: House, case: Case, postgres: CopiedPostgres, valkey: BreakableValkey
) -> None:
    """Accepting goes on as soon as the queue is back, storing once the store is."""
    with case.sending() as sender:
        sender.wait_for_more(case.scale.between)
        postgres.kill()
        valkey.kill()
        case.wait(case.scale.outage_seconds)
        assert house.api.runs
        assert house.worker.runs
        valkey.start()
        sender.wait_for_more(case.scale.between)
        postgres.start()
        case.mended()
        case.recover()
    case.close()


@pytest.mark.fault("every process killed at once, as by a power cut, and started again, again and again")
def test_everything_killed_at_once_loses_nothing(
    house: House, case: Case, postgres: CopiedPostgres, valkey: BreakableValkey
) -> None:
    """What the kernel had been given stays; a real power cut also shows whether the disk keeps its word."""
    with case.sending() as sender:
        for _ in range(case.scale.rounds):
            sender.wait_for_more(case.scale.between)
            for part in (valkey, house.api, house.worker, postgres):
                part.kill()
            case.mended()
            for part in (house.worker, house.api, valkey, postgres):
                part.start()
        case.recover()
    case.close()
