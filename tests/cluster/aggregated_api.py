"""A server behind the API server, as those of the metrics APIs are.

The API server sees who asks and whether they may, and hands the request on over TLS with a certificate that tells it
from everyone else. It finds the server by a Service of the type ExternalName: no pod has it, and nothing here routes to
the addresses of Services.
"""

import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from litestar import Litestar
from tests.cluster.control_plane.cluster import ControlPlane
from tests.machine import free_addresses, until
from trustme import CA

from the_eye.settings import Address

SERVICE = "aggregated"
START_SECONDS = 30.0
AVAILABLE_TIMEOUT = "60s"


class AggregatedApi:
    """The server, which can be away for a while."""

    def __init__(self, application: Litestar, namespace: str, front_proxy_ca: Path, folder: Path) -> None:
        self._namespace = namespace
        self._ca = CA()
        (listen,) = free_addresses(1)
        address = Address.parse(listen)
        self.url = f"https://{listen}"
        self._port = address.port
        issued = self._ca.issue_cert(f"{SERVICE}.{namespace}.svc")
        certificate, key = folder / "serving.crt", folder / "serving.key"
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
        self._config = uvicorn.Config(
            application,
            host=address.host,
            port=address.port,
            log_config=None,
            access_log=False,
            ssl_certfile=certificate,
            ssl_keyfile=key,
            ssl_ca_certs=str(front_proxy_ca),
            ssl_cert_reqs=ssl.CERT_REQUIRED,
        )
        self._server = uvicorn.Server(self._config)
        self._thread = threading.Thread()

    def start(self) -> None:
        """Serve, also again after ``stop``."""
        self._server = uvicorn.Server(self._config)
        self._thread = threading.Thread(target=self._server.run, name=SERVICE, daemon=True)
        self._thread.start()
        until(lambda: self._server.started, START_SECONDS)

    def stop(self) -> None:
        """Refuse connections."""
        self._server.should_exit = True
        self._thread.join()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Be away for a block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def service(self) -> dict[str, Any]:
        """Describe where the API server finds it."""
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": SERVICE, "namespace": self._namespace},
            "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": self._port}]},
        }

    def api_service(self, group: str, version: str) -> dict[str, Any]:
        """Describe that it serves an API."""
        return {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": f"{version}.{group}"},
            "spec": {
                "group": group,
                "version": version,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "caBundle": b64encode(self._ca.cert_pem.bytes()).decode(),
                "service": {"name": SERVICE, "namespace": self._namespace, "port": self._port},
            },
        }


@contextmanager
def serving(
    control_plane: ControlPlane, namespace: str, application: Litestar, apis: Sequence[tuple[str, str]], folder: Path
) -> Iterator[AggregatedApi]:
    """Have a cluster with these APIs, each a group and a version, for a block."""
    assert control_plane.front_proxy_ca_file is not None, "the API server is none of ours"
    kubectl = control_plane.kubectl
    api = AggregatedApi(application, namespace, control_plane.front_proxy_ca_file, folder)
    api.start()
    try:
        services = [api.api_service(group, version) for group, version in apis]
        names = [f"apiservice/{service['metadata']['name']}" for service in services]
        kubectl.apply(api.service(), *services)
        try:
            kubectl("wait", "--for=condition=Available", f"--timeout={AVAILABLE_TIMEOUT}", *names, seconds=90)
            yield api
        finally:
            # While an API is announced that nobody serves, no namespace of the cluster can be deleted.
            kubectl("delete", *names)
    finally:
        api.stop()
