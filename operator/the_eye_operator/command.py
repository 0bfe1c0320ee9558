"""``the-eye operator``: the process that turns ValidatorRules into the workers' ruleset."""

import asyncio
import logging
import os
import signal
from http import HTTPStatus

import click
import httpx2
import structlog

from the_eye.diagnostics import Answer, DiagnosticsServer
from the_eye.logs import configure_logging
from the_eye.settings import LogSettings, OperatorSettings, StoreSettings
from the_eye_operator.auditing import Audits
from the_eye_operator.backtesting import Backtests
from the_eye_operator.cluster import Cluster, connect
from the_eye_operator.health import Health
from the_eye_operator.observing import Observer
from the_eye_operator.publishing import Publisher
from the_eye_operator.reconciling import Reconciler
from the_eye_operator.watch import Watch
from the_eye_operator.workers import Workers

log = structlog.get_logger(__name__)


@click.command()
def operator() -> None:
    """Turn the ValidatorRules of a Kubernetes cluster into the ruleset that workers mount."""
    configure_logging(LogSettings.load())
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    # What kopf calls an error is told by the watch when it ends, and by the reconciling that meets the same server.
    logging.getLogger("kopf").setLevel(logging.CRITICAL)
    asyncio.run(_run(OperatorSettings.load()))


async def _run(settings: OperatorSettings) -> None:
    cluster = connect(settings.operator_namespace)
    namespaces = settings.operator_rule_namespaces.replace(" ", "").split(",")
    namespaces = [namespace for namespace in namespaces if namespace] or [cluster.namespace]
    publisher = Publisher(cluster, settings.operator_ruleset_name)
    reconciler = Reconciler(cluster, namespaces, settings, publisher)
    diagnostics = DiagnosticsServer(
        settings.operator_listen, {"/healthz": lambda: _health(reconciler.health)}, key="THE_EYE_OPERATOR_LISTEN"
    )
    diagnostics.start()
    log.info("operator_started", namespaces=namespaces, ruleset=f"{cluster.namespace}/{settings.operator_ruleset_name}")
    try:
        await _work(cluster, namespaces, settings, reconciler)
    finally:
        diagnostics.stop()
        await cluster.close()
        log.info("operator_stopped")


async def _work(cluster: Cluster, namespaces: list[str], settings: OperatorSettings, reconciler: Reconciler) -> None:
    """Work until a signal asks to stop; a loop that ends by itself ends the process, so that it is started again."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    watch = Watch(
        namespaces,
        on_event=lambda type_, body: loop.call_soon_threadsafe(reconciler.on_event, type_, body),
        on_lost=lambda: loop.call_soon_threadsafe(reconciler.on_lost),
    )
    # Workers are asked directly, whatever proxy leads to the API server.
    async with httpx2.AsyncClient(trust_env=False) as client:
        observer = Observer(cluster, Workers(client), settings, on_change=reconciler.wake, health=reconciler.health)
        audits = Audits(cluster, reconciler.declared, _store(), settings.operator_audit_seconds)
        tasks = [
            asyncio.create_task(reconciler.run(watch, observer), name="reconcile"),
            asyncio.create_task(observer.run(), name="observe"),
            asyncio.create_task(Backtests(cluster, reconciler.declared).run(), name="backtest"),
            asyncio.create_task(audits.run(), name="audit"),
            asyncio.create_task(stopping.wait(), name="stop"),
        ]
        watch.start()
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        await asyncio.to_thread(watch.stop)
        for task in done:
            task.result()


def _store() -> StoreSettings | None:
    """Without a store there are no back-tests and no counts, and all else goes on."""
    if os.environ.get("THE_EYE_DATABASE_URL"):
        return StoreSettings.load()
    log.info("operator_without_store", missing="THE_EYE_DATABASE_URL")
    return None


def _health(health: Health) -> Answer:
    status = HTTPStatus.SERVICE_UNAVAILABLE if health.is_stuck else HTTPStatus.OK
    return status, health.report()
