"""What a back-test is asked for, and which events are judged again for a rule.

What both find in a store is shown in the integration tests.
"""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from tests.unit.rules.making import cel, event, manifest, rule, ruleset

from the_eye.rules.backtest import MAX_ROWS, MAX_SECONDS, Request
from the_eye.rules.rejudging import Rejudging
from the_eye.rules.ruleset import FUTURE_TIMESTAMP
from the_eye.store.past_events import PastEvent
from the_eye.verdict import Action, Violation

REQUEST = {"rule": manifest(**cel("true")), "from": "2026-03-01T00:00:00Z", "to": "2026-03-02T01:00:00+01:00"}


def decode(**fields: Any) -> Request:
    return msgspec.json.decode(msgspec.json.encode({**REQUEST, **fields}), type=Request)


def test_a_request_has_bounds_unless_it_names_its_own() -> None:
    request = decode()

    assert (request.max_rows, request.max_seconds) == (MAX_ROWS, MAX_SECONDS)
    assert (request.from_, request.to) == (datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC))
    assert decode(max_rows=5).max_rows == 5


@pytest.mark.parametrize(
    "wrong",
    [{"from": "2026-03-01T00:00:00"}, {"to": None}, {"max_rows": 0}, {"max_seconds": 0}, {"max_row": 5}],
    ids=str,
)
def test_a_request_that_could_be_misread_is_refused(wrong: dict[str, Any]) -> None:
    """Such as a time without a zone."""
    with pytest.raises(msgspec.ValidationError):
        decode(**wrong)


def past(data: object, *violated: str, **fields: Any) -> PastEvent:
    """A stored event with violations of some rules."""
    violations = tuple(Violation(one, 1, Action.ENFORCE, "$", "expression.false", "x") for one in violated)
    return PastEvent(event(data, **fields), not violations, violations, bytes(32), "1")


RULES = ruleset(rule("a", match={"category": "page *"}, **cel("event.data.ok")), rule("b", **cel("false")))


@pytest.mark.parametrize(
    ("stored", "found"),
    [
        (past({"ok": True}), ["default/b"]),
        (past({"ok": False}), ["default/a", "default/b"]),
        (past({"ok": False}, category="other"), None),
        (past({"ok": False}, "default/b", category="other"), None),
        (past({"ok": False}, "default/a", category="other"), ["default/b"]),
        (past({"ok": True}, FUTURE_TIMESTAMP, "default/a"), [FUTURE_TIMESTAMP, "default/b"]),
    ],
)
def test_events_that_match_a_rule_or_have_violated_it_are_judged_by_all(
    stored: PastEvent, found: list[str] | None
) -> None:
    verdict = Rejudging(RULES, "default/a")(stored)

    assert (None if verdict is None else [violation.rule for violation in verdict.violations]) == found


def test_a_rule_that_is_not_there_matches_nothing() -> None:
    rejudging = Rejudging(RULES, "default/gone")

    assert rejudging.match is None
    assert rejudging(past({})) is None
    assert rejudging(past({}, "default/gone")) is not None
