"""Telling the authors of rules what became of them: statuses, and Kubernetes Events."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
import structlog

from the_eye_operator.announcing import announcement
from the_eye_operator.backing_off import BackOff
from the_eye_operator.cluster import Cluster, ClusterError
from the_eye_operator.declared import Declared, DeclaredRules
from the_eye_operator.health import Health
from the_eye_operator.status import changes, is_urgent

PATCHES_AT_ONCE = 8
"""Patches in flight."""

PATCHES = 400
"""Patches of one round, some seconds' work: edits that come meanwhile are published before the next round."""

WORDING_PATCHES = 20
"""Patches of one round that change no more than the wording of a condition, such as how many workers there are; with
thousands of rules each new worker would otherwise be a storm of them."""

WORDING_PAUSE = 1.0
"""Seconds until the next of those."""

_log = structlog.get_logger(__name__)


class Change(msgspec.Struct, frozen=True):
    """What a rule's status does not say yet."""

    rule: Declared
    fields: Mapping[str, Any]
    """None deletes one."""


_NEWS, _TRUTH, _WORDING = range(3)


def _rank(change: Change) -> int:
    """Order by what authors wait for: first what became of an edit, then what is true of it now."""
    if change.fields.keys() & {"observedGeneration", "inForceGeneration"}:
        return _NEWS
    return _TRUTH if is_urgent(change.rule, change.fields) else _WORDING


class _Refused(msgspec.Struct, frozen=True):
    """That a rule's status could not be patched."""

    generation: int
    back_off: BackOff
    error: str
    again_at: float
    """By the monotonic clock."""


class Teller:
    """Patches what is not said yet, what matters first."""

    def __init__(self, cluster: Cluster, declared: DeclaredRules, health: Health) -> None:
        self._cluster = cluster
        self._declared = declared
        self._health = health
        self._refused: dict[str, _Refused] = {}
        """By uid."""

    async def tell(self, wanted: Iterable[tuple[Declared, Mapping[str, Any]]]) -> float | None:
        """Make statuses say what is wanted, up to a bound; returns the seconds until more is to be told, if anything.

        A status that the API server refuses is tried again later, by itself. Raises ClusterError when the server fails
        for all of them.
        """
        now = time.monotonic()
        due = sorted(self._due(wanted, now), key=_rank)
        urgent = [change for change in due if _rank(change) < _WORDING]
        wording = due[len(urgent) :]
        await self._patch_all([*urgent[:PATCHES], *wording[:WORDING_PATCHES]])
        self._note_refused()
        if len(urgent) > PATCHES:
            return 0.0
        # One whose time has come and that was not tried is a wording, and has its turn with those.
        pauses = [refused.again_at - time.monotonic() for refused in self._refused.values() if refused.again_at > now]
        if len(wording) > WORDING_PATCHES:
            pauses.append(WORDING_PAUSE)
        return max(0.0, min(pauses)) if pauses else None

    def _due(self, wanted: Iterable[tuple[Declared, Mapping[str, Any]]], now: float) -> Iterator[Change]:
        for rule, status in wanted:
            fields = changes(rule, status)
            if not fields:
                self._refused.pop(rule.uid, None)  # what was refused is not to be told any more
            elif not self._must_wait(rule, now):
                yield Change(rule, fields)

    def _must_wait(self, rule: Declared, now: float) -> bool:
        refused = self._refused.get(rule.uid)
        return refused is not None and refused.generation == rule.generation and now < refused.again_at

    def _note_refused(self) -> None:
        """Forget those whose rule has gone, and say what is wrong with the others."""
        self._refused = {uid: refused for uid, refused in self._refused.items() if self._declared.get(uid) is not None}
        first = next(iter(self._refused.values()), None)
        self._health.note("statuses", f"{len(self._refused)} not told, such as: {first.error}" if first else "")

    async def _patch_all(self, due: list[Change]) -> None:
        for start in range(0, len(due), PATCHES_AT_ONCE):
            await asyncio.gather(*map(self._patch, due[start : start + PATCHES_AT_ONCE]))

    async def _patch(self, change: Change) -> None:
        """Patch one; an error that concerns this one alone is noted, so that the others have their turn."""
        rule = change.rule
        try:
            await self._announce(change)
            self._declared.patched(await self._cluster.patch_status(rule.namespace, rule.name, change.fields))
        except ClusterError as error:
            if not error.concerns_one_object:
                raise
            if not error.missing:  # else the rule has gone meanwhile
                self._refuse(rule, error)
                return
        self._refused.pop(rule.uid, None)

    def _refuse(self, rule: Declared, error: ClusterError) -> None:
        before = self._refused.get(rule.uid)
        back_off = before.back_off if before else BackOff()
        pause = back_off.failed(error)
        again_at = time.monotonic() + pause
        self._refused[rule.uid] = _Refused(rule.generation, back_off, str(error), again_at)
        _log.warning("status_not_patched", rule=rule.id, error=str(error), again_in_seconds=round(pause, 1))

    async def _announce(self, change: Change) -> None:
        """Create the Event first: once the status says it, it is no news. One that is refused holds nothing back."""
        event = announcement(change.rule, change.fields)
        if event is None:
            return
        try:
            await self._cluster.create_event(event)
        except ClusterError as error:
            if not error.concerns_one_object:
                raise
            _log.warning("event_not_created", rule=change.rule.id, error=str(error))
