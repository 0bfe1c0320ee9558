"""Each switch adds or takes away what it is for, and nothing else; what cannot work is refused with a sentence."""

import json
import re
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml
from docs.list_metrics import listed
from tests.chart.rendering import render, shape
from tests.chart.values import CHART, defaults

from the_eye.rules.crd import definition
from the_eye_api import metrics, shared_metrics

ADAPTER = Path(__file__).parents[2] / "observability" / "prometheus-adapter.yaml"

SECRETS = {"database": {"existingSecret": "database"}, "redis": {"existingSecret": "redis"}}
OWN_STORES: dict[str, Any] = {"tryOut": {"enabled": False}, **SECRETS}

VALKEY = {
    "ConfigMap/the-eye-valkey",
    "NetworkPolicy/the-eye-valkey",
    "Service/the-eye-valkey",
    "StatefulSet/the-eye-valkey",
}
POSTGRES = {"NetworkPolicy/the-eye-postgres", "Service/the-eye-postgres", "StatefulSet/the-eye-postgres"}
POLICIES = {
    "NetworkPolicy/the-eye",
    *(
        f"NetworkPolicy/the-eye-{component}"
        for component in ("api", "worker", "operator", "migration", "maintenance", "test", "postgres", "valkey")
    ),
}

Switch = tuple[dict[str, Any], set[str], set[str]]

SWITCHES: dict[str, Switch] = {
    "own stores": (OWN_STORES, set(), {"Secret/the-eye-try-out", *VALKEY, *POSTGRES}),
    "own database": ({"database": SECRETS["database"]}, set(), POSTGRES),
    "own redis": ({"redis": SECRETS["redis"]}, set(), VALKEY),
    "ingress": ({"ingress": {"enabled": True, "hosts": ["a.example.com"]}}, {"Ingress/the-eye-api"}, set()),
    "gateway": ({"gateway": {"enabled": True, "parentRefs": [{"name": "a"}]}}, {"HTTPRoute/the-eye-api"}, set()),
    "api without autoscaling": (
        {"api": {"autoscaling": {"enabled": False}}},
        set(),
        {"HorizontalPodAutoscaler/the-eye-api"},
    ),
    "worker without autoscaling": (
        {"worker": {"autoscaling": {"enabled": False}}},
        set(),
        {"HorizontalPodAutoscaler/the-eye-worker"},
    ),
    "keda": (
        {
            "worker": {
                "autoscaling": {"enabled": False},
                "keda": {"enabled": True, "serverAddress": "http://prometheus:9090"},
            }
        },
        {"ScaledObject/the-eye-worker"},
        {"HorizontalPodAutoscaler/the-eye-worker"},
    ),
    "api without budget": (
        {"api": {"podDisruptionBudget": {"enabled": False}}},
        set(),
        {"PodDisruptionBudget/the-eye-api"},
    ),
    "worker without budget": (
        {"worker": {"podDisruptionBudget": {"enabled": False}}},
        set(),
        {"PodDisruptionBudget/the-eye-worker"},
    ),
    "without policies": ({"networkPolicy": {"enabled": False}}, set(), POLICIES),
    "without migration": ({"tasks": {"migration": {"enabled": False}}}, set(), {"Job/the-eye-migrate"}),
    "without maintenance": ({"tasks": {"maintenance": {"enabled": False}}}, set(), {"CronJob/the-eye-maintain"}),
    "dashboards": (
        {"metrics": {"dashboards": {"enabled": True}}},
        {f"ConfigMap/the-eye-dashboard-{name}" for name in ("overview", "rules", "runtime")},
        set(),
    ),
    "pod monitor": ({"metrics": {"podMonitor": {"enabled": True}}}, {"PodMonitor/the-eye"}, set()),
    "rules of prometheus": (
        {"metrics": {"prometheusRule": {"enabled": True}}},
        {"PrometheusRule/the-eye"},
        set(),
    ),
    "without definition": (
        {"crds": {"enabled": False}},
        set(),
        {"CustomResourceDefinition/validatorrules.the-eye.io"},
    ),
    "without cluster roles": (
        {"rbac": {"aggregateToDefaultRoles": False}},
        set(),
        {"ClusterRole/the-eye-rules-edit", "ClusterRole/the-eye-rules-view"},
    ),
    "without back-tests": ({"operator": {"backtests": {"enabled": False}}}, set(), set()),
    "without persistence": ({"tryOut": {"persistence": {"enabled": False}}}, set(), set()),
}


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_adds_and_takes_away_what_it_is_for(name: str) -> None:
    values, added, removed = SWITCHES[name]
    before, after = render().names(), render(values).names()

    assert after - before == added
    assert before - after == removed


def test_back_tests_use_the_database_unless_they_have_a_secret_of_their_own() -> None:
    def secret(backtests: dict[str, Any]) -> list[dict[str, str]]:
        (container,) = render({"operator": {"backtests": backtests}}).pod("operator").spec["containers"]
        return [each["valueFrom"]["secretKeyRef"] for each in container["env"] if "valueFrom" in each]

    assert secret({}) == [{"name": "the-eye-try-out", "key": "database-url"}]
    assert secret({"existingSecret": "reader"}) == [{"name": "reader", "key": "url"}]
    assert secret({"enabled": False}) == []


def test_data_goes_with_the_pods_without_persistence() -> None:
    rendered = render({"tryOut": {"persistence": {"enabled": False}}})

    for stateful_set in rendered.of("StatefulSet"):
        assert "volumeClaimTemplates" not in stateful_set["spec"]
    assert {pod.component for pod in rendered.pods() if pod.volumes().get("data", {}).get("emptyDir") == {}} == {
        "postgres",
        "valkey",
    }


def test_workers_scale_by_the_backlog_where_it_is_told() -> None:
    def metrics(**backlog: Any) -> list[dict[str, Any]]:
        rendered = render({"worker": {"autoscaling": {"backlog": {"enabled": True, **backlog}}}}, name="a")
        found: list[dict[str, Any]] = rendered.one("HorizontalPodAutoscaler", "a-the-eye-worker")["spec"]["metrics"]
        return found

    assert [metric["type"] for metric in metrics()] == ["Resource", "External"]
    assert metrics()[1]["external"] == {
        "metric": {"name": "the_eye_backlog_bytes", "selector": {"matchLabels": {"app_kubernetes_io_instance": "a"}}},
        "target": {"type": "AverageValue", "averageValue": "8Mi"},
    }
    assert metrics(selector={"cell": "b"})[1]["external"]["metric"]["selector"] == {"matchLabels": {"cell": "b"}}


def test_series_tell_what_release_they_are_of() -> None:
    """The workers' autoscaler selects by it. Prometheus writes an underscore for what none of its labels' names has."""
    values = {
        "worker": {"autoscaling": {"backlog": {"enabled": True}}},
        "metrics": {"podMonitor": {"enabled": True}},
    }
    rendered = render(values)

    external = rendered.one("HorizontalPodAutoscaler", "the-eye-worker")["spec"]["metrics"][1]["external"]
    labels = rendered.pod("api").labels
    kept = rendered.one("PodMonitor", "the-eye")["spec"]["podTargetLabels"]
    series = {re.sub("[^a-zA-Z0-9_]", "_", label): labels[label] for label in kept}
    assert external["metric"]["selector"]["matchLabels"].items() <= series.items()


def test_who_installs_is_told_that_workers_scale_by_cpu_alone() -> None:
    told = "scale by their CPU alone"

    assert told in render().notes
    assert told not in render({"worker": {"autoscaling": {"backlog": {"enabled": True}}}}).notes
    assert told not in render(SWITCHES["keda"][0]).notes


@pytest.mark.parametrize("metric", ["worker.autoscaling.backlog.metric", "api.autoscaling.requestsInFlight.metric"])
def test_what_scales_is_a_metric_of_the_apis(metric: str) -> None:
    component, scaling, kind, key = metric.split(".")

    told = {each.name for module in (metrics, shared_metrics) for each in listed(module)}
    assert defaults()[component][scaling][kind][key] in told


def test_the_adapters_rules_are_for_what_scales() -> None:
    rules = yaml.safe_load(ADAPTER.read_text())["rules"]

    scaling = defaults()
    assert [rule["seriesQuery"] for rule in rules["external"]] == [
        scaling["worker"]["autoscaling"]["backlog"]["metric"]
    ]
    assert [rule["seriesQuery"] for rule in rules["custom"]] == [
        scaling["api"]["autoscaling"]["requestsInFlight"]["metric"]
    ]


def test_the_api_scales_by_requests_in_flight_where_they_are_told() -> None:
    spec = render({"api": {"autoscaling": {"cpu": "", "requestsInFlight": {"averageValue": "30"}}}}).one(
        "HorizontalPodAutoscaler", "the-eye-api"
    )["spec"]

    assert spec["metrics"] == [
        {
            "type": "Pods",
            "pods": {
                "metric": {"name": "the_eye_http_requests_in_flight"},
                "target": {"type": "AverageValue", "averageValue": "30"},
            },
        }
    ]


@pytest.mark.parametrize("name", ["the-eye-api", "the-eye-worker"])
def test_scaling_rises_at_once_and_falls_slowly(name: str) -> None:
    behavior = render().one("HorizontalPodAutoscaler", name)["spec"]["behavior"]

    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] >= 300


def test_keda_asks_for_the_backlog_of_this_release() -> None:
    values, _, _ = SWITCHES["keda"]

    (scaled,) = render(values).of("ScaledObject")
    backlog, cpu = scaled["spec"]["triggers"]
    query = backlog["metadata"]["query"]
    assert query == 'max(the_eye_backlog_bytes{namespace="shop", pod=~"the-eye-api-[0-9a-z]+-[0-9a-z]+"})'
    assert backlog["metadata"]["ignoreNullValues"] == "false"
    assert int(backlog["metadata"]["threshold"]) == 8 * 1024 * 1024
    assert cpu == {"type": "cpu", "metricType": "AverageValue", "metadata": {"value": "700m"}}


def test_keda_takes_no_worker_away_while_it_does_not_know_the_backlog() -> None:
    (scaled,) = render(SWITCHES["keda"][0]).of("ScaledObject")

    fallback = scaled["spec"]["fallback"]
    assert fallback == {"failureThreshold": 3, "replicas": 4, "behavior": "currentReplicasIfHigher"}


def test_the_definition_is_the_one_of_the_core_and_outlives_the_release_unless_told_otherwise() -> None:
    def rendered(values: dict[str, Any]) -> dict[str, Any]:
        (found,) = render({"crds": values}).of("CustomResourceDefinition")
        return found

    assert rendered({})["spec"] == definition()["spec"]
    assert rendered({})["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert "annotations" not in rendered({"keep": False})["metadata"]


def test_the_example_of_cloudnative_pg_names_what_its_cluster_makes() -> None:
    """Its Secret for the application, and its pods by their label."""
    cluster = yaml.safe_load((CHART / "examples" / "cloudnative-pg" / "cluster.yaml").read_text())
    values = shape("examples/cloudnative-pg/values.yaml")

    name = cluster["metadata"]["name"]
    assert values["database"] == {"existingSecret": f"{name}-app", "existingSecretKey": "uri"}
    (peer,) = values["networkPolicy"]["database"]["to"]
    assert peer["podSelector"]["matchLabels"] == {"cnpg.io/cluster": name}


def test_the_example_of_external_secrets_makes_what_the_values_name() -> None:
    documents = (CHART / "examples" / "external-secrets" / "external-secrets.yaml").read_text()
    values = defaults() | shape("examples/external-secrets/values.yaml")

    made = {
        (found["spec"]["target"]["name"], key)
        for found in yaml.safe_load_all(documents)
        for key in found["spec"]["target"]["template"]["data"]
    }
    assert made == {(values[store]["existingSecret"], "url") for store in ("database", "redis")}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"tryOut": {"enabled": False}}, "database.existingSecret names no Secret"),
        ({"tryOut": {"enabled": False}, "database": SECRETS["database"]}, "redis.existingSecret names no Secret"),
        (SECRETS, "set tryOut.enabled=false"),
        (
            {"worker": {"keda": {"enabled": True, "serverAddress": "http://prometheus:9090"}}},
            "two autoscalers would undo each other's work",
        ),
        (
            {"worker": {"autoscaling": {"enabled": False}, "keda": {"enabled": True}}},
            "without worker.keda.serverAddress",
        ),
        (
            {
                "worker": {
                    "autoscaling": {"enabled": False, "minReplicas": 5},
                    "keda": {"enabled": True, "serverAddress": "http://prometheus:9090"},
                }
            },
            "worker.keda.fallbackReplicas is 4, fewer than worker.autoscaling.minReplicas, 5.",
        ),
        (
            {"api": {"autoscaling": {"minReplicas": 11}}},
            "minReplicas is 11, more than maxReplicas, 10.",
        ),
        ({"worker": {"autoscaling": {"maxReplicas": 1}}}, "worker.autoscaling.minReplicas is 2, more than maxReplicas"),
        ({"api": {"autoscaling": {"cpu": ""}}}, "api.autoscaling.enabled is on without a metric"),
        ({"worker": {"autoscaling": {"cpu": ""}}}, "worker.autoscaling.enabled is on without a metric"),
        (
            {"worker": {"autoscaling": {"backlog": {"enabled": True, "averageValue": ""}}}},
            "worker.autoscaling.backlog.enabled is on without worker.autoscaling.backlog.averageValue",
        ),
        (
            {
                "worker": {
                    "autoscaling": {"enabled": False, "maxReplicas": 3},
                    "keda": {"enabled": True, "serverAddress": "http://prometheus:9090"},
                }
            },
            "worker.keda.fallbackReplicas is 4, more than worker.autoscaling.maxReplicas, 3.",
        ),
        (
            {"tryOut": {"valkey": {"maxMemoryMiB": 1025}}},
            "tryOut.valkey.maxMemoryMiB is 1025, more than tryOut.valkey.resources.limits.memory, 1Gi",
        ),
        (
            {"tryOut": {"valkey": {"resources": {"limits": {"memory": 536_870_911}}}}},
            "tryOut.valkey.maxMemoryMiB is 512, more than",
        ),
        (
            {"api": {"serviceAccount": {"name": "one"}}, "tasks": {"serviceAccount": {"name": "one"}}},
            "api and tasks would both make the ServiceAccount one",
        ),
        (
            {"operator": {"serviceAccount": {"name": "the-eye-worker"}}},
            "worker and operator would both make the ServiceAccount the-eye-worker",
        ),
        (
            {"extraEnv": [{"name": "THE_EYE_DATABASE_URL", "value": "postgresql://"}]},
            "extraEnv has THE_EYE_DATABASE_URL, which the container api is given already",
        ),
        (
            {"extraEnv": [{"name": "THE_EYE_RULES_DIR", "value": "/rules"}]},
            "extraEnv has THE_EYE_RULES_DIR, which the container api is given already",
        ),
        (
            {
                "operator": {"settings": {"THE_EYE_LOG_LEVEL": "debug"}},
                "extraEnv": [{"name": "THE_EYE_LOG_LEVEL", "value": "info"}],
            },
            "extraEnv has THE_EYE_LOG_LEVEL, which the container operator is given already",
        ),
        (
            {
                "tasks": {"maintenance": {"settings": {"THE_EYE_RETENTION_DAYS": 30}}},
                "extraEnv": [{"name": "THE_EYE_RETENTION_DAYS", "value": "60"}],
            },
            "extraEnv has THE_EYE_RETENTION_DAYS, which the container migrate is given already",
        ),
        ({"ingress": {"enabled": True}}, "ingress.enabled is on without ingress.hosts."),
        ({"gateway": {"enabled": True}}, "gateway.enabled is on without gateway.parentRefs"),
    ],
)
def test_what_cannot_work_is_refused_with_a_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(helm.HelmRenderError) as refused:
        render(values)

    assert sentence in str(refused.value)


def test_a_store_to_try_out_may_have_all_of_its_containers_memory_or_no_limit() -> None:
    valkey: list[dict[str, Any]] = [
        {"maxMemoryMiB": 1024},
        {"maxMemoryMiB": 2048, "resources": {"limits": {"memory": None}}},
        {"maxMemoryMiB": 2048, "resources": {"limits": {"memory": "2147483648"}}},
    ]
    for values in valkey:
        assert render({"tryOut": {"valkey": values}}).of("StatefulSet")


@pytest.mark.parametrize(
    "values",
    [
        {"settings": None},
        {"api": {"settings": None}},
        {"metrics": {"dashboards": {"enabled": True, "labels": None}}},
        {"metrics": {"dashboards": {"enabled": True, "labels": {"grafana_dashboard": None}}}},
    ],
)
def test_null_takes_a_default_away(values: dict[str, Any]) -> None:
    assert render(values).pods()


def test_grafana_finds_each_dashboard_as_it_is() -> None:
    annotations = {"grafana_folder": "The Eye"}
    rendered = render({"metrics": {"dashboards": {"enabled": True, "annotations": annotations}}})

    found = [each for each in rendered.of("ConfigMap") if each["metadata"]["labels"].get("grafana_dashboard") == "1"]

    assert [each["metadata"]["annotations"] for each in found] == [annotations] * len(found)
    held = {name: text for each in found for name, text in each["data"].items()}
    files = {path.name: path.read_text() for path in (CHART / "files" / "dashboards").iterdir()}
    assert held.keys() == files.keys()
    assert {name: json.loads(text) for name, text in held.items()} == {
        name: json.loads(text) for name, text in files.items()
    }


def test_panels_link_to_where_the_runbooks_are() -> None:
    address = "https://git.example.com/the-eye/docs/runbooks"
    values = {"dashboards": {"enabled": True}, "prometheusRule": {"runbookBaseUrl": f"{address}/"}}

    found = render({"metrics": values}).of("ConfigMap")

    texts = [text for each in found for name, text in each["data"].items() if name.endswith(".json")]
    variables = [each for text in texts for each in json.loads(text)["templating"]["list"]]
    assert [each["query"] for each in variables if each["name"] == "runbooks"] == [address] * 3
