"""What Helm renders hangs together in every shape: names, selectors, ports, images, volumes, and time to stop."""

import re
from collections.abc import Iterator
from typing import Any

import helm_python as helm
import pytest
import yaml
from tests.chart.rendering import NAMESPACE, SHAPES, Pod, Rendered, render, selects, shape
from tests.chart.values import CHART

from the_eye.rules.manifest import ValidatorRule, read_manifest

LONG_NAMES = ("a" * 53, "the-eye-" + "b" * 45, "x-" * 26 + "y")
"""Helm allows 53 characters."""


@pytest.fixture(params=SHAPES)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    """The chart in each of its shapes."""
    return render(shape(request.param))


@pytest.mark.parametrize("name", SHAPES)
def test_lint_has_nothing_to_say_but_that_there_is_no_icon(name: str) -> None:
    report = helm.lint(str(CHART), shape(name), strict=True, namespace=NAMESPACE)

    assert report["errors"] == []
    assert {message["error"] for message in report["messages"]} <= {"icon is recommended"}


def test_every_object_says_whose_it_is(rendered: Rendered) -> None:
    for manifest in rendered.manifests:
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "the-eye"
        assert labels["app.kubernetes.io/instance"] == "the-eye"
        assert labels["app.kubernetes.io/component"]


def test_every_object_is_in_a_namespace_unless_its_kind_is_not(rendered: Rendered) -> None:
    for manifest in rendered.manifests:
        cluster_wide = manifest["kind"].startswith(("Cluster", "CustomResourceDefinition"))
        assert ("namespace" not in manifest["metadata"]) is cluster_wide, manifest["metadata"]["name"]


def test_no_object_is_rendered_twice(rendered: Rendered) -> None:
    found = [(m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in rendered.manifests]
    assert len(found) == len(set(found))


def test_every_selector_selects_the_pods_it_is_for_and_no_others(rendered: Rendered) -> None:
    for kind in ("Deployment", "StatefulSet"):
        for manifest in rendered.of(kind):
            owner = f"{kind}/{manifest['metadata']['name']}"
            selector = manifest["spec"]["selector"]
            assert {pod.owner for pod in rendered.pods() if selects(selector, pod.labels)} == {owner}
    for kind in ("PodDisruptionBudget", "PodMonitor"):
        for manifest in rendered.of(kind):
            assert any(selects(manifest["spec"]["selector"], pod.labels) for pod in rendered.pods())
    for policy in rendered.of("NetworkPolicy"):
        name = policy["metadata"]["name"]
        maintained = rendered.of("CronJob") and rendered.of("Job")
        if maintained or name not in {"the-eye-migration", "the-eye-maintenance"}:
            assert any(selects(policy["spec"]["podSelector"], pod.labels) for pod in rendered.pods()), name


def test_every_service_reaches_a_port_of_one_kind_of_pod(rendered: Rendered) -> None:
    for service in rendered.of("Service"):
        pods = [pod for pod in rendered.pods() if selects({"matchLabels": service["spec"]["selector"]}, pod.labels)]
        assert len(pods) == 1, service["metadata"]["name"]
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in pods[0].ports()


def test_every_probe_and_monitor_asks_at_a_port_that_there_is(rendered: Rendered) -> None:
    for pod in rendered.pods():
        for container in pod.containers():
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                probe = container.get(kind, {})
                asked = probe.get("httpGet") or probe.get("tcpSocket")
                assert asked is None or asked["port"] in pod.ports(), pod.owner
    for monitor in rendered.of("PodMonitor"):
        monitored = [pod for pod in rendered.pods() if selects(monitor["spec"]["selector"], pod.labels)]
        assert {pod.component for pod in monitored} == {"api", "worker", "operator"}
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            assert all(endpoint["port"] in pod.ports() for pod in monitored)


def test_what_serves_is_probed_and_what_ends_is_not(rendered: Rendered) -> None:
    for pod in rendered.pods():
        serves = pod.owner.startswith(("Deployment", "StatefulSet"))
        for container in pod.containers():
            probes = {key for key in container if key.endswith("Probe")}
            assert probes == ({"startupProbe", "readinessProbe", "livenessProbe"} if serves else set()), pod.owner


def test_routes_lead_to_the_api(rendered: Rendered) -> None:
    services = {service["metadata"]["name"]: service for service in rendered.of("Service")}
    for ingress in rendered.of("Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                target = path["backend"]["service"]
                assert target["port"]["name"] in {port["name"] for port in services[target["name"]]["spec"]["ports"]}
    for route in rendered.of("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                assert backend["port"] in {port["port"] for port in services[backend["name"]]["spec"]["ports"]}


def test_what_scales_names_a_deployment_that_has_no_number_of_its_own(rendered: Rendered) -> None:
    scaled = {
        manifest["spec"]["scaleTargetRef"]["name"]
        for kind in ("HorizontalPodAutoscaler", "ScaledObject")
        for manifest in rendered.of(kind)
    }
    for deployment in rendered.of("Deployment"):
        assert ("replicas" not in deployment["spec"]) is (deployment["metadata"]["name"] in scaled)
    assert scaled <= {deployment["metadata"]["name"] for deployment in rendered.of("Deployment")}


def test_every_mount_is_of_a_volume_and_every_volume_is_mounted(rendered: Rendered) -> None:
    for pod in rendered.pods():
        claims = {"data"} if pod.owner.startswith("StatefulSet") else set()
        mounted = {mount["name"] for container in pod.containers() for mount in container["volumeMounts"]}
        assert mounted == pod.volumes().keys() | claims, pod.owner


def test_every_image_has_a_tag_or_a_digest_and_no_host_of_the_charts_choice(rendered: Rendered) -> None:
    for pod in rendered.pods():
        for container in pod.containers():
            image = container["image"].removeprefix("registry.example.com/mirror/")
            assert re.fullmatch(r"[a-z-]+(/[a-z-]+)?(:\d[\w.-]*|@sha256:[0-9a-f]{64})", image), image


def test_images_are_named_by_registry_repository_tag_and_digest() -> None:
    digest = f"sha256:{'0' * 64}"
    values = {
        "image": {"registry": "registry.example.com/", "tag": "1.2.3"},
        "worker": {"image": {"tag": "1.2.4"}},
        "operator": {"image": {"repository": "own/operator", "digest": digest}},
        "tryOut": {"valkey": {"image": {"digest": digest}}},
    }
    rendered = render(values)

    images = {pod.component: pod.spec["containers"][0]["image"] for pod in rendered.pods()}
    assert images == {
        "api": "registry.example.com/the-eye/api:1.2.3",
        "worker": "registry.example.com/the-eye/worker:1.2.4",
        "operator": f"registry.example.com/own/operator@{digest}",
        "migration": "registry.example.com/the-eye/all:1.2.3",
        "maintenance": "registry.example.com/the-eye/all:1.2.3",
        "test": "registry.example.com/the-eye/all:1.2.3",
        "postgres": "registry.example.com/postgres:18-alpine",
        "valkey": f"registry.example.com/valkey/valkey@{digest}",
    }


@pytest.mark.parametrize("name", LONG_NAMES)
@pytest.mark.parametrize("of", ["ci/default-values.yaml", "ci/production-values.yaml"])
def test_names_stay_short_however_long_the_releases_is(name: str, of: str) -> None:
    rendered = render(shape(of), name=name, namespace="n" * 63)

    for manifest in rendered.manifests:
        # What a controller makes of it has up to 11 characters more in its labels, a CronJob's Job in its name.
        room = {"StatefulSet": 52, "CronJob": 52}.get(manifest["kind"], 63)
        assert len(manifest["metadata"]["name"]) <= room, manifest["metadata"]["name"]
        assert not manifest["metadata"]["name"].endswith("-")
        for value in manifest["metadata"]["labels"].values():
            assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", value), value
    for pod in rendered.pods():
        for source in pod.volumes().get("rules", {}).get("projected", {}).get("sources", ()):
            assert len(source["configMap"]["name"]) <= 63


def test_long_names_that_begin_alike_stay_apart() -> None:
    beginning = "a" * 45
    one, other = (
        {(found["kind"], found["metadata"]["name"]) for found in render(name=f"{beginning}-{end}").manifests}
        for end in ("blue", "green")
    )

    assert one & other == {("CustomResourceDefinition", "validatorrules.the-eye.io")}


def test_secrets_stand_in_secrets_alone() -> None:
    rendered = render()
    (secret,) = rendered.of("Secret")
    passwords = {key: value for key, value in secret["stringData"].items() if key.endswith("-password")}

    assert all(len(password) >= 32 for password in passwords.values())
    assert len(set(passwords.values())) == 2
    for manifest in rendered.manifests:
        for password in passwords.values():
            assert manifest["kind"] == "Secret" or password not in str(manifest)
    assert not any(password in rendered.notes for password in passwords.values())


def test_no_process_is_given_a_secret_but_by_a_secret(rendered: Rendered) -> None:
    for pod in rendered.pods():
        for container in pod.containers():
            for variable in container.get("env", ()):
                is_secret = variable["name"].endswith(("_URL", "_AUTH", "PASSWORD"))
                assert is_secret is ("secretKeyRef" in variable.get("valueFrom", {})), variable["name"]


def test_the_stores_to_try_out_outlive_the_release_with_their_passwords() -> None:
    rendered = render()

    (secret,) = rendered.of("Secret")
    assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    for stateful_set in rendered.of("StatefulSet"):
        retention = stateful_set["spec"]["persistentVolumeClaimRetentionPolicy"]
        assert retention == {"whenDeleted": "Retain", "whenScaled": "Retain"}


def test_artifact_hub_is_told_of_every_image_and_of_the_definition() -> None:
    annotations = yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]
    images = yaml.safe_load(annotations["artifacthub.io/images"])
    (definition,) = yaml.safe_load(annotations["artifacthub.io/crds"])
    (crd,) = render().of("CustomResourceDefinition")

    used = {container["image"] for pod in render().pods() for container in pod.containers()}
    assert {each["image"] for each in images} == used
    names = crd["spec"]["names"]
    assert (definition["name"], definition["kind"]) == (crd["metadata"]["name"], names["kind"])
    (example,) = yaml.safe_load(annotations["artifacthub.io/crdsExamples"])
    assert isinstance(read_manifest(example), ValidatorRule)


def test_the_passwords_of_the_stores_to_try_out_may_be_a_persons_own() -> None:
    """Then the chart makes none, and all is else as it was."""
    rendered, own = render(), render({"tryOut": {"existingSecret": "own"}})

    assert own.of("Secret") == []
    for pod in own.pods():
        assert str(pod.spec).replace("'own'", "'the-eye-try-out'") == str(rendered.pod(pod.component).spec)


def test_valkey_puts_every_write_on_disk_and_drops_nothing() -> None:
    rendered = render({"tryOut": {"valkey": {"maxMemoryMiB": 100}}})

    configuration = rendered.one("ConfigMap", "the-eye-valkey")["data"]["valkey.conf"].splitlines()
    assert {"appendonly yes", "appendfsync always", "maxmemory-policy noeviction"} <= set(configuration)
    assert "maxmemory 100mb" in configuration
    assert environment(rendered.pod("api"))["THE_EYE_BACKLOG_MAX_BYTES"] == str(75 * 1024 * 1024)


def environment(pod: Pod) -> dict[str, Any]:
    """Give the variables of a pod's first container; those of Secrets without a value."""
    return {variable["name"]: variable.get("value") for variable in pod.spec["containers"][0]["env"]}


def test_a_rolling_update_has_time_to_finish_what_was_begun() -> None:
    seconds = {"preStopSeconds": 30, "drainSeconds": 40, "shutdownSeconds": 50}
    rendered = render({"api": seconds, "worker": {"shutdownSeconds": 100}})
    api, worker = rendered.pod("api"), rendered.pod("worker")

    assert api.spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] == 30
    assert environment(api)["THE_EYE_API_DRAIN_SECONDS"] == "40"
    assert environment(api)["THE_EYE_API_SHUTDOWN_SECONDS"] == "50"
    assert api.spec["terminationGracePeriodSeconds"] >= 30 + 40 + 50 + 5
    assert environment(worker)["THE_EYE_WORKER_SHUTDOWN_SECONDS"] == "100"
    assert worker.spec["terminationGracePeriodSeconds"] >= 100 + 5
    for name in ("api", "worker"):
        assert rendered.one("Deployment", f"the-eye-{name}")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_a_pod_that_need_not_wait_has_no_hook() -> None:
    """Kubernetes before 1.33 refuses a sleep of no seconds."""
    assert "lifecycle" not in render({"api": {"preStopSeconds": 0}}).pod("api").spec["containers"][0]


@pytest.mark.parametrize("component", ["api", "worker"])
def test_the_ruleset_is_mounted_whatever_part_of_it_there_is(component: str) -> None:
    pod = render({"ruleset": {"name": "rules"}}).pod(component)

    sources = pod.volumes()["rules"]["projected"]["sources"]
    assert [source["configMap"]["name"] for source in sources] == ["rules", *(f"rules-{slot}" for slot in range(32))]
    assert all(source["configMap"]["optional"] is True for source in sources)
    (mount,) = [mount for mount in pod.spec["containers"][0]["volumeMounts"] if mount["name"] == "rules"]
    assert mount == {"name": "rules", "mountPath": environment(pod)["THE_EYE_RULES_DIR"], "readOnly": True}


def test_the_operator_finds_this_releases_workers_and_no_others() -> None:
    rendered, other = render(), render(name="other")

    selector = environment(rendered.pod("operator"))["THE_EYE_OPERATOR_WORKER_SELECTOR"]
    wanted = dict(pair.split("=") for pair in selector.split(","))
    assert [pod.component for pod in rendered.pods() if wanted.items() <= pod.labels.items()] == ["worker"]
    assert [pod.component for pod in other.pods() if wanted.items() <= pod.labels.items()] == []


def test_another_version_or_setting_is_another_migration() -> None:
    """A Job cannot be changed: with the same name and another content, the upgrade would fail."""

    def job(values: dict[str, Any]) -> str:
        (found,) = render(values).of("Job")
        return str(found["metadata"]["name"])

    assert job({}) == job({"api": {"replicas": 5}})
    different: list[dict[str, Any]] = [
        {},
        {"image": {"tag": "2"}},
        {"tasks": {"migration": {"backoffLimit": 3}}},
        {"tasks": {"podLabels": {"team": "events"}}},
        {"tasks": {"maintenance": {"settings": {"THE_EYE_RETENTION_DAYS": 30}}}},
        {"extraEnv": [{"name": "HTTPS_PROXY", "value": "proxy:3128"}]},
    ]
    assert len({job(values) for values in different}) == len(different)


def test_the_charts_version_alone_replaces_no_pod(rendered: Rendered) -> None:
    for pod in rendered.pods():
        if not pod.owner.startswith("Pod"):
            assert not {"helm.sh/chart", "app.kubernetes.io/version"} & pod.labels.keys(), pod.owner


def test_notes_name_what_there_is(rendered: Rendered) -> None:
    names = {(manifest["kind"].lower(), manifest["metadata"]["name"]) for manifest in rendered.manifests}
    named = set(re.findall(r"\b(deployment|service)/([a-z0-9-]+)", rendered.notes))

    assert named == {("deployment", "the-eye-api"), ("deployment", "the-eye-worker"), ("service", "the-eye-api")}
    assert named <= names
    in_pods = [line for line in rendered.notes.splitlines() if " exec " in line or " port-forward " in line]
    assert len(in_pods) == 3
    assert all(f"--namespace {NAMESPACE} " in line for line in in_pods)


TEXTS = {"className", "ingressClassName", "key", "priorityClassName", "secretName", "storageClassName", "timeZone"}
"""Fields that are text wherever they stand, beside names and all that is in maps of labels."""

NUMBERS: dict[str, Any] = {
    "api": {"serviceAccount": {"name": "1"}, "priorityClassName": "2"},
    "database": {"existingSecret": "3", "existingSecretKey": "4"},
    "ingress": {"enabled": True, "hosts": ["5"], "className": "6", "tls": {"secretName": "7"}},
    "metrics": {"podMonitor": {"enabled": True}},
    "operator": {"ruleNamespaces": ["8"], "serviceAccount": {"name": "9"}},
    "ruleset": {"name": "10"},
    "tryOut": {"persistence": {"storageClassName": "11"}},
    "worker": {"autoscaling": {"backlog": {"enabled": True}}},
}


def not_texts(found: Any, path: str = "") -> Iterator[str]:
    """Name the places where Kubernetes demands text and something else stands."""
    if isinstance(found, list):
        for item in found:
            yield from not_texts(item, f"{path}[]")
    elif isinstance(found, dict):
        is_map = path.endswith(("abels", "annotations", "nodeSelector", "stringData", "spec.selector"))
        for key, value in found.items():
            inner = f"{path}.{key}"
            is_text = key.lower().endswith(("name", "namespace")) or key in TEXTS
            if (is_map or is_text or inner.endswith(".env[].value")) and not isinstance(value, str | dict | list):
                yield inner
            yield from not_texts(value, inner)
    elif path.endswith((".resourceNames[]", ".values[]", ".args[]", ".command[]")) and not isinstance(found, str):
        yield path


@pytest.mark.parametrize("name", ["123", "1e3", "true"])
def test_a_name_that_looks_like_a_number_stays_a_name(name: str) -> None:
    rendered = render(NUMBERS, name=name, namespace="456")

    assert [place for manifest in rendered.manifests for place in not_texts(manifest, manifest["kind"])] == []
    selector = environment(rendered.pod("operator"))["THE_EYE_OPERATOR_WORKER_SELECTOR"]
    wanted = dict(pair.split("=") for pair in selector.split(","))
    assert wanted.items() <= rendered.pod("worker").labels.items()


def test_releases_of_one_name_may_have_rules_in_the_same_namespace() -> None:
    def roles(namespace: str) -> set[tuple[str, str]]:
        rendered = render({"operator": {"ruleNamespaces": ["rules"]}}, namespace=namespace)
        return {
            (manifest["kind"], manifest["metadata"]["name"])
            for manifest in rendered.manifests
            if "Role" in manifest["kind"] and manifest["metadata"].get("namespace", "rules") == "rules"
        }

    assert len(roles("shop")) == 4
    assert roles("shop") & roles("news") == set()
