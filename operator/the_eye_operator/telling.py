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

WORDING_PATCHES = 20
"""Patches of one round that change no more than the wording of a condition, such as how many workers there are; with
thousands of rules each new worker would otherwise be a storm of them."""

_log = structlog.get_logger(__name__)


class Change(msgspec.Struct, frozen=True):
    """What a rule's status does not say yet."""

    rule: Declared
    fields: Mapping[str, Any]
    """None deletes one."""


class Teller:
    """Patches what is not said yet, what matters first."""

    def __init__(self, cluster: Cluster, declared: DeclaredRules) -> None:
        self._cluster = cluster
        self._declared = declared

    async def tell(self, wanted: Iterable[tuple[Declared, Mapping[str, Any]]]) -> int:
        """Make statuses say what is wanted; returns how many are put off because nothing depends on them.

        Raises ClusterError when the API server fails for all of them, or at the end when it refused one.
        """
        due = [Change(rule, fields) for rule, status in wanted if (fields := changes(rule, status))]
        urgent = [change for change in due if is_urgent(change.rule, change.fields)]
        wording = [change for change in due if not is_urgent(change.rule, change.fields)]
        await self._patch_all(urgent + wording[:WORDING_PATCHES])
        return len(wording[WORDING_PATCHES:])

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
