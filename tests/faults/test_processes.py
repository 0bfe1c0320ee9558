"""The Eye's own processes end without a word, are restarted, or freeze."""

import threading

import httpx
import pytest
from tests.faults.case import Case
from tests.faults.house import House
from tests.faults.proxy import Proxy
from tests.faults.sender import Load
from tests.faults.stores import BreakableValkey
from tests.machine import free_addresses
from tests.servers import wait_until

DEADLINE = 30.0
TAKEN_OVER_SECONDS = 15.0


@pytest.mark.fault("worker killed (SIGKILL), again and again")
def test_killed_workers_lose_and_double_nothing(house: House, case: Case) -> None:
    """In the middle of messages, each time; senders notice nothing of it."""
    with case.sending() as sender:
        for _ in range(case.scale.rounds):
            sender.wait_for_more(case.scale.between)
            house.worker.kill()
            case.mended()
            house.worker.start()
        case.recover()
    case.close()
    assert case.seen.only_202


@pytest.mark.fault("API killed (SIGKILL), again and again")
def test_killed_apis_lose_and_double_nothing(house: House, case: Case) -> None:
    """What was answered is on disk, and what was not is sent again and counts once."""
    with case.sending() as sender:
        for _ in range(case.scale.rounds):
            sender.wait_for_more(case.scale.between)
            house.api.kill()
            case.mended()
            house.api.start()
        case.recover()
    case.close()


@pytest.mark.fault("API and worker killed at once (SIGKILL), again and again")
def test_killed_together_they_lose_and_double_nothing(house: House, case: Case) -> None:
    """As when a machine with both dies."""
    with case.sending() as sender:
        for _ in range(case.scale.rounds):
            sender.wait_for_more(case.scale.between)
            house.api.kill()
            house.worker.kill()
            case.mended()
            house.api.start()
            house.worker.start()
        case.recover()
    case.close()


@pytest.mark.fault("worker killed with messages in hand while another one runs")
def test_a_dead_workers_messages_are_taken_over(house: House, case: Case) -> None:
    """Within 15 seconds, where Dramatiq's own settings take minutes."""
    other = house.make_worker()
    with house.postgres.connect() as lock, lock.transaction():
        lock.execute("LOCK TABLE events IN SHARE ROW EXCLUSIVE MODE")
        with case.sending() as sender:
            sender.wait_for_more(case.scale.between)
        wait_until(lambda: bool(house.claims()), DEADLINE, lambda: "the worker takes no messages")
        other.start()
        other.wait_until_ready()
        house.worker.kill()
        case.mended()
    case.note_stored()
    case.close()
    assert case.stored_after <= TAKEN_OVER_SECONDS


@pytest.mark.fault("rolling restart (SIGTERM) of two APIs behind a proxy that drains, and of two workers")
def test_a_rolling_restart_fails_no_request(house: House, case: Case) -> None:
    """Each process in turn, again and again; all of them end in order."""
    listen = [house.url.removeprefix("http://"), *free_addresses(1)]
    apis = [house.api, house.make_api(listen[1])]
    workers = [house.worker, house.make_worker()]
    for process in (apis[1], workers[1]):
        process.start()
        process.wait_until_ready()
    with Proxy(listen).running() as proxy, case.sending(url=proxy.url) as sender:
        for number in range(case.scale.rounds):
            sender.wait_for_more(case.scale.between)
            api, worker, backend = apis[number % 2], workers[number % 2], listen[number % 2]
            proxy.drain(backend)
            case.mended()
            assert api.terminate() == 0
            assert worker.terminate() == 0
            for process in (api, worker):
                process.start()
                process.wait_until_ready()
            proxy.use(backend)
        case.recover()
    case.close()
    assert case.seen.only_202


@pytest.mark.fault("API stopped (SIGTERM) with requests in flight")
def test_a_stopping_api_answers_what_it_has_begun(house: House, case: Case, valkey: BreakableValkey) -> None:
    """The queue is held up, so that the requests are certain to be unanswered when the signal comes."""
    with case.sending(Load(singles=0, batches=4, batch_events=100, total=400)) as sender:
        valkey.pause()
        wait_until(lambda: house.api.metric("the_eye_http_requests_in_flight") >= 4, DEADLINE, lambda: str(sender.seen))
        stopping = threading.Thread(target=house.api.terminate)
        stopping.start()
        wait_until(lambda: _takes_leave(house.url), DEADLINE, lambda: "the API keeps its connections")
        valkey.resume()
        case.mended()
        stopping.join()
        sender.wait_until_done(DEADLINE)
    case.note_stored()
    case.close()
    assert case.seen.only_202


@pytest.mark.fault("worker frozen until another has its messages, then going on")
def test_two_workers_with_the_same_messages_store_them_once(house: House, case: Case) -> None:
    """Neither knows of the other: both store the events and acknowledge them."""
    other = house.make_worker()
    with house.postgres.connect() as lock, lock.transaction():
        lock.execute("LOCK TABLE events IN SHARE ROW EXCLUSIVE MODE")
        # Few enough for one worker to have all of them in hand.
        with case.sending(Load(singles=0, batches=4, total=400)) as sender:
            sender.wait_until_done(DEADLINE)
        wait_until(lambda: house.waiting() == 0, DEADLINE, lambda: "the worker does not take all messages")
        frozen = house.claims()
        house.worker.pause()
        other.start()
        wait_until(
            lambda: bool(house.claims() - frozen) and not house.claims() & frozen,
            DEADLINE,
            lambda: "the frozen worker's messages are not taken over",
        )
        house.worker.resume()
        case.mended()
    case.note_stored()
    ledger = case.close()
    outcomes = {
        outcome: sum(worker.metric(f'the_eye_events_total{{outcome="{outcome}"}}') for worker in (house.worker, other))
        for outcome in ("valid", "invalid", "duplicate", "redelivered")
    }
    assert outcomes == {"valid": ledger.valid, "invalid": ledger.invalid, "duplicate": 0, "redelivered": 400}


def _takes_leave(url: str) -> bool:
    return bool(httpx.get(f"{url}/healthz").headers.get("Connection") == "close")
