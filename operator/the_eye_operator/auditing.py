"""Running counts of the rules in Audit, in their status: how many events each was for, and how many broke it."""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
import psycopg
import structlog
from msgspec import Meta

from the_eye.rules.manifest import ValidatorRule
from the_eye.settings import StoreSettings
from the_eye.store.audit import STATEMENT_SECONDS, AuditCounts, audit_counts
from the_eye.store.connect import connect
from the_eye.verdict import Action
from the_eye_operator.cluster import Cluster, ClusterError
from the_eye_operator.declared import Declared, DeclaredRules
from the_eye_operator.status import rfc3339

WINDOW = timedelta(hours=24)
"""How far back is counted, for a version that has been in force for so long."""

MOST_BEGINNINGS = 20
"""How many different times one round counts from: each is a few queries. The rest waits for the next round."""

TOLD_ANEW = timedelta(hours=1)
"""After this a count is told although it is the same: its age says whether anybody still counts."""

MOST_PATCHES = 100
"""Statuses that one round brings up to date."""

_log = structlog.get_logger(__name__)


Version = tuple[str, int]
"""A rule's uid and generation."""

NEVER = datetime.min.replace(tzinfo=UTC)


class Audited(msgspec.Struct, frozen=True):
    """A rule in Audit, and since when its version counts."""

    rule: Declared
    manifest: ValidatorRule
    began: datetime
    """When its version was first seen in force."""
    counted: datetime
    """When it was last counted. A count like the one before is not told for an hour: the status does not say it."""

    @property
    def version(self) -> Version:
        """What ``began`` holds for."""
        return self.rule.uid, self.rule.generation


class Audits:
    """Counts from time to time. Where the operator has no store to ask, there are no counts."""

    def __init__(
        self, cluster: Cluster, declared: DeclaredRules, store: StoreSettings | None, pause_seconds: float
    ) -> None:
        self._cluster = cluster
        self._declared = declared
        self._store = store
        self._pause_seconds = pause_seconds
        self._audited: dict[Version, Audited] = {}
        """Those of the last round."""

    async def run(self) -> None:
        """Count and tell again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._pause_seconds)
            try:
                await self.round(datetime.now(UTC))
            except (ClusterError, psycopg.Error) as error:
                _log.warning("audit_not_told", error=" ".join(str(error).split()))

    async def round(self, now: datetime) -> None:
        """Count once.

        Raises ClusterError and psycopg.Error; what was told until then stays told.
        """
        for rule in self._declared.all():
            if rule.status.get("audit") and not _is_audit(rule):
                await self._tell(rule, {"audit": None})
        audited = audited_rules(self._declared.all(), self._audited, now)
        self._audited = {one.version: one for one in audited}
        if self._store is None or not audited:
            return
        counted = await asyncio.to_thread(_count, self._store, audited, now)
        self._audited |= {one.version: msgspec.structs.replace(one, counted=now) for one, _ in counted}
        changed = [(one.rule, fields) for one, fields in counted if _is_news(one.rule, fields, now)]
        for rule, fields in sorted(changed, key=lambda change: _told_at(change[0]))[:MOST_PATCHES]:
            await self._tell(rule, {"audit": {**fields, "updatedAt": rfc3339(now)}})

    async def _tell(self, rule: Declared, status: Mapping[str, Any]) -> None:
        try:
            self._declared.patched(await self._cluster.patch_status(rule.namespace, rule.name, status))
        except ClusterError as error:
            if not error.concerns_one_object:
                raise
            if not error.missing:
                _log.warning("audit_not_told", rule=rule.id, error=str(error))


def audited_rules(rules: Iterable[Declared], earlier: Mapping[Version, Audited], now: datetime) -> list[Audited]:
    """Find the rules in Audit whose declared version is in force.

    When that began is remembered from ``earlier``, and by a new operator taken from the status. The status cannot
    stand for it all the time: of a count that was cut short it tells a later time, another one for each beginning; a
    day later these would still be different, each with queries of its own, where otherwise all count the same day.
    """
    return [
        _audited(rule, rule.manifest, earlier.get((rule.uid, rule.generation)), now)
        for rule in rules
        if isinstance(rule.manifest, ValidatorRule) and _is_audit(rule)
    ]


def _audited(rule: Declared, manifest: ValidatorRule, earlier: Audited | None, now: datetime) -> Audited:
    if earlier is None:
        return Audited(rule, manifest, _began(rule, now), _told_at(rule))
    return Audited(rule, manifest, earlier.began, earlier.counted)


def _is_audit(rule: Declared) -> bool:
    manifest = rule.manifest
    in_force = rule.status.get("inForceGeneration") == rule.generation
    return isinstance(manifest, ValidatorRule) and manifest.spec.action is Action.AUDIT and in_force


def _began(rule: Declared, now: datetime) -> datetime:
    told = rule.status.get("audit") or {}
    since = _moment(told.get("since")) if told.get("generation") == rule.generation else None
    return since or now.replace(second=0, microsecond=0)  # in common with others that come now


def _told_at(rule: Declared) -> datetime:
    return _moment((rule.status.get("audit") or {}).get("updatedAt")) or NEVER


def _moment(text: Any) -> datetime | None:
    with suppress(msgspec.ValidationError):  # where nothing was told, or by someone else
        moment: datetime = msgspec.convert(text, Annotated[datetime, Meta(tz=True)])
        return moment
    return None


def _count(store: StoreSettings, audited: list[Audited], now: datetime) -> list[tuple[Audited, dict[str, Any]]]:
    beginnings: dict[datetime, list[Audited]] = {}
    for one in audited:
        beginnings.setdefault(max(one.began, now - WINDOW), []).append(one)
    counted: list[tuple[Audited, dict[str, Any]]] = []
    with connect(store, "the-eye operator", STATEMENT_SECONDS) as connection:
        for since, some in sorted(beginnings.items(), key=_last_counted)[:MOST_BEGINNINGS]:
            counts = audit_counts(connection, [one.manifest for one in some], since)
            counted += [(one, _fields(one, counts)) for one in some]
    return counted


def _last_counted(group: tuple[datetime, list[Audited]]) -> datetime:
    return min(one.counted for one in group[1])


def _fields(audited: Audited, counts: AuditCounts) -> dict[str, Any]:
    of_rule = counts.rules[audited.manifest.id]
    return {
        "generation": audited.rule.generation,
        "since": rfc3339(counts.since),
        "events": of_rule.events,
        "violations": of_rule.violations,
    }


def _is_news(rule: Declared, fields: Mapping[str, Any], now: datetime) -> bool:
    told = rule.status.get("audit") or {}
    said = all(told.get(field) == fields[field] for field in ("generation", "events", "violations"))
    return not said or now - _told_at(rule) >= TOLD_ANEW
