"""What kube-state-metrics and cert-manager tell Prometheus of a release on Kubernetes, here told by nobody else."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, Gauge, make_wsgi_app

NAMESPACE = "shop"

REPLICAS = {"status_desired_replicas": 2, "spec_min_replicas": 2, "spec_max_replicas": 10}

METRICS = {
    "the-eye-api": ("cpu", "average", 0.41, 0.6),
    "the-eye-worker": ("the_eye_backlog_bytes", "average", 8 * 2**20, 32 * 2**20),
}
"""What each autoscaler follows: name and type of its metric, its value, its target."""

DAY = 86_400


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    prefix = "kube_horizontalpodautoscaler"
    whose = ["namespace", "horizontalpodautoscaler"]
    for name, replicas in REPLICAS.items():
        gauge = Gauge(f"{prefix}_{name}", "As kube-state-metrics has it.", whose, registry=registry)
        for scaler in METRICS:
            gauge.labels(NAMESPACE, scaler).set(replicas)
    labels = [*whose, "metric_name", "metric_target_type"]
    status = Gauge(f"{prefix}_status_target_metric", "As kube-state-metrics has it.", labels, registry=registry)
    spec = Gauge(f"{prefix}_spec_target_metric", "As kube-state-metrics has it.", labels, registry=registry)
    for scaler, (metric, kind, value, target) in METRICS.items():
        status.labels(NAMESPACE, scaler, metric, kind).set(value)
        spec.labels(NAMESPACE, scaler, metric, kind).set(target)
    expires = "certmanager_certificate_expiration_timestamp_seconds"
    certificate = Gauge(expires, "As cert-manager has it.", ["namespace", "name"], registry=registry)
    certificate.labels(NAMESPACE, "events-tls").set(time.time() + 61 * DAY)
    return registry


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Scrapes are no news."""


@contextmanager
def telling(address: str) -> Iterator[None]:
    """Answer at an address for as long as the block lasts."""
    host, _, port = address.partition(":")
    server = make_server(host, int(port), make_wsgi_app(_registry()), handler_class=_QuietHandler)
    thread = threading.Thread(target=server.serve_forever, name="elsewhere", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
