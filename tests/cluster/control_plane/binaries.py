"""The programs of the control plane, compiled from the modules that ../go/go.mod pins, or those that a person names.

They have 330 MB. A first build fills Go's caches with 0.8 GB of sources and 3.7 GB of compiled packages, with which the
next one is a matter of half a minute.
"""

import os
import re
from pathlib import Path

import msgspec
from tests.golang import SMALL, MissingPartError, Programs, Say

MODULE = Path(__file__).parent.parent / "go"

ETCD = "etcd"
API_SERVER = "kube-apiserver"
CONTROLLER_MANAGER = "kube-controller-manager"
SCHEDULER = "kube-scheduler"

PACKAGES = {
    ETCD: "go.etcd.io/etcd/server/v3",
    API_SERVER: "k8s.io/kubernetes/cmd/kube-apiserver",
    CONTROLLER_MANAGER: "k8s.io/kubernetes/cmd/kube-controller-manager",
    SCHEDULER: "k8s.io/kubernetes/cmd/kube-scheduler",
}
STAMPED = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
"""Go packages whose variables hold the version; without a stamp it reads ``v0.0.0-master+$Format:%H$``."""


class Binaries(msgspec.Struct, frozen=True):
    """A folder of programs."""

    folder: Path
    built: bool
    """Whether they come from our go.mod, and so have its versions."""

    def has(self, name: str) -> bool:
        """See whether a program is there: a folder of the caller's may have etcd and kube-apiserver alone."""
        return (self.folder / name).is_file()

    def path(self, name: str) -> Path:
        """Give a program's path."""
        return self.folder / name


def find(say: Say) -> Binaries:
    """Take the programs in KUBEBUILDER_ASSETS, or else build what the cache lacks; ``say`` is told of each step.

    Raises MissingPartError and BuildError.
    """
    if given := os.environ.get("KUBEBUILDER_ASSETS"):
        return _checked(Binaries(Path(given), built=False))
    try:
        return Binaries(_programs().folder(say), built=True)
    except MissingPartError as error:
        message = (
            f"{error}; or set KUBEBUILDER_ASSETS to a folder with etcd and kube-apiserver, or THE_EYE_TEST_KUBECONFIG "
            "to a cluster for tests"
        )
        raise MissingPartError(message) from error


def _checked(binaries: Binaries) -> Binaries:
    missing = [name for name in (ETCD, API_SERVER) if not binaries.has(name)]
    if missing:
        message = f"KUBEBUILDER_ASSETS={binaries.folder} has no {' and no '.join(missing)}"
        raise MissingPartError(message)
    return binaries


def _programs() -> Programs:
    return Programs("control-plane", MODULE, PACKAGES, flags(), "7 to 20 minutes")


def kubernetes_version() -> str:
    """Give the version of Kubernetes that go.mod pins, such as v1.37.2."""
    found = re.search(r"^\s*k8s\.io/kubernetes (v\S+)", (MODULE / "go.mod").read_text(), re.MULTILINE)
    assert found is not None, "go.mod requires no k8s.io/kubernetes"
    return found[1]


def flags() -> list[str]:
    """Give the flags of each build: small programs that know their version and no path of this machine."""
    version = kubernetes_version()
    major, minor = version.removeprefix("v").split(".")[:2]
    stamps = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitCommit": "", "gitTreeState": "clean"}
    stamped = [f"-X {package}.{name}={value}" for package in STAMPED for name, value in stamps.items()]
    return [*SMALL, f"-ldflags={' '.join(['-s', '-w', *stamped])}"]
