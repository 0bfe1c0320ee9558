"""Kubernetes Events that tell of acceptance and refusal, for ``kubectl describe``."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from lightkube.models.core_v1 import EventSource, ObjectReference
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Event

from the_eye.rules.manifest import API_VERSION
from the_eye_operator.declared import Declared
from the_eye_operator.status import condition_of

COMPONENT = "the-eye-operator"

MAX_NOTE = 1024
"""Characters of an Event's message; Kubernetes' bound."""

MAX_NAME = 200


def announcement(rule: Declared, change: Mapping[str, Any]) -> Event | None:
    """Tell of what a change of status says that is news: that a version was accepted or refused.

    The Event's name follows from what it says, so that a second operator, or the same after a restart, says it once.
    """
    new, old = condition_of(change, "Accepted"), condition_of(rule.status, "Accepted")
    if new.get("reason") in (None, "Paused") or _said(new) == _said(old):
        return None
    accepted = new["status"] == "True"
    text = f"generation {rule.generation}: {new['message']}"
    now = datetime.now(UTC)
    name = rule.name[:MAX_NAME].rstrip("-.")  # neither may come before a dot
    return Event(
        metadata=ObjectMeta(name=f"{name}.{_digest(rule.uid, text)}", namespace=rule.namespace),
        involvedObject=ObjectReference(
            apiVersion=API_VERSION,
            kind="ValidatorRule",
            namespace=rule.namespace,
            name=rule.name,
            uid=rule.uid,
            resourceVersion=str(rule.resource_version),
        ),
        type="Normal" if accepted else "Warning",
        reason="Accepted" if accepted else new["reason"],
        message=text if len(text) <= MAX_NOTE else text[: MAX_NOTE - 1] + "…",
        source=EventSource(component=COMPONENT),
        reportingComponent=COMPONENT,
        reportingInstance=COMPONENT,
        firstTimestamp=now,
        lastTimestamp=now,
        count=1,
    )


def _said(condition: Mapping[str, Any]) -> tuple[Any, ...]:
    return condition.get("observedGeneration"), condition.get("reason"), condition.get("message")


def _digest(uid: str, text: str) -> str:
    return hashlib.sha256(f"{uid} {text}".encode()).hexdigest()[:16]
