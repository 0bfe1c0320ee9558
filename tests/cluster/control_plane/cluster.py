"""A cluster as the tests use it, whoever has started it."""

import secrets
import shutil
import ssl
import tempfile
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
from tests.cluster.control_plane.components import Component
from tests.cluster.control_plane.kubeconfig import Address
from tests.cluster.control_plane.kubectl import Kubectl

READY_SECONDS = 5.0


class ControlPlane(msgspec.Struct, frozen=True):
    """A Kubernetes API with its controllers and no node: pods stay Pending unless a test patches their status."""

    server: str
    ca_file: Path
    kubeconfig: Path
    """The administrator's."""
    version: str
    """What the API server says it is, such as v1.37.2."""
    folder: Path
    """Holds what lives as long as this does."""
    api_server: Component | None = None
    """None in a cluster that was there before."""
    audit_log: Path | None = None
    """Where it writes down what service accounts ask for; None in a cluster that was there before."""
    front_proxy_ca_file: Path | None = None
    """Whose certificate it shows to the servers of aggregated APIs; None in a cluster that was there before."""
    controllers: bool = True
    """Whether anything acts on what is stored; KUBEBUILDER_ASSETS may hold an API server alone."""
    built: bool = False
    """Whether its programs come from our go.mod."""

    @property
    def kubectl(self) -> Kubectl:
        """Make what runs kubectl as the administrator."""
        return Kubectl(self.kubeconfig, kubectl_cache(self.folder))

    def kubeconfig_with(self, token: str, namespace: str = "default") -> Path:
        """Write a kubeconfig for whoever ``token`` stands for."""
        written = self.folder / f"{secrets.token_hex(8)}.kubeconfig"
        written.write_bytes(Address(self.server, self.ca_file).kubeconfig({"token": token}, namespace))
        return written

    def kubeconfig_of(self, namespace: str, serviceaccount: str) -> Path:
        """Write a kubeconfig for a service account, with a token for an hour."""
        token = self.kubectl("create", "token", serviceaccount, "--duration=1h", namespace=namespace).stdout.strip()
        return self.kubeconfig_with(token, namespace)

    def stop_api_server(self) -> None:
        """Kill the API server; connections to its port are refused until it is started again."""
        self._own_api_server.kill()

    def start_api_server(self) -> None:
        """Start the API server again, where and with what it was, and return when it is ready."""
        api_server = self._own_api_server
        api_server.start()
        api_server.wait_until(lambda: is_ready(self.server, self.ca_file))

    @contextmanager
    def api_server_stopped(self) -> Iterator[None]:
        """Be without an API server for the block, and with one after it, however it ends."""
        self.stop_api_server()
        try:
            yield
        finally:
            self.start_api_server()

    @property
    def _own_api_server(self) -> Component:
        assert self.api_server is not None, "the API server of someone else's cluster is not ours to stop"
        return self.api_server


@contextmanager
def existing(kubeconfig: Path) -> Iterator[ControlPlane]:
    """Use the cluster that a kubeconfig's current context names."""
    with short_folder() as folder:
        given = Kubectl(kubeconfig.absolute(), kubectl_cache(folder))
        written = folder / "administrator.kubeconfig"
        written.write_text(given("config", "view", "--raw", "--minify", "--flatten", "-o", "json").stdout)
        cluster = msgspec.json.decode(written.read_bytes())["clusters"][0]["cluster"]
        assert "certificate-authority-data" in cluster, f"{kubeconfig} has no certificate authority"
        ca_file = folder / "ca.crt"
        ca_file.write_bytes(b64decode(cluster["certificate-authority-data"]))
        yield ControlPlane(cluster["server"], ca_file, written, version(given), folder)


@contextmanager
def short_folder() -> Iterator[Path]:
    """Make a folder that only this user can read, with a name short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="eye-", dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def kubectl_cache(folder: Path) -> Path:
    """Name the place for what kubectl finds out about the server."""
    return folder / "kubectl"


def is_ready(server: str, ca_file: Path) -> bool:
    """See whether an API server says that it can do its work."""
    trust = ssl.create_default_context(cafile=ca_file)
    try:
        # trust_env: a proxy that the machine's environment names has no way to this address.
        return httpx.get(f"{server}/readyz", verify=trust, timeout=READY_SECONDS, trust_env=False).is_success
    except httpx.TransportError:
        return False


def version(kubectl: Kubectl) -> str:
    """Ask the API server what it is."""
    answered: str = kubectl("get", "--raw", "/version").json()["gitVersion"]
    return answered
