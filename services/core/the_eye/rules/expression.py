"""CEL expressions: compiled with every name and type checked, evaluated to true, false or the kind of error it was.

``event.event_id`` and its like are variables with dots in their names. That makes a misspelt field an error of the
rule and not of each event, and CEL takes a time only as a variable of its own.
"""

import re
from functools import cache
from typing import TYPE_CHECKING

import msgspec
from cel_expr_python import cel
from cel_expr_python.ext import ext_optional, ext_strings

from the_eye.rules.manifest import cut

if TYPE_CHECKING:
    from typing import Any

    from the_eye.event import Event

VARIABLES = {
    "event.event_id": cel.Type.STRING,
    "event.session_id": cel.Type.STRING,
    "event.category": cel.Type.STRING,
    "event.name": cel.Type.STRING,
    "event.application": cel.Type.STRING,
    "event.timestamp": cel.Type.TIMESTAMP,
    "event.received_at": cel.Type.TIMESTAMP,
    "event.data": cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
}
"""What expressions know, by name."""


class InvalidExpression(msgspec.Struct, frozen=True):
    """An expression that is not CEL, or not about events."""

    message: str


class EvaluationError(msgspec.Struct, frozen=True):
    """An expression that came to no answer for an event."""

    message: str
    """The kind of the error in general words: CEL's own text can repeat values of the event."""


class Expression:
    """A compiled expression; safe to evaluate in several threads at once."""

    def __init__(self, compiled: cel.Expression) -> None:
        self._compiled = compiled

    def evaluate(self, activation: cel.Activation) -> bool | EvaluationError:
        """Tell whether the expression is true of the event; never raises."""
        try:
            outcome = self._compiled.eval(activation)
            value = outcome.value()
            if isinstance(value, bool):
                return value
            text = str(value) if outcome.type() == cel.Type.ERROR else "no bool"
        except Exception as error:  # noqa: BLE001 - whatever it is, it concerns this expression alone
            text = str(error) or type(error).__name__
        if text.startswith("INVALID_ARGUMENT: Integer value"):
            return BEYOND_64_BITS
        return EvaluationError(next(words for part, words in _KINDS if part in text))


BEYOND_64_BITS = EvaluationError("a whole number has more than 64 bits")
"""CEL's integers have 64 bits: the caller may try again with a number that is rounded."""

_TOO_MUCH_MEMORY = "it takes more memory than there is"

_KINDS = (
    ("NOT_FOUND", "a key is missing"),
    ("No matching overload", "an operation does not take a value of this type"),
    ("non-message type", "a field is asked of something that has no fields"),
    ("Index error", "a list has no such index"),
    ("by zero", "division by zero"),
    ("Iteration budget", "it takes too many steps"),
    ("regular expression", "a regular expression is not valid"),
    ("optional.none()", "the value of an empty optional is asked for"),
    ("onver", "a value cannot be converted"),  # conversion, cannot convert
    ("out of range", "a number or an index is out of range"),
    ("OUT_OF_RANGE", "a number is out of range"),
    ("Timestamp", "a time is out of range"),
    ("bad_alloc", _TOO_MUCH_MEMORY),
    ("MemoryError", _TOO_MUCH_MEMORY),
    ("no bool", "the result is neither true nor false"),
    ("", "it cannot be evaluated"),
)


def compile_expression(text: str) -> Expression | InvalidExpression:
    """Compile an expression, or say with line and column what is wrong with it; never raises."""
    if always := _ALWAYS_THERE.search(text):
        return InvalidExpression(f"{always[1]} is always there: has() is for keys of event.data")
    try:
        compiled = _environment().compile(text)
    except Exception as error:  # noqa: BLE001 - CEL raises RuntimeError, and ValueError for text it cannot encode
        return InvalidExpression(cut(_cleaned(str(error))))
    if compiled.return_type() not in (cel.Type.BOOL, cel.Type.DYN):
        return InvalidExpression(f"an expression gives a bool, this one gives {compiled.return_type().name().lower()}")
    for pattern in _LITERAL_PATTERN.finditer(text):
        if _is_no_regular_expression(pattern[1]):
            return InvalidExpression(cut(f"not a regular expression of RE2: {pattern[1]}"))
    return Expression(compiled)


# has() of a variable with a dotted name gives its value instead of true, which no author would understand.
_ALWAYS_THERE = re.compile(rf"\bhas\(\s*({'|'.join(map(re.escape, VARIABLES))})\s*\)")

# CEL looks at a regular expression only when it is used; a literal one can be tried out beforehand.
_LITERAL_PATTERN = re.compile(r"""\.matches\(\s*([rR]?(?:'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"))\s*\)""")


def _is_no_regular_expression(literal: str) -> bool:
    try:
        trial = _environment().compile(f"''.matches({literal})").eval(_environment().Activation({}))
    except RuntimeError:  # what looked like a call stands inside a text
        return False
    return trial.type() == cel.Type.ERROR


def activation_of(event: "Event", data: "dict[str, Any]") -> cel.Activation:
    """What expressions see of an event. One serves all expressions, in one thread.

    Raises an exception of CEL's choice for values that CEL cannot hold.
    """
    return _environment().Activation(
        {
            "event.event_id": str(event.event_id),
            "event.session_id": str(event.session_id),
            "event.category": event.category,
            "event.name": event.name,
            "event.application": event.application,
            "event.timestamp": event.timestamp,
            "event.received_at": event.received_at,
            "event.data": data,
        }
    )


@cache
def _environment() -> cel.Env:
    return cel.NewEnv(variables=VARIABLES, extensions=[ext_strings.ExtStrings(), ext_optional.ExtOptional()])


_LOCATED = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_MOST_ERRORS = 3


def _cleaned(text: str) -> str:
    """Turn CEL's report, which repeats the expression under each error, into one line."""
    errors = dict.fromkeys(_located(*found) for found in _LOCATED.findall(text) if "<<nil>>" not in found[2])
    if errors:
        return "; ".join(list(errors)[:_MOST_ERRORS])
    if "recursion limit" in text:
        return _TOO_DEEP
    return text.partition("\n")[0].removeprefix("INVALID_ARGUMENT: ")


_TOO_DEEP = "nested too deeply: at most 32 levels"


def _located(line: str, column: str, problem: str) -> str:
    problem = problem.removesuffix(" [INVALID_ARGUMENT]").replace(" (in container '')", "")
    if "recursion depth" in problem:
        return _TOO_DEEP
    return problem if line.startswith("-") else f"{line}:{column}: {problem}"
