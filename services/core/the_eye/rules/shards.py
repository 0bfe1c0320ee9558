"""How the operator hands a ruleset to workers: its rules in shards, and an index that names them.

A shard is a file that is named for the SHA-256 of its bytes, a slot the ConfigMap that holds it, and ``index.json``
says which shards make up which ruleset. Kubelets fetch ConfigMaps one by one, so that an index and a shard of
different rulesets may lie side by side; a name that is a hash makes that visible. Whoever writes a new layout writes
each slot's new shard beside the old one first, then the index, and only then removes what no index names any more:
so every index that can be read has its shards.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal, Self, TypeAlias

import msgspec
from msgspec import Meta

from the_eye.rules.assembly import Problem
from the_eye.rules.manifest import API_VERSION, FieldError, Manifest, RefusedManifest, ValidatorRule, read_manifest
from the_eye.rules.ruleset import CompiledRule, RefusedRule, RuleSet

INDEX = "index.json"

MAX_SHARDS = 32
"""The most slots; a worker's pod mounts every one of them."""

MAX_SHARD_BYTES = 512 * 1024
"""The largest shard: half of what a ConfigMap holds, because a slot holds the old one beside the new one."""

MAX_RULE_BYTES = 128 * 1024
"""The largest rule, as canonical JSON."""

_HEAD = b'{"apiVersion":"%s","kind":"ValidatorRuleList","items":[' % API_VERSION.encode()
_TAIL = b"]}"
_ROOM = MAX_SHARD_BYTES - len(_HEAD) - len(_TAIL)

MAX_RULESET_BYTES = MAX_SHARDS * (_ROOM - MAX_RULE_BYTES - 1)
"""The most that the rules of a ruleset come to, each as canonical JSON with a comma after it: about 12 MiB.

Within it no way of filling the slots can fail: where a rule finds no room, every slot has less room left than one
rule takes at most, and so the rules are beyond this bound already.
"""

_SHARD_NAME = r"^[0-9a-f]{64}\.json\Z"


class Shard(msgspec.Struct, frozen=True):
    """Some rules of a ruleset, as one file."""

    name: str
    content: bytes
    rules: Mapping[str, bytes]
    """The canonical JSON of each rule, by the rule's id."""

    @classmethod
    def of(cls, rules: Mapping[str, bytes]) -> Self:
        """Write the file that holds these rules; the same rules give the same bytes in whatever order."""
        ordered = dict(sorted(rules.items()))
        content = _HEAD + b",".join(ordered.values()) + _TAIL
        return cls(_name(content), content, ordered)


class Layout(msgspec.Struct, frozen=True):
    """A ruleset as it lies in ConfigMaps."""

    slots: Mapping[int, Shard] = {}
    """By the slot's number, from 0; a slot that holds nothing is not there."""
    index: bytes = b""
    """Empty where none has been written yet."""


class RuleSetIndex(msgspec.Struct, frozen=True, rename="camel"):
    """What ``index.json`` says. Fields that a newer operator adds are passed over."""

    api_version: Literal["the-eye.io/v1alpha1"]
    kind: Literal["RuleSetIndex"]
    revision: Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]
    """``RuleSet.revision`` of what the shards come to."""
    rules: Annotated[int, Meta(ge=0)]
    """How many."""
    shards: tuple[Annotated[str, Meta(pattern=_SHARD_NAME)], ...]
    """Their names; there are no others in the ruleset."""


class Fit(msgspec.Struct, frozen=True):
    """Which rules there is room for."""

    rules: tuple[CompiledRule, ...]
    """By id: what ``pack`` can take."""
    refused: tuple[RefusedRule, ...]
    """By id, with the reason ``TooLarge`` or ``RulesetFull``; an earlier version of such a rule may be in ``rules``."""


class Recovered(msgspec.Struct, frozen=True):
    """What could be read of ConfigMaps that hold a ruleset."""

    layout: Layout
    """With what is whole; ``pack`` puts right what is not."""
    rules: tuple[ValidatorRule, ...]
    """By id: the last good versions."""
    problems: tuple[Problem, ...]
    """What is missing or damaged. The rules in it are lost, and no others."""


def fit(candidates: Iterable[CompiledRule], last_good: Iterable[CompiledRule]) -> Fit:
    """Choose what of the candidates is put in force beside, or in the place of, the last good versions.

    ``last_good`` holds the versions in force of all rules that are still declared, the refused ones too: each stays
    unless its own candidate takes its place. So a rule in force never makes way for a new one; of the new ones the
    first by id have precedence.
    """
    choice = _Choice()
    for rule in sorted(last_good, key=lambda rule: rule.id):
        choice.offer(rule)
    # What makes room comes before what takes it.
    for rule in sorted(candidates, key=lambda rule: (rule.id not in choice.rules, choice.growth(rule) > 0, rule.id)):
        choice.offer(rule)
    return Fit(
        tuple(rule for _, rule in sorted(choice.rules.items())),
        tuple(refused for _, refused in sorted(choice.refused.items())),
    )


class _Choice:
    def __init__(self) -> None:
        self.rules: dict[str, CompiledRule] = {}
        self.refused: dict[str, RefusedRule] = {}
        self.room = MAX_RULESET_BYTES

    def growth(self, rule: CompiledRule) -> int:
        known = self.rules.get(rule.id)
        return _weight(rule.document) - (_weight(known.document) if known else 0)

    def offer(self, rule: CompiledRule) -> None:
        """Take the rule in the place of its earlier version, which stays when there is no room."""
        growth = self.growth(rule)
        if error := self._error(rule, growth):
            self.refused[rule.id] = RefusedRule(rule.id, rule.generation, (error,))
            return
        self.room -= growth
        self.rules[rule.id] = rule
        self.refused.pop(rule.id, None)

    def _error(self, rule: CompiledRule, growth: int) -> FieldError | None:
        size = len(rule.document)
        if size > MAX_RULE_BYTES:
            return FieldError("spec", "TooLarge", f"a rule has at most {MAX_RULE_BYTES} bytes of JSON, this one {size}")
        if growth > self.room:
            message = f"all rules together have at most {MAX_RULESET_BYTES} bytes of JSON; these {size} do not fit in"
            return FieldError("spec", "RulesetFull", message)
        return None


def _weight(document: bytes) -> int:
    return len(document) + 1  # the comma


def pack(ruleset: RuleSet, previous: Layout) -> Layout:
    """Lay a ruleset out so that little is written anew: a rule stays in its slot for as long as it fits there.

    What does not fit any more and what is new goes to the first slot with room. Holds whatever ``fit`` lets through;
    raises ValueError beyond that.
    """
    packing = _Packing()
    home = {rule: slot for slot, shard in sorted(previous.slots.items(), reverse=True) for rule in shard.rules}
    settled = {rule for shard in previous.slots.values() for rule in shard.rules.items()}
    documents = {rule.id: rule.document for rule in ruleset.rules}
    # The rules that have not changed find their room as it was: so it is the changed one that has to move.
    for rule in sorted(documents.items(), key=lambda rule: rule not in settled):
        packing.put(*rule, home.get(rule[0]))
    for rule in packing.homeless:
        packing.put_anywhere(*rule)
    slots = {slot: _shard(rules, previous.slots.get(slot)) for slot, rules in sorted(packing.slots.items())}
    return Layout(slots, _index(ruleset, slots.values()))


class _Packing:
    def __init__(self) -> None:
        self.slots: dict[int, dict[str, bytes]] = {}
        self.homeless: list[tuple[str, bytes]] = []
        self._room = dict.fromkeys(range(MAX_SHARDS), _ROOM)

    def put(self, rule: str, document: bytes, slot: int | None) -> None:
        if slot is not None and self._fits(document, slot):
            self._put(rule, document, slot)
        else:
            self.homeless.append((rule, document))

    def put_anywhere(self, rule: str, document: bytes) -> None:
        slot = next((slot for slot in self._room if self._fits(document, slot)), None)
        if slot is None:
            message = f"no slot has room for {rule}"
            raise ValueError(message)
        self._put(rule, document, slot)

    def _fits(self, document: bytes, slot: int) -> bool:
        return _weight(document) <= self._room.get(slot, 0)

    def _put(self, rule: str, document: bytes, slot: int) -> None:
        self.slots.setdefault(slot, {})[rule] = document
        self._room[slot] -= _weight(document)


def _shard(rules: Mapping[str, bytes], previous: Shard | None) -> Shard:
    return previous if previous and previous.rules == rules else Shard.of(rules)


def _index(ruleset: RuleSet, shards: Iterable[Shard]) -> bytes:
    names = tuple(shard.name for shard in shards)
    index = RuleSetIndex("the-eye.io/v1alpha1", "RuleSetIndex", ruleset.revision, len(ruleset.rules), names)
    return msgspec.json.encode(index)


def read_layout(slots: Mapping[int, Mapping[str, bytes]], index: bytes | None) -> Recovered:
    """Recover what is in force from the files in each slot, and the index where there is one.

    What the index does not name is passed over: it was never in force, or is no more. Without an index that can be
    read everything counts that is whole, and of two versions of a rule that with the higher generation: a version that
    was accepted is better than none.
    """
    recovery = _Recovery()
    for slot, name in recovery.places(slots, index):
        recovery.read(slot, name, slots[slot][name])
    rules = tuple(rule for _, rule in sorted(recovery.rules.items()))
    return Recovered(Layout(recovery.slots, index or b""), rules, tuple(recovery.problems))


class _Recovery:
    def __init__(self) -> None:
        self.slots: dict[int, Shard] = {}
        self.rules: dict[str, ValidatorRule] = {}
        self.problems: list[Problem] = []

    def places(self, slots: Mapping[int, Mapping[str, bytes]], index: bytes | None) -> list[tuple[int, str]]:
        """Tell where the shards are that count."""
        found = [(slot, name) for slot in sorted(slots) for name in sorted(slots[slot]) if is_shard_name(name)]
        if index is None and not found:
            return []
        read = read_index(index)
        if isinstance(read, Problem):
            self.problems.append(read)
            return found
        missing = [name for name in read.shards if name not in {name for _, name in found}]
        self.problems.extend(_invalid(name, _MISSING) for name in missing)
        return [(slot, name) for slot, name in found if name in read.shards]

    def read(self, slot: int, name: str, content: bytes) -> None:
        shard = read_shard(name, content)
        if isinstance(shard, Problem):
            self.problems.append(shard)
            return
        self.slots.setdefault(slot, shard)
        for manifest in manifests_of(shard):
            self._take(shard, manifest)

    def _take(self, shard: Shard, manifest: Manifest) -> None:
        if isinstance(manifest, RefusedManifest):
            self.problems.extend(
                Problem(shard.name, manifest.id or f"document {manifest.document}", error) for error in manifest.errors
            )
            return
        known = self.rules.get(manifest.id)
        if known is None or manifest.metadata.generation > known.metadata.generation:
            self.rules[manifest.id] = manifest


ShardFiles: TypeAlias = Mapping[str, bytes | Problem]
"""Files by their name; a Problem stands for what could not be read."""

_MISSING = "it is missing"

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def is_shard_name(name: str) -> bool:
    """Whether a file can only be a shard."""
    return re.match(_SHARD_NAME, name) is not None


def is_index(content: bytes) -> bool:
    """Whether a file says of itself that it is an index, readable otherwise or not."""
    try:
        return msgspec.json.decode(content, type=_Kind).kind == "RuleSetIndex"
    except _UNREADABLE:
        return False


class _Kind(msgspec.Struct, frozen=True):
    kind: str


def read_index(content: bytes | Problem | None) -> RuleSetIndex | Problem:
    """Read ``index.json``; None where there is no such file."""
    if content is None:
        return _invalid(INDEX, _MISSING)
    if isinstance(content, Problem):
        return content
    try:
        return msgspec.json.decode(content, type=RuleSetIndex)
    except _UNREADABLE as error:
        return _invalid(INDEX, f"it is no index of a ruleset: {error}")


def read_shards(index: RuleSetIndex, files: ShardFiles) -> tuple[Shard, ...] | Problem:
    """Read all shards that an index names; the first thing that is missing or damaged makes the whole unusable."""
    shards: list[Shard] = []
    for name in index.shards:
        shard = read_shard(name, files.get(name, _invalid(name, _MISSING)))
        if isinstance(shard, Problem):
            return shard
        shards.append(shard)
    revision = _revision(shards)
    if revision != index.revision:
        return _invalid(INDEX, f"its shards are {revision}, not {index.revision}")
    return tuple(shards)


def read_shard(name: str, content: bytes | Problem) -> Shard | Problem:
    """Read a shard whose bytes are what its name says."""
    if isinstance(content, Problem):
        return content
    if _name(content) != name:
        return _invalid(name, "its SHA-256 is not its name")
    try:
        items = msgspec.json.decode(content, type=_ShardFile).items
        return Shard(name, content, {msgspec.json.decode(item, type=_Item).metadata.id: bytes(item) for item in items})
    except _UNREADABLE as error:
        return _invalid(name, f"it is no list of rules: {error}")


def manifests_of(shard: Shard, known: Mapping[bytes, ValidatorRule] = {}) -> Iterator[Manifest]:
    """Read a shard's rules, apart from those that are known already, by their canonical JSON.

    Those that another version of this software wrote may be refused.
    """
    for number, document in enumerate(shard.rules.values(), 1):
        yield known.get(document) or _manifest(number, document)


def _manifest(number: int, document: bytes) -> Manifest:
    try:
        value = msgspec.json.decode(document)
    except _UNREADABLE as error:
        return RefusedManifest(None, number, (FieldError("", "InvalidSyntax", str(error)),))
    return read_manifest(value, document=number)


class _ShardFile(msgspec.Struct, frozen=True):
    items: list[msgspec.Raw]


class _Metadata(msgspec.Struct, frozen=True):
    namespace: str
    name: str

    @property
    def id(self) -> str:
        return f"{self.namespace}/{self.name}"


class _Item(msgspec.Struct, frozen=True):
    metadata: _Metadata


def _revision(shards: Iterable[Shard]) -> str:
    """``RuleSet.revision``, of rules that need not be what this version of the software would write."""
    rules = sorted(rule for shard in shards for rule in shard.rules.items())
    document = b",".join(document for _, document in rules)
    framed = b'{"apiVersion":"%s","kind":"RuleSet","rules":[%s]}' % (API_VERSION.encode(), document)
    return f"sha256:{hashlib.sha256(framed).hexdigest()}"


def _name(content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()}.json"


def _invalid(file: str, message: str) -> Problem:
    return Problem(file, "", FieldError("", "InvalidFile", message))
