"""Telling the authors of rules what became of them: statuses, and Kubernetes Events."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import structlog

from the_eye_operator.announcing import announcement
from the_eye_operator.cluster import Cluster, ClusterError
from the_eye_operator.declared import Declared, DeclaredRules
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


class Teller:
    """Patches what is not said yet, what matters first."""

    def __init__(self, cluster: Cluster, declared: DeclaredRules) -> None:
        self._cluster = cluster
        self._declared = declared

    async def tell(self, wanted: Iterable[tuple[Declared, Mapping[str, Any]]]) -> float | None:
        """Make statuses say what is wanted, up to a bound; returns the seconds until more is to be told, if anything.

        Raises ClusterError when the API server fails for all of them, or at the end when it refused one.
        """
        due = [Change(rule, fields) for rule, status in wanted if (fields := changes(rule, status))]
        due.sort(key=_rank)
        urgent = [change for change in due if _rank(change) < _WORDING]
        wording = due[len(urgent) :]
        await self._patch_all([*urgent[:PATCHES], *wording[:WORDING_PATCHES]])
        if len(urgent) > PATCHES:
            return 0.0
        return WORDING_PAUSE if len(wording) > WORDING_PATCHES else None

    async def _patch_all(self, due: list[Change]) -> None:
        refused: list[ClusterError] = []
        for start in range(0, len(due), PATCHES_AT_ONCE):
            some = due[start : start + PATCHES_AT_ONCE]
            refused += [error for error in await asyncio.gather(*map(self._patch, some)) if error is not None]
        if refused:
            raise refused[0]

    async def _patch(self, change: Change) -> ClusterError | None:
        """Patch one; an error that concerns this one alone is returned, so that the others have their turn."""
        rule = change.rule
        try:
            await self._announce(change)
            self._declared.patched(await self._cluster.patch_status(rule.namespace, rule.name, change.fields))
        except ClusterError as error:
            if not error.concerns_one_object:
                raise
            if error.missing:  # the rule has gone meanwhile
                return None
            _log.warning("status_not_patched", rule=rule.id, error=str(error))
            return error
        return None

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
