"""The whole operator over HTTP: kopf's watch in its thread, the reconciling, the looks at workers, and kmock.

Left out are what only a true API server does (defaults, pruning, permissions, validation by the definition), which the
cluster tests have, and back-tests and audit counts, which need a store.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import msgspec
import pytest
from kmock import KubernetesScaffold
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from tests.unit.operator.api_server import NAMESPACE, RULES, ApiServer
from tests.unit.operator.operating import (
    BRISK,
    PATIENCE,
    RULESET,
    WITHOUT_RESYNC,
    Worker,
    in_force,
    operating,
    published,
    until,
    whole,
)
from tests.unit.rules.making import cel

from the_eye.rules.shards import INDEX
from the_eye_operator import backing_off, cluster, publishing, reconciling, watch
from the_eye_operator.reconciling import Reconciler
from the_eye_operator.status import condition_of

pytestmark = pytest.mark.kmock(cls=KubernetesScaffold)

HURRIED = msgspec.structs.replace(BRISK, operator_resync_seconds=0.15, operator_worker_poll_seconds=0.05)

PERMITTED = {
    ("POST", "configmaps", None),
    ("PATCH", "configmaps", None),
    ("PATCH", RULES, "status"),
    ("PATCH", "pods", None),
    ("POST", "events", None),
}


@pytest.fixture
def server(kmock: KubernetesScaffold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """An API server that a test's operators find; whatever they do, they write nothing beyond their business."""
    server = ApiServer(kmock)
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))
    monkeypatch.setattr(backing_off, "FIRST", 0.05)
    monkeypatch.setattr(watch, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(watch, "BACKOFFS", (0.05, 0.05))
    monkeypatch.setattr(reconciling, "CONFIRM_SECONDS", 0.1)
    monkeypatch.setattr(publishing, "MAX_SHARDS", 4)  # each is a request, at each resync
    yield server
    for write in server.writes():
        assert (write.method, write.plural, write.subresource) in PERMITTED
        if write.plural == "pods":
            assert write.body.keys() == {"metadata"}
            assert write.body["metadata"].keys() == {"annotations"}
        if write.plural == RULES:
            assert write.body.keys() == {"status"}
    for rule in server.objects(RULES):
        assert "finalizers" not in rule["metadata"]
        assert all(name.startswith("the-eye.io/") for name in rule["metadata"].get("annotations", {}))


def patches(server: ApiServer) -> list[str | None]:
    """The names of the rules whose status was patched."""
    return [write.name for write in server.writes() if write.plural == RULES]


def lists(server: ApiServer) -> int:
    """How often the operator listed the rules; kopf's lists have no limit."""
    return sum(
        request.resource == "the-eye.io/v1alpha1/validatorrules" and "limit" in request.params
        for request in server.answered
    )


def watches(server: ApiServer) -> int:
    """How many connections of a watch there were."""
    return sum("watch" in request.params for request in server.answered)


def told(server: ApiServer) -> list[str]:
    """What Kubernetes Events say."""
    return sorted(f"{e['type']} {e['reason']} {e['involvedObject']['name']}" for e in server.objects("events"))


def metric(name: str) -> float:
    """The value of one of the operator's metrics."""
    return REGISTRY.get_sample_value(f"the_eye_operator_{name}") or 0.0


async def quiet(server: ApiServer) -> None:
    """Wait until three resyncs in a row wrote nothing."""
    before, since = -1, lists(server)
    while len(server.writes()) != before or lists(server) < since + 3:
        if len(server.writes()) != before:
            before, since = len(server.writes()), lists(server)
        await asyncio.sleep(0.01)


def last_error(reconciler: Reconciler) -> str:
    """What failed last, as the health says it; empty when nothing did."""
    return reconciler.health.report()["last_error"] or ""


async def rest(reconciler: Reconciler) -> None:
    """Wait until it has nothing left to do: what it does next is for what comes next."""
    await until(lambda: (reconciler.health.report()["last_success_age_seconds"] or 0.0) >= 0.3)


async def test_a_rule_that_is_created_is_published_and_its_author_told(server: ApiServer) -> None:
    async with operating(server, WITHOUT_RESYNC):
        await until(lambda: server.watching == 1)
        server.apply("a", **cel("true"))
        await until(lambda: server.condition("a", "Accepted") == "True Accepted")

    index, _ = published(server)
    assert in_force(server) == {"a": 1}
    assert told(server) == ["Normal Accepted a"]
    assert server.condition("a", "Programmed") == "Unknown NoWorkers"
    assert server.condition("a", "Ready") == "Unknown NoWorkers"
    assert server.status("a")["ruleset"] == index.revision
    assert server.status("a")["observedGeneration"] == server.status("a")["inForceGeneration"] == 1


async def test_the_first_ruleset_is_published_even_when_there_are_no_rules(server: ApiServer) -> None:
    """Workers that mount nothing cannot tell an empty ruleset from an operator that never ran."""
    async with operating(server):
        await until(lambda: bool(server.data(RULESET)))

    assert in_force(server) == {}
    assert [write.plural for write in server.writes()] == ["configmaps"]


async def test_a_broken_rule_is_refused_with_its_field_and_the_others_go_on(server: ApiServer) -> None:
    server.apply("broken", **cel("nonsense("))
    server.apply("empty")
    server.apply("sound", **cel("true"))
    async with operating(server):
        await until(lambda: all(server.condition(name, "Accepted") for name in ("broken", "empty", "sound")))

    assert in_force(server) == {"sound": 1}
    assert server.condition("broken", "Accepted") == "False InvalidExpression"
    assert server.condition("broken", "Ready") == "False InvalidExpression"
    assert server.condition("empty", "Accepted") == "False InvalidField"
    assert "inForceGeneration" not in server.status("broken")
    assert "spec.validations[0].expression: " in server.status("broken")["conditions"][0]["message"]
    assert told(server) == ["Normal Accepted sound", "Warning InvalidExpression broken", "Warning InvalidField empty"]


async def test_an_edit_puts_its_generation_in_force(server: ApiServer) -> None:
    server.apply("a", **cel("true"))
    async with operating(server, WITHOUT_RESYNC) as reconciler:
        await until(lambda: in_force(server) == {"a": 1} and server.watching == 1)
        await rest(reconciler)
        server.apply("a", **cel("false"))
        await until(lambda: server.status("a").get("observedGeneration") == 2)

    assert in_force(server) == {"a": 2}
    assert server.status("a")["inForceGeneration"] == 2
    assert told(server) == ["Normal Accepted a", "Normal Accepted a"]


async def test_a_refused_edit_leaves_the_last_good_version_in_force(server: ApiServer) -> None:
    server.apply("a", **cel("true"))
    async with operating(server):
        await until(lambda: in_force(server) == {"a": 1})
        server.apply("a", **cel("nonsense("))
        await until(lambda: server.condition("a", "Accepted") == "False InvalidExpression")

    assert in_force(server) == {"a": 1}
    assert server.status("a")["observedGeneration"] == 2
    assert server.status("a")["inForceGeneration"] == 1


async def test_a_restart_keeps_the_last_good_version_of_a_rule_that_was_broken_meanwhile(server: ApiServer) -> None:
    server.apply("a", **cel("true"))
    server.apply("b", **cel("true"))
    async with operating(server):
        await until(lambda: in_force(server) == {"a": 1, "b": 1})
    server.apply("a", **cel("nonsense("))
    server.apply("b", **cel("1 == 1"))
    async with operating(server):
        await until(lambda: server.status("b").get("observedGeneration") == 2)
        await until(lambda: server.condition("a", "Accepted") == "False InvalidExpression")

    assert in_force(server) == {"a": 1, "b": 2}
    assert server.status("a")["inForceGeneration"] == 1


async def test_a_restart_on_an_unchanged_cluster_writes_nothing(server: ApiServer) -> None:
    server.apply("a", **cel("true"))
    server.apply("broken", **cel("nonsense("))
    async with operating(server, HURRIED):
        await quiet(server)
    before = server.writes()
    async with operating(server, HURRIED):
        await quiet(server)

    assert server.writes() == before


async def test_a_deleted_rule_leaves_the_ruleset(server: ApiServer) -> None:
    server.apply("a", **cel("true"))
    server.apply("b", **cel("true"))
    async with operating(server, WITHOUT_RESYNC) as reconciler:
        await until(lambda: in_force(server) == {"a": 1, "b": 1} and server.watching == 1)
        await rest(reconciler)
        server.delete("a")
        await until(lambda: in_force(server) == {"b": 1})


async def test_a_deletion_that_no_watch_told_of_is_found_by_a_resync(server: ApiServer) -> None:
    missed, restarts = metric("missed_changes_total"), metric("watch_restarts_total")
    server.apply("a", **cel("true"))
    server.apply("b", **cel("true"))
    async with operating(server, HURRIED):
        await until(lambda: in_force(server) == {"a": 1, "b": 1} and server.watching == 1)
        server.delete("a", unseen=True)
        await until(lambda: in_force(server) == {"b": 1})
        await until(lambda: watches(server) > 1)  # what missed one thing may miss more: it begins anew

    assert metric("missed_changes_total") == missed + 1
    assert metric("watch_restarts_total") > restarts


async def test_changes_while_the_watch_is_disconnected_arrive(server: ApiServer) -> None:
    server.apply("a", **cel("true"))
    server.apply("b", **cel("true"))
    async with operating(server, WITHOUT_RESYNC):
        await until(lambda: in_force(server) == {"a": 1, "b": 1} and server.watching == 1)
        server.disconnect()
        server.delete("a")
        server.apply("b", **cel("false"))
        server.apply("c", **cel("true"))
        await until(lambda: in_force(server) == {"b": 2, "c": 1})

    assert watches(server) > 1


async def test_changes_arrive_after_the_watch_s_history_is_gone(server: ApiServer) -> None:
    """``410 Gone``: kopf lists anew, which finds what is new and changed; a deletion waits for the next resync."""
    server.apply("a", **cel("true"))
    server.apply("b", **cel("true"))
    async with operating(server, msgspec.structs.replace(BRISK, operator_resync_seconds=1.0)):
        await until(lambda: in_force(server) == {"a": 1, "b": 1} and server.watching == 1)
        server.delete("a")
        server.apply("b", **cel("false"))
        server.apply("c", **cel("true"))
        server.forget()
        await until(lambda: in_force(server) == {"b": 2, "c": 1})


async def test_a_status_patch_that_conflicts_is_tried_again(server: ApiServer) -> None:
    server.apply("a", **cel("true"))
    conflict = server.fail(HTTPStatus.CONFLICT, times=2, plural=RULES, subresource="status")
    async with operating(server):
        await until(lambda: server.condition("a", "Accepted") == "True Accepted")

    assert len(conflict.times) == 2
    assert told(server) == ["Normal Accepted a"]


async def test_a_status_that_cannot_be_patched_does_not_hold_back_the_others(server: ApiServer) -> None:
    server.apply("a", **cel("true"))
    server.apply("b", **cel("true"))
    forbidden = server.fail(HTTPStatus.FORBIDDEN, plural=RULES, subresource="status", name="a")
    async with operating(server):
        await until(lambda: server.condition("b", "Accepted") == "True Accepted" and len(forbidden.times) >= 2)
        assert server.status("a") == {}
        forbidden.end()
        await until(lambda: server.condition("a", "Accepted") == "True Accepted")


async def test_a_rule_that_goes_before_its_status_is_patched_is_no_failure(server: ApiServer) -> None:
    server.apply("a", **cel("true"))
    server.apply("b", **cel("true"))
    gone = server.fail(HTTPStatus.NOT_FOUND, plural=RULES, subresource="status", name="a", times=1)
    with capture_logs() as logs:
        async with operating(server):
            await until(lambda: server.condition("b", "Accepted") == "True Accepted" and len(gone.times) == 1)

    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == []


async def test_a_kubernetes_event_that_is_refused_does_not_hold_back_the_status(server: ApiServer) -> None:
    """As by a quota on Events, or in a Role that a user wrote without them."""
    server.apply("a", **cel("true"))
    server.fail(HTTPStatus.FORBIDDEN, plural="events")
    async with operating(server):
        await until(lambda: server.condition("a", "Accepted") == "True Accepted")

    assert told(server) == []


@pytest.mark.parametrize(
    "throttled",
    [{"plural": RULES, "subresource": "status"}, {"plural": RULES, "action": "list"}, {"plural": "configmaps"}],
    ids=["patches", "lists", "configmaps"],
)
async def test_a_server_that_throttles_is_given_the_time_it_asks_for(
    server: ApiServer, throttled: dict[str, str | None]
) -> None:
    server.apply("a", **cel("true"))
    failure = server.fail(HTTPStatus.TOO_MANY_REQUESTS, times=1, retry_after="0.6", **throttled)
    async with operating(server):
        await until(lambda: server.condition("a", "Accepted") == "True Accepted")
        took = asyncio.get_running_loop().time() - failure.times[0]

    assert len(failure.times) == 1
    assert 0.6 <= took < 3.0
    assert in_force(server) == {"a": 1}


async def test_a_server_that_is_down_for_a_while_changes_nothing_and_is_waited_for(server: ApiServer) -> None:
    server.apply("a", **cel("true"))
    server.apply("b", **cel("true"))
    async with operating(server, HURRIED) as reconciler:
        await until(lambda: server.condition("b", "Accepted") == "True Accepted" and server.watching == 1)
        before = len(server.writes())
        outage = server.fail(HTTPStatus.SERVICE_UNAVAILABLE)
        server.disconnect()
        server.delete("a", unseen=True)
        server.apply("b", **cel("false"))
        await until(lambda: len(outage.times) >= 4)
        assert len(server.writes()) == before
        assert "503" in reconciler.health.report()["last_error"]
        assert not reconciler.health.is_stuck
        outage.end()
        await until(lambda: in_force(server) == {"b": 2})
        await until(lambda: server.status("b").get("observedGeneration") == 2)
        await until(lambda: reconciler.health.report()["last_error"] is None)


async def test_without_the_definition_it_waits_says_so_and_goes_on_when_it_is_there(server: ApiServer) -> None:
    server.undefine()
    with capture_logs() as logs:
        async with operating(server, WITHOUT_RESYNC):
            await until(lambda: metric("definition_missing") == 1)
            await until(lambda: sum(entry["event"] == "reconcile_failed" for entry in logs) >= 2)
            assert server.writes() == []
            server.define()
            await until(lambda: metric("definition_missing") == 0 and server.watching == 1)
            server.apply("a", **cel("true"))
            await until(lambda: server.condition("a", "Accepted") == "True Accepted")

    assert "404" in next(entry["error"] for entry in logs if entry["event"] == "reconcile_failed")


async def test_a_definition_that_goes_missing_leaves_the_ruleset_in_force(server: ApiServer) -> None:
    server.apply("a", **cel("true"))
    server.apply("b", **cel("true"))
    async with operating(server, HURRIED):
        await until(lambda: server.condition("b", "Accepted") == "True Accepted" and server.watching == 1)
        server.undefine()
        await until(lambda: metric("definition_missing") == 1)
        assert in_force(server) == {"a": 1, "b": 1}
        server.define()
        server.delete("a", unseen=True)
        connections = watches(server)
        await until(lambda: in_force(server) == {"b": 1} and watches(server) > connections)
        server.apply("c", **cel("true"))
        await until(lambda: in_force(server) == {"b": 1, "c": 1})


async def test_a_definition_that_is_deleted_with_its_rules_leaves_the_ruleset_in_force(server: ApiServer) -> None:
    """Kubernetes deletes all rules first, which a watch tells of: that is no wish to judge events by none."""
    server.apply("a", **cel("true"))
    server.apply("b", **cel("true"))
    async with operating(server, WITHOUT_RESYNC) as reconciler:
        await until(lambda: server.condition("b", "Accepted") == "True Accepted" and server.watching == 1)
        server.undefine(deleted=True)
        await until(lambda: metric("definition_missing") == 1)
        assert in_force(server) == {"a": 1, "b": 1}
        await until(lambda: server.watching == 0)
        server.define()
        await until(lambda: in_force(server) == {} and server.watching == 1)
        await rest(reconciler)
        server.apply("c", **cel("true"))
        await until(lambda: in_force(server) == {"c": 1})
        server.apply("d", **cel("true"))
        await until(lambda: in_force(server) == {"c": 1, "d": 1})


async def test_an_edit_during_a_reconcile_is_not_told_what_became_of_the_version_before(server: ApiServer) -> None:
    rule = server.apply("a", **cel("true"))
    pods = server.hold(plural="pods")
    async with operating(server, WITHOUT_RESYNC) as reconciler:
        await until(lambda: in_force(server) == {"a": 1} and server.watching == 1)
        server.apply("a", **cel("nonsense("))
        await until(lambda: [declared.generation for declared in reconciler.declared.all()] == [2])
        pods.set()
        await until(lambda: server.condition("a", "Accepted") == "False InvalidExpression")

    assert rule["metadata"]["generation"] == 1
    assert [write.body["status"]["observedGeneration"] for write in server.writes() if write.plural == RULES] == [2]
    assert told(server) == ["Warning InvalidExpression a"]


async def test_a_watch_that_is_lost_during_a_list_makes_another_list_due(server: ApiServer) -> None:
    config_maps = server.hold(plural="configmaps")
    async with operating(server, WITHOUT_RESYNC) as reconciler:
        await until(lambda: lists(server) == 1)
        reconciler.on_lost()
        config_maps.set()
        await until(lambda: lists(server) == 2)


async def test_a_watch_that_is_lost_makes_a_list_due_at_once(server: ApiServer) -> None:
    server.apply("a", **cel("true"))
    async with operating(server, WITHOUT_RESYNC) as reconciler:
        await until(lambda: in_force(server) == {"a": 1} and server.watching == 1)
        await rest(reconciler)
        before = lists(server)
        reconciler.on_lost()
        await until(lambda: lists(server) == before + 1)


async def test_nothing_is_written_while_nothing_changes(server: ApiServer) -> None:
    server.apply("a", **cel("true"))
    server.apply("broken", **cel("nonsense("))
    server.apply("paused", **cel("true"))
    server.annotate("paused", paused="true")
    async with Worker(server, "worker-0").running(), operating(server, HURRIED):
        await quiet(server)
        before, since = server.writes(), lists(server)
        await until(lambda: lists(server) >= since + 6)

    assert server.writes() == before


async def test_an_edit_of_one_rule_patches_no_other(server: ApiServer) -> None:
    server.apply("a", **cel("true"))
    server.apply("b", **cel("true"))
    async with Worker(server, "worker-0").running(), operating(server, HURRIED):
        await quiet(server)
        before = len(patches(server))
        server.apply("a", **cel("false"))
        await until(lambda: server.condition("a", "Programmed") == "True Programmed" and in_force(server)["a"] == 2)
        await quiet(server)

    assert set(patches(server)[before:]) == {"a"}


async def test_a_paused_rule_stays_at_the_version_in_force(server: ApiServer) -> None:
    server.apply("a", **cel("true"))
    async with operating(server):
        await until(lambda: in_force(server) == {"a": 1})
        server.annotate("a", paused="true")
        await until(lambda: server.condition("a", "Paused") == "True Paused")
        server.apply("a", **cel("false"))
        await until(lambda: server.status("a").get("observedGeneration") == 2)
        assert in_force(server) == {"a": 1}
        assert server.status("a")["inForceGeneration"] == 1
        server.annotate("a", paused=None)
        await until(lambda: in_force(server) == {"a": 2} and server.condition("a", "Paused") == "")

    assert server.status("a")["inForceGeneration"] == 2


async def test_a_rule_that_is_created_paused_never_comes_into_force(server: ApiServer) -> None:
    server.apply("a", **cel("true"))
    server.annotate("a", paused="true")
    server.apply("b", **cel("true"))
    async with operating(server):
        await until(lambda: server.condition("a", "Paused") == "True Paused" and in_force(server) != {})

    assert in_force(server) == {"b": 1}
    assert server.condition("a", "Programmed") == "False NotInForce"


async def test_a_rule_that_was_made_again_is_ready_only_when_workers_run_that_one(server: ApiServer) -> None:
    """Both are generation 1."""
    worker = Worker(server, "worker-0")
    server.apply("a", **cel("true"))
    async with worker.running(), operating(server, WITHOUT_RESYNC):
        await until(lambda: server.condition("a", "Ready") == "True Ready" and server.watching == 1)
        worker.frozen = True
        before = len(server.writes())
        server.delete("a")
        server.apply("a", **cel("false"))
        await until(lambda: server.condition("a", "Programmed") == "False WorkersBehind")
        said = [write.body["status"] for write in server.writes()[before:] if write.plural == RULES]
        assert {condition_of(status, "Ready").get("status") for status in said} == {"False"}
        worker.frozen = False
        await until(lambda: server.condition("a", "Ready") == "True Ready")


async def test_authors_hear_of_their_rules_while_a_pod_may_not_be_annotated(server: ApiServer) -> None:
    server.apply("a", **cel("true"))
    server.apply("b", **cel("nonsense("))
    server.fail(HTTPStatus.FORBIDDEN, plural="pods", method="PATCH")
    async with Worker(server, "worker-0").running(), operating(server, WITHOUT_RESYNC):
        await until(lambda: server.condition("b", "Accepted") == "False InvalidExpression")
        await until(lambda: server.condition("a", "Ready") == "True Ready")


async def test_authors_hear_of_their_rules_while_no_pod_may_be_listed(server: ApiServer) -> None:
    server.apply("a", **cel("true"))
    forbidden = server.fail(HTTPStatus.FORBIDDEN, plural="pods")
    async with Worker(server, "worker-0").running(), operating(server, WITHOUT_RESYNC) as reconciler:
        await until(lambda: server.condition("a", "Programmed") == "Unknown WorkersUnknown")
        await until(lambda: "403" in last_error(reconciler))
        forbidden.end()
        await until(lambda: server.condition("a", "Ready") == "True Ready")


async def test_authors_hear_of_their_rules_while_nothing_may_be_published(server: ApiServer) -> None:
    server.apply("a", **cel("true"))
    server.apply("b", **cel("nonsense("))
    forbidden = server.fail(HTTPStatus.FORBIDDEN, plural="configmaps", method="POST")
    async with operating(server, WITHOUT_RESYNC) as reconciler:
        await until(lambda: server.condition("b", "Accepted") == "False InvalidExpression")
        await until(lambda: server.condition("a", "Programmed") == "False NotPublished")
        await until(lambda: "403" in last_error(reconciler))
        forbidden.end()
        await until(lambda: in_force(server) == {"a": 1})


async def test_authors_hear_of_their_rules_while_what_is_published_may_not_be_changed_any_more(
    server: ApiServer,
) -> None:
    """Not even tidied up: an edit leaves something to tidy behind."""
    server.apply("a", **cel("true"))
    async with operating(server, msgspec.structs.replace(BRISK, operator_resync_seconds=1.0)) as reconciler:
        await until(lambda: in_force(server) == {"a": 1} and server.watching == 1)
        server.apply("a", **cel("false"))
        await until(lambda: in_force(server) == {"a": 2})
        forbidden = server.fail(HTTPStatus.FORBIDDEN, plural="configmaps", method="PATCH")
        await until(lambda: len(forbidden.times) > 0)
        server.apply("a", **cel("1 > 2"))
        server.apply("b", **cel("nonsense("))
        await until(lambda: server.condition("b", "Accepted") == "False InvalidExpression")
        await until(lambda: server.condition("a", "Programmed") == "False NotPublished")
        assert server.status("a")["observedGeneration"] == 3
        assert server.status("a")["inForceGeneration"] == 2
        await until(lambda: "403" in last_error(reconciler))
        forbidden.end()
        await until(lambda: in_force(server) == {"a": 3})
        await until(lambda: server.status("a")["inForceGeneration"] == 3)


async def test_a_status_that_is_refused_slows_no_other_rule(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backing_off, "FIRST", 10.0)
    server.apply("a", **cel("true"))
    server.apply("b", **cel("true"))
    refused = server.fail(HTTPStatus.FORBIDDEN, plural=RULES, method="PATCH", name="a")
    async with operating(server, WITHOUT_RESYNC) as reconciler:
        await until(lambda: len(refused.times) >= 1)
        server.apply("b", **cel("false"))
        async with asyncio.timeout(5.0):  # the other waits for 7 at least
            await until(lambda: in_force(server)["b"] == 2 and server.status("b").get("observedGeneration") == 2)
        await until(lambda: reconciler.health.report()["last_success_age_seconds"] is not None)
        await until(lambda: "1 not told" in last_error(reconciler))


async def test_programmed_is_true_once_every_worker_runs_it(server: ApiServer) -> None:
    slow = Worker(server, "worker-1")
    server.apply("a", **cel("true"))
    async with Worker(server, "worker-0").running(), slow.running(), operating(server, HURRIED):
        await until(lambda: server.condition("a", "Programmed") == "True Programmed")
        slow.frozen = True
        server.apply("a", **cel("false"))
        await until(lambda: "1/2 workers run generation 2" in str(server.status("a")))
        assert server.condition("a", "Programmed") == "False WorkersBehind"
        assert server.condition("a", "Ready") == "False WorkersBehind"
        slow.frozen = False
        await until(lambda: server.condition("a", "Programmed") == "True Programmed")

    index, _ = published(server)
    annotations = [pod["metadata"]["annotations"] for pod in server.objects("pods")]
    assert annotations == [{"the-eye.io/ruleset": index.revision}] * 2


@pytest.mark.parametrize("damage", ["deleted", "emptied", "overwritten", "without an index"])
async def test_a_published_ruleset_that_is_damaged_is_repaired(server: ApiServer, damage: str) -> None:
    server.apply("a", **cel("true"))
    async with operating(server, HURRIED):
        await until(lambda: in_force(server) == {"a": 1})
        whole = (server.data(RULESET), server.data(f"{RULESET}-0"))
        [shard] = whole[1]
        match damage:
            case "deleted":
                server.delete(f"{RULESET}-0", "configmaps")
                server.delete(RULESET, "configmaps")
            case "emptied":
                server.change_config_map(f"{RULESET}-0", {shard: None})
            case "overwritten":
                server.change_config_map(f"{RULESET}-0", {shard: "{}"})
            case _:
                server.change_config_map(RULESET, {INDEX: None})
        await until(lambda: (server.data(RULESET), server.data(f"{RULESET}-0")) == whole)


async def test_two_operators_at_once_come_to_the_same_and_fall_silent(server: ApiServer) -> None:
    for name in ("a", "b", "c"):
        server.apply(name, **cel("true"))
    async with (
        Worker(server, "worker-0").running(),
        operating(server, HURRIED) as one,
        operating(server, HURRIED) as other,
    ):
        await until(lambda: None not in (r.health.report()["last_success_age_seconds"] for r in (one, other)))
        server.apply("a", **cel("nonsense("))
        server.apply("b", **cel("false"))
        server.delete("c")
        await until(lambda: whole(server) and in_force(server) == {"a": 1, "b": 2})
        await until(lambda: server.condition("b", "Programmed") == "True Programmed")
        async with asyncio.timeout(PATIENCE):
            await quiet(server)

    assert in_force(server) == {"a": 1, "b": 2}
    assert server.condition("a", "Accepted") == "False InvalidExpression"
    assert server.condition("b", "Programmed") == "True Programmed"
    said = [(event["involvedObject"]["name"], event["message"]) for event in server.objects("events")]
    assert len(said) == len(set(said))


async def test_two_operators_agree_on_a_last_good_version_that_only_one_of_them_has_seen(server: ApiServer) -> None:
    hesitant = msgspec.structs.replace(BRISK, operator_debounce_seconds=0.5)
    server.apply("a", **cel("true"))
    async with operating(server, BRISK), operating(server, hesitant) as other:
        await until(lambda: whole(server) and in_force(server) == {"a": 1} and server.watching == 2)
        await rest(other)
        server.apply("a", **cel("false"))
        await until(lambda: whole(server) and in_force(server) == {"a": 2})
        server.apply("a", **cel("nonsense("))
        await until(lambda: server.status("a").get("observedGeneration") == 3)
        async with asyncio.timeout(2 * PATIENCE):
            await quiet(server)

    assert in_force(server) == {"a": 2}
    assert server.status("a")["inForceGeneration"] == 2


async def test_rules_of_several_namespaces_are_one_ruleset(server: ApiServer) -> None:
    server.apply("a", **cel("true"))
    server.apply("b", namespace="billing", **cel("true"))
    server.apply("c", namespace="elsewhere", **cel("true"))
    async with operating(server, WITHOUT_RESYNC, [NAMESPACE, "billing"]):
        await until(lambda: in_force(server) == {"a": 1, "b": 1} and server.watching == 2)
        server.apply("b", namespace="billing", **cel("false"))
        await until(lambda: in_force(server) == {"a": 1, "b": 2})
        await until(lambda: server.rule("b", "billing").get("status", {}).get("observedGeneration") == 2)

    assert "status" not in server.rule("c", "elsewhere")


async def test_a_namespace_that_may_not_be_listed_hurts_no_other(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in force of it stays, also in an operator that has never seen its rules."""
    monkeypatch.setattr(reconciling, "UNSEEN_SECONDS", 0.5)
    namespaces = [NAMESPACE, "billing"]
    server.apply("a", **cel("true"))
    server.apply("b", namespace="billing", **cel("true"))
    async with operating(server, BRISK, namespaces):
        await until(lambda: in_force(server) == {"a": 1, "b": 1} and server.watching == 2)
    server.apply("a", **cel("false"))
    server.apply("b", namespace="billing", **cel("false"))
    forbidden = server.fail(HTTPStatus.FORBIDDEN, plural=RULES, action="list", namespace="billing")

    async with operating(server, BRISK, namespaces) as reconciler:
        await until(lambda: in_force(server) == {"a": 2, "b": 1})
        await until(lambda: server.status("a").get("observedGeneration") == 2)
        assert "billing" in reconciler.health.report()["last_error"]
        forbidden.end()
        await until(lambda: in_force(server) == {"a": 2, "b": 2})
        await until(lambda: reconciler.health.report()["last_error"] is None)


async def test_a_list_of_many_pages_is_read_whole(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PAGE", 2)
    for name in "abcde":
        server.apply(name, **cel("true"))
    async with operating(server):
        await until(lambda: in_force(server) != {})

    assert in_force(server) == dict.fromkeys("abcde", 1)
    assert lists(server) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_command_runs_until_a_signal_and_ends_in_order(server: ApiServer, number: signal.Signals) -> None:
    server.apply("a", **cel("true"))
    environ = {**os.environ, "THE_EYE_OPERATOR_LISTEN": "127.0.0.1:0", "PYTHONWARNINGS": "always::ResourceWarning"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from the_eye_operator.command import operator; operator()",
        env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        await until(lambda: server.condition("a", "Accepted") == "True Accepted" and server.watching == 1)
        process.send_signal(number)
        async with asyncio.timeout(PATIENCE):
            output = b"".join(await process.communicate()).decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    assert process.returncode == 0, output
    assert "operator_stopped" in output
    assert "Traceback" not in output
    assert "Warning" not in output
    assert "a-token" not in output
