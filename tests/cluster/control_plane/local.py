"""A control plane started on this machine, for as long as a block lasts."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.cluster.control_plane import certificates, components
from tests.cluster.control_plane.binaries import CONTROLLER_MANAGER, SCHEDULER, Binaries
from tests.cluster.control_plane.certificates import Certificates, Identity
from tests.cluster.control_plane.cluster import ControlPlane, is_ready, kubectl_cache, short_folder, version
from tests.cluster.control_plane.components import Component
from tests.cluster.control_plane.kubeconfig import Address
from tests.cluster.control_plane.kubectl import Kubectl


@contextmanager
def running(binaries: Binaries) -> Iterator[ControlPlane]:
    """Run a control plane until the end of the block; it is up when the block begins."""
    with ExitStack() as ending:
        folder = ending.enter_context(short_folder())
        port = ending.enter_context(_reserved_port())
        yield _Start(binaries, folder, port, ending).all()


@contextmanager
def _reserved_port() -> Iterator[int]:
    """Hold a port for a server of this user's that shares ports: no one else gets it, also while the server is away.

    A socket that is bound and does not listen takes no connections from the one that does.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


class _Start:
    """One start: who is who, and each process as soon as what it needs is there."""

    def __init__(self, binaries: Binaries, folder: Path, port: int, ending: ExitStack) -> None:
        self._binaries = binaries
        self._folder = folder
        self._port = port
        self._ending = ending
        self._certificates = Certificates(folder)
        self._address = Address(f"https://127.0.0.1:{port}", self._certificates.ca_file)
        self._administrator = self._kubeconfig(certificates.ADMINISTRATOR)
        self._kubectl = Kubectl(self._administrator, kubectl_cache(folder))

    def all(self) -> ControlPlane:
        """Start all that there is a program for."""
        self._store()
        api_server = self._serve()
        scheduler = self._schedule()
        controllers = self._control()
        for component in (*scheduler, *controllers):
            component.check()
        return ControlPlane(
            self._address.server,
            self._address.ca_file,
            self._administrator,
            version(self._kubectl),
            self._folder,
            api_server=api_server,
            audit_log=components.audit_log(self._folder),
            front_proxy_ca_file=self._certificates.front_proxy_ca_file,
            controllers=bool(controllers),
            built=self._binaries.built,
        )

    def _store(self) -> None:
        etcd = self._started(components.etcd(self._binaries, self._folder))
        etcd.wait_until(components.etcd_socket(self._folder).exists)

    def _serve(self) -> Component:
        api_server = components.api_server(self._binaries, self._folder, self._certificates, self._port)
        self._started(api_server).wait_until(lambda: is_ready(self._address.server, self._address.ca_file))
        return api_server

    def _schedule(self) -> list[Component]:
        if not self._binaries.has(SCHEDULER):
            return []
        kubeconfig = self._kubeconfig(certificates.SCHEDULER)
        return [self._started(components.scheduler(self._binaries, self._folder, kubeconfig))]

    def _control(self) -> list[Component]:
        if not self._binaries.has(CONTROLLER_MANAGER):
            return []
        kubeconfig = self._kubeconfig(certificates.CONTROLLER_MANAGER)
        manager = components.controller_manager(self._binaries, self._folder, self._certificates, kubeconfig)
        self._started(manager).wait_until(self._has_defaults)
        return [manager]

    def _started(self, component: Component) -> Component:
        component.start()
        self._ending.callback(component.kill)
        return component

    def _kubeconfig(self, identity: Identity) -> Path:
        written = self._folder / f"{identity.user.rpartition(':')[2]}.kubeconfig"
        written.write_bytes(self._address.kubeconfig(self._certificates.credentials(identity)))
        return written

    def _has_defaults(self) -> bool:
        """See whether the controllers have given the first namespace what every namespace gets."""
        defaults = ("serviceaccount/default", "configmap/kube-root-ca.crt")
        return self._kubectl("get", *defaults, namespace="default", check=False).exit_code == 0
