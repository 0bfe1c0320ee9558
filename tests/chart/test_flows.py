"""The NetworkPolicies let through what The Eye needs, and nothing else.

Whether a network enforces them is not tested: that is the cluster's affair.
"""

from typing import Any

import pytest
from tests.chart import flows
from tests.chart.flows import End, Policies
from tests.chart.rendering import NAMESPACE, Rendered, render, shape

OUTSIDE: dict[str, End] = {
    "prometheus": End(namespace="monitoring", labels={"app": "prometheus"}),
    "dns": End(namespace="kube-system", labels={"k8s-app": "kube-dns"}),
    "ingress": End(namespace="ingress", labels={"app": "ingress"}),
    "neighbour": End(namespace=NAMESPACE, labels={"app": "shop"}),
    "stranger": End(namespace="elsewhere"),
    "kubernetes": End(address="10.96.0.1"),
    "database": End(address="10.20.3.4"),
    "internet": End(address="203.0.113.7"),
}

API, API_METRICS, WORKER_METRICS, OPERATOR_METRICS, POSTGRES, VALKEY = 8000, 9100, 9101, 9102, 5432, 6379

TRY_OUT_ALLOWED = {
    *(("ingress", "api", API), ("neighbour", "api", API), ("stranger", "api", API), ("internet", "api", API)),
    *((client, "api", API) for client in ("prometheus", "dns", "kubernetes", "database", "test")),
    *(("prometheus", "api", API_METRICS), ("prometheus", "worker", WORKER_METRICS)),
    *(("prometheus", "operator", OPERATOR_METRICS), ("operator", "worker", WORKER_METRICS)),
    *((client, "postgres", POSTGRES) for client in ("api", "worker", "operator", "migration", "maintenance", "test")),
    *((client, "valkey", VALKEY) for client in ("api", "worker")),
    *(("operator", anywhere, port) for anywhere in OUTSIDE for port in (443, 6443)),
}
"""With the chart as it comes; where the API server is, policies cannot know unless they are told."""

PORTS = (API, API_METRICS, WORKER_METRICS, OPERATOR_METRICS, POSTGRES, VALKEY, 443, 6443, 80, 22)


def flows_let(rendered: Rendered) -> set[tuple[str, str, int]]:
    """Try every pair of ends at every port."""
    policies, ends = flows.of(rendered), OUTSIDE | flows.pods_of(rendered)
    return {
        (source, destination, port)
        for source in ends
        for destination in ends
        if source != destination and not {source, destination} <= OUTSIDE.keys()
        for port in PORTS
        if policies.let(ends[source], ends[destination], port)
    }


def test_the_try_out_allows_exactly_the_paths_that_exist() -> None:
    assert flows_let(render()) == TRY_OUT_ALLOWED


@pytest.mark.parametrize("port", [API_METRICS, WORKER_METRICS, OPERATOR_METRICS, POSTGRES, VALKEY])
def test_no_pod_lets_another_in_that_has_no_way_out_to_it(port: int) -> None:
    """Each side allows what the other does, so that neither relies on it. The API's own port is for anyone."""
    rendered = render()
    policies, pods = flows.of(rendered), flows.pods_of(rendered)

    for source in pods.values():
        for destination in pods.values():
            let_in, let_out = (let(source, destination, port) for let in (policies.let_in, policies.let_out))
            assert let_in is let_out or source is destination, (source.labels, destination.labels)


def test_production_allows_exactly_the_paths_that_exist() -> None:
    """With peers for all that is outside, nothing is open that they do not name."""
    rendered = render(shape("ci/production-values.yaml"))

    assert flows_let(rendered) == {
        *(("ingress", "api", API), ("test", "api", API)),
        *(("prometheus", "api", API_METRICS), ("prometheus", "worker", WORKER_METRICS)),
        *(("prometheus", "operator", OPERATOR_METRICS), ("operator", "worker", WORKER_METRICS)),
        *(
            (client, "database", POSTGRES)
            for client in ("api", "worker", "operator", "migration", "maintenance", "test")
        ),
        *(("operator", "kubernetes", port) for port in (443, 6443)),
    }
    policies, ends = flows.of(rendered), OUTSIDE | flows.pods_of(rendered)
    assert {source for source in ends if policies.let(ends[source], ends["database"], 6380)} - OUTSIDE.keys() == {
        "api",
        "worker",
    }


@pytest.mark.parametrize(
    ("component", "asks"),
    [(each, True) for each in ("api", "worker", "operator", "migration", "maintenance", "test")]
    + [(each, False) for each in ("postgres", "valkey")],
)
@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
def test_who_uses_names_may_ask_for_them(component: str, protocol: str, *, asks: bool) -> None:
    rendered = render()
    pod = flows.pods_of(rendered)[component]

    assert flows.of(rendered).let(pod, OUTSIDE["dns"], 53, protocol) is asks
    assert not flows.of(rendered).let(pod, OUTSIDE["internet"], 53, protocol)


def test_back_tests_that_are_off_need_no_database() -> None:
    rendered = render({"operator": {"backtests": {"enabled": False}}})
    policies, pods = flows.of(rendered), flows.pods_of(rendered)

    assert not policies.let_out(pods["operator"], pods["postgres"], POSTGRES)
    assert not policies.let_in(pods["operator"], pods["postgres"], POSTGRES)


def test_another_release_in_the_namespace_is_a_stranger() -> None:
    rendered = render()
    other = flows.pods_of(render(name="other"))
    own = flows.pods_of(rendered)

    assert not flows.of(rendered).let(other["api"], own["valkey"], VALKEY)
    assert not flows.of(rendered).let(other["operator"], own["worker"], WORKER_METRICS)
    assert not flows.of(rendered).let(own["api"], other["valkey"], VALKEY)


def test_a_release_without_policies_leaves_all_open() -> None:
    rendered = render({"networkPolicy": {"enabled": False}})
    pods = flows.pods_of(rendered)

    assert rendered.of("NetworkPolicy") == []
    assert flows.of(rendered).let(OUTSIDE["stranger"], pods["valkey"], VALKEY)


def test_further_ways_out_are_for_all_of_the_eyes_own_pods() -> None:
    collector: dict[str, Any] = {
        "ports": [{"port": 4317}],
        "to": [{"namespaceSelector": {"matchLabels": {flows.NAME: "monitoring"}}}],
    }
    rendered = render({"networkPolicy": {"extraEgress": [collector]}})

    pods = flows.pods_of(rendered)
    let = {name for name, pod in pods.items() if flows.of(rendered).let(pod, OUTSIDE["prometheus"], 4317)}
    assert let == pods.keys() - {"postgres", "valkey"}


@pytest.mark.parametrize("endpoint", ["", "http://otel-collector.monitoring:4318"])
def test_traces_have_a_way_out_where_they_are_wanted(endpoint: str) -> None:
    peers = [{"namespaceSelector": {"matchLabels": {flows.NAME: "monitoring"}}}]
    rendered = render({"tracing": {"endpoint": endpoint}, "networkPolicy": {"otlp": {"to": peers}}})

    pods = flows.pods_of(rendered)
    let = {name for name, pod in pods.items() if flows.of(rendered).let(pod, OUTSIDE["prometheus"], 4318)}
    assert let == ({"api", "worker"} if endpoint else set())
    assert not flows.of(rendered).let(pods["api"], OUTSIDE["internet"], 4318)


@pytest.mark.parametrize(
    ("endpoint", "ports", "expected"),
    [
        ("https://otlp.example.com", [], 443),
        ("http://otlp.example.com/v1", [], 80),
        ("http://otel-collector.monitoring:4317", [], 4317),
        ("https://[2001:db8::4318]", [], 443),
        ("https://[2001:db8::1]:4318/otlp", [], 4318),
        ("http://otel-collector.monitoring", [4318], 4318),
    ],
)
def test_traces_are_let_out_to_the_port_of_their_endpoint(endpoint: str, ports: list[int], expected: int) -> None:
    rendered = render({"tracing": {"endpoint": endpoint}, "networkPolicy": {"otlp": {"ports": ports}}})

    pods = flows.pods_of(rendered)
    tried = (80, 443, 4317, 4318)
    let = {port for port in tried if flows.of(rendered).let(pods["api"], OUTSIDE["internet"], port)}
    assert let == {expected}


def test_the_evaluator_knows_what_is_refused() -> None:
    """A policy that selects a pod and has no rules lets nothing through, and a named port is the destination's own."""
    deny = {"metadata": {"namespace": "a"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}
    named = {
        "metadata": {"namespace": "a"},
        "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": "http"}]}]},
    }
    inside, outside = End(namespace="a", ports={"http": 8000}), End(namespace="b")

    assert not Policies((deny,)).let(outside, inside, 8000)
    assert Policies((deny,)).let(inside, outside, 8000)
    assert Policies((deny, named)).let(outside, inside, 8000)
    assert not Policies((deny, named)).let(outside, inside, 8001)
    assert not Policies((deny, named)).let(outside, inside, 8000, "UDP")
