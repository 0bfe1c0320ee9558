"""The Tiltfile says what Tilt can do: it is evaluated with stand-ins for Tilt's functions and the real Helm.

Left out on purpose: Tilt itself, Docker and kind, of which there is none here. What the buttons run is run in
tests/cluster.
"""

import signal
import subprocess
import time
from functools import cache
from pathlib import Path

import pytest
import starlark
import yaml
from tests.chart.pod_security import faults
from tests.chart.rendering import Pod, Rendered
from tests.chart.tilt import ROOT, Tilt
from tests.machine import until

TILTFILE = ROOT / "Tiltfile"
KIND = yaml.safe_load((ROOT / "k8s" / "kind.yaml").read_text())
CONTEXT = f"kind-{KIND['name']}"

SERVICES = ("api", "worker", "operator")
SECONDS = 30.0


@cache
def evaluated() -> Tilt:
    """Evaluate it once."""
    return Tilt(context=CONTEXT).evaluate(TILTFILE)


@cache
def rendered() -> Rendered:
    """What it has applied."""
    return Rendered(tuple(evaluated().manifests), "")


def image(pod: Pod) -> str:
    """Name a pod's image without its tag."""
    return str(pod.spec["containers"][0]["image"]).partition(":")[0]


def test_it_is_for_the_cluster_of_kind_yaml_and_no_other() -> None:
    assert evaluated().allowed_contexts == [CONTEXT]
    other = Tilt(context="production")
    with pytest.raises(starlark.StarlarkError, match="kubectl config use-context kind-the-eye"):
        other.evaluate(TILTFILE)
    assert not other.commands
    assert not other.manifests


def test_tilt_down_makes_nothing_first() -> None:
    assert len(evaluated().commands) == 1
    assert Tilt(context=CONTEXT, subcommand="down").evaluate(TILTFILE).commands == []


def test_every_image_of_the_eye_is_built_from_its_stage_and_used() -> None:
    used = {image(pod) for pod in rendered().pods() if image(pod).startswith("the-eye/")}

    assert used == set(evaluated().images)
    assert {name: built.target for name, built in evaluated().images.items()} == {
        f"the-eye/{target}": target for target in (*SERVICES, "all")
    }


def test_tilt_down_deletes_all_but_the_definition_of_rules_and_with_it_the_rules() -> None:
    down = Tilt(context=CONTEXT, subcommand="down").evaluate(TILTFILE)

    kept = [found for found in down.manifests if found not in down.deleted()]
    assert [(found["kind"], found["metadata"]["name"]) for found in kept] == [
        ("CustomResourceDefinition", "validatorrules.the-eye.io")
    ]


@pytest.mark.parametrize("service", SERVICES)
def test_changed_sources_get_where_the_process_looks_for_them_first(service: str) -> None:
    built, pod = evaluated().images[f"the-eye/{service}"], rendered().pod(service)
    (container,) = pod.containers()

    synced = {step["local"]: step["remote"] for step in built.steps("sync")}
    packages = {str(path.parent.relative_to(ROOT)) for path in ROOT.glob("services/*/*/__init__.py")}
    assert set(synced) == packages | {"operator/the_eye_operator"}
    assert {remote: Path(local).name for local, remote in synced.items()} == {
        f"/src/{Path(local).name}": Path(local).name for local in synced
    }
    (path,) = [each["value"] for each in container["env"] if each["name"] == "PYTHONPATH"]
    assert path.split(":") == ["/src", "/opt/the-eye"]
    assert "emptyDir" in pod.volumes()["src"]
    assert {"name": "src", "mountPath": "/src"} in container["volumeMounts"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_process_starts_again_when_what_it_runs_was_changed(service: str) -> None:
    (step,) = evaluated().images[f"the-eye/{service}"].steps("run")

    own = {"operator": "operator/the_eye_operator"}.get(service, f"services/{service}/the_eye_{service}")
    assert set(step["trigger"]) == {"services/core/the_eye", "services/cli/the_eye_cli", own}


def test_what_serves_development_weakens_no_pod() -> None:
    """Neither the chart's defaults, which are tested where they are, nor what is made of them here."""
    assert [fault for pod in rendered().pods() for fault in faults(pod.spec)] == []
    for pod in rendered().pods():
        for container in pod.containers():
            assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_every_pod_belongs_to_a_resource_with_a_log_of_its_own() -> None:
    names = {resource.workload for resource in evaluated().resources.values() if resource.workload}

    assert names == {pod.owner.partition("/")[2] for pod in rendered().pods()}
    assert {*SERVICES, "postgres", "valkey", "migration"} <= set(evaluated().resources)


def test_resources_wait_for_what_there_is_and_not_for_one_another() -> None:
    waiting = {name: set(resource.resource_deps) for name, resource in evaluated().resources.items()}
    assert waiting["api"] == {"migration", "valkey"}
    while ready := [name for name, needed in waiting.items() if not needed & set(waiting)]:
        for name in ready:
            assert waiting.pop(name) <= set(evaluated().resources)
    assert waiting == {}


def test_ports_of_this_machine_lead_to_the_containers() -> None:
    taken: list[int] = []
    for service in SERVICES:
        resource, pod = evaluated().resources[service], rendered().pod(service)
        assert {remote for _, remote in resource.ports} == set(pod.ports().values())
        taken += [local for local, _ in resource.ports]
    assert len(set(taken)) == len(taken) == 4
    assert 8000 in taken


def test_buttons_wait_for_a_person() -> None:
    buttons = {name: resource for name, resource in evaluated().resources.items() if resource.command}

    assert set(buttons) == {"send sample events", "apply sample rules"}
    for button in buttons.values():
        assert button.is_manual
        assert not button.auto_init
    (sending,) = buttons["send sample events"].command
    assert (ROOT / sending).stat().st_mode & 0o111
    apply = "kubectl --namespace the-eye apply -f k8s/rules"
    assert buttons["apply sample rules"].command == apply.split()


def test_the_passwords_are_made_before_the_stores_and_are_no_part_of_what_is_rendered() -> None:
    assert rendered().of("Secret") == []
    (command,) = evaluated().commands
    assert "k8s/manifests/namespace.yaml" in command
    assert "k8s/try-out-secret.sh --namespace the-eye" in command


class Container:
    """What runs in a container, with directories of this machine."""

    def __init__(self, folder: Path, service: str) -> None:
        self.sources, self.directory = folder / "sources", folder / "src"
        self.sources.mkdir()
        self.directory.mkdir()
        self.log = folder / "log"
        entrypoint = evaluated().images[f"the-eye/{service}"].entrypoint
        assert entrypoint[-2:] == ["the-eye", service]
        self._entrypoint = [*entrypoint[:4], str(self.sources), str(self.directory)]
        (step,) = evaluated().images[f"the-eye/{service}"].steps("run")
        self._restart = step["command"].replace("/src/", f"{self.directory}/")

    def start(self) -> None:
        """Start with a command that runs what it finds in the directory."""
        command = [*self._entrypoint, "sh", str(self.directory / "program")]
        self.process = subprocess.Popen(command, env={"LOG": str(self.log), "PATH": "/usr/bin:/bin"})  # noqa: S603

    def restart(self) -> None:
        """Run what Tilt runs after it has changed something."""
        subprocess.run(["sh", "-c", self._restart], check=True)  # noqa: S603, S607

    def stop(self) -> int:
        """End the container; gives its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)

    def lines(self) -> list[str]:
        """Say what the command has said so far."""
        return self.log.read_text().splitlines() if self.log.exists() else []


PROGRAM = """
trap 'echo "{name} ends" >>"$LOG"; exit 0' TERM
echo {name} >>"$LOG"
while :; do sleep 0.05; done
"""


def test_a_container_goes_on_with_changed_sources_and_ends_in_order(tmp_path: Path) -> None:
    container = Container(tmp_path, "api")
    (container.sources / "program").write_text(PROGRAM.format(name="first"))
    container.start()
    until(lambda: container.lines() == ["first"], SECONDS)

    (container.directory / "program").write_text(PROGRAM.format(name="second"))
    container.restart()
    until(lambda: container.lines() == ["first", "first ends", "second"], SECONDS)

    assert container.stop() == 0
    assert container.lines() == ["first", "first ends", "second", "second ends"]
    assert (container.sources / "program").read_text() == PROGRAM.format(name="first")


def test_a_process_that_fails_is_started_again_but_not_at_once(tmp_path: Path) -> None:
    container = Container(tmp_path, "worker")
    (container.sources / "program").write_text('echo failed >>"$LOG"; exit 1')
    started = time.monotonic()
    container.start()
    until(lambda: len(container.lines()) == 3, SECONDS)

    assert time.monotonic() - started >= 2
    container.stop()


def test_kind_has_nodes_to_spread_pods_over_and_ports_for_an_ingress() -> None:
    assert (KIND["kind"], KIND["apiVersion"]) == ("Cluster", "kind.x-k8s.io/v1alpha4")
    roles = [node["role"] for node in KIND["nodes"]]
    assert roles.count("control-plane") == 1
    assert roles.count("worker") >= 2
    mappings = [mapping for node in KIND["nodes"] for mapping in node.get("extraPortMappings", ())]
    assert [mapping["containerPort"] for mapping in mappings] == [80, 443]
    assert all(mapping["listenAddress"] == "127.0.0.1" for mapping in mappings), "nobody else on the network gets in"
    ports = {local for resource in evaluated().resources.values() for local, _ in resource.ports}
    assert not ports & {mapping["hostPort"] for mapping in mappings}
