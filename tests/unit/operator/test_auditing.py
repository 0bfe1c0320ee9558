"""Counts of the rules in Audit: which are counted and since when, in which order, and what is told of it.

The store is a stand-in that notes what it is asked; the counting itself is for the tests of the store.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import psycopg
import pytest
from kmock import KubernetesScaffold
from structlog.testing import capture_logs
from tests.unit.operator.api_server import NAMESPACE, RULES, ApiServer
from tests.unit.operator.declaring import SOUND, declared
from tests.unit.operator.operating import until

from the_eye.rules.manifest import ValidatorRule
from the_eye.settings import StoreSettings
from the_eye.store.audit import AuditCounts, RuleCounts
from the_eye_operator import auditing
from the_eye_operator.auditing import Audits, audited_rules
from the_eye_operator.cluster import Cluster, ClusterError, connect
from the_eye_operator.declared import Declared, DeclaredRules
from the_eye_operator.status import rfc3339

pytestmark = pytest.mark.kmock(cls=KubernetesScaffold)

NOW = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
IN_FORCE = {"inForceGeneration": 1}


def told(since: datetime, *, at: datetime = NOW, events: int = 0, violations: int = 0, generation: int = 1) -> Any:
    """What a status says."""
    counts = {"events": events, "violations": violations}
    return {"generation": generation, "since": rfc3339(since), "updatedAt": rfc3339(at), **counts}


class Store:
    """Counts as a test wants them."""

    def __init__(self) -> None:
        self.asked: list[tuple[datetime, list[str]]] = []
        """Since when, and which rules."""
        self.counts = RuleCounts(events=0, violations=0)
        self.cut_short: datetime | None = None
        """When the oldest event of the most was."""
        self.away = 0
        """How many more times it does not answer."""

    @contextmanager
    def connect(self, *_: object) -> Iterator[None]:
        """As the store does it."""
        if self.away:
            self.away -= 1
            message = "the database is\n\taway"
            raise psycopg.OperationalError(message)
        yield

    def audit_counts(self, _: None, rules: Iterable[ValidatorRule], since: datetime) -> AuditCounts:
        """As the store does it."""
        ids = [rule.id for rule in rules]
        self.asked.append((since, [id_.removeprefix("shop/") for id_ in ids]))
        begin = max(since, self.cut_short or since)
        return AuditCounts(begin, datetime.now(UTC), dict.fromkeys(ids, self.counts))

    def order(self) -> list[str]:
        """The rules it was asked for since the last time, in this order."""
        names = [name for _, names in self.asked for name in names]
        del self.asked[:]
        return names


class Audit:
    """Rules on a server, an operator that has seen them, and a store."""

    def __init__(self, server: ApiServer, cluster: Cluster, store: Store) -> None:
        self.server = server
        self.cluster = cluster
        self.store = store
        self.declared = DeclaredRules()
        self.audits = self.operator()

    def operator(self, pause_seconds: float = 1.0, *, store: bool = True) -> Audits:
        """Make what is tested, as if it had just started."""
        settings = StoreSettings(database_url="postgresql://unused")
        return Audits(self.cluster, self.declared, settings if store else None, pause_seconds)

    async def rule(self, name: str = "rule", status: Any = IN_FORCE, action: str = "Audit") -> None:
        """Create a rule in Audit and see it."""
        self.server.apply(name, action=action, **SOUND)
        await self.cluster.patch_status(NAMESPACE, name, status)
        self.see(name)

    def see(self, name: str = "rule") -> None:
        """Be told of it by the watch."""
        self.declared.seen(self.server.rule(name))

    def told(self, name: str = "rule") -> Any:
        """What the status says; None when nothing."""
        return self.server.status(name).get("audit")

    def patches(self) -> list[str | None]:
        """The rules that were told of, in this order; without those of ``rule``."""
        return [write.name for write in self.server.writes() if "inForceGeneration" not in write.body["status"]]


@pytest.fixture
async def audit(kmock: KubernetesScaffold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Audit]:
    """A server without rules, and a store without events."""
    server, store = ApiServer(kmock), Store()
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))
    monkeypatch.setattr(auditing, "connect", store.connect)
    monkeypatch.setattr(auditing, "audit_counts", store.audit_counts)
    cluster = connect("")
    yield Audit(server, cluster, store)
    await cluster.close()


def audited(name: str = "rule", *, action: str = "Audit", status: Any = IN_FORCE, **fields: Any) -> Declared:
    """A rule in Audit."""
    return declared(name, status=status, action=action, **{**SOUND, **fields})


@pytest.mark.parametrize(
    ("rule", "counted"),
    [
        (audited(), True),
        (audited(action="Enforce"), False),
        (audited(status=None), False),
        (audited(generation=2), False),
        (audited(generation=2, status={"inForceGeneration": 2}), True),
        (audited(match={"name": 1}), False),
    ],
    ids=["in force", "enforced", "not in force yet", "an edit is not in force", "an edit is", "refused"],
)
def test_a_rule_is_counted_whose_declared_version_is_in_force_and_in_audit(rule: Declared, *, counted: bool) -> None:
    assert [one.rule for one in audited_rules([rule], {}, NOW)] == [rule] * counted


@pytest.mark.parametrize(
    ("status", "began"),
    [
        ({}, NOW.replace(second=0)),
        ({"audit": told(NOW - HOUR)}, NOW - HOUR),
        ({"audit": told(NOW - HOUR, generation=7)}, NOW.replace(second=0)),
        ({"audit": {"generation": 1}}, NOW.replace(second=0)),
        ({"audit": {"generation": 1, "since": "2026-03-01T11:00:00"}}, NOW.replace(second=0)),
        ({"audit": {"generation": 1, "since": "yesterday"}}, NOW.replace(second=0)),
    ],
    ids=["it is new", "it was told", "another version was told", "half told", "no zone", "no time"],
)
def test_a_version_begins_when_it_is_first_seen_in_force(status: dict[str, Any], began: datetime) -> None:
    """The status tells a new operator; those that come within the same minute have it in common."""
    assert [one.began for one in audited_rules([audited(status={**IN_FORCE, **status})], {}, NOW)] == [began]


def test_a_beginning_stays_until_another_version_comes() -> None:
    first = audited_rules([audited()], {}, NOW)
    earlier = {one.version: one for one in first}
    second = audited(generation=2, status={"inForceGeneration": 2})

    assert [one.began for one in audited_rules([audited()], earlier, NOW + HOUR)] == [NOW.replace(second=0)]
    assert [one.began for one in audited_rules([second], earlier, NOW + HOUR)] == [NOW.replace(second=0) + HOUR]


def test_what_is_remembered_of_a_rule_is_no_earlier_state_of_it() -> None:
    earlier = {one.version: one for one in audited_rules([audited()], {}, NOW)}
    now = audited(version=2, status={**IN_FORCE, "audit": told(NOW)})

    assert [one.rule for one in audited_rules([now], earlier, NOW)] == [now]


async def test_counts_are_told_as_the_definition_has_them(audit: Audit) -> None:
    since = NOW - HOUR
    await audit.rule(status={**IN_FORCE, "audit": told(since)})
    audit.store.counts = RuleCounts(events=5, violations=2)

    await audit.audits.round(NOW)

    assert audit.told() == told(since, at=NOW, events=5, violations=2)
    assert audit.store.asked == [(since, ["rule"])]


async def test_a_day_is_counted_at_most_and_by_all_that_are_older_at_once(audit: Audit) -> None:
    for days, name in enumerate("abc"):
        await audit.rule(name, status={**IN_FORCE, "audit": told(NOW - timedelta(days=days, hours=2))})

    await audit.audits.round(NOW)

    assert sorted(audit.store.asked) == [(NOW - timedelta(days=1), ["b", "c"]), (NOW - 2 * HOUR, ["a"])]


async def test_without_rules_in_audit_the_store_is_not_asked(audit: Audit) -> None:
    await audit.rule(action="Enforce")
    audit.store.away = 1

    await audit.audits.round(NOW)

    assert (audit.store.asked, audit.patches()) == ([], [])


async def test_without_a_store_nothing_is_counted(audit: Audit) -> None:
    await audit.rule()

    await audit.operator(store=False).round(NOW)

    assert (audit.store.asked, audit.patches()) == ([], [])


async def test_counts_like_those_before_are_not_told_again(audit: Audit) -> None:
    await audit.rule()
    for counts in ((0, 0), (0, 0), (4, 0), (4, 0), (4, 1), (4, 1)):
        audit.store.counts = RuleCounts(*counts)
        await audit.audits.round(NOW)

    assert audit.patches() == ["rule"] * 3
    assert (audit.told()["events"], audit.told()["violations"]) == (4, 1)


async def test_counts_that_stay_the_same_are_told_anew_after_an_hour(audit: Audit) -> None:
    """Otherwise counts that nobody brings up to date look like those of a quiet week."""
    await audit.rule(status={**IN_FORCE, "audit": told(NOW - 2 * HOUR, at=NOW - HOUR)})
    await audit.audits.round(NOW)

    assert audit.told()["updatedAt"] == rfc3339(NOW)
    await audit.audits.round(NOW + 59 * MINUTE)
    assert audit.told()["updatedAt"] == rfc3339(NOW)


async def test_another_version_is_told_whatever_its_counts(audit: Audit) -> None:
    await audit.rule(status={"inForceGeneration": 2, "audit": told(NOW - HOUR)})
    audit.server.apply("rule", action="Audit", match={"name": "other"}, **SOUND)
    audit.see()

    await audit.audits.round(NOW)

    assert audit.told() == told(NOW.replace(second=0), generation=2)


async def test_a_count_that_is_cut_short_tells_since_when_and_does_not_move_the_beginning(audit: Audit) -> None:
    began, cut = NOW - 10 * HOUR, NOW - HOUR
    await audit.rule(status={**IN_FORCE, "audit": told(began)})
    audit.store.counts, audit.store.cut_short = RuleCounts(events=9, violations=0), cut
    await audit.audits.round(NOW)
    assert audit.told()["since"] == rfc3339(cut)

    audit.store.counts, audit.store.cut_short = RuleCounts(events=8, violations=0), None
    await audit.audits.round(NOW)
    assert audit.told()["since"] == rfc3339(began)


async def test_a_beginning_that_could_not_be_told_yet_is_not_put_off(audit: Audit) -> None:
    began = NOW.replace(second=0)
    await audit.rule()
    audit.store.away = 1
    with pytest.raises(psycopg.OperationalError):
        await audit.audits.round(NOW)
    await audit.audits.round(NOW + 2 * HOUR)

    assert audit.store.asked == [(began, ["rule"])]


@pytest.mark.parametrize("away", [0, 1])
async def test_a_rule_that_leaves_audit_has_no_counts_and_needs_no_store_for_it(audit: Audit, away: int) -> None:
    await audit.rule("left", action="Enforce", status={**IN_FORCE, "audit": told(NOW)})
    await audit.rule("stays")
    audit.store.away = away
    await asyncio.gather(audit.audits.round(NOW), return_exceptions=True)

    assert audit.told("left") is None
    assert audit.declared.all()[0].status == IN_FORCE
    assert (audit.told("stays") is None) == bool(away)


async def test_a_rule_whose_edit_is_not_in_force_has_no_counts(audit: Audit) -> None:
    await audit.rule(status={**IN_FORCE, "audit": told(NOW)})
    audit.server.apply("rule", action="Audit", match={"name": "other"}, **SOUND)
    audit.see()

    await audit.audits.round(NOW)

    assert audit.told() is None


async def test_of_more_beginnings_than_a_round_takes_those_counted_longest_ago_come_first(
    audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the counts are like those before, which is not told: the status alone cannot say whose turn it is."""
    monkeypatch.setattr(auditing, "MOST_BEGINNINGS", 2)
    for name, since, at in (("a", 1, 2), ("b", 2, 3), ("c", 3, 1), ("d", 4, 4)):
        await audit.rule(name, status={**IN_FORCE, "audit": told(NOW - since * HOUR, at=NOW - HOUR + at * MINUTE)})
    await audit.rule("e")  # which was never told

    orders = []
    for minutes in range(4):
        await audit.audits.round(NOW + minutes * MINUTE)
        orders.append(sorted(audit.store.order()))

    assert orders == [["c", "e"], ["a", "b"], ["c", "d"], ["a", "e"]]


async def test_of_more_changes_than_a_round_tells_those_told_longest_ago_come_first(
    audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "MOST_PATCHES", 2)
    for name, minutes in (("a", 1), ("b", 2), ("c", 3), ("d", 4)):
        await audit.rule(name, status={**IN_FORCE, "audit": told(NOW - HOUR, at=NOW - minutes * MINUTE)})
    for events in (1, 2):
        audit.store.counts = RuleCounts(events, 0)
        await audit.audits.round(NOW + events * MINUTE)

    assert audit.patches() == ["d", "c", "b", "a"]


async def test_where_the_status_of_one_rule_is_refused_the_others_are_told(audit: Audit) -> None:
    for name in "abc":
        await audit.rule(name)
    audit.server.delete("c", unseen=True)
    audit.server.fail(HTTPStatus.FORBIDDEN, plural=RULES, name="a", subresource="status")
    with capture_logs() as logs:
        await audit.audits.round(NOW)

    assert audit.patches() == ["b"]
    assert [log["rule"] for log in logs] == ["shop/a"]


async def test_an_api_server_that_is_away_ends_the_round(audit: Audit) -> None:
    for name in "ab":
        await audit.rule(name)
    failure = audit.server.fail(HTTPStatus.SERVICE_UNAVAILABLE, plural=RULES, subresource="status")

    with pytest.raises(ClusterError):
        await audit.audits.round(NOW)

    assert len(failure.times) == 1


async def test_a_store_or_an_api_server_that_is_away_is_said_and_tried_again(audit: Audit) -> None:
    await audit.rule()
    audit.store.away = 1
    audit.server.fail(HTTPStatus.SERVICE_UNAVAILABLE, times=1, plural=RULES, subresource="status")
    with capture_logs() as logs:
        running = asyncio.create_task(audit.operator(pause_seconds=0.01).run())
        await until(lambda: audit.told() is not None)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    said = [log["error"] for log in logs if log["event"] == "audit_not_told"]
    assert said[0] == "the database is away"
    assert "503" in said[1]
    assert len(said) == 2
