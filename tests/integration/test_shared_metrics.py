"""What one API process tells for all, with a real queue and a real store."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx
import msgspec
import pytest
import redis
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from tests.faults.processes import Process, clean_environment
from tests.integration.test_storing import queued
from tests.machine import free_addresses
from tests.servers import Postgres, Valkey, wait_until

from the_eye.queue import EVENTS_QUEUE, EventBroker, enqueue_events
from the_eye.queue.lease import Lease
from the_eye.settings import QueueSettings, RetentionSettings, StoreSettings
from the_eye.store.connect import Connection
from the_eye.store.dead_events import DeadEvent, set_aside
from the_eye.store.partitions import maintain
from the_eye_api import shared_metrics
from the_eye_api.shared_metrics import SharedMetrics

DEADLINE = 30.0


@pytest.fixture
def settings(queue_settings: QueueSettings, monkeypatch: pytest.MonkeyPatch) -> QueueSettings:
    """Ask often, so that tests need not wait long."""
    monkeypatch.setattr(shared_metrics, "QUEUE_SECONDS", 0.5)
    monkeypatch.setattr(shared_metrics, "STORE_SECONDS", 0.5)
    monkeypatch.setattr(shared_metrics, "LOOK_SECONDS", 0.05)
    return msgspec.structs.replace(queue_settings, queue_timeout_seconds=1.0)


class Told:
    """What a process tells."""

    def __init__(self, shared: SharedMetrics) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(shared)

    def value(self, name: str, **labels: str) -> float | None:
        """Read a sample; None when it is not told."""
        return self._registry.get_sample_value(name, labels)

    def wait_for(self, name: str, value: float | None, **labels: str) -> None:
        """Wait until a sample has a value."""
        wait_until(
            lambda: self.value(name, **labels) == value, DEADLINE, lambda: f"{name} is {self.value(name, **labels)}"
        )


@contextmanager
def telling(settings: QueueSettings, store: StoreSettings) -> Iterator[Told]:
    """Be an API process, as far as these metrics go."""
    shared = SharedMetrics(settings, store)
    shared.start()
    try:
        yield Told(shared)
    finally:
        shared.stop()


def test_the_queue_is_told_of(settings: QueueSettings, store_settings: StoreSettings) -> None:
    """Its messages by state, its events, the ledger, and the server."""
    for _ in range(3):
        enqueue_events(settings, [queued(), queued()])
    broker = EventBroker(settings)
    with broker.client, telling(settings, store_settings) as told:
        broker.do_fetch(EVENTS_QUEUE, 1)

        told.wait_for("the_eye_backlog_messages", 2, state="ready")
        told.wait_for("the_eye_backlog_messages", 1, state="unacknowledged")
        told.wait_for("the_eye_backlog_messages", 0, state="delayed")
        told.wait_for("the_eye_backlog_events", 6)
        told.wait_for("the_eye_ledger_events_total", 6, state="accepted")
        told.wait_for("the_eye_ledger_events_total", 0, state="dead")
        told.wait_for("the_eye_ledger_difference_events", 0)
        told.wait_for("the_eye_redis_memory_max_bytes", 0)
        told.wait_for("the_eye_redis_evicted_keys_total", 0)
        told.wait_for("the_eye_redis_aof_delayed_fsyncs_total", 0)
        for name in ("the_eye_backlog_bytes", "the_eye_backlog_age_seconds", "the_eye_redis_memory_used_bytes"):
            assert (told.value(name) or 0) > 0, name
        assert (told.value("the_eye_redis_connected_clients") or 0) > 0

        (message_id, *_) = broker.client.hkeys(broker.key(EVENTS_QUEUE, "msgs"))
        broker.client.hdel(broker.key(EVENTS_QUEUE, "msgs"), message_id)
        told.wait_for("the_eye_ledger_difference_events", 2)


def test_a_message_that_no_list_and_no_worker_has_grows_old(
    settings: QueueSettings, store_settings: StoreSettings
) -> None:
    """As when someone deletes the list: it is queued, and nobody will ever fetch it."""
    enqueue_events(settings, [queued()])
    broker = EventBroker(settings)
    with broker.client, telling(settings, store_settings) as told:
        broker.client.delete(broker.key(EVENTS_QUEUE))
        told.wait_for("the_eye_backlog_messages", 0, state="ready")
        told.wait_for("the_eye_ledger_difference_events", 0)

        before = told.value("the_eye_backlog_age_seconds") or 0

        wait_until(lambda: (told.value("the_eye_backlog_age_seconds") or 0) > before > 0, DEADLINE, lambda: str(before))


def test_the_store_is_told_of(settings: QueueSettings, store_settings: StoreSettings, connection: Connection) -> None:
    """What waits to be replayed, until when there are partitions, its size and its connections."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    with telling(settings, store_settings) as told:
        told.wait_for("the_eye_dead_events", 0, kind="event")
        assert told.value("the_eye_partitions_until_timestamp_seconds") == 0
        dead = [DeadEvent(kind="message", code="x", error="y", original=b"", queue_id=str(uuid4())) for _ in range(2)]
        set_aside(connection, dead)
        list(maintain(connection, RetentionSettings(partitions_ahead_days=3), today))

        told.wait_for("the_eye_dead_events", 2, kind="message")
        told.wait_for("the_eye_partitions_until_timestamp_seconds", today.timestamp() + 4 * 24 * 60 * 60)
        assert (told.value("the_eye_database_bytes") or 0) > 1_000_000
        assert (told.value("the_eye_database_connections", state="active") or 0) >= 1


def test_what_is_away_is_not_told_as_it_was(
    settings: QueueSettings, store_settings: StoreSettings, postgres: Postgres, valkey: Valkey
) -> None:
    """Neither costs what is known of the other, but for the lease, which is in the queue's server."""
    with telling(settings, store_settings) as told:
        told.wait_for("the_eye_dead_events", 0, kind="event")
        told.wait_for("the_eye_ledger_difference_events", 0)
        postgres.stop()
        try:
            told.wait_for("the_eye_dead_events", None, kind="event")
            assert told.value("the_eye_ledger_difference_events") == 0
        finally:
            postgres.start()
        told.wait_for("the_eye_dead_events", 0, kind="event")

        valkey.pause()
        try:
            told.wait_for("the_eye_ledger_difference_events", None)
        finally:
            valkey.resume()
        told.wait_for("the_eye_ledger_difference_events", 0)


def test_a_full_server_does_not_silence_what_tells_of_it(
    settings: QueueSettings, store_settings: StoreSettings, valkey: Valkey
) -> None:
    """It is taken and renewed without memory, too."""
    with redis.Redis.from_url(valkey.url()) as client:
        client.config_set("maxmemory", "1mb")
        try:
            with telling(settings, store_settings) as told:
                told.wait_for("the_eye_redis_memory_max_bytes", 1_048_576)
        finally:
            client.config_set("maxmemory", "0")


def test_a_lease_has_one_holder(settings: QueueSettings) -> None:
    """Until it is released, or was not renewed for long enough."""
    first, second = Lease(settings, "x"), Lease(settings, "x")
    for lease in (first, second, first):
        lease.take()
    assert (first.held, second.held) == (True, False)

    first.release()
    second.take()
    first.take()
    assert (first.held, second.held) == (False, True)

    with redis.Redis.from_url(settings.redis_url) as client:
        assert 0 < client.pttl(f"{settings.queue_namespace}:__lease__.x") <= 10_000
    second.release()


class Api(Process):
    """A process of the edge."""

    def __init__(self, name: str, queue: QueueSettings, store: StoreSettings, folder: Path) -> None:
        listen, self._metrics = free_addresses(2)
        environ = {
            "THE_EYE_DATABASE_URL": store.database_url,
            "THE_EYE_REDIS_URL": queue.redis_url,
            "THE_EYE_QUEUE_NAMESPACE": queue.queue_namespace,
            "THE_EYE_API_LISTEN": listen,
            "THE_EYE_API_METRICS_LISTEN": self._metrics,
        }
        super().__init__("api", clean_environment() | environ, folder / f"{name}.log", f"http://{listen}/readyz")

    def families(self) -> set[str]:
        """Name what it tells."""
        text = httpx.get(f"http://{self._metrics}/metrics").text
        return {family.name for family in text_string_to_metric_families(text)}

    def tells(self) -> bool:
        """Whether it tells of the queue, and then of all of it."""
        told = {name for name in self.families() if name.startswith(("the_eye_backlog_", "the_eye_ledger_"))}
        told -= {"the_eye_backlog_full", "the_eye_backlog_max_bytes"}  # each API tells its own
        assert len(told) in {0, 6}, told
        return bool(told)


def test_of_several_processes_one_tells_and_another_follows_it(
    queue_settings: QueueSettings, store_settings: StoreSettings, tmp_path: Path
) -> None:
    """When it is killed, and when it stops in order."""
    with ExitStack() as stack:

        def started(name: str) -> Api:
            api = Api(name, queue_settings, store_settings, tmp_path)
            stack.callback(api.clean_up)
            api.start()
            api.wait_until_ready()
            return api

        first = started("first")
        wait_until(first.tells, DEADLINE, lambda: first.log)
        second = started("second")
        assert not second.tells()
        assert "the_eye_http_requests_in_flight" in second.families()

        first.kill()
        wait_until(second.tells, DEADLINE, lambda: second.log)

        third = started("third")
        assert not third.tells()
        assert second.terminate() == 0
        wait_until(third.tells, DEADLINE, lambda: third.log)
