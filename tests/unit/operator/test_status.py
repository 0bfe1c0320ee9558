"""A rule's status: what each condition says and when, and that it is patched only when it says something else."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from tests.unit.operator.declaring import BROKEN, body, declared
from tests.unit.rules.making import cel

from the_eye.rules.manifest import FieldError
from the_eye.rules.ruleset import CompiledRule
from the_eye_operator.decision import Decision, compiled, decide
from the_eye_operator.declared import Declared, read_declared
from the_eye_operator.status import MAX_MESSAGE, Published, changes, condition_of, is_urgent, rfc3339, status_of
from the_eye_operator.workers import Running, WorkerView

NOW = datetime(2026, 3, 1, 12, 0, 30, 123456, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
ID = "shop/rule"
NOBODY = WorkerView()


def running(*generations: int | None) -> WorkerView:
    """Workers that run these generations of the sound rule; None stands for one that does not answer."""
    return WorkerView(tuple(_running(f"worker-{number}", generation) for number, generation in enumerate(generations)))


def _running(pod: str, generation: int | None) -> Running:
    if generation is None:
        return Running(pod, "", {})
    return Running(pod, "sha256:any", {ID: version(generation).digest})


def version(generation: int = 1) -> CompiledRule:
    """The sound rule, compiled."""
    return decided(declared(generation=generation)).ruleset.rules[0]


def decided(rule: Declared, *before: Declared) -> Decision:
    """What becomes of a rule, after what was in force before."""
    return decide([rule], decide(before, compiled(())).ruleset)


def published(decision: Decision) -> Published:
    """What is published once a decision is carried out."""
    return Published.of(decision.ruleset)


def status(
    rule: Declared,
    *before: Declared,
    workers: WorkerView | None = NOBODY,
    now: datetime = NOW,
    is_published: bool = True,
) -> dict[str, Any]:
    """The status of a rule of which other versions were in force before."""
    decision = decided(rule, *before)
    record = published(decision) if is_published else Published("sha256:earlier", {})
    return status_of(rule, decision.outcomes[rule.uid], record, workers, now)


def said(of: dict[str, Any]) -> dict[str, str]:
    """Each condition's status and reason, by its type."""
    return {condition["type"]: f"{condition['status']} {condition['reason']}" for condition in of["conditions"]}


def message(of: dict[str, Any], type_: str) -> str:
    text = condition_of(of, type_)["message"]
    assert isinstance(text, str)
    return text


def patched(rule: Declared, patch: dict[str, Any]) -> Declared:
    """The rule as it is read after a merge patch of its status."""
    fields = {**rule.status, **patch}
    return msgspec.structs.replace(rule, status={key: value for key, value in fields.items() if value is not None})


def test_a_rule_that_all_workers_run_is_ready() -> None:
    told = status(declared(generation=2), workers=running(2, 2))

    assert said(told) == {"Accepted": "True Accepted", "Programmed": "True Programmed", "Ready": "True Ready"}
    assert message(told, "Programmed") == message(told, "Ready") == "2/2 workers run generation 2"
    assert (told["observedGeneration"], told["inForceGeneration"]) == (2, 2)
    assert {condition["observedGeneration"] for condition in told["conditions"]} == {2}


def test_a_refused_rule_says_which_field_and_that_no_version_is_in_force() -> None:
    told = status(declared(**BROKEN), workers=running(None))

    assert said(told) == {
        "Accepted": "False InvalidExpression",
        "Programmed": "False NotInForce",
        "Ready": "False InvalidExpression",
    }
    assert message(told, "Accepted").startswith("spec.validations[0].expression: ")
    assert message(told, "Accepted").endswith("; no version is in force")
    assert (told["observedGeneration"], told["inForceGeneration"], told["ruleset"]) == (1, None, None)


def test_a_refused_edit_says_which_version_stays_in_force() -> None:
    told = status(declared(generation=3, **BROKEN), declared(generation=1), workers=running(1, 1))

    assert said(told) == {
        "Accepted": "False InvalidExpression",
        "Programmed": "False LastGoodVersion",
        "Ready": "False InvalidExpression",
    }
    assert message(told, "Accepted").endswith("; generation 1, the last good one, stays in force")
    assert message(told, "Programmed") == "2/2 workers run generation 1"
    assert (told["observedGeneration"], told["inForceGeneration"]) == (3, 1)


def test_a_refusal_of_any_length_fits_and_still_says_what_is_in_force() -> None:
    rule = declared(validations=[{"expression": f"nonsense_{'x' * 500}_{number}("} for number in range(30)])
    told = status(rule, declared())

    assert len(message(told, "Accepted")) <= MAX_MESSAGE + len("; ")
    assert message(told, "Accepted").endswith("…; generation 1, the last good one, stays in force")


def test_every_error_of_a_refusal_is_named() -> None:
    told = status(declared(validations=[{"expression": "nonsense("}, {"expression": "also("}]))

    assert "spec.validations[0].expression: " in message(told, "Accepted")
    assert "spec.validations[1].expression: " in message(told, "Accepted")


def test_a_rule_whose_ruleset_is_not_written_yet_is_not_programmed() -> None:
    told = status(declared(), workers=running(None), is_published=False)

    assert said(told)["Programmed"] == said(told)["Ready"] == "False NotPublished"
    assert told["ruleset"] is None


def test_without_a_worker_it_is_not_known_whether_it_is_programmed() -> None:
    told = status(declared())

    assert said(told)["Programmed"] == said(told)["Ready"] == "Unknown NoWorkers"


@pytest.mark.parametrize("workers", [running(2, 1), running(2, None)])
def test_a_rule_that_a_worker_does_not_run_yet_is_not_programmed(workers: WorkerView) -> None:
    told = status(declared(generation=2), workers=workers)

    assert said(told)["Programmed"] == said(told)["Ready"] == "False WorkersBehind"
    assert message(told, "Ready") == "1/2 workers run generation 2"


def test_a_rule_that_is_paused_as_it_is_stays_ready() -> None:
    told = status(declared(paused=True), declared(), workers=running(1))

    assert said(told) == {
        "Accepted": "True Accepted",
        "Programmed": "True Programmed",
        "Ready": "True Ready",
        "Paused": "True Paused",
    }
    assert message(told, "Paused") == "the annotation the-eye.io/paused is set: generation 1 stays in force"


def test_an_edit_of_a_paused_rule_is_not_ready() -> None:
    """Or whoever waits for Ready would take it for what workers run."""
    told = status(declared(generation=2, paused=True, **cel("false")), declared(), workers=running(1))

    assert said(told) == {
        "Accepted": "True Accepted",
        "Programmed": "False Paused",
        "Ready": "False Paused",
        "Paused": "True Paused",
    }
    assert message(told, "Accepted") == "the rule compiles, and waits for the end of the pause"
    assert message(told, "Ready") == "1/1 workers run generation 1"
    assert (told["observedGeneration"], told["inForceGeneration"]) == (2, 1)


def test_a_broken_edit_of_a_paused_rule_is_refused_already() -> None:
    told = status(declared(generation=2, paused=True, **BROKEN), declared(), workers=running(1))

    assert said(told) == {
        "Accepted": "False InvalidExpression",
        "Programmed": "False Paused",
        "Ready": "False InvalidExpression",
        "Paused": "True Paused",
    }
    assert message(told, "Accepted").endswith("; generation 1, the last good one, stays in force")


def test_a_rule_that_was_paused_from_the_beginning_is_not_in_force() -> None:
    told = status(declared(paused=True), workers=running(None))

    assert said(told) == {
        "Accepted": "True Accepted",
        "Programmed": "False NotInForce",
        "Ready": "False NotInForce",
        "Paused": "True Paused",
    }
    assert message(told, "Paused") == "the annotation the-eye.io/paused is set: no version is in force"


def test_while_nobody_can_look_at_the_workers_nothing_is_known_of_them() -> None:
    told = status(declared(), workers=None)

    assert said(told)["Programmed"] == said(told)["Ready"] == "Unknown WorkersUnknown"
    assert said(told)["Accepted"] == "True Accepted"


def test_a_ruleset_that_holds_a_namesake_does_not_hold_the_rule() -> None:
    """A rule that was deleted and made again counts its generations from one again."""
    rule = declared(uid="again", **cel("false"))
    told = status_of(rule, decided(rule).outcomes["again"], published(decided(declared())), running(1), NOW)

    assert said(told)["Programmed"] == "False NotPublished"


def test_conditions_of_others_stay() -> None:
    """A patch replaces the whole list."""
    theirs = {"type": "Reviewed", "status": "True", "reason": "Looked", "message": "by the team"}
    rule = read_declared(body(status={"conditions": [theirs]}))
    told = status(rule)
    read = patched(rule, changes(rule, told))

    assert condition_of(told, "Reviewed") == theirs
    assert changes(read, status(read, now=LATER)) == {}


def test_a_rule_that_is_paused_no_more_does_not_say_so() -> None:
    known = status(declared(paused=True))

    assert "Paused" not in said(status(patched(declared(), known)))


@pytest.mark.parametrize(
    "rule", [declared(), declared(**BROKEN), declared(paused=True)], ids=["sound", "broken", "paused"]
)
@pytest.mark.parametrize("workers", [NOBODY, running(1), running(1, None)], ids=["none", "one", "one of two"])
def test_what_was_patched_and_read_back_is_no_change(rule: Declared, workers: WorkerView) -> None:
    wanted = status(rule, workers=workers)
    first = changes(rule, wanted)
    read = patched(rule, first)

    assert first != {}
    assert changes(read, status(read, workers=workers, now=LATER)) == {}


def test_a_status_holds_only_what_json_holds() -> None:
    told = status(declared(generation=2), workers=running(2))

    assert msgspec.json.decode(msgspec.json.encode(told)) == told


def test_only_what_changed_is_patched() -> None:
    rule = patched(declared(), status(declared(), workers=running(1)))

    assert changes(rule, status(rule, workers=running(1, None))).keys() == {"conditions"}


def test_what_others_say_in_a_status_is_left_alone() -> None:
    rule = patched(declared(), {"backtest": {"state": "Done"}, "audit": {"events": 1}})

    assert not {"backtest", "audit"} & changes(rule, status(rule)).keys()


def test_a_field_that_is_not_true_any_more_is_deleted() -> None:
    rule = patched(declared(**BROKEN), {"inForceGeneration": 4, "ruleset": "sha256:gone"})

    change = changes(rule, status(rule))

    assert (change["inForceGeneration"], change["ruleset"]) == (None, None)


def test_a_transition_has_its_time_in_whole_seconds() -> None:
    assert condition_of(status(declared()), "Accepted")["lastTransitionTime"] == "2026-03-01T12:00:30Z"


def test_the_time_of_a_transition_stays_while_the_condition_s_status_does() -> None:
    rule = patched(declared(), status(declared(), workers=running(1, None), now=NOW))

    behind = status(rule, workers=running(None, None), now=LATER)
    ready = status(rule, workers=running(1, 1), now=LATER)

    assert condition_of(behind, "Programmed")["lastTransitionTime"] == rfc3339(NOW)
    assert condition_of(ready, "Programmed")["lastTransitionTime"] == rfc3339(LATER)
    assert condition_of(ready, "Accepted")["lastTransitionTime"] == rfc3339(NOW)


def test_the_ruleset_is_the_first_that_held_the_version_in_force() -> None:
    """Of later ones that changed other rules it says nothing: each edit of one rule would be a patch of all."""
    rule = declared()
    decision = decided(rule)
    outcome = decision.outcomes["rule"]
    first = status_of(rule, outcome, Published("sha256:1", {ID: version(1)}), NOBODY, NOW)
    second = status_of(patched(rule, first), outcome, Published("sha256:2", {ID: version(1)}), NOBODY, NOW)

    assert (first["ruleset"], second["ruleset"]) == ("sha256:1", "sha256:1")
    assert changes(patched(rule, first), second) == {}


def test_an_edit_names_the_ruleset_that_holds_it() -> None:
    first = patched(
        declared(),
        status_of(
            declared(), decided(declared()).outcomes["rule"], Published("sha256:1", {ID: version(1)}), NOBODY, NOW
        ),
    )
    edited = patched(declared(generation=2), dict(first.status))

    told = status_of(edited, decided(edited).outcomes["rule"], Published("sha256:2", {ID: version(2)}), NOBODY, NOW)

    assert told["ruleset"] == "sha256:2"


def test_a_new_verdict_is_urgent() -> None:
    rule = patched(declared(), status(declared()))
    edited = patched(declared(generation=2, **BROKEN), dict(rule.status))

    assert is_urgent(edited, changes(edited, status(edited, declared())))


def test_a_condition_that_comes_true_is_urgent() -> None:
    rule = patched(declared(), status(declared(), workers=running(1, None)))

    assert is_urgent(rule, changes(rule, status(rule, workers=running(1, 1))))


def test_how_many_workers_there_are_is_not_urgent() -> None:
    rule = patched(declared(), status(declared(), workers=running(1, 1)))
    change = changes(rule, status(rule, workers=running(1, 1, 1)))

    assert change != {}
    assert not is_urgent(rule, change)


def test_no_change_is_not_urgent() -> None:
    assert not is_urgent(declared(), {})


def test_a_status_that_someone_else_damaged_is_put_right() -> None:
    rule = read_declared(body(status={"conditions": [{"type": "Accepted"}], "observedGeneration": 1}))
    told = status(rule)

    assert said(told)["Accepted"] == "True Accepted"
    assert condition_of(told, "Accepted")["lastTransitionTime"] == rfc3339(NOW)


def test_a_condition_that_is_not_there_is_empty() -> None:
    assert condition_of({}, "Accepted") == condition_of({"conditions": None}, "Accepted") == {}


def test_the_reason_of_a_refusal_is_that_of_its_first_error() -> None:
    rule = declared()
    outcome = msgspec.structs.replace(
        decided(rule).outcomes["rule"],
        errors=(FieldError("spec", "TooLarge", "too large"), FieldError("spec", "Other", "other")),
    )

    told = status_of(rule, outcome, Published("sha256:1", {ID: version(1)}), NOBODY, NOW)

    assert said(told)["Accepted"] == "False TooLarge"
