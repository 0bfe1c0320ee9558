"""The rules of a directory as another process has read them, for who shows them and judges nothing.

Nothing here loads CEL or a schema library: what reads and compiles is ``the_eye.rules.read_listing``.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from the_eye.rules.manifest import FailurePolicy, FieldError, Match, ValidatorRule
from the_eye.verdict import Action

PROGRAM = "the_eye.rules.read_listing"
"""A ReadRequest as JSON on its standard input; a Head on its standard output, and a ListedRule a line."""


MAX_PROBLEMS = 100
"""Problems that are told of by themselves."""


class ReadRequest(msgspec.Struct, frozen=True):
    """What to read."""

    directory: str
    wait_seconds: float
    """How long a ruleset in shards may take to be whole."""
    processor_seconds: int
    memory_bytes: int


class ListedProblem(msgspec.Struct, frozen=True):
    """One thing that is wrong with a file, or with one of its rules."""

    file: str
    rule: str
    """``namespace/name``; ``document N`` where a name could not be read; empty when it is the whole file."""
    error: FieldError


class Head(msgspec.Struct, frozen=True):
    """What precedes the rules."""

    revision: str
    """Of the sound rules together."""
    problems: tuple[ListedProblem, ...] = ()
    """The first of them, up to MAX_PROBLEMS."""
    problem_count: int = 0
    failure: str = ""
    """Why nothing of the directory could be read."""


class ListedRule(msgspec.Struct, frozen=True):
    """A sound rule."""

    id: str
    """``namespace/name``."""
    generation: int
    file: str
    match: Match
    action: Action
    failure_policy: FailurePolicy
    has_schema: bool
    validations: int
    document: msgspec.Raw
    """The rule as canonical JSON."""

    @property
    def text(self) -> str:
        """What it is found by, in lower case."""
        return "\n".join((self.id, self.match.category, self.match.name, *self.match.applications)).lower()

    def manifest(self) -> ValidatorRule:
        """Read the document."""
        return msgspec.json.decode(self.document, type=ValidatorRule)


class Listing(msgspec.Struct, frozen=True):
    """All of it."""

    head: Head
    rules: tuple[ListedRule, ...]
    """By id."""


def read_lines(lines: Iterable[bytes]) -> Listing:
    """Read what the process wrote. Raises msgspec.DecodeError for what is cut off."""
    head, *rules = (line for line in lines if line)
    return Listing(_head(head), tuple(map(_rule, rules)))


_head = msgspec.json.Decoder(Head).decode
_rule = msgspec.json.Decoder(ListedRule).decode


def plain_manifest(rule: ValidatorRule) -> dict[str, Any]:
    """Give what an author of the rule would write: without what Kubernetes keeps and what is the default anyway."""
    spec = msgspec.to_builtins(rule.spec)
    spec["match"] = {
        name: value for name, value in spec["match"].items() if value != msgspec.to_builtins(getattr(Match(), name))
    }
    if not spec.get("validations"):
        spec.pop("validations", None)
    metadata = {"name": rule.metadata.name, "namespace": rule.metadata.namespace}
    return {"apiVersion": rule.api_version, "kind": rule.kind, "metadata": metadata, "spec": spec}
