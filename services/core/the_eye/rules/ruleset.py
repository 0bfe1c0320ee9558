"""A ruleset: what is compiled of the accepted rules, and the judging of events by it.

One ruleset never changes; a new one shares with its predecessor whatever was compiled of unchanged rules.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import cached_property
from typing import Any

import msgspec

from the_eye.event import Event, decode_data, json_path
from the_eye.rules.expression import (
    BEYOND_64_BITS,
    EvaluationError,
    Expression,
    InvalidExpression,
    activation_of,
    compile_expression,
)
from the_eye.rules.manifest import API_VERSION, FailurePolicy, FieldError, Match, Validation, ValidatorRule, cut
from the_eye.rules.match import Index
from the_eye.rules.schema import InvalidSchema, Schema, compile_schema
from the_eye.verdict import Action, Verdict, Violation

FUTURE_TIMESTAMP = "the-eye/future-timestamp"
UNREADABLE_DATA = "the-eye/unreadable-data"
"""Judges what the edge never lets through; it is here so that judging cannot fail."""

OnIgnored = Callable[[str], object]


class RefusedRule(msgspec.Struct, frozen=True):
    """A rule that is not in the ruleset, and why."""

    id: str
    generation: int
    errors: tuple[FieldError, ...]


class CompiledRule(msgspec.Struct, frozen=True, eq=False):
    """A rule in force."""

    manifest: ValidatorRule
    document: bytes
    """The rule as canonical JSON."""
    schema: Schema | None
    expressions: tuple[tuple[Expression, str], ...]
    """With what a violation of each says."""

    @property
    def id(self) -> str:
        """``namespace/name``."""
        return self.manifest.id

    @property
    def digest(self) -> str:
        """SHA-256 of the document: two rules with the same one are the same in all that matters."""
        return hashlib.sha256(self.document).hexdigest()

    @property
    def generation(self) -> int:
        """Of the spec, as Kubernetes counts."""
        return self.manifest.metadata.generation

    @property
    def action(self) -> Action:
        """What a violation does to its event."""
        return self.manifest.spec.action

    @property
    def match(self) -> Match:
        """Which events the rule is for."""
        return self.manifest.spec.match


class RuleSet:
    """The rules in force together. Safe to use in several threads at once."""

    def __init__(self, rules: Iterable[CompiledRule], future_tolerance: timedelta) -> None:
        self.rules = tuple(sorted(rules, key=lambda rule: rule.id))
        self.future_tolerance = future_tolerance
        self.document = b'{"apiVersion":"%s","kind":"RuleSet","rules":[%s]}' % (
            API_VERSION.encode(),
            b",".join(rule.document for rule in self.rules),
        )
        """The accepted rules as canonical JSON: the same rules give the same bytes."""
        self.digest = hashlib.sha256(self.document).digest()
        self.revision = f"sha256:{self.digest.hex()}"
        self._find = Index(self.rules).find
        self._future = (
            Violation(
                rule=FUTURE_TIMESTAMP,
                generation=1,
                action=Action.ENFORCE,
                path="$.timestamp",
                code="timestamp.future",
                message=f"timestamp is more than {future_tolerance.total_seconds():g} seconds after the arrival",
            ),
        )

    def judge(self, event: Event, *, on_ignored: OnIgnored | None = None) -> Verdict:
        """Check an event against all rules that match it; never raises.

        ``on_ignored`` is called with a rule's id for each of its checks that could not be evaluated and whose
        failure policy lets that pass.
        """
        late = event.timestamp - event.received_at > self.future_tolerance
        builtin: tuple[Violation, ...] = self._future if late else ()
        rules = self._find(event.category, event.name, event.application)
        if not rules:
            return Verdict(builtin) if builtin else _UNMATCHED
        subject = _Subject.of(event)
        if subject is None:
            return Verdict((*builtin, _UNREADABLE), matched=True)
        violations = builtin
        for rule in rules:
            violations += _violations(rule, subject, on_ignored or _ignore)
        return Verdict(violations, matched=True) if violations else _MATCHED


_UNMATCHED = Verdict()
_MATCHED = Verdict(matched=True)
_UNREADABLE = Violation(
    rule=UNREADABLE_DATA,
    generation=1,
    action=Action.ENFORCE,
    path="$.data",
    code="data.unreadable",
    message="data is not a JSON object",
)


def _ignore(_: str) -> None:
    pass


class Compilation(msgspec.Struct, frozen=True):
    """What became of a collection of rules."""

    ruleset: RuleSet
    refused: tuple[RefusedRule, ...] = ()


def empty_ruleset(*, future_tolerance: timedelta) -> RuleSet:
    """No declared rules; what is built in applies."""
    return RuleSet((), future_tolerance)


def compile_ruleset(
    rules: Iterable[ValidatorRule],
    *,
    future_tolerance: timedelta,
    previous: RuleSet | None = None,
) -> Compilation:
    """Compile what can be compiled; each rule that cannot is refused for itself.

    Of two rules with the same id the first counts. Rules that ``previous`` holds unchanged are taken from there.
    """
    known = {rule.document: rule for rule in previous.rules} if previous else {}
    accepted: dict[str, CompiledRule] = {}
    refused: list[RefusedRule] = []
    for rule in rules:
        outcome = _duplicate(rule) if rule.id in accepted else _compile(rule, known)
        if isinstance(outcome, CompiledRule):
            accepted[rule.id] = outcome
        else:
            refused.append(RefusedRule(rule.id, rule.metadata.generation, outcome))
    return Compilation(RuleSet(accepted.values(), future_tolerance), tuple(refused))


def _duplicate(rule: ValidatorRule) -> tuple[FieldError, ...]:
    return (FieldError("metadata.name", "Duplicate", f"there are two rules {rule.id}"),)


def _compile(rule: ValidatorRule, known: dict[bytes, CompiledRule]) -> CompiledRule | tuple[FieldError, ...]:
    document = msgspec.json.encode(rule, order="sorted")
    if document in known:
        return known[document]
    schema = compile_schema(rule.spec.schema) if isinstance(rule.spec.schema, dict) else None
    compiled = [compile_expression(validation.expression) for validation in rule.spec.validations]
    errors = (*_schema_errors(schema), *_expression_errors(compiled))
    if errors:
        return errors
    return CompiledRule(
        manifest=rule,
        document=document,
        schema=schema if isinstance(schema, Schema) else None,
        expressions=tuple(
            (expression, _message(validation))
            for expression, validation in zip(compiled, rule.spec.validations, strict=True)
            if isinstance(expression, Expression)
        ),
    )


def _message(validation: Validation) -> str:
    return cut(validation.message or f"not true: {validation.expression}")


def _schema_errors(schema: Schema | InvalidSchema | None) -> Iterator[FieldError]:
    if isinstance(schema, InvalidSchema):
        yield FieldError(cut(json_path("spec.schema", *schema.steps)), "InvalidSchema", schema.message)


def _expression_errors(compiled: list[Expression | InvalidExpression]) -> Iterator[FieldError]:
    for index, expression in enumerate(compiled):
        if isinstance(expression, InvalidExpression):
            yield FieldError(f"spec.validations[{index}].expression", "InvalidExpression", expression.message)


class _Subject:
    """An event under judgement: what is derived from it is derived once, and only when a rule asks."""

    def __init__(self, event: Event, data: dict[str, Any], schema_data: dict[str, Any]) -> None:
        self._event = event
        self._data = data
        self.schema_data = schema_data
        self.size = len(event.data)

    @classmethod
    def of(cls, event: Event) -> "_Subject | None":
        """Decode the event's data; None where that fails."""
        try:
            data, schema_data = _decoded(event.data)
        except (ValueError, RecursionError):
            return None
        return cls(event, data, schema_data) if isinstance(data, dict) else None

    @cached_property
    def activation(self) -> Any:
        return activation_of(self._event, self._data)

    @cached_property
    def rounded_activation(self) -> Any:
        """With numbers that CEL can hold."""
        return activation_of(self._event, _with_numbers(self._data, _within_64_bits))


def _decoded(raw: bytes) -> tuple[Any, Any]:
    try:
        data = _decode(raw)
    except msgspec.ValidationError:  # a number beyond a double
        data = decode_data(raw)
        return data, _with_numbers(data, _finite)
    return data, data


_decode = msgspec.json.Decoder().decode


def _with_numbers(value: Any, convert: Callable[[int | float], int | float]) -> Any:
    if isinstance(value, dict):
        return {key: _with_numbers(inner, convert) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_numbers(inner, convert) for inner in value]
    return convert(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _finite(number: int | float) -> int | float:  # noqa: PYI041 - as below
    """The schema library takes an infinity for no number at all; an integer of any size it compares rightly."""
    if abs(number) == _INFINITY:
        return _BEYOND_DOUBLE if number > 0 else -_BEYOND_DOUBLE
    return number


def _within_64_bits(number: int | float) -> int | float:  # noqa: PYI041 - the difference is what this is about
    if isinstance(number, float) or -(2**63) <= number < 2**64:
        return number
    if abs(number) >= _BEYOND_DOUBLE:
        return _INFINITY if number > 0 else -_INFINITY
    return float(number)


_INFINITY = float("inf")
_BEYOND_DOUBLE = 10**309


def _violations(rule: CompiledRule, subject: _Subject, on_ignored: OnIgnored) -> tuple[Violation, ...]:
    """Nearly always there are none: building nothing is what makes this fast."""
    violations = () if rule.schema is None else _schema_violations(rule, rule.schema, subject, on_ignored)
    for expression, message in rule.expressions:
        outcome = _evaluate(expression, subject)
        if isinstance(outcome, EvaluationError):
            text = cut(f"not evaluated ({outcome.message}): {message}")
            violations += _failed(rule, "expression.error", text, on_ignored)
        elif not outcome:
            violations += (_violation(rule, "$", "expression.false", message),)
    return violations


def _evaluate(expression: Expression, subject: _Subject) -> bool | EvaluationError:
    try:
        outcome = expression.evaluate(subject.activation)
        return expression.evaluate(subject.rounded_activation) if outcome is BEYOND_64_BITS else outcome
    except Exception:  # noqa: BLE001 - CEL cannot hold the data, which concerns no other check
        return EvaluationError("the event has values that CEL cannot hold")


def _schema_violations(
    rule: CompiledRule, schema: Schema, subject: _Subject, on_ignored: OnIgnored
) -> tuple[Violation, ...]:
    try:
        if schema.fits(subject.schema_data):
            return ()
        broken = schema.broken_by(subject.schema_data, subject.size)
    except Exception:  # noqa: BLE001 - the library cannot hold the data, which concerns no other check
        return _failed(rule, "schema.error", "the schema could not be evaluated for this event", on_ignored)
    return tuple(_violation(rule, place.path, f"schema.{place.keyword}", place.message) for place in broken)


def _failed(rule: CompiledRule, code: str, message: str, on_ignored: OnIgnored) -> tuple[Violation, ...]:
    if rule.manifest.spec.failure_policy is FailurePolicy.FAIL:
        return (_violation(rule, "$", code, message),)
    on_ignored(rule.id)
    return ()


def _violation(rule: CompiledRule, path: str, code: str, message: str) -> Violation:
    return Violation(
        rule=rule.id, generation=rule.generation, action=rule.action, path=path, code=code, message=message
    )
