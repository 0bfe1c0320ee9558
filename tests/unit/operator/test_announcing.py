"""Kubernetes Events: what is news, said once, within Kubernetes' bounds."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from lightkube.models.core_v1 import ObjectReference
from tests.unit.operator.declaring import declared

from the_eye_operator.announcing import MAX_NOTE, announcement
from the_eye_operator.declared import Declared


def change(reason: str = "Accepted", message: str = "the rule compiles", generation: int = 1) -> dict[str, Any]:
    """A change of a status that says something of the rule's acceptance."""
    truth = {"Accepted": "True", "Paused": "Unknown"}.get(reason, "False")
    accepted = {"type": "Accepted", "status": truth, "reason": reason, "message": message}
    return {"conditions": [{**accepted, "observedGeneration": generation}, {"type": "Ready", "status": "True"}]}


def name(rule: Declared, what: dict[str, Any]) -> str:
    """The name of the Event."""
    event = announcement(rule, what)
    assert event is not None
    assert event.metadata is not None
    assert event.metadata.name is not None
    return event.metadata.name


def test_an_acceptance_is_told_of_the_rule() -> None:
    event = announcement(declared("a", uid="u", version=7, generation=3), change(generation=3))

    assert event is not None
    assert (event.type, event.reason, event.message) == ("Normal", "Accepted", "generation 3: the rule compiles")
    assert event.involvedObject == ObjectReference(
        apiVersion="the-eye.io/v1alpha1", kind="ValidatorRule", namespace="shop", name="a", uid="u", resourceVersion="7"
    )
    assert event.metadata is not None
    assert event.metadata.namespace == "shop"
    assert event.count == 1
    assert event.firstTimestamp == event.lastTimestamp
    assert isinstance(event.firstTimestamp, datetime)
    assert abs((datetime.now(UTC) - event.firstTimestamp).total_seconds()) < 60


def test_a_refusal_is_a_warning_with_its_reason() -> None:
    event = announcement(declared(), change("InvalidExpression", "spec.validations[0]: no such thing"))

    assert event is not None
    assert (event.type, event.reason) == ("Warning", "InvalidExpression")
    assert event.message == "generation 1: spec.validations[0]: no such thing"


@pytest.mark.parametrize(
    "what",
    [{}, {"ruleset": "sha256:x"}, {"conditions": [{"type": "Ready", "status": "True"}]}, change("Paused", "paused")],
)
def test_what_says_nothing_of_acceptance_is_no_news(what: dict[str, Any]) -> None:
    assert announcement(declared(), what) is None


def test_what_the_status_says_already_is_no_news() -> None:
    assert announcement(declared(status=change()), change()) is None


@pytest.mark.parametrize("what", [change(generation=2), change("TooLarge"), change(message="the rule compiles anew")])
def test_what_the_status_does_not_say_yet_is_news(what: dict[str, Any]) -> None:
    assert announcement(declared(generation=2, status=change()), what) is not None


def test_the_same_news_has_the_same_name() -> None:
    """A second operator, or the same after a failure, says it once."""
    once, again = declared(version=1), declared(version=2, status={"ruleset": "sha256:x"})

    assert name(once, change()) == name(again, change())


def test_other_news_has_another_name() -> None:
    rule = declared()
    names = {
        name(rule, change()),
        name(rule, change(message="something else")),
        name(declared(generation=2), change()),
        name(declared(uid="another"), change()),
    }

    assert len(names) == 4


def test_a_name_of_any_length_is_one_that_kubernetes_takes() -> None:
    first, second = (name(declared("a" * 252 + end), change()) for end in "bc")

    assert len(first) <= 253
    assert first != second


@pytest.mark.parametrize("long", ["a" * 199 + ".b", "a" * 199 + "-b", "a" * 197 + "--.b"])
def test_a_name_that_is_cut_is_still_a_name(long: str) -> None:
    """No part of it ends in a hyphen, or is empty."""
    parts = name(declared(long), change()).split(".")

    assert all(part and part[0] != "-" and part[-1] != "-" for part in parts)


def test_a_message_of_any_length_is_cut() -> None:
    event = announcement(declared(), change("InvalidField", "x" * 5000))

    assert event is not None
    assert event.message is not None
    assert len(event.message) == MAX_NOTE
    assert event.message.endswith("…")


def test_an_event_is_json() -> None:
    event = announcement(declared(), change())

    assert event is not None
    assert msgspec.json.encode(event.to_dict())
