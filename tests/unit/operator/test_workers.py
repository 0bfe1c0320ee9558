"""Asking workers what they run, over HTTP."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx2
import kmock
import pytest
from tests.unit.operator.declaring import declared
from tests.unit.rules.making import cel

from the_eye_operator import workers
from the_eye_operator.cluster import WorkerPod
from the_eye_operator.decision import compiled, decide
from the_eye_operator.workers import REMEMBERED_RULESETS, Running, Workers, WorkerView

RULES = {
    "revision": "sha256:other",
    "rules": [{"rule": "shop/a", "generation": 4, "digest": "a4", "action": "Enforce"}],
}


class Pod:
    """A worker's pod, and what it is asked."""

    def __init__(self, handler: kmock.RawHandler, server: kmock.Server, name: str) -> None:
        self.handler = handler
        self.pod = WorkerPod(name, f"{server.host}:{server.port}", "", is_ready=True)

    @property
    def asked(self) -> list[str]:
        """The paths that were asked for."""
        return [request.url.path for request in self.handler]

    def runs(self, revision: str) -> None:
        """Say this revision from now on."""
        _ = self.handler["get /ruleset"] ** len(self.handler) << {"revision": revision, "declared": None}


@pytest.fixture
async def pods() -> AsyncIterator[list[Pod]]:
    """Two pods that answer nothing yet."""
    async with AsyncExitStack() as stack:
        made = []
        for name in ("worker-0", "worker-1"):
            handler = await stack.enter_async_context(kmock.RawHandler())
            made.append(Pod(handler, await stack.enter_async_context(kmock.Server(handler)), name))
        yield made


@pytest.fixture
async def asking() -> AsyncIterator[Workers]:
    """What is tested."""
    async with httpx2.AsyncClient() as client:
        yield Workers(client)


async def test_what_is_remembered_is_not_asked_for(asking: Workers, pods: list[Pod]) -> None:
    ruleset = decide([declared("a", generation=3)], compiled(())).ruleset
    asking.remember(ruleset)
    pods[0].runs(ruleset.revision)

    view = await asking.look([pods[0].pod])

    assert view == WorkerView((Running("worker-0", ruleset.revision, {"shop/a": ruleset.rules[0].digest}),))
    assert pods[0].asked == ["/ruleset"]


async def test_a_rule_that_was_made_again_is_another_than_its_namesake(asking: Workers, pods: list[Pod]) -> None:
    """Both are generation 1, but a worker that runs the former does not run the latter."""
    former = decide([declared("a", **cel("true")), declared("b")], compiled(())).ruleset
    latter = decide([declared("a", uid="again", **cel("false")), declared("b")], former).ruleset
    asking.remember(former)
    asking.remember(latter)
    pods[0].runs(former.revision)
    pods[1].runs(latter.revision)

    view = await asking.look([pod.pod for pod in pods])

    assert [view.running(rule) for rule in (*former.rules, *latter.rules)] == [1, 2, 1, 2]


async def test_a_worker_that_changes_its_ruleset_while_it_is_asked_runs_the_new_one(
    asking: Workers, pods: list[Pod]
) -> None:
    pods[0].runs("sha256:former")
    _ = pods[0].handler["get /ruleset/rules"] << RULES

    view = await asking.look([pods[0].pod])

    assert view.workers == (Running("worker-0", "sha256:other", {"shop/a": "a4"}),)


async def test_a_revision_that_is_not_known_is_asked_for_once(asking: Workers, pods: list[Pod]) -> None:
    for pod in pods:
        pod.runs("sha256:other")
        _ = pod.handler["get /ruleset/rules"] << RULES
    await asking.look([pods[0].pod])

    view = await asking.look([pod.pod for pod in pods])

    assert view.workers == (
        Running("worker-0", "sha256:other", {"shop/a": "a4"}),
        Running("worker-1", "sha256:other", {"shop/a": "a4"}),
    )
    assert pods[0].asked == ["/ruleset", "/ruleset/rules", "/ruleset"]
    assert pods[1].asked == ["/ruleset"]


@pytest.mark.parametrize("answer", [b"", b"no JSON", {"no": "revision"}, {"revision": 5}, 500, 404])
async def test_a_worker_that_does_not_answer_well_runs_nothing(
    asking: Workers, pods: list[Pod], answer: kmock.Payload
) -> None:
    _ = pods[0].handler["get /ruleset"] << answer
    pods[1].runs("sha256:other")
    _ = pods[1].handler["get /ruleset/rules"] << RULES

    view = await asking.look([pod.pod for pod in pods])

    assert view.workers == (Running("worker-0", "", {}), Running("worker-1", "sha256:other", {"shop/a": "a4"}))


async def test_a_worker_whose_rules_cannot_be_had_runs_nothing(asking: Workers, pods: list[Pod]) -> None:
    pods[0].runs("sha256:other")
    _ = pods[0].handler["get /ruleset/rules"] << 503

    assert (await asking.look([pods[0].pod])).workers == (Running("worker-0", "", {}),)


async def test_a_worker_that_is_silent_for_a_moment_runs_what_it_ran(
    asking: Workers, pods: list[Pod], monkeypatch: pytest.MonkeyPatch
) -> None:
    pods[0].runs("sha256:other")
    _ = pods[0].handler["get /ruleset/rules"] << RULES
    before = await asking.look([pods[0].pod])
    _ = pods[0].handler["get /ruleset"] ** 1000 << 503
    assert await asking.look([pods[0].pod]) == before

    monkeypatch.setattr(workers, "GRACE_SECONDS", 0.0)
    assert (await asking.look([pods[0].pod])).workers == (Running("worker-0", "", {}),)


async def test_a_pod_that_went_and_came_back_ran_nothing(asking: Workers, pods: list[Pod]) -> None:
    pods[0].runs("sha256:other")
    _ = pods[0].handler["get /ruleset/rules"] << RULES
    await asking.look([pods[0].pod])
    await asking.look([])
    _ = pods[0].handler["get /ruleset"] ** 1000 << 503

    assert (await asking.look([pods[0].pod])).workers == (Running("worker-0", "", {}),)


async def test_a_worker_that_is_not_there_runs_nothing(asking: Workers) -> None:
    pod = WorkerPod("worker-0", "127.0.0.1:1", "", is_ready=True)

    assert (await asking.look([pod])).workers == (Running("worker-0", "", {}),)


async def test_a_worker_that_is_silent_is_not_waited_for_long(
    asking: Workers, pods: list[Pod], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "ANSWER_SECONDS", 0.1)
    _ = pods[0].handler["get /ruleset"] << ...

    assert (await asking.look([pods[0].pod])).workers == (Running("worker-0", "", {}),)


@pytest.mark.parametrize("address", ["", ":9101", "not a host:9101", "[::1:9101"])
async def test_a_worker_with_an_address_that_is_none_runs_nothing(asking: Workers, address: str) -> None:
    pod = WorkerPod("worker-0", address, "", is_ready=True)

    assert (await asking.look([pod])).workers == (Running("worker-0", "", {}),)


async def test_no_workers_are_an_empty_view(asking: Workers) -> None:
    assert await asking.look([]) == WorkerView()


async def test_only_the_latest_rulesets_are_remembered(asking: Workers, pods: list[Pod]) -> None:
    rulesets = [
        decide([declared("a", generation=generation)], compiled(())).ruleset
        for generation in range(1, REMEMBERED_RULESETS + 2)
    ]
    for ruleset in rulesets:
        asking.remember(ruleset)
    for pod, ruleset in zip(pods, (rulesets[0], rulesets[1]), strict=True):
        pod.runs(ruleset.revision)
        _ = pod.handler["get /ruleset/rules"] << RULES
    await asking.look([pod.pod for pod in pods[1:]])
    await asking.look([pod.pod for pod in pods[:1]])

    assert pods[1].asked == ["/ruleset"]
    assert pods[0].asked == ["/ruleset", "/ruleset/rules"]


async def test_a_ruleset_that_is_remembered_again_is_one_of_the_latest(asking: Workers, pods: list[Pod]) -> None:
    rulesets = [
        decide([declared("a", generation=generation)], compiled(())).ruleset
        for generation in range(1, REMEMBERED_RULESETS + 2)
    ]
    for ruleset in (*rulesets[:-1], rulesets[0], rulesets[-1]):
        asking.remember(ruleset)
    pods[0].runs(rulesets[0].revision)
    await asking.look([pods[0].pod])

    assert pods[0].asked == ["/ruleset"]


def test_those_that_run_a_version_are_counted() -> None:
    first, second = (decide([declared("r", generation=number)], compiled(())).ruleset.rules[0] for number in (1, 2))
    other = decide([declared("s")], compiled(())).ruleset.rules[0]
    former, latter = {first.id: first.digest}, {second.id: second.digest}
    view = WorkerView((Running("a", "x", former), Running("b", "y", latter), Running("c", "y", latter)))

    assert (view.running(second), view.running(first), view.running(other)) == (2, 1, 0)
    assert (view.at("y"), view.at("x"), view.at("z")) == (2, 1, 0)
