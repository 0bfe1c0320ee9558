"""What a rule that is tried would make of stored events: which are judged, and whose verdict would be another."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from tests.integration.store.rows import NOON, event, insert, violating
from tests.unit.rules.making import cel
from tests.unit.rules.making import rule as sound

from the_eye.rules import run_trial
from the_eye.rules.backtest import alone
from the_eye.rules.ruleset import RuleSet
from the_eye.rules.trial import MAX_JUDGED, TriedStore
from the_eye.store.connect import Connection

GOOD, BAD = '{"ok": true}', '{"ok": false}'
ID = "default/rule"


def tried(connection: Connection, seconds: float = 60.0, **spec: Any) -> TriedStore:
    """Try the rule that wants ``ok``, or another."""
    rule = sound(**{**cel("event.data.ok"), **spec})
    ruleset = alone(rule)
    assert isinstance(ruleset, RuleSet)
    return run_trial.try_on_store(connection, rule, ruleset, seconds)


def stored(connection: Connection, *rows: dict[str, Any]) -> Sequence[Any]:
    """Store events a minute apart; give their ids."""
    return insert(
        connection, *(event(**{"timestamp": NOON + timedelta(minutes=i), **row}) for i, row in enumerate(rows))
    )


def test_it_counts_whose_verdict_would_change_and_shows_those_first(connection: Connection) -> None:
    """What other rules said of an event stays."""
    ids = stored(
        connection,
        {"data": GOOD},
        {"data": BAD},
        {"data": GOOD, **violating(ID)},
        {"data": BAD, **violating(ID)},
        {"data": GOOD, **violating(ID, "shop/other")},
        {"data": BAD, **violating("shop/other")},
    )

    result = tried(connection)

    assert (result.judged, result.violating, result.became_invalid, result.became_valid) == (6, 3, 1, 1)
    assert [(one.event_id, one.was_valid, one.would_be_valid) for one in result.events] == [
        (ids[2], False, True),
        (ids[1], True, False),
        (ids[5], False, False),
        (ids[3], False, False),
    ]
    assert (result.oldest, result.newest, result.ended) == (NOON, NOON + timedelta(minutes=5), "")
    assert [(one.path, one.code, one.events) for one in result.alike] == [("$", "expression.false", 3)]


def test_a_rule_that_audits_makes_no_event_invalid(connection: Connection) -> None:
    stored(connection, {"data": BAD}, {"data": BAD, **violating(ID)})

    result = tried(connection, action="Audit")

    assert (result.violating, result.became_invalid, result.became_valid) == (2, 0, 1)


def test_events_that_it_does_not_match_count_where_they_have_violated_it(connection: Connection) -> None:
    """As for `the-eye events revalidate`: the rule would let go of them."""
    stored(connection, {"data": BAD}, {"data": BAD, **violating(ID)}, {"data": BAD, "category": "other"})

    result = tried(connection, match={"category": "other"})

    assert (result.judged, result.violating, result.became_invalid, result.became_valid) == (2, 1, 1, 1)


def test_items_of_arrays_do_not_tell_violations_apart(connection: Connection) -> None:
    stored(connection, {"data": '{"n": ["a", "b"]}'}, {"data": '{"n": [1, "b"]}'})

    result = tried(connection, schema={"properties": {"n": {"items": {"type": "integer"}}}}, validations=[])

    assert [(one.path, one.code, one.events) for one in result.alike] == [("$.data.n[*]", "schema.type", 2)]


def test_it_ends_with_the_newest_thousand(connection: Connection) -> None:
    connection.execute(
        """INSERT INTO events ("timestamp", event_id, received_at, session_id, application_id, valid, category, name,
                               data, ruleset)
           SELECT %s::timestamptz - n * interval '1 second', gen_random_uuid(), now(), gen_random_uuid(), 1, true, 'c',
                  'n', '{"ok": true}', decode(repeat('00', 32), 'hex')
             FROM generate_series(0, %s) n""",
        (NOON, MAX_JUDGED),
    )

    result = tried(connection)

    assert (result.judged, result.violating) == (MAX_JUDGED, 0)
    assert (result.newest, result.oldest) == (NOON, NOON - timedelta(seconds=MAX_JUDGED - 1))
    assert result.ended == "the newest 1,000 were judged"


def test_what_a_glob_does_not_match_is_read_up_to_a_bound(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_trial, "PAGE_EVENTS", 2)
    monkeypatch.setattr(run_trial, "MAX_READ", 4)
    stored(connection, {"name": "b", "data": BAD}, *[{"name": "a"}] * 4)

    result = tried(connection, match={"name": "[b]"})

    assert (result.judged, result.ended) == (0, "4 events were read")


def test_it_ends_when_its_time_is_over(connection: Connection) -> None:
    stored(connection, {"data": GOOD})

    result = tried(connection, seconds=0.0)

    assert result.ended == "reading and judging more would have taken longer than 0 seconds"
