"""Each switch adds or takes away what it is for, and nothing else; what cannot work is refused with a sentence."""

from typing import Any

import helm_python as helm
import pytest
import yaml
from tests.chart.rendering import render, shape
from tests.chart.values import CHART

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
    "pod monitor": ({"metrics": {"podMonitor": {"enabled": True}}}, {"PodMonitor/the-eye"}, set()),
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
    values = {"worker": {"autoscaling": {"backlog": {"averageValue": "50", "selector": {"release": "a"}}}}}

    spec = render(values).one("HorizontalPodAutoscaler", "the-eye-worker")["spec"]
    assert [metric["type"] for metric in spec["metrics"]] == ["Resource", "External"]
    assert spec["metrics"][1]["external"] == {
        "metric": {"name": "the_eye_backlog_messages", "selector": {"matchLabels": {"release": "a"}}},
        "target": {"type": "AverageValue", "averageValue": "50"},
    }


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
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metadata"]["query"] == 'max(the_eye_backlog_messages{namespace="shop", pod=~"the-eye-api-.+"})'
    assert trigger["metadata"]["ignoreNullValues"] == "false"


def test_the_example_of_cloudnative_pg_names_what_its_cluster_makes() -> None:
    """Its Secret for the application, and its pods by their label."""
    cluster = yaml.safe_load((CHART / "examples" / "cloudnative-pg" / "cluster.yaml").read_text())
    values = shape("examples/cloudnative-pg/values.yaml")

    name = cluster["metadata"]["name"]
    assert values["database"] == {"existingSecret": f"{name}-app", "existingSecretKey": "uri"}
    (peer,) = values["networkPolicy"]["database"]["to"]
    assert peer["podSelector"]["matchLabels"] == {"cnpg.io/cluster": name}


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
        ({"ingress": {"enabled": True}}, "ingress.enabled is on without ingress.hosts."),
        ({"gateway": {"enabled": True}}, "gateway.enabled is on without gateway.parentRefs"),
    ],
)
def test_what_cannot_work_is_refused_with_a_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(helm.HelmRenderError) as refused:
        render(values)

    assert sentence in str(refused.value)
