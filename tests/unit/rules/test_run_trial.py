"""A rule that someone typed is tried on an event; what is wrong with either is said by its field.

Stored events are judged in the integration tests, and the bounds on its process in those of the pages.
"""

from typing import Any, cast

import msgspec
import pytest
from tests.unit.rules.making import cel, manifest

from the_eye.rules.documents import write_document
from the_eye.rules.run_trial import run
from the_eye.rules.trial import RefusedEvent, RefusedTrial, Trial, TrialRequest, TriedEvent

EVENT = {
    "session_id": "e2085be5-9137-4e4e-80b5-f1ffddc25423",
    "category": "page interaction",
    "name": "cta click",
    "data": {"n": 1},
    "timestamp": "2099-01-01T09:15:27Z",
}
POSITIVE = cel("event.data.n > 0")


def tried(rule: str | dict[str, Any], *, application: str = "", known_as: str = "shop/a", **changes: Any) -> Trial:
    """Try a rule on an event, as the process does and is understood."""
    request = TrialRequest(
        rule=rule if isinstance(rule, str) else write_document(rule),
        known_as=known_as,
        event=msgspec.json.encode({**EVENT, **changes}).decode(),
        application=application,
        store_seconds=1.0,
        processor_seconds=1,
        memory_bytes=1,
    )
    return cast("Trial", msgspec.json.decode(msgspec.json.encode(run(request)), type=Trial))


def test_an_event_passes_or_violates_by_this_rule_alone() -> None:
    """That it is from the future is no matter of the rule's."""
    passes, violates = tried(manifest("a", **POSITIVE)), tried(manifest("a", **POSITIVE), data={"n": 0})

    assert isinstance(passes, TriedEvent)
    assert isinstance(violates, TriedEvent)
    assert (passes.matched, passes.valid, passes.violations) == (True, True, ())
    assert (violates.matched, violates.valid) == (True, False)
    assert [(one.rule, one.path, one.code) for one in violates.violations] == [("default/a", "$", "expression.false")]
    assert bytes(violates.data) == b'{"n":0}'


def test_a_spec_alone_is_that_of_the_rule_it_was_taken_from() -> None:
    outcome = tried({"match": {}, **POSITIVE}, data={"n": 0})

    assert isinstance(outcome, TriedEvent)
    assert outcome.rule == outcome.violations[0].rule == "shop/a"


def test_a_rule_that_is_not_for_the_event_says_what_it_is_for() -> None:
    outcome = tried({"match": {"category": "page *", "applications": ["shop"]}, **POSITIVE}, application="kiosk")

    assert isinstance(outcome, TriedEvent)
    assert not outcome.matched
    assert (outcome.match.category, outcome.match.applications) == ("page *", ("shop",))


def test_checks_that_the_failure_policy_lets_pass_are_counted() -> None:
    outcome = tried({"match": {}, "failurePolicy": "Ignore", **cel("event.data.missing", "true")})

    assert isinstance(outcome, TriedEvent)
    assert (outcome.valid, outcome.ignored) == (True, 1)


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("", ""),
        ("a: [", ""),
        ("just text", ""),
        ("---\na: 1\n---\nb: 2", ""),
        (manifest("a"), "spec"),
        (manifest("a", action="Reject", **POSITIVE), "spec.action"),
        (manifest("a", schema={"properties": {"n": {"type": "int"}}}), "spec.schema.properties.n.type"),
        (manifest("a", **cel("true", "event.dat.n > 0")), "spec.validations[1].expression"),
        ({"match": {"kategory": "c"}, **POSITIVE}, "spec.match.kategory"),
    ],
    ids=str,
)
def test_a_rule_that_would_be_refused_is_refused_here_with_the_field(rule: str | dict[str, Any], path: str) -> None:
    outcome = tried(rule)

    assert isinstance(outcome, RefusedTrial)
    assert path in [error.path for error in outcome.errors]
    assert all(error.message for error in outcome.errors)


def test_an_event_that_would_not_be_accepted_is_refused_with_the_field() -> None:
    outcome = tried(manifest("a", **POSITIVE), session_id="none", data=[])

    assert isinstance(outcome, RefusedEvent)
    assert {fault.path for fault in outcome.faults} == {"$.session_id", "$.data"}
