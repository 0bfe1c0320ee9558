"""Rules in a real Prometheus: they give data, do not call without a reason, and tell of faults that are made."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from tests.chart.prometheus_rules import FOLDER
from tests.observability.senders import HOST, event
from tests.observability.stand import PAGEVIEW, Stand

from the_eye.queue.message_ids import event_count

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"
QUERIES = sorted(
    {
        query.strip()
        for page in RUNBOOKS.glob("*.md")
        for query in re.findall(r"```promql\n(.*?)```", page.read_text(), re.DOTALL)
    }
)

RECORDED = [
    rule["record"]
    for group in yaml.safe_load((FOLDER / "recording-rules.yaml").read_text())["groups"]
    for rule in group["rules"]
]
WHILE_IT_GROWS = "namespace:the_eye_backlog_full_after_seconds:deriv15m"

SLOW_MACHINE = {"TheEyeAcceptLatencyBudgetBurn", "TheEyeFreshnessBudgetBurn"}
"""May fire on a machine that has other things to do."""

POISON = "poison"


@pytest.mark.parametrize("name", [name for name in RECORDED if name != WHILE_IT_GROWS])
def test_a_recording_rule_gives_data(stand: Stand, name: str) -> None:
    (found, *_) = stand.prometheus.wait(name)

    assert found.value >= 0


def test_every_rule_can_be_evaluated(stand: Stand) -> None:
    stand.prometheus.wait_for_rules()

    assert {rule["name"]: rule.get("lastError") for rule in stand.prometheus.rules() if rule["health"] != "ok"} == {}


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_of_the_runbooks_can_be_evaluated(stand: Stand, query: str) -> None:
    stand.prometheus.query(query)  # raises where it cannot be


def test_no_alert_fires_while_all_is_well(stand: Stand) -> None:
    stand.prometheus.wait_for_rules()

    assert stand.prometheus.firing() <= SLOW_MACHINE


def test_an_event_that_vanished_from_redis_is_a_difference_of_the_ledger(stand: Stand) -> None:
    with stand.worker_frozen(), stand.redis() as redis:
        stand.sender.send(event(host=HOST))
        message = redis.rpop("the-eye:events")
        assert isinstance(message, bytes)
        redis.hdel("the-eye:events.msgs", message.decode())
    missing = event_count(message.decode())

    alert = stand.prometheus.wait_until_firing("TheEyeLedgerDifference")

    assert alert["labels"]["severity"] == "page"
    assert alert["annotations"]["description"].startswith(f"{missing} events were accepted and are neither")
    stand.run("ledger", "settle", "--difference", str(missing))
    stand.prometheus.wait_until_quiet("TheEyeLedgerDifference")


def test_a_worker_that_stands_still_lets_the_backlog_grow(stand: Stand) -> None:
    with stand.worker_frozen():
        stand.prometheus.wait_until_firing("TheEyeWorkerAbsent")
        alert = stand.prometheus.wait_until_firing("TheEyeBacklogNotDraining")
        (fills, *_) = stand.prometheus.wait(WHILE_IT_GROWS)

    assert "The oldest event that waits was accepted" in alert["annotations"]["description"]
    assert fills.value > 0
    stand.prometheus.wait_until_quiet("TheEyeBacklogNotDraining")
    stand.prometheus.wait_until_quiet("TheEyeWorkerAbsent")


def test_an_event_that_the_database_refuses_is_a_dead_event(stand: Stand) -> None:
    with _refused_by_the_database(stand):
        stand.sender.send(event(POISON, host=HOST))

        alert = stand.prometheus.wait_until_firing("TheEyeDeadEvents")

    assert alert["annotations"]["description"].startswith("1 events or messages are in dead_events")
    stand.run("dead", "replay", "--all")
    stand.prometheus.wait_until_quiet("TheEyeDeadEvents")


@contextmanager
def _refused_by_the_database(stand: Stand) -> Iterator[None]:
    with stand.database() as database:
        database.execute(f"ALTER TABLE events ADD CONSTRAINT no_poison CHECK (name <> '{POISON}') NOT VALID")
        try:
            yield
        finally:
            database.execute("ALTER TABLE events DROP CONSTRAINT no_poison")


def test_a_ruleset_that_does_not_arrive_is_stale(stand: Stand) -> None:
    stand.kubernetes.apply("page-view-path", match=PAGEVIEW, schema={"type": "object"})

    alert = stand.prometheus.wait_until_firing("TheEyeRulesetStale")

    assert alert["annotations"]["description"].endswith("than the one that the operator has published: 1.")
    stand.deliver()
    stand.prometheus.wait_until_quiet("TheEyeRulesetStale")
