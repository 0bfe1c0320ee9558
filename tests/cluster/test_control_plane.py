"""The control plane that the other tests of this folder stand on is a true one.

Left out on purpose: what a kubelet does. There are no nodes, so no container ever runs.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.cluster.control_plane import binaries, cluster
from tests.cluster.control_plane.cluster import ControlPlane
from tests.cluster.control_plane.kubectl import Kubectl
from tests.machine import until

SECONDS = 30.0

CONTAINER = {"name": "main", "image": "none.invalid/none"}
FORBIDDEN = "Error from server (Forbidden)"


def manifest(api_version: str, kind: str, name: str, **parts: Any) -> str:
    """Write an object down."""
    document = {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, **parts}
    return msgspec.json.encode(document).decode()


def deployment(name: str, replicas: int) -> str:
    """Write down a Deployment whose pods carry its name."""
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [CONTAINER]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return manifest("apps/v1", "Deployment", name, spec=spec)


def test_it_is_the_version_that_go_mod_pins(control_plane: ControlPlane, kubectl: Kubectl) -> None:
    if not control_plane.built:
        pytest.skip("its programs were not built from go.mod")
    version = kubectl("version", "-o", "json").json()["serverVersion"]
    pinned = binaries.kubernetes_version()
    assert version["gitVersion"] == pinned == control_plane.version
    assert [version["major"], version["minor"]] == pinned.removeprefix("v").split(".")[:2]
    assert version["gitTreeState"] == "clean"


def test_it_says_that_it_is_ready(kubectl: Kubectl) -> None:
    assert kubectl("get", "--raw", "/readyz").stdout == "ok"


def test_pod_security_refuses_a_privileged_pod_in_a_restricted_namespace(kubectl: Kubectl, namespace: str) -> None:
    pod = manifest("v1", "Pod", "mighty", spec={"containers": [{**CONTAINER, "securityContext": {"privileged": True}}]})
    kubectl("create", "-f", "-", namespace=namespace, input=pod)
    kubectl("delete", "pod", "mighty", "--now", namespace=namespace)
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")

    refused = kubectl("create", "-f", "-", namespace=namespace, input=pod, check=False)

    assert refused.exit_code == 1
    assert 'violates PodSecurity "restricted:latest": privileged' in refused.stderr


def test_a_service_account_may_do_what_a_role_lets_it(
    kubectl: Kubectl, namespace: str, kubeconfig_of: Callable[[str, str], Path]
) -> None:
    kubectl("create", "serviceaccount", "reader", namespace=namespace)
    reader = kubectl.using(kubeconfig_of(namespace, "reader"))

    refused = reader("get", "configmaps", namespace=namespace, check=False)
    assert refused.exit_code == 1
    assert f"{FORBIDDEN}: configmaps is forbidden: " in refused.stderr
    assert f'User "system:serviceaccount:{namespace}:reader"' in refused.stderr

    kubectl("create", "role", "read", "--verb=list", "--resource=configmaps", namespace=namespace)
    kubectl("create", "rolebinding", "read", "--role=read", f"--serviceaccount={namespace}:reader", namespace=namespace)
    until(lambda: reader("get", "configmaps", namespace=namespace, check=False).exit_code == 0, SECONDS)
    assert reader("get", "secrets", namespace=namespace, check=False).stderr.startswith(FORBIDDEN)


@pytest.mark.usefixtures("controllers")
def test_a_deployment_gets_pods_that_wait_for_a_node(kubectl: Kubectl, namespace: str) -> None:
    kubectl("apply", "-f", "-", namespace=namespace, input=deployment("web", replicas=2))

    until(lambda: len(reasons_to_wait(kubectl, namespace)) == 2, SECONDS)

    assert reasons_to_wait(kubectl, namespace) == ["no nodes available to schedule pods"] * 2
    pods = kubectl("get", "pods", "-l", "app=web", "-o", "json", namespace=namespace).json()["items"]
    assert [pod["status"]["phase"] for pod in pods] == ["Pending"] * 2
    assert {pod["metadata"]["ownerReferences"][0]["kind"] for pod in pods} == {"ReplicaSet"}


def reasons_to_wait(kubectl: Kubectl, namespace: str) -> list[str]:
    """Give what the scheduler says of each pod that it has looked at."""
    pods = kubectl("get", "pods", "-l", "app=web", "-o", "json", namespace=namespace).json()["items"]
    conditions = [condition for pod in pods for condition in pod["status"].get("conditions", [])]
    return [told["message"].split(".")[0] for told in conditions if told["type"] == "PodScheduled"]


@pytest.mark.usefixtures("controllers")
def test_what_is_deleted_takes_its_pods_along(kubectl: Kubectl, namespace: str) -> None:
    kubectl("apply", "-f", "-", namespace=namespace, input=deployment("web", replicas=1))
    until(lambda: reasons_to_wait(kubectl, namespace), SECONDS)

    kubectl("delete", "deployment", "web", namespace=namespace)

    kubectl("wait", "--for=delete", "--timeout=30s", "pod", "-l", "app=web", namespace=namespace)


def test_the_api_server_keeps_its_data_over_a_kill(
    stoppable_control_plane: ControlPlane, kubectl: Kubectl, namespace: str
) -> None:
    control_plane = stoppable_control_plane
    kubectl("create", "configmap", "kept", "--from-literal=word=safe", namespace=namespace)

    with control_plane.api_server_stopped():
        assert not cluster.is_ready(control_plane.server, control_plane.ca_file)
        assert "refused" in kubectl("get", "configmap", "kept", namespace=namespace, check=False).stderr

    kept = kubectl("get", "configmap", "kept", "-o", "json", namespace=namespace).json()
    assert kept["data"] == {"word": "safe"}
