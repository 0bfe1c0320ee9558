"""Workers follow the backlog: a real autoscaler, Prometheus, APIs, workers and stores, and the chart's own manifests.

The autoscalers are the chart's, with values that make the course short: a smaller target, a shorter window before the
number of workers falls, and at most three of them. PostgreSQL takes a few milliseconds for each event, as one that is
far away or busy does, so that more workers store more although they share two cores.

Left out: CPU as a metric, which takes the metrics server; prometheus-adapter itself, for which metrics_adapter.py
stands in; images and kubelets, for which node.py does.
"""

import itertools
import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psycopg
import pytest
from lightkube import Client
from lightkube.models.autoscaling_v2 import HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus
from lightkube.models.core_v1 import PodCondition, PodStatus
from lightkube.resources.autoscaling_v2 import HorizontalPodAutoscaler
from lightkube.resources.core_v1 import Pod
from tests.cluster import aggregated_api, chart, metrics_adapter, node, scraping
from tests.cluster.aggregated_api import AggregatedApi
from tests.cluster.autoscaling_document import COURSE, DOCUMENT, Course
from tests.cluster.control_plane.cluster import ControlPlane
from tests.cluster.metrics_adapter import CUSTOM, EXTERNAL, VERSION, MetricsAdapter
from tests.cluster.recording import Recording
from tests.cluster.rules import administrator
from tests.faults.audit import Ledger, audit
from tests.faults.sender import Load, Sender
from tests.faults.stores import MigratedPostgres
from tests.machine import RULES, until
from tests.observability.prometheus import Prometheus, Sample
from tests.servers import Valkey, running

MINIMUM, MAXIMUM = 1, 3
TARGET = 32 * 1024
WINDOW_SECONDS = 60
"""Not below the 60 s in which the chart lets one worker go: those who came in them may all go at once."""

APIS = 2

Condition = HorizontalPodAutoscalerCondition | PodCondition

VALUES = {
    "metrics": {"podMonitor": {"enabled": True}},
    "api": {
        "settings": {"THE_EYE_RATE_LIMIT_EVENTS_PER_SECOND": 0},
        "autoscaling": {
            "minReplicas": APIS,
            "maxReplicas": APIS,
            "cpu": "",
            "requestsInFlight": {"averageValue": "50"},
        },
    },
    "worker": {
        "autoscaling": {
            "minReplicas": MINIMUM,
            "maxReplicas": MAXIMUM,
            "cpu": "",
            "backlog": {"enabled": True, "averageValue": str(TARGET)},
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": WINDOW_SECONDS}},
        }
    },
}
APPLIED = {"ServiceAccount", "Deployment", "HorizontalPodAutoscaler"}
BACKLOG, IN_FLIGHT = "the_eye_backlog_bytes", "the_eye_http_requests_in_flight"

TOLD_TWICE = [
    Sample(
        {"__name__": BACKLOG, "namespace": "elsewhere", "app_kubernetes_io_instance": chart.RELEASE, "pod": pod}, 777
    )
    for pod in ("former", "present")
]

SLOW = """
CREATE FUNCTION take_time() RETURNS trigger LANGUAGE plpgsql
    AS 'BEGIN PERFORM pg_sleep((SELECT count(*) FROM stored) * 0.005); RETURN NULL; END';
CREATE TRIGGER take_time AFTER INSERT ON events REFERENCING NEW TABLE AS stored
    FOR EACH STATEMENT EXECUTE FUNCTION take_time()
"""
LOAD = Load(singles=2, batches=3, batch_events=250, pause_seconds=0.35, total=36_000)
"""Several times what one worker can store."""

LONGER_SECONDS = 10.0
"""Several looks of the autoscaler, after the window."""

START_SECONDS = 120.0
LOOK_SECONDS = 60.0
SEND_SECONDS = 240.0
DRAIN_SECONDS = 240.0
FALL_SECONDS = 360.0


class Scene(msgspec.Struct, frozen=True):
    """All parts, at work."""

    control_plane: ControlPlane
    namespace: str
    prometheus: Prometheus
    metrics_apis: AggregatedApi
    postgres: MigratedPostgres
    client: Client

    def pods(self, component: str) -> list[Pod]:
        """List the ready pods of a component."""
        labels: dict[str, Any] = {"app.kubernetes.io/component": component}
        found = self.client.list(Pod, namespace=self.namespace, labels=labels)
        return [pod for pod in found if pod.status is not None and is_true(pod.status, "Ready")]

    def autoscaler(self, component: str) -> HorizontalPodAutoscalerStatus:
        """Get an autoscaler's status."""
        found = self.client.get(HorizontalPodAutoscaler, f"the-eye-{component}", namespace=self.namespace)
        return found.status or HorizontalPodAutoscalerStatus(desiredReplicas=0)

    def stored(self) -> int:
        """Count the rows."""
        with psycopg.connect(self.postgres.url()) as connection:
            return int(connection.execute("SELECT count(*) FROM events").fetchall()[0][0])

    @property
    def backlog(self) -> str:
        """The backlog as an expression of Prometheus."""
        return f'max(the_eye_backlog_bytes{{namespace="{self.namespace}"}})'

    @property
    def api(self) -> str:
        """An API's URL."""
        (pod, *_) = self.pods("api")
        assert pod.status is not None
        return f"http://{pod.status.podIP}:8000"

    def asked(self, group: str, path: str) -> list[dict[str, Any]]:
        """Ask a metrics API by way of the API server."""
        answer = self.control_plane.kubectl("get", "--raw", f"/apis/{group}/{VERSION}/namespaces/{path}")
        items: list[dict[str, Any]] = answer.json()["items"]
        return items


def condition(status: HorizontalPodAutoscalerStatus | PodStatus, kind: str) -> Condition | None:
    """Give a condition, or None before there is one."""
    return next((each for each in status.conditions or () if each.type == kind), None)


def is_true(status: HorizontalPodAutoscalerStatus | PodStatus, kind: str) -> bool:
    """See whether a condition is met."""
    found = condition(status, kind)
    return found is not None and found.status == "True"


@pytest.fixture(scope="module")
def scene(
    aggregating_control_plane: ControlPlane,
    controllers: None,
    prometheus_program: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Scene]:
    """The Eye on a cluster with a metrics API, with one worker and two APIs that are ready."""
    del controllers, prometheus_program
    for client in ("httpx", "httpx2"):
        # They tell of each request, several a second for minutes.
        logging.getLogger(client).setLevel(logging.WARNING)
    with made(aggregating_control_plane, tmp_path_factory.mktemp("autoscaling")) as scene:
        until(lambda: len(scene.pods("api")) == APIS and len(scene.pods("worker")) == MINIMUM, START_SECONDS)
        until(lambda: all(is_true(scene.autoscaler(of), "ScalingActive") for of in ("api", "worker")), LOOK_SECONDS)
        yield scene


@contextmanager
def made(control_plane: ControlPlane, folder: Path) -> Iterator[Scene]:
    """Start all parts for a block."""
    with ExitStack() as up:
        (namespace,) = up.enter_context(chart.namespaces(control_plane, 1))
        postgres, valkey = up.enter_context(running(MigratedPostgres)), up.enter_context(running(Valkey))
        assert isinstance(postgres, MigratedPostgres)
        assert isinstance(valkey, Valkey)
        with psycopg.connect(postgres.url()) as connection:
            connection.execute(SLOW)
        objects = chart.manifests(VALUES, namespace)
        (monitor,) = [found for found in objects if found["kind"] == "PodMonitor"]
        watching = up.enter_context(
            scraping.watching(control_plane, namespace, monitor["spec"], folder / "prometheus", TOLD_TWICE)
        )
        client = up.enter_context(administrator(control_plane))
        adapter = MetricsAdapter(metrics_adapter.configured(), watching, client)
        apis = [(group, VERSION) for group in (CUSTOM, EXTERNAL)]
        served = up.enter_context(
            aggregated_api.serving(control_plane, namespace, metrics_adapter.application(adapter), apis, folder)
        )
        environ = {
            "THE_EYE_DATABASE_URL": postgres.url(),
            "THE_EYE_REDIS_URL": valkey.url(),
            "THE_EYE_RULES_DIR": str(RULES),
        }
        up.enter_context(node.at_work(control_plane, namespace, environ, folder, capacity=APIS + MAXIMUM))
        scaled = [found for found in objects if chart.component(found) in {"api", "worker"}]
        control_plane.kubectl.apply(*(found for found in scaled if found["kind"] in APPLIED))
        yield Scene(control_plane, namespace, watching, served, postgres, client)


class Outcome(msgspec.Struct, frozen=True):
    """What a load came to."""

    course: Course
    ledger: Ledger
    without_metrics: HorizontalPodAutoscalerStatus
    """The workers' autoscaler while nobody served its metric."""
    autoscaler: HorizontalPodAutoscalerStatus
    """The same in the end."""


@pytest.fixture(scope="module")
def outcome(scene: Scene, pytestconfig: pytest.Config) -> Outcome:
    """A load that is more than one worker can store, then none, and for a while no metrics."""
    recording = Recording(scene.prometheus, scene.backlog, scene.client, scene.namespace, "the-eye-worker")
    with recording.running():
        found = played(scene, recording)
    pytestconfig.stash[COURSE] = found.course
    return found


def played(scene: Scene, recording: Recording) -> Outcome:
    """Send, drain, take the metrics away and give them back, and wait until there are as few workers as before."""
    sender = Sender(scene.api, scene.postgres.token, LOAD, first=0)
    begun = recording.seconds
    with sender.running():
        sender.wait_until_done(SEND_SECONDS)
    sent = recording.seconds
    until(lambda: recording.moments[-1].backlog == 0, DRAIN_SECONDS)
    until(lambda: scene.stored() == sender.seen.accepted, LOOK_SECONDS)
    with scene.metrics_apis.stopped():
        until(lambda: not is_true(scene.autoscaler("worker"), "ScalingActive"), LOOK_SECONDS)
        away = recording.seconds
        until(lambda: recording.seconds > away + WINDOW_SECONDS + LONGER_SECONDS, 2 * WINDOW_SECONDS)
        without = scene.autoscaler("worker")
        back = recording.seconds
    until(lambda: recording.moments[-1].replicas == recording.moments[-1].ready == MINIMUM, FALL_SECONDS)
    with psycopg.connect(scene.postgres.url(), autocommit=True) as connection:
        ledger = audit(connection, sender.seen.accepted)
    course = Course(recording.moments, TARGET, sender.seen.accepted, (begun, sent), (away, back))
    return Outcome(course, ledger, without, scene.autoscaler("worker"))


def test_workers_become_more_because_of_the_backlog(outcome: Outcome) -> None:
    moments = outcome.course.moments
    first = next(place for place, moment in enumerate(moments) if moment.replicas > MINIMUM)

    # A look may come between the scaling and the next scrape.
    assert max(moment.backlog for moment in moments[: first + 1 + int(scraping.SCRAPE_SECONDS)]) > TARGET * MINIMUM
    assert max(moment.ready for moment in moments) > MINIMUM, "what was wanted came to be"


def test_workers_become_fewer_one_by_one_and_only_when_the_backlog_is_gone(outcome: Outcome) -> None:
    falls = [
        (before, after)
        for before, after in itertools.pairwise(outcome.course.moments)
        if after.replicas < before.replicas
    ]

    assert [(before.replicas, after.replicas) for before, after in falls] == [
        (number, number - 1) for number in range(outcome.course.most_replicas, MINIMUM, -1)
    ]
    assert all(after.backlog < TARGET * after.replicas for _, after in falls)


def test_the_number_of_workers_rises_once_and_falls_once(outcome: Outcome) -> None:
    """It does not swing while the backlog comes and goes."""
    changes = [
        after.replicas - before.replicas
        for before, after in itertools.pairwise(outcome.course.moments)
        if after.replicas != before.replicas
    ]

    assert changes == sorted(changes, key=lambda change: change < 0), "all rises come before all falls"


def test_without_metrics_there_are_as_many_workers_as_before(outcome: Outcome) -> None:
    """Although the window after which they become fewer has passed."""
    told = condition(outcome.without_metrics, "ScalingActive")
    assert told is not None
    assert (told.status, told.reason) == ("False", "FailedGetExternalMetric")
    assert {moment.replicas for moment in outcome.course.while_away} == {outcome.course.most_replicas}


def test_every_accepted_event_is_stored_once_however_many_workers_there_were(outcome: Outcome) -> None:
    assert outcome.ledger.closed, outcome.ledger
    assert (outcome.ledger.accepted, outcome.ledger.dead) == (LOAD.total, 0)


def test_the_workers_autoscaler_does_its_work(outcome: Outcome) -> None:
    assert is_true(outcome.autoscaler, "AbleToScale")
    assert is_true(outcome.autoscaler, "ScalingActive")
    assert [metric.external and metric.external.metric.name for metric in outcome.autoscaler.currentMetrics or ()] == [
        BACKLOG
    ]


def test_the_apis_autoscaler_sees_requests_in_flight_of_each_pod(scene: Scene) -> None:
    status = scene.autoscaler("api")

    assert is_true(status, "AbleToScale")
    assert is_true(status, "ScalingActive")
    assert [metric.pods and metric.pods.metric.name for metric in status.currentMetrics or ()] == [IN_FLIGHT]
    names = [pod.metadata.name for pod in scene.pods("api") if pod.metadata is not None]
    assert len(names) == APIS
    for name in names:
        (item,) = scene.asked(CUSTOM, f"{scene.namespace}/pods/{name}/{IN_FLIGHT}")
        assert item["describedObject"]["name"] == name


def test_a_backlog_that_two_apis_tell_of_counts_once(scene: Scene) -> None:
    """As for a moment when another API takes the place of the one that tells of the queue."""
    (item,) = scene.asked(EXTERNAL, f"elsewhere/{BACKLOG}?labelSelector=app_kubernetes_io_instance%3D{chart.RELEASE}")

    assert item["value"] == "777000m"


def test_the_pages_commands_show_what_the_autoscalers_are_told(scene: Scene) -> None:
    paths = re.findall(r"kubectl get --raw '(\S+)'", DOCUMENT.read_text())

    assert len(paths) == len((CUSTOM, EXTERNAL))
    for path in paths:
        answer = scene.control_plane.kubectl("get", "--raw", path.replace("/the-eye/", f"/{scene.namespace}/"))
        assert answer.json()["items"], path


def test_only_the_api_server_may_ask_the_metrics_api(scene: Scene) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(scene.metrics_apis.url, verify=False, trust_env=False)  # noqa: S501 - who asks matters here
