"""The ValidatorRules as the cluster has them, kept current by watching and put right by listing."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec

from the_eye.rules.manifest import Manifest, read_manifest

PAUSED = "the-eye.io/paused"
BACKTEST = "the-eye.io/backtest"


class Declared(msgspec.Struct, frozen=True):
    """One ValidatorRule object."""

    uid: str
    namespace: str
    name: str
    generation: int
    resource_version: int
    manifest: Manifest
    paused: bool
    """Whether its author has frozen it at the version in force."""
    backtest: str
    """The window that was asked for, such as ``24h``; empty when none was."""
    status: Mapping[str, Any]

    @property
    def id(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"

    @property
    def wanted(self) -> tuple[object, ...]:
        """What its author asks for: once that changes, what was decided about it is out of date."""
        return self.generation, self.paused, self.backtest


def read_declared(body: Mapping[str, Any], earlier: Declared | None = None) -> Declared:
    """Read an object that the API server gave; of ``earlier``, the same object, what cannot have changed is kept."""
    metadata = body["metadata"]
    annotations = metadata.get("annotations") or {}
    generation = metadata.get("generation", 1)
    return Declared(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        generation=generation,
        # Comparable as numbers: the API promises it from Kubernetes 1.35 on, and etcd never gave anything else.
        resource_version=int(metadata["resourceVersion"]),
        manifest=earlier.manifest if earlier and earlier.generation == generation else read_manifest({**body}),
        paused=annotations.get(PAUSED, "").lower() == "true",
        backtest=annotations.get(BACKTEST, ""),
        status=body.get("status") or {},
    )


class DeclaredRules:
    """All of them, by uid. For one thread.

    A watch can miss a deletion: one that falls between two of its connections leaves no trace. So every now and then
    a list is laid over what was watched. What a list says may itself be older than what was watched meanwhile;
    therefore it begins with ``begin_list``.
    """

    def __init__(self) -> None:
        self.version = 0
        """Counted up whenever something changes that the ruleset may depend on."""
        self._rules: dict[str, Declared] = {}
        self._uids: dict[str, str] = {}
        """By the rule's id: there is one object of a name."""
        self._since_list: set[str] = set()
        """The uids of which news came since the last list began; of these the list knows nothing better."""

    def __len__(self) -> int:
        return len(self._rules)

    def all(self) -> tuple[Declared, ...]:
        """All rules, by id."""
        return tuple(sorted(self._rules.values(), key=lambda rule: rule.id))

    @property
    def uids(self) -> Collection[str]:
        """Of all rules."""
        return self._rules.keys()

    def get(self, uid: str) -> Declared | None:
        """One rule."""
        return self._rules.get(uid)

    def seen(self, body: Mapping[str, Any]) -> bool:
        """Take an object that was added or changed; false when nothing that matters is new about it."""
        uid = body["metadata"]["uid"]
        self._since_list.add(uid)
        known = self._rules.get(uid)
        if known is not None and known.resource_version >= int(body["metadata"]["resourceVersion"]):
            return False
        rule = read_declared(body, known)
        namesake = self._rules.get(self._uids.get(rule.id, uid))
        if namesake is not None and namesake.uid != uid:
            if namesake.resource_version >= rule.resource_version:
                return False
            self._forget(namesake.uid)  # its deletion went by unseen
        self._rules[uid] = rule
        self._uids[rule.id] = uid
        return self._changed(known is None or known.wanted != rule.wanted)

    def patched(self, body: Mapping[str, Any]) -> bool:
        """Take the answer to a patch: as ``seen``, but one that is not known any more was deleted meanwhile."""
        return body["metadata"]["uid"] in self._rules and self.seen(body)

    def gone(self, uid: str) -> bool:
        """Forget an object that was deleted; false when it was not known."""
        self._since_list.add(uid)
        return self._changed(self._forget(uid))

    def _forget(self, uid: str) -> bool:
        rule = self._rules.pop(uid, None)
        if rule is not None and self._uids.get(rule.id) == uid:
            del self._uids[rule.id]
        return rule is not None

    def _changed(self, changed: bool) -> bool:  # noqa: FBT001 - the condition itself
        self.version += changed
        return changed

    def begin_list(self) -> None:
        """Say that a list is about to be asked for."""
        self._since_list.clear()

    def end_list(self, bodies: Iterable[Mapping[str, Any]], unseen: Collection[str] = ()) -> int:
        """Take what the list said, but of the namespaces ``unseen``; returns how much of it no watch had told."""
        listed = {body["metadata"]["uid"]: body for body in bodies}
        vanished = [
            uid
            for uid, rule in self._rules.items()
            if uid not in listed and uid not in self._since_list and rule.namespace not in unseen
        ]
        for uid in vanished:
            self._changed(self._forget(uid))
        deleted_meanwhile = self._since_list - self._rules.keys()
        news = [self.seen(body) for uid, body in listed.items() if uid not in deleted_meanwhile]
        return len(vanished) + sum(news)
