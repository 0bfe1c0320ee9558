"""Telling: what matters first, in rounds, and what one rule is refused no other suffers for."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from lightkube.models.core_v1 import Event
from structlog.testing import capture_logs
from tests.unit.operator.declaring import body

from the_eye_operator import backing_off, telling
from the_eye_operator.cluster import ClusterError
from the_eye_operator.decision import compiled, decide
from the_eye_operator.declared import Declared, DeclaredRules
from the_eye_operator.health import Health
from the_eye_operator.status import Published, status_of
from the_eye_operator.telling import Teller
from the_eye_operator.workers import Running, WorkerView

NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Patched:
    """A cluster that notes what is patched, and fails as it is told."""

    def __init__(self, *bodies: dict[str, Any]) -> None:
        self.declared = DeclaredRules()
        for one in bodies:
            self.declared.seen(one)
        self.patched: list[str] = []
        self.said: list[str] = []
        self.errors: dict[str, ClusterError] = {}
        self.event_error: ClusterError | None = None
        self.at_once = 0
        self.most_at_once = 0
        cluster: Any = self
        self.health = Health(120.0)
        self.teller = Teller(cluster, self.declared, self.health)

    async def patch_status(self, namespace: str, name: str, status: Mapping[str, Any]) -> dict[str, Any]:
        """As the cluster does it."""
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        assert namespace == "shop"
        if name in self.errors:
            raise self.errors[name]
        self.patched.append(name)
        known = self.declared.get(name)
        assert known is not None
        merged = {key: value for key, value in {**known.status, **status}.items() if value is not None}
        return body(name, version=known.resource_version + 1, generation=known.generation, status=merged)

    async def create_event(self, event: Event) -> None:
        """As the cluster does it."""
        if self.event_error:
            raise self.event_error
        assert event.involvedObject.name is not None
        self.said.append(event.involvedObject.name)

    async def tell(self, workers: int = 1, of: int = 1) -> float | None:
        """Tell the statuses that follow when so many workers run everything."""
        rules = self.declared.all()
        decision = decide(rules, compiled(()))
        digests = {rule.id: rule.digest for rule in decision.ruleset.rules}
        running = [Running(str(n), "r", digests if n < workers else {}) for n in range(of)]
        record, view = Published.of(decision.ruleset), WorkerView(tuple(running))
        return await self.teller.tell(
            [(rule, status_of(rule, decision.outcomes[rule.uid], record, view, NOW)) for rule in rules]
        )


def edited(rule: Declared) -> dict[str, Any]:
    """The next generation of a rule."""
    return body(
        rule.name,
        version=rule.resource_version + 1,
        generation=rule.generation + 1,
        status=dict(rule.status),
    )


async def test_what_is_news_is_told_with_an_event_and_what_is_not_is_not() -> None:
    cluster = Patched(body("a"), body("b"))

    assert await cluster.tell() is None
    assert (sorted(cluster.patched), sorted(cluster.said)) == (["a", "b"], ["a", "b"])

    assert await cluster.tell() is None
    assert (len(cluster.patched), len(cluster.said)) == (2, 2)


async def test_an_event_comes_once_and_a_condition_that_comes_true_is_none() -> None:
    cluster = Patched(body("a"))
    await cluster.tell(workers=0)
    await cluster.tell(workers=1)

    assert (cluster.patched, cluster.said) == (["a", "a"], ["a"])


async def test_an_edit_comes_before_a_truth_and_a_truth_before_a_wording() -> None:
    cluster = Patched(*(body(name) for name in "abc"))
    await cluster.tell(workers=1, of=2)
    # c is edited; all workers run b now, of which only the wording of a's condition tells.
    by_uid = {rule.uid: rule for rule in cluster.declared.all()}
    cluster.declared.seen(edited(by_uid["c"]))
    del cluster.patched[:]
    rules = cluster.declared.all()
    decision = decide(rules, compiled(()))
    a, b, _ = decision.ruleset.rules
    only_b = {b.id: b.digest}
    view = WorkerView(
        (Running("0", "r", {a.id: a.digest, **only_b}), Running("1", "r", only_b), Running("2", "r", only_b))
    )
    record = Published.of(decision.ruleset)
    await cluster.teller.tell(
        [(rule, status_of(rule, decision.outcomes[rule.uid], record, view, NOW)) for rule in rules]
    )

    assert cluster.patched == ["c", "b", "a"]


async def test_wordings_are_told_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "WORDING_PATCHES", 2)
    cluster = Patched(*(body(name) for name in "abcde"))
    await cluster.tell(workers=1, of=1)
    del cluster.patched[:]

    pauses = [await cluster.tell(workers=2, of=2) for _ in range(3)]

    assert pauses == [telling.WORDING_PAUSE, telling.WORDING_PAUSE, None]
    assert sorted(cluster.patched) == list("abcde")


async def test_a_round_has_a_bound_and_the_next_comes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "PATCHES", 2)
    cluster = Patched(*(body(name) for name in "abcde"))

    assert [await cluster.tell() for _ in range(3)] == [0.0, 0.0, None]
    assert sorted(cluster.patched) == list("abcde")


async def test_only_some_patches_are_in_flight_at_once() -> None:
    cluster = Patched(*(body(f"rule-{number}") for number in range(30)))
    await cluster.tell()

    assert cluster.most_at_once == telling.PATCHES_AT_ONCE
    assert len(cluster.patched) == 30


async def test_a_refusal_of_one_holds_up_no_other_and_is_tried_again_later() -> None:
    cluster = Patched(*(body(f"rule-{number:02}") for number in range(30)))
    cluster.errors["rule-00"] = ClusterError("refused", 422)
    with capture_logs():
        again_in = await cluster.tell()

    assert len(cluster.patched) == 29
    assert again_in is not None
    assert 0 < again_in <= 1.25 * backing_off.FIRST
    assert cluster.health.report()["last_error"] == "1 not told, such as: refused"

    del cluster.errors["rule-00"]
    assert await cluster.tell() is not None
    assert "rule-00" not in cluster.patched
    await asyncio.sleep(again_in)
    assert await cluster.tell() is None
    assert cluster.patched.count("rule-00") == 1
    assert cluster.health.report()["last_error"] is None


async def test_each_refusal_of_a_rule_makes_it_wait_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backing_off, "FIRST", 0.01)
    cluster = Patched(body("a"))
    cluster.errors["a"] = ClusterError("refused", 403)
    pauses = []
    with capture_logs():
        for _ in range(4):
            pauses.append(await cluster.tell())
            await asyncio.sleep(pauses[-1] or 0.0)

    assert pauses[3] is not None
    assert pauses[0] is not None
    assert pauses[3] > 3 * pauses[0]


async def test_an_edit_of_a_rule_that_was_refused_is_told_at_once() -> None:
    cluster = Patched(body("a"))
    cluster.errors["a"] = ClusterError("refused", 403)
    with capture_logs():
        await cluster.tell()
    (rule,) = cluster.declared.all()
    cluster.declared.seen(edited(rule))
    del cluster.errors["a"]

    assert await cluster.tell() is None
    assert cluster.patched == ["a"]


async def test_what_was_refused_and_is_not_to_be_told_any_more_is_waited_for_no_longer() -> None:
    """A worker went and came back: the status is right again without having been patched."""
    cluster = Patched(body("a"))
    await cluster.tell(workers=1)
    cluster.errors["a"] = ClusterError("refused", 403)
    with capture_logs():
        assert await cluster.tell(workers=0) is not None

    assert await cluster.tell(workers=1) is None
    assert cluster.health.report()["last_error"] is None


async def test_a_wording_whose_time_has_come_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "WORDING_PATCHES", 1)
    monkeypatch.setattr(backing_off, "FIRST", 0.01)
    cluster = Patched(*(body(name) for name in "abc"))
    await cluster.tell(workers=1, of=1)
    cluster.errors["a"] = ClusterError("refused", 403)
    with capture_logs():
        await cluster.tell(workers=2, of=2)
    await asyncio.sleep(0.02)
    cluster.errors["b"] = cluster.errors["c"] = cluster.errors["a"]
    with capture_logs():
        pauses = [await cluster.tell(workers=2, of=2) for _ in range(3)]

    assert 0.0 not in pauses


async def test_a_rule_that_was_refused_and_is_deleted_is_forgotten() -> None:
    cluster = Patched(body("a"))
    cluster.errors["a"] = ClusterError("refused", 403)
    with capture_logs():
        await cluster.tell()
    cluster.declared.gone("a")

    assert await cluster.tell() is None
    assert cluster.health.report()["last_error"] is None


async def test_a_failure_that_concerns_all_ends_the_round() -> None:
    cluster = Patched(*(body(f"rule-{number:02}") for number in range(30)))
    cluster.errors["rule-00"] = ClusterError("busy", 429, 5.0)
    with pytest.raises(ClusterError, match="busy") as caught:
        await cluster.tell()

    assert caught.value.retry_after == 5.0
    assert len(cluster.patched) <= telling.PATCHES_AT_ONCE


async def test_a_rule_that_has_gone_meanwhile_is_passed_over() -> None:
    cluster = Patched(body("a"), body("b"))
    cluster.errors["a"] = ClusterError("gone", 404)

    assert await cluster.tell() is None
    assert cluster.patched == ["b"]


async def test_an_event_that_is_refused_is_logged_and_the_status_told() -> None:
    cluster = Patched(body("a"))
    cluster.event_error = ClusterError("no quota", 403)
    with capture_logs() as logs:
        assert await cluster.tell() is None

    assert cluster.patched == ["a"]
    assert [(entry["event"], entry["rule"]) for entry in logs] == [("event_not_created", "shop/a")]


async def test_while_the_server_is_away_no_status_gets_ahead_of_its_event() -> None:
    """Once the status says it, it is no news any more."""
    cluster = Patched(body("a"))
    cluster.event_error = ClusterError("away")
    with pytest.raises(ClusterError, match="away"):
        await cluster.tell()

    assert cluster.patched == []
