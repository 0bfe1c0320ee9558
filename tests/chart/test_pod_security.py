"""Every pod meets the `restricted` Pod Security Standard in every shape; what sees to that refuses what does not."""

from typing import Any

import msgspec
import pytest
from tests.chart.pod_security import faults
from tests.chart.rendering import SHAPES, Rendered, render, shape


@pytest.mark.parametrize("name", SHAPES)
def test_every_pod_meets_the_restricted_standard(name: str) -> None:
    for pod in render(shape(name)).pods():
        assert faults(pod.spec, dict(pod.annotations)) == [], pod.owner


@pytest.mark.parametrize("name", SHAPES)
def test_no_process_can_write_to_its_image(name: str) -> None:
    for pod in render(shape(name)).pods():
        for container in pod.containers():
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, pod.owner


@pytest.mark.parametrize("name", SHAPES)
def test_only_the_operator_has_a_token(name: str) -> None:
    rendered = render(shape(name))
    with_token = {pod.component for pod in rendered.pods() if pod.spec["automountServiceAccountToken"]}
    assert with_token == {"operator"}
    assert all(account["automountServiceAccountToken"] is False for account in rendered.of("ServiceAccount"))


@pytest.mark.parametrize("name", SHAPES)
def test_every_account_that_a_pod_names_is_made(name: str) -> None:
    rendered = render(shape(name))
    accounts = {account["metadata"]["name"] for account in rendered.of("ServiceAccount")}
    named = {pod.spec["serviceAccountName"] for pod in rendered.pods() if "serviceAccountName" in pod.spec}
    assert named == accounts


@pytest.mark.parametrize("name", SHAPES)
def test_every_container_says_what_it_needs(name: str) -> None:
    for pod in render(shape(name)).pods():
        for container in pod.containers():
            assert set(container["resources"]["requests"]) >= {"cpu", "memory"}, pod.owner
            assert "memory" in container["resources"]["limits"], pod.owner


def set_in(spec: Any, path: str, value: object) -> None:
    """Set a field; a number in the path is a place in a list."""
    *way, last = path.split(".")
    for step in way:
        spec = spec[int(step)] if step.isdecimal() else spec.setdefault(step, {})
    spec[last] = value


BREAKS: dict[str, object] = {
    "hostNetwork": True,
    "hostPID": True,
    "hostIPC": True,
    "volumes": [{"name": "host", "hostPath": {"path": "/"}}],
    "securityContext.sysctls": [{"name": "kernel.msgmax", "value": "1"}],
    "securityContext.runAsUser": 0,
    "securityContext.runAsNonRoot": False,
    "securityContext.seccompProfile": {"type": "Unconfined"},
    "securityContext.seLinuxOptions": {"type": "spc_t"},
    "securityContext.windowsOptions": {"hostProcess": True},
    "containers.0.securityContext": {},
    "containers.0.securityContext.privileged": True,
    "containers.0.securityContext.allowPrivilegeEscalation": True,
    "containers.0.securityContext.runAsNonRoot": False,
    "containers.0.securityContext.runAsUser": 0,
    "containers.0.securityContext.procMount": "Unmasked",
    "containers.0.securityContext.appArmorProfile": {"type": "Unconfined"},
    "containers.0.securityContext.seccompProfile": {"type": "Unconfined"},
    "containers.0.securityContext.capabilities": {"drop": ["NET_RAW"]},
    "containers.0.securityContext.capabilities.add": ["SYS_ADMIN"],
    "containers.0.ports.0.hostPort": 80,
    "containers.0.livenessProbe.httpGet.host": "169.254.169.254",
    "initContainers": [{"name": "first", "securityContext": {}}],
}


@pytest.fixture
def default() -> Rendered:
    """The chart as it comes."""
    return render()


@pytest.mark.parametrize("path", BREAKS)
def test_a_pod_that_breaks_the_standard_is_found_out(default: Rendered, path: str) -> None:
    spec = msgspec.json.decode(msgspec.json.encode(default.pod("api").spec))
    set_in(spec, path, BREAKS[path])

    assert faults(spec) != []
