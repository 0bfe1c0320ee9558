"""Events and rules with as much in them as a test needs."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from the_eye.event import Event
from the_eye.rules.manifest import ValidatorRule, read_manifest
from the_eye.rules.ruleset import RuleSet, compile_ruleset
from the_eye.verdict import Verdict

TOLERANCE = timedelta(minutes=5)
ARRIVAL = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def event(data: object = None, **fields: Any) -> Event:
    """An event that arrived the moment it occurred; ``data`` as JSON, or as bytes to be taken as they are."""
    raw = data if isinstance(data, bytes) else msgspec.json.encode({} if data is None else data)
    plain = Event(
        event_id=UUID("0195512b-7e14-7cc0-a3c1-8d6e3d9d6f10"),
        application_id=1,
        application="shop",
        session_id=UUID("e2085be5-9137-4e4e-80b5-f1ffddc25423"),
        category="page interaction",
        name="cta click",
        data=raw,
        timestamp=ARRIVAL,
        received_at=ARRIVAL,
    )
    return msgspec.structs.replace(plain, **fields)


def manifest(name: str = "rule", *, metadata: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """A manifest as an object; it matches every event unless ``match`` is given."""
    return {
        "apiVersion": "the-eye.io/v1alpha1",
        "kind": "ValidatorRule",
        "metadata": {"name": name, **(metadata or {})},
        "spec": {"match": {}, **spec},
    }


def rule(name: str = "rule", **fields: Any) -> ValidatorRule:
    """A rule that is known to be sound."""
    outcome = read_manifest(manifest(name, **fields))
    assert isinstance(outcome, ValidatorRule), outcome
    return outcome


def ruleset(*rules: ValidatorRule) -> RuleSet:
    """A ruleset of rules that all compile."""
    compilation = compile_ruleset(rules, future_tolerance=TOLERANCE)
    assert not compilation.refused, compilation.refused
    return compilation.ruleset


def schema(**properties: Any) -> dict[str, Any]:
    """A spec's schema for some properties of ``data``."""
    return {"schema": {"type": "object", "properties": properties}}


def cel(*expressions: str) -> dict[str, Any]:
    """A spec's validations."""
    return {"validations": [{"expression": expression} for expression in expressions]}


def found(verdict: Verdict) -> list[str]:
    """The place and the code of each violation."""
    return [f"{violation.path} {violation.code}" for violation in verdict.violations]
