"""How many events violate each rule is counted of the newest, and so is which ruleset judged last."""

from datetime import datetime, timedelta

import pytest
from tests.integration.store.rows import NOON, RULESET, event, insert, violating

from the_eye.store import rule_counts
from the_eye.store.connect import AsyncConnection, Connection
from the_eye.store.problems import read_problems
from the_eye.store.rule_counts import JudgedLast, RuleCounts, count_rules, judged_last

HOUR = timedelta(hours=1)


async def counted(url: str, since: datetime | None = None) -> RuleCounts:
    """Count, over a connection of its own."""
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        return await count_rules(connection, since)


async def test_events_are_counted_by_rule_in_a_range(connection: Connection, migrated_url: str) -> None:
    insert(
        connection,
        event(timestamp=NOON - 3 * HOUR, **violating("shop/a")),
        event(timestamp=NOON - HOUR, **violating("shop/a", "shop/b")),
        event(timestamp=NOON),
    )

    counts = await counted(migrated_url)

    assert {rule: (one.events, one.last_seen) for rule, one in counts.by_rule.items()} == {
        "shop/a": (2, NOON - HOUR),
        "shop/b": (1, NOON - HOUR),
    }
    assert (counts.since, counts.whole, counts.events_of("shop/none")) == (NOON - 3 * HOUR, True, 0)
    assert (await counted(migrated_url, NOON - 2 * HOUR)).events_of("shop/a") == 1
    assert await counted(migrated_url, NOON) == RuleCounts({}, None, whole=True)


async def test_of_many_events_the_newest_are_counted(
    connection: Connection, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rule_counts, "MAX_EVENTS", 2)
    insert(connection, *(event(timestamp=NOON - hours * HOUR, **violating("shop/a")) for hours in range(3)))

    counts = await counted(migrated_url)

    assert (counts.events_of("shop/a"), counts.since, counts.whole) == (2, NOON - HOUR, False)


async def test_the_problems_of_one_rule_leave_out_what_others_say_of_its_events(
    connection: Connection, migrated_url: str
) -> None:
    insert(connection, event(**violating("shop/a", "shop/b")), event(**violating("shop/b")))

    async with await AsyncConnection.connect(migrated_url, autocommit=True) as opened:
        found = await read_problems(opened, None, rule="shop/a")

    assert [(one.rule, one.count) for one in found.problems] == [("shop/a", 1)]


async def test_what_was_stored_last_tells_which_ruleset_judges(connection: Connection, migrated_url: str) -> None:
    """A sender's clock may be ahead."""
    async with await AsyncConnection.connect(migrated_url, autocommit=True) as opened:
        assert await judged_last(opened) is None
        insert(
            connection,
            event(timestamp=NOON + HOUR, stored_at=NOON, ruleset=bytes(32)),
            event(timestamp=NOON, stored_at=NOON + HOUR),
        )
        assert await judged_last(opened) == JudgedLast(f"sha256:{RULESET.hex()}", NOON + HOUR)
