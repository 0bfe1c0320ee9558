"""The processes take what the chart gives them: every variable is a setting, and every value fits."""

import re
import shutil
from pathlib import Path

import helm_python as helm
import pytest
import yaml
from tests.chart.rendering import SHAPES, Pod, Rendered, render, shape
from tests.chart.schema import SET_BY_CHART, SETTINGS
from tests.chart.values import CHART, defaults

from the_eye.settings import (
    PREFIX,
    Address,
    ApiSettings,
    Group,
    LogSettings,
    OperatorSettings,
    QueueSettings,
    RetentionSettings,
    RuleSettings,
    StoreSettings,
    TelemetrySettings,
    WorkerSettings,
)

READ: dict[str, tuple[type[Group], ...]] = {
    "api": (LogSettings, StoreSettings, QueueSettings, ApiSettings),
    "worker": (LogSettings, StoreSettings, QueueSettings, WorkerSettings, RuleSettings),
    "operator": (LogSettings, OperatorSettings),
    "migration": (StoreSettings,),
    "maintenance": (StoreSettings, RetentionSettings),
    "test": (StoreSettings,),
}
"""What each process reads."""

URLS = {"THE_EYE_DATABASE_URL": "postgresql://a:b@c/d", "THE_EYE_REDIS_URL": "redis://:a@b"}

KNOWN = {key for group in Group.__subclasses__() for key in group.by_key()}


def environments(pod: Pod) -> list[dict[str, str]]:
    """Give the THE_EYE_* variables of a pod's containers; a Secret's stands for a URL."""
    return [
        {
            variable["name"]: variable.get("value", URLS.get(variable["name"], ""))
            for variable in container.get("env", ())
            if variable["name"].startswith(PREFIX)
        }
        for container in pod.containers()
    ]


@pytest.fixture(params=SHAPES)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    """The chart in each of its shapes."""
    return render(shape(request.param))


def test_every_variable_is_a_setting_and_none_comes_twice(rendered: Rendered) -> None:
    for pod in rendered.pods():
        for container in pod.containers():
            names = [variable["name"] for variable in container.get("env", ())]
            assert len(names) == len(set(names)), pod.owner
            assert {name for name in names if name.startswith(PREFIX)} <= KNOWN, pod.owner


def test_every_process_can_read_its_settings(rendered: Rendered) -> None:
    for pod in rendered.pods():
        for group in READ.get(pod.component, ()):
            for environ in environments(pod):
                group.load(environ)


def test_what_the_chart_sets_itself_is_not_for_the_user_to_set() -> None:
    given = {key for pod in render().pods() for environ in environments(pod) for key in environ}

    assert given - {"THE_EYE_BACKLOG_MAX_BYTES"} == SET_BY_CHART


def test_large_numbers_fractions_and_switches_arrive_as_they_were_meant() -> None:
    values = {
        "settings": {"THE_EYE_QUEUE_REQUIRE_DURABLE": False, "THE_EYE_QUEUE_TIMEOUT_SECONDS": 2.5},
        "api": {"settings": {"THE_EYE_BACKLOG_MAX_BYTES": 8_589_934_592, "THE_EYE_RATE_LIMIT_EVENTS_PER_SECOND": 1e6}},
    }

    (environ,) = environments(render(values).pod("api"))
    api = ApiSettings.load(environ)
    queue = QueueSettings.load(environ)
    assert api.backlog_max_bytes == 8_589_934_592
    assert api.rate_limit_events_per_second == 1e6
    assert queue.queue_timeout_seconds == 2.5
    assert queue.queue_require_durable is False


def test_large_numbers_of_a_values_file_arrive_as_they_were_meant(tmp_path: Path) -> None:
    """Helm reads those as floating point numbers, which print as 8.589934592e+09."""
    copy = tmp_path / "the-eye"
    shutil.copytree(CHART, copy)
    values = defaults()
    values["api"]["settings"] = {"THE_EYE_BACKLOG_MAX_BYTES": 8_589_934_592}
    (copy / "values.yaml").write_text(yaml.safe_dump(values))

    with helm.Chart.load(str(copy)) as chart:
        rendered = chart.render({}, name="the-eye", namespace="shop")
    assert 'value: "8589934592"' in rendered["the-eye/templates/api/deployment.yaml"]


def test_a_processs_own_settings_win() -> None:
    rendered = render({"settings": {"THE_EYE_LOG_LEVEL": "debug"}, "api": {"settings": {"THE_EYE_LOG_LEVEL": "error"}}})

    levels = {
        pod.component: environ.get("THE_EYE_LOG_LEVEL") for pod in rendered.pods() for environ in environments(pod)
    }
    assert levels["api"] == "error"
    assert {levels[name] for name in ("worker", "operator", "migration", "maintenance", "test")} == {"debug"}


def test_an_upgrade_drops_no_partition_where_maintenance_is_off() -> None:
    """Each version runs `the-eye maintain` once, for the first events' partitions."""

    def kept(*, enabled: bool) -> set[int]:
        """Give the retention in days that is in force for a migration."""
        maintenance = {"enabled": enabled, "settings": {"THE_EYE_RETENTION_DAYS": 30}}
        environs = environments(render({"tasks": {"maintenance": maintenance}}).pod("migration"))
        return {RetentionSettings.load(environ).retention_days for environ in environs}

    assert kept(enabled=True) == {30}
    assert min(kept(enabled=False)) > 365 * 1000


def test_every_setting_can_be_given_to_a_process_that_reads_it() -> None:
    """Or follows from other values; of OpenTelemetry's own keys, those that do not are for extraEnv."""
    read = {group for groups in SETTINGS.values() for group in groups}

    assert read == {group for group in Group.__subclasses__() if group.prefix == PREFIX}


def test_every_address_is_one_that_other_pods_reach() -> None:
    addresses = {
        key: value
        for pod in render().pods()
        for environ in environments(pod)
        for key, value in environ.items()
        if key.endswith("_LISTEN")
    }
    assert {Address.parse(value).host for value in addresses.values()} == {"0.0.0.0"}  # noqa: S104 - each in its own pod
    assert addresses.keys() == {key for key in SET_BY_CHART if key.endswith("_LISTEN")}


@pytest.mark.parametrize("component", ["api", "worker"])
def test_traces_are_sampled_as_the_values_say_and_name_their_pod(component: str) -> None:
    (container,) = render({"tracing": {"endpoint": "http://collector:4318", "ratio": 0.25}}).pod(component).containers()
    variables = {variable["name"]: variable for variable in container["env"]}
    given = {name: variable["value"] for name, variable in variables.items() if name.startswith("OTEL_")}

    settings = TelemetrySettings.load(given)
    assert (settings.on, settings.by_parent, settings.ratio) == (True, True, 0.25)
    named = dict(pair.split("=") for pair in given["OTEL_RESOURCE_ATTRIBUTES"].split(","))
    assert named["k8s.container.name"] == component
    assert named["k8s.deployment.name"] == f"the-eye-{component}"
    # Kubernetes puts in what stands before.
    before = list(variables)[: list(variables).index("OTEL_RESOURCE_ATTRIBUTES")]
    assert {name for value in named.values() for name in re.findall(r"\$\((\w+)\)", value)} <= set(before)


def test_without_a_collector_nothing_is_said_of_traces() -> None:
    rendered = render()

    assert "OTEL_" not in str(rendered.pods())
