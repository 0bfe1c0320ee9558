"""The schema refuses what no value can be; what is made of values.yaml is up to date."""

from collections.abc import Iterator
from typing import Any

import helm_python as helm
import msgspec
import pytest
from tests.chart import plain, readme, schema, values
from tests.chart.rendering import SHAPES, chart, render, shape


@pytest.mark.parametrize("module", [schema, readme, plain])
def test_what_is_made_of_the_chart_is_up_to_date(module: Any) -> None:
    assert module.FILE.read_text() == module.make(), "run: python -m tests.chart.generate"


def test_the_defaults_and_every_shape_are_allowed() -> None:
    chart().validate_schema(values.defaults())
    for name in SHAPES:
        chart().validate_schema(shape(name))


def objects(found: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Give all parts of a schema that are for objects of ours."""
    if "properties" in found:
        yield path, found
        for key, inner in found["properties"].items():
            yield from objects(inner, f"{path}.{key}")


def test_no_object_lets_an_unknown_key_through() -> None:
    made = msgspec.json.decode(schema.make())
    assert all(found["additionalProperties"] is False for _, found in objects(made))
    assert len(list(objects(made))) > 30


def nested(path: str, value: Any) -> dict[str, Any]:
    """Make values of which one is given."""
    for key in reversed(path.split(".")):
        value = {key: value}
    found: dict[str, Any] = value
    return found


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("databse", {}),
        ("database.password", "secret"),
        ("database.existingSecret", "Not A Name"),
        ("api.replicas", "2"),
        ("api.replicas", -1),
        ("api.autoscaling.cpu", "60 percent"),
        ("api.autoscaling.behavior.scaleUp.policies", [{"type": "Pod", "value": 1, "periodSeconds": 60}]),
        ("api.autoscaling.cpu", "0"),
        ("api.autoscaling.cpu", "0.0m"),
        ("api.autoscaling.requestsInFlight.averageValue", "0"),
        ("worker.autoscaling.backlog.averageValue", "0Mi"),
        ("worker.keda.threshold", "0"),
        ("worker.keda.threshold", ""),
        ("api.image.tag", "latest"),
        ("api.image.digest", "sha256:abc"),
        ("api.image.repository", "the-eye/api:1.0"),
        ("api.podLabels", {"app.kubernetes.io/component": "mine"}),
        ("api.podDisruptionBudget.maxUnavailable", 0),
        ("api.resources", {"request": {}}),
        ("api.service.port", 70_000),
        ("api.service.type", "ExternalName"),
        ("api.settings", {"THE_EYE_BACKLOG_MAX_BYTE": 1}),
        ("api.settings", {"THE_EYE_BACKLOG_MAX_BYTES": 0}),
        ("api.settings", {"THE_EYE_BACKLOG_MAX_BYTES": "much"}),
        ("api.settings", {"THE_EYE_DATABASE_URL": "postgresql://a:b@c/d"}),
        ("api.settings", {"THE_EYE_WORKER_THREADS": 2}),
        ("worker.settings", {"THE_EYE_WORKER_THREADS": 65}),
        ("worker.settings", {"THE_EYE_RULES_DIR": "/rules"}),
        ("settings", {"THE_EYE_LOG_LEVEL": "loud"}),
        ("image.pullPolicy", "Sometimes"),
        ("image.tag", "latest"),
        ("metrics.podMonitor.labels", {"app.kubernetes.io/name": "mine"}),
        ("metrics.dashboards.labels", {"app.kubernetes.io/name": "mine"}),
        ("metrics.prometheusRule.labels", {"app.kubernetes.io/component": "mine"}),
        ("metrics.prometheusRule.labels", {"helm.sh/chart": "mine"}),
        ("metrics.prometheusRule.grafanaUrl", "grafana.example.com"),
        ("metrics.prometheusRule.grafanaUrl", "https://grafana.example.com/{{ x }}"),
        ("metrics.prometheusRule.grafanaUrl", 'https://grafana.example.com/"'),
        ("metrics.prometheusRule.grafanaUrl", "https://grafana.example.com/ #"),
        ("metrics.prometheusRule.objectives.freshness", "1.0"),
        ("metrics.prometheusRule.objectives.freshness", 0.99),
        ("metrics.prometheusRule.thresholds.backlogAgeSeconds", "2m"),
        ("metrics.prometheusRule.thresholds.backlogAge", 120),
        ("networkPolicy.database.ports", []),
        ("networkPolicy.database.ports", ["postgres"]),
        ("operator.replicas", 2),
        ("operator.ruleNamespaces", "shop"),
        ("podSecurity.runAsUser", 0),
        ("ruleset.name", "Rules"),
        ("tasks.maintenance.settings", {"THE_EYE_RETENTION_DAYS": 0}),
        ("tryOut.valkey.runAsUser", 0),
        ("tryOut.postgres.password", "secret"),
        ("worker.keda.serverAddress", "prometheus:9090"),
    ],
)
def test_the_schema_refuses(path: str, value: Any) -> None:
    with pytest.raises(helm.HelmValuesError):
        chart().validate_schema(nested(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("api.autoscaling.cpu", "0.5"),
        ("api.autoscaling.cpu", "100m"),
        ("worker.keda.threshold", "0.01"),
        ("metrics.dashboards.labels", {"grafana_dashboard": "1", "team": "events"}),
        ("metrics.prometheusRule.grafanaUrl", "https://grafana.example.com:3000/a"),
    ],
)
def test_the_schema_allows(path: str, value: Any) -> None:
    chart().validate_schema(nested(path, value))


def test_a_chart_that_has_this_one_as_a_part_may_hand_down_globals() -> None:
    render({"global": {"anything": "at all"}})
