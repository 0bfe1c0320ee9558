"""The commands of docs/load.md that bring the load test into a cluster, as far as a cluster without nodes goes."""

import re
import shlex
from pathlib import Path

import pytest
from tests.cluster.control_plane.kubectl import Kubectl
from tests.machine import until

ROOT = Path(__file__).parents[2]
SECONDS = 60.0


@pytest.mark.usefixtures("controllers")
def test_a_restricted_namespace_takes_the_load_test(kubectl: Kubectl, tmp_path: Path) -> None:
    """Its pods are made: their files and their security contexts are as Kubernetes wants them."""
    (tmp_path / "tokens").write_text("eye_one\neye_two\n")
    page = (ROOT / "docs" / "load.md").read_text().partition("**From within the cluster**")[2]
    create, *fill, forward = re.findall(r"^\$ kubectl (.*)$", page, re.MULTILINE)[:5]
    assert "port-forward" in forward

    kubectl(*shlex.split(create))
    try:
        kubectl("label", "namespace", "loadtest", "pod-security.kubernetes.io/enforce=restricted")
        for command in fill:
            kubectl(*(put(word, tmp_path) for word in shlex.split(command)))
        until(lambda: len(kubectl("get", "pods", "-o", "name", namespace="loadtest").stdout.split()) == 7, SECONDS)
        files = kubectl("get", "configmap", "loadtest", "-o", "json", namespace="loadtest").json()["data"]
    finally:
        kubectl("delete", "namespace", "loadtest", "--wait=false")

    assert {"locustfile.py", "day.py", "users.py", "traffic.py"} <= set(files)


def put(word: str, tokens: Path) -> str:
    """Have a path of the page lead to where it is here."""
    if word == "--from-file=tokens":
        return f"--from-file={tokens / 'tokens'}"
    name, equals, path = word.rpartition("=")
    return f"{name}{equals}{ROOT / path}" if (ROOT / path).exists() else word
