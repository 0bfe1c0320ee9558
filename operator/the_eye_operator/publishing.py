"""The published ruleset: its ConfigMaps, which are the record of what is in force, and writing them."""

from collections.abc import Container, Mapping
from typing import Protocol

import structlog

from the_eye.rules.assembly import Problem
from the_eye.rules.manifest import ValidatorRule
from the_eye.rules.ruleset import RuleSet
from the_eye.rules.shards import (
    INDEX,
    MAX_SHARDS,
    Layout,
    is_shard_name,
    pack,
    read_layout,
    read_shard,
)
from the_eye_operator.decision import compiled

LABELS = {"app.kubernetes.io/name": "the-eye", "app.kubernetes.io/managed-by": "the-eye-operator"}

_log = structlog.get_logger(__name__)


class ConfigMaps(Protocol):
    """What is asked of the cluster here."""

    async def config_map(self, name: str) -> dict[str, str] | None:
        """Read a ConfigMap's data."""

    async def change_config_map(self, name: str, data: Mapping[str, str | None], labels: Mapping[str, str]) -> None:
        """Change keys of a ConfigMap."""


class Publisher:
    """Writes rulesets so that no reader sees half of one: new shards, then the index, and old shards go last."""

    def __init__(self, config_maps: ConfigMaps, name: str) -> None:
        self._config_maps = config_maps
        self._name = name
        self._in_force: RuleSet | None = None
        self.taken_over = 0
        """How often versions were taken over that another operator has published."""
        self._layout = Layout()
        self._present: dict[int, dict[str, bool]] = {}
        """The shards in each slot, and whether they are whole."""

    @property
    def is_loaded(self) -> bool:
        """Whether it is known what is in force."""
        return self._in_force is not None

    @property
    def in_force(self) -> RuleSet:
        """What was last published, with the last good version of each rule."""
        if self._in_force is None:
            message = "nothing is known before the first load()"
            raise RuntimeError(message)
        return self._in_force

    async def load(self, declared: Container[str] = ()) -> None:
        """Read what is published: to begin with, and from time to time, for others can write there as well.

        Of what another operator has published the newer versions are taken over, so that two agree in the end.
        ``declared`` are the uids of the rules that there are. Raises ClusterError.
        """
        index = (await self._config_maps.config_map(self._name) or {}).get(INDEX)
        slots = {slot: await self._config_maps.config_map(self.slot_name(slot)) or {} for slot in range(MAX_SHARDS)}
        shards = {
            slot: {name: text.encode() for name, text in data.items() if is_shard_name(name)}
            for slot, data in slots.items()
            if data
        }
        recovered = read_layout(shards, index.encode() if index is not None else None)
        self._present = {
            slot: {name: not isinstance(read_shard(name, content), Problem) for name, content in files.items()}
            for slot, files in shards.items()
        }
        for problem in recovered.problems:
            _log.warning("published_ruleset_damaged", problem=str(problem))
        self._layout = recovered.layout
        known = self._in_force.rules if self._in_force else ()
        newest = {rule.id: rule.manifest for rule in known}
        newer = [rule for rule in recovered.rules if _is_newer(rule, newest.get(rule.id), declared)]
        if newer or self._in_force is None:
            self.taken_over += 1
            self._in_force = compiled([*(newest | {rule.id: rule for rule in newer}).values()], self._in_force)

    def slot_name(self, slot: int) -> str:
        """Name the ConfigMap of a slot."""
        return f"{self._name}-{slot}"

    async def publish(self, ruleset: RuleSet) -> bool:
        """Write what is not written yet; tells whether the index changed.

        Raises ClusterError; what had been written until then does no harm, and is not written again.
        """
        layout = pack(ruleset, self._layout)
        for slot, shard in layout.slots.items():
            if not self._present.get(slot, {}).get(shard.name):
                await self._change(slot, {shard.name: shard.content.decode(), **self._leftovers(slot, shard.name)})
        changed = layout.index != self._layout.index
        if changed:
            await self._config_maps.change_config_map(self._name, {INDEX: layout.index.decode()}, LABELS)
        self._layout, self._in_force = layout, ruleset
        return changed

    async def tidy(self) -> None:
        """Remove the shards that the index does not name any more.

        Raises ClusterError.
        """
        for slot in self._present:
            if leftovers := self._leftovers(slot):
                await self._change(slot, leftovers)

    def _leftovers(self, slot: int, *kept: str) -> dict[str, str | None]:
        named = self._layout.slots.get(slot)
        needed = {*kept, *([named.name] if named else [])}
        return {name: None for name in self._present.get(slot, {}) if name not in needed}

    async def _change(self, slot: int, data: Mapping[str, str | None]) -> None:
        await self._config_maps.change_config_map(self.slot_name(slot), data, LABELS)
        present = {**self._present.get(slot, {}), **{name: text is not None for name, text in data.items()}}
        self._present[slot] = {name: whole for name, whole in present.items() if data.get(name, "") is not None}


def _is_newer(published: ValidatorRule, known: ValidatorRule | None, declared: Container[str]) -> bool:
    if known is None:
        return True
    theirs, ours = published.metadata, known.metadata
    if theirs.uid == ours.uid:
        return theirs.generation > ours.generation
    return ours.uid not in declared
