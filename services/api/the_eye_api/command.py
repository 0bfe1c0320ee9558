"""``the-eye api``: one process that accepts events and shows them."""

import signal
import socket

import click
import structlog
import uvicorn

from the_eye.collector import spare_collector
from the_eye.diagnostics import DiagnosticsServer
from the_eye.logs import configure_logging
from the_eye.settings import (
    Address,
    ApiSettings,
    LogSettings,
    QueueSettings,
    RuleSettings,
    SettingsError,
    StoreSettings,
    TelemetrySettings,
)
from the_eye.telemetry import telemetry
from the_eye_api.app import Api
from the_eye_api.protocol import BoundedProtocol
from the_eye_api.server import DrainingServer
from the_eye_api.shared_metrics import SharedMetrics

BACKLOG = 2048

log = structlog.get_logger(__name__)


@click.command()
def api() -> None:
    """Accept events over HTTP and show them."""
    configure_logging(LogSettings.load())
    settings = ApiSettings.load()
    telemetry.start(TelemetrySettings.load(), "the-eye-api")
    queue, store = QueueSettings.load(), StoreSettings.load()
    edge, shared_metrics = Api(settings, queue, store, RuleSettings.load()), SharedMetrics(queue, store)
    diagnostics = DiagnosticsServer(settings.api_metrics_listen, {}, key="THE_EYE_API_METRICS_LISTEN")
    listening = listen(settings.api_listen)
    diagnostics.start()
    shared_metrics.start()
    log.info("api_started", listen=str(settings.api_listen), metrics=str(diagnostics.address))
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn handles it, and once it has stopped in order raises it again for whoever handled it before.
        signal.signal(number, lambda *_: None)
    spare_collector()
    DrainingServer(_config(edge, settings), settings.api_drain_seconds, edge.end_streams).run(sockets=[listening])
    shared_metrics.stop()
    diagnostics.stop()
    telemetry.stop()
    log.info("api_stopped")


def listen(address: Address) -> socket.socket:
    """Bind before anything else starts.

    Raises SettingsError when the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family, backlog=BACKLOG)
    except OSError as error:
        message = f"cannot listen on {address} (THE_EYE_API_LISTEN): {error.strerror}"
        raise SettingsError(message) from error


def _config(edge: Api, settings: ApiSettings) -> uvicorn.Config:
    return uvicorn.Config(
        edge.asgi,
        loop="uvloop",
        http=BoundedProtocol.within(settings.body_seconds, edge.at_once),
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing here asks where a request came from
        backlog=BACKLOG,
        timeout_keep_alive=settings.api_keep_alive_seconds,
        timeout_graceful_shutdown=int(settings.api_shutdown_seconds),
    )
