"""The rules that the chart gives to the Prometheus Operator are those that a Prometheus without Kubernetes reads."""

from typing import Any

import pytest
import yaml
from tests.chart import prometheus_rules
from tests.chart.rendering import render


def groups_of(files: dict[str, str]) -> list[dict[str, Any]]:
    """Give the groups of all files."""
    return [group for text in files.values() for group in yaml.safe_load(text)["groups"]]


def rendered(**values: Any) -> list[dict[str, Any]]:
    """Give the groups of the chart's PrometheusRule."""
    release = render({"metrics": {"prometheusRule": {"enabled": True, **values}}})
    groups: list[dict[str, Any]] = release.one("PrometheusRule", "the-eye")["spec"]["groups"]
    return groups


def test_the_files_for_a_prometheus_without_kubernetes_are_up_to_date() -> None:
    made = dict(prometheus_rules.make())

    assert set(prometheus_rules.FOLDER.iterdir()) == set(made)
    for file, text in made.items():
        assert file.read_text() == text, "run: python -m tests.chart.generate"


def test_the_chart_renders_what_these_files_hold() -> None:
    files = {file.name: file.read_text() for file in sorted(prometheus_rules.FOLDER.iterdir())}

    assert rendered() == groups_of(files)


def test_everything_that_can_be_set_is_set_in_the_rules() -> None:
    changes: dict[str, Any] = {
        "runbookBaseUrl": "https://git.example.com/runbooks",
        "grafanaUrl": "https://grafana.example.com",
        "objectives": {"acceptAvailability": "0.99", "acceptLatency": "0.95", "freshness": "0.9"},
        "thresholds": {
            "backlogAgeSeconds": 61,
            "backlogFullWithinSeconds": 7201,
            "operatorSilentSeconds": 901,
            "tokenCopyAgeSeconds": 86_401,
            "partitionsAheadSeconds": 86_402,
            "certificateSeconds": 2_592_000,
            "redisMemoryShare": "0.95",
        },
    }
    values = {**changes, **changes["objectives"], **changes["thresholds"]}

    groups = rendered(**changes)

    assert groups == groups_of(prometheus_rules.filled(values))
    assert groups != rendered()
    text = yaml.safe_dump(groups, width=10_000)
    for value in values.values():
        assert isinstance(value, dict) or str(value) in text


@pytest.mark.parametrize("url", ["https://grafana.example.com", "https://grafana.example.com/"])
def test_an_address_may_end_in_a_slash(url: str) -> None:
    groups = rendered(grafanaUrl=url, runbookBaseUrl=url)

    links = [rule["annotations"] for group in groups for rule in group["rules"] if "alert" in rule]
    assert all(link["dashboard"].startswith("https://grafana.example.com/d/the-eye-") for link in links)
    assert all(link["runbook_url"].startswith("https://grafana.example.com/TheEye") for link in links)


def test_no_place_is_left_to_fill_in() -> None:
    assert "${" not in yaml.safe_dump(rendered())


def test_the_prometheus_operator_finds_it_by_its_labels() -> None:
    release = render({"metrics": {"prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}}}})

    assert release.one("PrometheusRule", "the-eye")["metadata"]["labels"]["release"] == "prometheus"
