"""Keeping an eye on the workers, with pods and answers made up."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from tests.unit.operator.declaring import declared

from the_eye.rules.ruleset import RuleSet
from the_eye.settings import OperatorSettings
from the_eye_operator import backing_off, observing
from the_eye_operator.cluster import ClusterError, WorkerPod
from the_eye_operator.decision import compiled, decide
from the_eye_operator.health import Health
from the_eye_operator.observing import AT_REST, RULESET_ANNOTATION, Observer
from the_eye_operator.workers import Running, WorkerView

POLL = 0.01
SETTINGS = OperatorSettings(operator_worker_poll_seconds=POLL, operator_worker_selector="a=b", operator_worker_port="m")


class Made:
    """A cluster of pods and the workers in them."""

    def __init__(self) -> None:
        self.pods: list[WorkerPod] = []
        self.behind: set[str] = set()
        """Those that run nothing."""
        self.revision = ""
        self.annotated: list[str] = []
        self.error: ClusterError | None = None
        self.annotation_error: ClusterError | None = None
        self.looks = 0
        self.changes = 0
        self.health = Health(120.0)

    def add(self, name: str, *, is_ready: bool = True) -> None:
        """Add a pod that is told nothing yet."""
        self.pods.append(WorkerPod(name, f"{name}:1", "", is_ready=is_ready))

    async def worker_pods(self, selector: str, port: str, annotation: str) -> list[WorkerPod]:
        """As the cluster does it."""
        assert (selector, port, annotation) == ("a=b", "m", RULESET_ANNOTATION)
        self.looks += 1
        if self.error:
            raise self.error
        return self.pods

    async def annotate_pod(self, name: str, annotations: Mapping[str, str]) -> None:
        """As the cluster does it."""
        if self.annotation_error:
            raise self.annotation_error
        [(key, revision)] = annotations.items()
        assert key == RULESET_ANNOTATION
        self.annotated.append(name)
        self.pods = [msgspec.structs.replace(pod, ruleset=revision) if pod.name == name else pod for pod in self.pods]

    def remember(self, ruleset: RuleSet) -> None:
        """As the workers are asked."""
        self.revision = ruleset.revision

    async def look(self, pods: list[WorkerPod]) -> WorkerView:
        """As the workers are asked."""
        return WorkerView(tuple(Running(p.name, "" if p.name in self.behind else self.revision, {}) for p in pods))

    def changed(self) -> None:
        """Count the calls."""
        self.changes += 1

    def observer(self, settings: OperatorSettings) -> Observer:
        """Make one that looks here."""
        workers: Any = self
        cluster: Any = self
        return Observer(cluster, workers, settings, self.changed, self.health)


@pytest.fixture
def made() -> Made:
    return Made()


@pytest.fixture
def observer(made: Made) -> Observer:
    """What is tested."""
    return made.observer(SETTINGS)


def ruleset(generation: int = 1) -> RuleSet:
    return decide([declared(generation=generation)], compiled(())).ruleset


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, and fail when it does not come."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for are loops' rounds
            await asyncio.sleep(POLL / 5)


async def test_a_pod_is_told_once_of_a_ruleset(made: Made, observer: Observer) -> None:
    made.add("a")
    made.add("b")
    observer.want(ruleset())
    await observer.look()
    await observer.look()
    assert sorted(made.annotated) == ["a", "b"]

    observer.want(ruleset(2))
    await observer.look()
    assert sorted(made.annotated) == ["a", "a", "b", "b"]


async def test_a_pod_that_is_not_ready_is_told_but_not_counted(made: Made, observer: Observer) -> None:
    made.add("a", is_ready=False)
    observer.want(ruleset())

    assert await observer.look() == WorkerView()
    assert made.annotated == ["a"]


async def test_a_pod_that_has_gone_meanwhile_is_no_failure(made: Made, observer: Observer) -> None:
    made.add("a")
    made.annotation_error = ClusterError("gone", 404)
    observer.want(ruleset())

    await observer.look()


async def test_a_pod_that_may_not_be_told_is_looked_at_all_the_same(made: Made, observer: Observer) -> None:
    """Its kubelet finds the ruleset by itself, some time later."""
    made.add("a")
    made.annotation_error = ClusterError("forbidden", 403)
    observer.want(ruleset())

    with capture_logs() as logs:
        view = await observer.look()

        assert [running.pod for running in view.workers] == ["a"]
        await observer.look()
        assert made.health.report()["last_error"] == "forbidden"
        observer.want(ruleset(2))
        await observer.look()

    # Once for each ruleset, and not with each look.
    assert [(entry["event"], entry["pod"]) for entry in logs] == [("worker_not_told", "a")] * 2
    made.annotation_error = None
    observer.want(ruleset(3))
    await observer.look()
    assert made.health.report()["last_error"] is None


async def test_once_the_workers_may_not_be_looked_at_any_more_nothing_is_known_of_them(
    made: Made, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observing, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(backing_off, "FIRST", 0.01)
    made.add("a")
    observer.want(ruleset())
    with capture_logs():
        looking = asyncio.create_task(observer.run())
        await until(lambda: observer.view is not None)
        made.error = ClusterError("forbidden", 403)
        await until(lambda: observer.view is None)
        assert made.changes == 2
        assert made.health.report()["last_error"] == "forbidden"
        made.error = None
        await until(lambda: observer.view is not None)
        looking.cancel()


async def test_while_the_server_is_away_the_workers_are_taken_to_run_what_they_ran(
    made: Made, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observing, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(backing_off, "FIRST", 0.01)
    made.add("a")
    observer.want(ruleset())
    with capture_logs() as logs:
        looking = asyncio.create_task(observer.run())
        await until(lambda: observer.view is not None)
        made.error = ClusterError("away")
        await until(lambda: sum(entry["event"] == "workers_not_observed" for entry in logs) > 2)
        looking.cancel()

    assert observer.view is not None


async def test_a_server_that_is_away_is_a_failure(made: Made, observer: Observer) -> None:
    made.add("a")
    made.annotation_error = ClusterError("away")
    observer.want(ruleset())

    with pytest.raises(ClusterError, match="away"):
        await observer.look()


async def test_only_what_is_new_about_the_workers_is_told(made: Made, observer: Observer) -> None:
    made.add("a")
    made.behind = {"a"}
    observer.want(ruleset())
    for looks, changes in ((2, 1), (3, 1)):
        while made.looks < looks:
            await observer.look()
        assert made.changes == changes
    made.behind = set()
    await observer.look()
    assert made.changes == 2
    made.add("b")
    await observer.look()
    assert made.changes == 3


async def test_workers_are_counted_by_whether_they_run_the_published_ruleset(made: Made, observer: Observer) -> None:
    for name in "abc":
        made.add(name)
    made.behind = {"c"}
    observer.want(ruleset())
    await observer.look()

    def workers(state: str) -> float | None:
        return REGISTRY.get_sample_value("the_eye_operator_workers", {"state": state})

    assert (workers("current"), workers("behind")) == (2, 1)


async def test_it_looks_at_nothing_before_it_is_known_what_workers_should_run(made: Made, observer: Observer) -> None:
    made.add("a")
    task = asyncio.create_task(observer.run())
    await asyncio.sleep(0)
    assert made.looks == 0

    observer.want(ruleset())
    await until(lambda: made.annotated == ["a"])
    task.cancel()


async def test_it_looks_often_while_a_worker_is_behind_and_seldom_at_rest(made: Made, observer: Observer) -> None:
    made.add("a")
    made.behind = {"a"}
    observer.want(ruleset())
    waited: list[float] = []

    async def wait(seconds: float) -> None:
        waited.append(seconds)
        made.behind = set()
        await asyncio.sleep(0)

    observer._wait = wait  # type: ignore[method-assign] # noqa: SLF001 - instead of waiting
    task = asyncio.create_task(observer.run())
    await until(lambda: len(waited) >= 2)
    task.cancel()

    assert waited[:2] == [POLL, POLL * AT_REST]


async def test_a_new_ruleset_is_told_at_once(made: Made) -> None:
    patient = made.observer(msgspec.structs.replace(SETTINGS, operator_worker_poll_seconds=3600.0))
    made.add("a")
    patient.want(ruleset())
    task = asyncio.create_task(patient.run())
    await until(lambda: len(made.annotated) == 1)
    patient.want(ruleset(2))
    await until(lambda: len(made.annotated) == 2)
    task.cancel()


async def test_it_ends_when_it_is_cancelled_the_moment_it_is_told_of_a_ruleset(made: Made) -> None:
    """Python 3.11's ``wait_for`` would lose the cancellation."""
    patient = made.observer(msgspec.structs.replace(SETTINGS, operator_worker_poll_seconds=3600.0))
    patient.want(ruleset())
    task = asyncio.create_task(patient.run())
    await until(lambda: made.looks >= 2)
    for _ in range(10):
        await asyncio.sleep(0)
    patient.want(ruleset(2))
    task.cancel()
    await asyncio.wait([task], timeout=5)

    assert task.cancelled()


async def test_after_a_failure_it_says_so_and_looks_again(
    made: Made, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backing_off, "FIRST", POLL)
    made.add("a")
    made.error = ClusterError("the server is away")
    observer.want(ruleset())
    with capture_logs() as logs:
        task = asyncio.create_task(observer.run())
        await until(lambda: made.looks >= 3)
        assert made.health.report()["last_error"] == "the server is away"
        made.error = None
        await until(lambda: made.annotated == ["a"] and made.health.report()["last_error"] is None)
        task.cancel()

    assert {(entry["event"], entry["error"]) for entry in logs} == {("workers_not_observed", "the server is away")}
    assert observer.view is not None
