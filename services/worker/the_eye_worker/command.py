"""``the-eye worker``: one process that stores accepted events."""

import math
import signal
import threading
from datetime import UTC, datetime
from http import HTTPStatus

import click
import dramatiq
import structlog
from dramatiq.worker import Worker

from the_eye.collector import spare_collector
from the_eye.diagnostics import Answer, DiagnosticsServer
from the_eye.logs import configure_logging
from the_eye.queue import EVENTS_QUEUE, REPLAYS_QUEUE, STORE_EVENTS, EventBroker, Payload, note_outcomes
from the_eye.rules.directory import RuleDirectory
from the_eye.rules.ruleset import RuleSet
from the_eye.settings import LogSettings, QueueSettings, RuleSettings, StoreSettings, TelemetrySettings, WorkerSettings
from the_eye.store.connect import open_pool
from the_eye.telemetry import telemetry
from the_eye_worker import metrics
from the_eye_worker.dead_letters import DeadLetterSweep
from the_eye_worker.storing import EventStorer

IDLE_POLL_MS = 100
"""The longest an idle worker waits before it looks for messages again; bounds how late a lone event is stored."""

SWEEP_STOP_SECONDS = 2.0
"""How long the sweep may take to end; what it had begun is done again by the next one."""

log = structlog.get_logger(__name__)


@click.command()
def worker() -> None:
    """Judge and store accepted events."""
    configure_logging(LogSettings.load())
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    run(stopping)


def run(stopping: threading.Event) -> None:
    """Work until ``stopping`` is set, then finish the messages in work and give the others back."""
    WorkerProcess().run(stopping)


class WorkerProcess:
    """The parts of the process, and what it tells of itself from the start on."""

    def __init__(self) -> None:
        """Raise SettingsError for settings that cannot be used, before anything is waited for."""
        self._settings = WorkerSettings.load()
        self._queue = QueueSettings.load()
        self._store = StoreSettings.load()
        self._rules = _rules(RuleSettings.load())
        telemetry.start(TelemetrySettings.load(), "the-eye-worker")
        self._threads: Worker | None = None
        self._diagnostics = DiagnosticsServer(
            self._settings.worker_metrics_listen,
            {
                "/healthz": self._alive,
                "/readyz": self._ready,
                "/ruleset": lambda: _ruleset(self._rules),
                "/ruleset/rules": lambda: _ruleset_rules(self._rules),
            },
            key="THE_EYE_WORKER_METRICS_LISTEN",
        )

    def run(self, stopping: threading.Event) -> None:
        """Wait for a ruleset, then work."""
        self._diagnostics.start()
        try:
            if self._rules.load(stopping):
                self._work(stopping)
        finally:
            self._diagnostics.stop()
            telemetry.stop()
        log.info("worker_stopped")

    def _work(self, stopping: threading.Event) -> None:
        settings = self._settings
        broker = EventBroker(self._queue)
        pool = open_pool(
            self._store, "the-eye worker", settings.worker_threads + 1, settings.worker_write_seconds, checked=False
        )
        storer = EventStorer(pool, self._rules, stopping)

        @dramatiq.actor(actor_name=STORE_EVENTS, queue_name=EVENTS_QUEUE, broker=broker)
        def store(payload: Payload) -> None:
            with telemetry.processing(payload.trace_contexts):
                note_outcomes(storer.store(payload))

        broker.declare_queue(REPLAYS_QUEUE)
        threads = Worker(broker, worker_threads=settings.worker_threads, worker_timeout=IDLE_POLL_MS)
        sweep = threading.Thread(
            target=DeadLetterSweep(broker, pool).run, args=(stopping,), name="dead-letters", daemon=True
        )
        self._rules.start()
        sweep.start()
        threads.start()
        self._threads = threads
        spare_collector()
        log.info("worker_started", threads=settings.worker_threads, metrics=str(self._diagnostics.address))
        stopping.wait()
        log.info("worker_stopping")
        threads.stop(timeout=int(settings.worker_shutdown_seconds * 1000))
        sweep.join(SWEEP_STOP_SECONDS)
        self._rules.stop()
        pool.close()

    def _alive(self) -> Answer:
        """A worker that lost a thread cannot mend itself: it should be restarted."""
        if dead := self._dead_threads():
            return HTTPStatus.SERVICE_UNAVAILABLE, {"status": "threads died", "threads": dead}
        return HTTPStatus.OK, {"status": "ok"}

    def _ready(self) -> Answer:
        """It is at work once there is a ruleset."""
        if self._threads is None:
            return HTTPStatus.SERVICE_UNAVAILABLE, {"status": "waiting for a ruleset"}
        return self._alive()

    def _dead_threads(self) -> list[str]:
        if self._threads is None:
            return []
        threads = (*self._threads.workers, *self._threads.consumers.values())
        return [thread.name for thread in threads if not thread.is_alive()]


def _rules(settings: RuleSettings) -> RuleDirectory:
    """Make what watches the rules; where an operator has not written any yet, they are waited for without end."""
    rules = RuleDirectory(
        settings.rules_dir,
        poll_seconds=settings.rules_poll_seconds,
        future_tolerance=settings.future_tolerance,
        on_change=_note_revision,
        wait_seconds=math.inf,
    )
    _note_revision(rules.current)
    metrics.RULESET_LOADED.set_function(lambda: rules.loaded_at.timestamp())  # noqa: PLW0108 - it is another one later
    metrics.RULESET_RULES.set_function(lambda: len(rules.current.rules))
    metrics.RULE_PROBLEMS.set_function(lambda: len(rules.problems))
    return rules


def _note_revision(ruleset: RuleSet) -> None:
    metrics.RULESET_INFO.clear()
    metrics.RULESET_INFO.labels(ruleset.revision).set(1)


def _ruleset(rules: RuleDirectory) -> Answer:
    """Short, however many rules there are: the operator asks every worker for it again and again."""
    state = rules.state
    return HTTPStatus.OK, {
        "revision": state.assembly.ruleset.revision,
        "declared": state.declared,
        "loaded_at": state.loaded_at,
        "age_seconds": (datetime.now(UTC) - state.loaded_at).total_seconds(),
        "problems": state.problems,
    }


def _ruleset_rules(rules: RuleDirectory) -> Answer:
    ruleset = rules.current
    return HTTPStatus.OK, {
        "revision": ruleset.revision,
        "rules": [
            {"rule": rule.id, "generation": rule.generation, "digest": rule.digest, "action": rule.action}
            for rule in ruleset.rules
        ],
    }
