"""Stands in for prometheus-adapter, whose module the Go proxy has not got: the two metrics APIs, from a Prometheus.

It reads the configuration that is installed with the real one, and makes of a rule the same query. What it does not
know of a configuration is an error. Left out: names that differ from the series' own, and the discovery of series, so
that a metric is served whether it was seen before or not.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import msgspec
from lightkube import Client
from lightkube.resources.core_v1 import Pod
from litestar import Litestar, get
from litestar.exceptions import NotFoundException, ServiceUnavailableException
from litestar.params import FromPath, QueryParameter
from tests.observability.prometheus import Prometheus, QueryError, Sample

CONFIGURATION = Path(__file__).parents[2] / "observability" / "prometheus-adapter.yaml"

CUSTOM, EXTERNAL = "custom.metrics.k8s.io", "external.metrics.k8s.io"
VERSION = "v1beta1"

Text = FromPath[str]
LabelSelector = Annotated[str, QueryParameter(name="labelSelector")]


class Resource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What kind of object a label names."""

    resource: str


class Resources(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The labels that name objects."""

    overrides: Mapping[str, Resource]

    def label(self, resource: str) -> str:
        """Find the label that names objects of a kind."""
        return next(label for label, named in self.overrides.items() if named.resource == resource)


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """How a metric comes from a series of the same name."""

    series_query: str
    resources: Resources
    metrics_query: str

    def query(self, matchers: Sequence[str], group_by: str) -> str:
        """Make the query for some objects."""
        filled = self.metrics_query
        for name, text in (
            ("Series", self.series_query),
            ("LabelMatchers", ",".join(matchers)),
            ("GroupBy", group_by),
        ):
            filled = filled.replace(f"<<.{name}>>", text)
        return filled


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rules of both APIs."""

    custom: tuple[Rule, ...]
    external: tuple[Rule, ...]
    default: bool


class Values(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The values of the adapter's chart."""

    rules: Rules


def configured() -> Rules:
    """Read the configuration that the documentation has people install."""
    return msgspec.yaml.decode(CONFIGURATION.read_bytes(), type=Values).rules


class MetricsAdapter:
    """Answers for the metrics of the rules."""

    def __init__(self, rules: Rules, prometheus: Prometheus, client: Client) -> None:
        self._custom = {rule.series_query: rule for rule in rules.custom}
        self._external = {rule.series_query: rule for rule in rules.external}
        self._prometheus = prometheus
        self._client = client

    @property
    def custom_metrics(self) -> list[str]:
        """Name the metrics as resources of their API."""
        return [f"pods/{name}" for name in self._custom]

    @property
    def external_metrics(self) -> list[str]:
        """Name the external metrics."""
        return list(self._external)

    def external(self, namespace: str, metric: str, selector: str) -> dict[str, Any]:
        """Give the values of an external metric."""
        rule = _found(self._external, metric)
        label = rule.resources.label("namespace")
        samples = self._ask(rule.query([f'{label}="{namespace}"', *_matchers(selector)], label))
        items = [{"metricName": metric, "metricLabels": each.labels, **_value(each)} for each in samples]
        return _list("ExternalMetricValueList", EXTERNAL, items)

    def of_pods(self, namespace: str, name: str, metric: str, selector: str) -> dict[str, Any]:
        """Give the values of a pod's metric, or with the name ``*`` of those of all pods that a selector selects."""
        rule = _found(self._custom, metric)
        label = rule.resources.label("pod")
        names = self._pods(namespace, selector) if name == "*" else [name]
        matchers = [f'{rule.resources.label("namespace")}="{namespace}"', f'{label}=~"{"|".join(names)}"']
        items = [
            {"describedObject": _pod(namespace, each.labels[label]), "metricName": metric, **_value(each)}
            for each in self._ask(rule.query(matchers, label))
        ]
        return _list("MetricValueList", CUSTOM, items)

    def _pods(self, namespace: str, selector: str) -> list[str]:
        labels: dict[str, Any] = dict(pair.split("=") for pair in selector.split(","))
        found = self._client.list(Pod, namespace=namespace, labels=labels)
        return [pod.metadata.name for pod in found if pod.metadata is not None and pod.metadata.name is not None]

    def _ask(self, query: str) -> list[Sample]:
        try:
            return self._prometheus.query(query)
        except (httpx.HTTPError, QueryError) as error:
            raise ServiceUnavailableException(str(error)) from error


def _found(rules: Mapping[str, Rule], metric: str) -> Rule:
    if metric not in rules:
        raise NotFoundException(metric)
    return rules[metric]


def _matchers(selector: str) -> list[str]:
    """Write ``a=b,c=d`` as matchers of Prometheus."""
    pairs = [pair.split("=") for pair in selector.split(",") if pair]
    return [f'{label}="{value}"' for label, value in pairs]


def _value(sample: Sample) -> dict[str, str]:
    return {"timestamp": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "value": f"{round(sample.value * 1000)}m"}


def _pod(namespace: str, name: str) -> dict[str, str]:
    return {"kind": "Pod", "apiVersion": "v1", "namespace": namespace, "name": name}


def _list(kind: str, group: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"kind": kind, "apiVersion": f"{group}/{VERSION}", "metadata": {}, "items": items}


def _resources(group: str, kind: str, names: Iterable[str]) -> dict[str, Any]:
    described = {"singularName": "", "namespaced": True, "kind": kind, "verbs": ["get"]}
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{VERSION}",
        "resources": [{"name": name, **described} for name in names],
    }


def application(adapter: MetricsAdapter) -> Litestar:
    """Make the HTTP server's part."""

    @get(f"/apis/{CUSTOM}/{VERSION}", sync_to_thread=False)
    def discover_custom() -> dict[str, Any]:
        return _resources(CUSTOM, "MetricValueList", adapter.custom_metrics)

    @get(f"/apis/{EXTERNAL}/{VERSION}", sync_to_thread=False)
    def discover_external() -> dict[str, Any]:
        return _resources(EXTERNAL, "ExternalMetricValueList", adapter.external_metrics)

    @get(f"/apis/{EXTERNAL}/{VERSION}/namespaces/{{namespace:str}}/{{metric:str}}", sync_to_thread=True)
    def external(namespace: Text, metric: Text, selector: LabelSelector = "") -> dict[str, Any]:
        return adapter.external(namespace, metric, selector)

    @get(f"/apis/{CUSTOM}/{VERSION}/namespaces/{{namespace:str}}/pods/{{name:str}}/{{metric:str}}", sync_to_thread=True)
    def of_pods(namespace: Text, name: Text, metric: Text, selector: LabelSelector = "") -> dict[str, Any]:
        return adapter.of_pods(namespace, name, metric, selector)

    return Litestar([discover_custom, discover_external, external, of_pods], openapi_config=None)
