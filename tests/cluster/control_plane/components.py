"""The processes of the control plane, set up to be small and to come up fast."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from tests.cluster.control_plane.binaries import API_SERVER, CONTROLLER_MANAGER, ETCD, SCHEDULER, Binaries
from tests.cluster.control_plane.certificates import Certificates

from the_eye_cli import leash

START_SECONDS = 60.0
END_SECONDS = 30.0

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}
"""What the API server writes down of each request: who asked for what, for the service accounts of tests. The
controllers have such accounts too and ask for more than all tests together."""

CONTROLLERS = (
    "namespace-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "root-ca-certificate-publisher-controller",
    "clusterrole-aggregation-controller",
    "garbage-collector-controller",
    "deployment-controller",
    "replicaset-controller",
    "statefulset-controller",
    "daemonset-controller",
    "job-controller",
    "cronjob-controller",
    "ttl-after-finished-controller",
    "disruption-controller",
    "horizontal-pod-autoscaler-controller",
    "endpointslice-controller",
    "resourcequota-controller",
    "persistentvolumeclaim-protection-controller",
)
"""What acts on the objects of a chart. Those that look after nodes are left out: there are none, and the pod garbage
collector would delete each pod that a test says is on one. Without the last a claim never goes, nor its namespace."""


class Component:
    """A process that can be started again after its end, and that dies with this one (on Linux)."""

    def __init__(self, program: Path, flags: Mapping[str, str], folder: Path) -> None:
        self.name = program.name
        self._command = [str(program), *(f"--{flag}={value}" for flag, value in flags.items())]
        self._log = folder / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start without waiting until it is ready."""
        assert not self.runs, f"{self.name} runs already"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                _leashed(self._command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Wait until it is as far; when it ends or takes too long, the error shows the end of its log."""
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            self.check()
            assert time.monotonic() < deadline, f"{self.name} is not ready after {START_SECONDS:g} s:\n{self._tail()}"
            time.sleep(0.05)

    def check(self) -> None:
        """Fail when it does not run any more."""
        assert self.runs, f"{self.name} ended:\n{self._tail()}"

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-4_000:]

    def kill(self) -> None:
        """End it with no chance to say a word; nothing happens where it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(END_SECONDS)


def _leashed(command: list[str]) -> list[str]:
    if sys.platform != "linux":
        return command
    return [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *command]


def etcd_socket(folder: Path) -> Path:
    """Name the socket that etcd listens on: it has no users, so that it had better not be on a port."""
    return folder / "etcd.sock"


def audit_log(folder: Path) -> Path:
    """Name the file in which the API server writes each request down before it is answered, one a line, in JSON."""
    return folder / "audit.log"


def _audit_policy(folder: Path) -> Path:
    written = folder / "audit-policy.json"
    written.write_bytes(msgspec.json.encode(AUDIT_POLICY))
    return written


def etcd(binaries: Binaries, folder: Path) -> Component:
    """Store all in ``folder``; it survives a kill of the process, but no power cut."""
    clients, peers = f"unix://{etcd_socket(folder)}", f"unix://{folder / 'peer.sock'}"
    flags = {
        "name": "the-eye",
        "data-dir": str(folder / "etcd"),
        "listen-client-urls": clients,
        "advertise-client-urls": clients,
        "listen-peer-urls": peers,
        "initial-advertise-peer-urls": peers,
        "initial-cluster": f"the-eye={peers}",
        "unsafe-no-fsync": "true",
        "log-level": "warn",
    }
    return Component(binaries.path(ETCD), flags, folder)


def api_server(binaries: Binaries, folder: Path, certificates: Certificates, port: int) -> Component:
    """Serve on ``port`` as a real cluster does, with RBAC and Pod Security."""
    flags = {
        "etcd-servers": f"unix://{etcd_socket(folder)}",
        "bind-address": "127.0.0.1",
        "advertise-address": "127.0.0.1",
        "secure-port": str(port),
        "permit-port-sharing": "true",
        "tls-cert-file": str(certificates.serving_certificate),
        "tls-private-key-file": str(certificates.serving_key),
        "client-ca-file": str(certificates.ca_file),
        "proxy-client-cert-file": str(certificates.front_proxy_certificate),
        "proxy-client-key-file": str(certificates.front_proxy_key),
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-signing-key-file": str(certificates.token_key),
        "service-account-key-file": str(certificates.token_key),
        "service-cluster-ip-range": "10.0.0.0/24",
        "authorization-mode": "Node,RBAC",
        # It is Pod Security that should refuse a privileged pod.
        "allow-privileged": "true",
        # The Service `kubernetes` would lead to 127.0.0.1, which is no address of an endpoint.
        "endpoint-reconciler-type": "none",
        "enable-priority-and-fairness": "false",
        "max-requests-inflight": "100",
        "max-mutating-requests-inflight": "50",
        "audit-policy-file": str(_audit_policy(folder)),
        "audit-log-path": str(audit_log(folder)),
        "audit-log-maxsize": "10000",
        "profiling": "false",
    }
    return Component(binaries.path(API_SERVER), flags, folder)


def controller_manager(binaries: Binaries, folder: Path, certificates: Certificates, kubeconfig: Path) -> Component:
    """Run CONTROLLERS, each with its own service account and its own rights."""
    flags = {
        "kubeconfig": str(kubeconfig),
        "secure-port": "0",
        "leader-elect": "false",
        "controllers": ",".join(CONTROLLERS),
        "use-service-account-credentials": "true",
        "service-account-private-key-file": str(certificates.token_key),
        "root-ca-file": str(certificates.ca_file),
        "horizontal-pod-autoscaler-sync-period": "2s",
        "profiling": "false",
    }
    return Component(binaries.path(CONTROLLER_MANAGER), flags, folder)


def scheduler(binaries: Binaries, folder: Path, kubeconfig: Path) -> Component:
    """Say of each pod why it is Pending: there are no nodes."""
    flags = {"kubeconfig": str(kubeconfig), "secure-port": "0", "leader-elect": "false", "profiling": "false"}
    return Component(binaries.path(SCHEDULER), flags, folder)
