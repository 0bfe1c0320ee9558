"""Running counts of the rules in Audit, in their status: how many events each was for, and how many broke it."""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
import structlog

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

MOST_PATCHES = 100
"""Statuses that one round brings up to date."""

_log = structlog.get_logger(__name__)


class Audited(msgspec.Struct, frozen=True):
    """A rule in Audit, and since when its version counts."""

    rule: Declared
    manifest: ValidatorRule
    since: datetime


class Audits:
    """Counts from time to time. Where the operator has no store to ask, there are no counts."""

    def __init__(
        self, cluster: Cluster, declared: DeclaredRules, store: StoreSettings | None, pause_seconds: float
    ) -> None:
        self._cluster = cluster
        self._declared = declared
        self._store = store
        self._pause_seconds = pause_seconds

    async def run(self) -> None:
        """Count and tell again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._pause_seconds)
            try:
                await self.round()
            except (ClusterError, psycopg.Error) as error:
                _log.warning("audit_not_told", error=" ".join(str(error).split()))

    async def round(self) -> None:
        """Count once.

        Raises ClusterError and psycopg.Error; what was told until then stays told.
        """
        now = datetime.now(UTC)
        audited = audited_rules(self._declared.all(), now)
        if self._store is not None and audited:
            counted = await asyncio.to_thread(_count, self._store, audited)
            changed = [(rule, fields) for rule, fields in counted if _says_less(rule, fields)]
            for rule, fields in changed[:MOST_PATCHES]:
                await self._tell(rule, {"audit": {**fields, "updatedAt": rfc3339(now)}})
        for rule in self._declared.all():
            if rule.status.get("audit") and not _is_audit(rule):
                await self._tell(rule, {"audit": None})

    async def _tell(self, rule: Declared, status: Mapping[str, Any]) -> None:
        try:
            self._declared.patched(await self._cluster.patch_status(rule.namespace, rule.name, status))
        except ClusterError as error:
            if not error.missing:
                raise


def audited_rules(rules: Iterable[Declared], now: datetime) -> list[Audited]:
    """Find the rules in Audit whose declared version is in force, and since when to count: a day, or since it began.

    When it began is known from its status, which repeats it until another version comes.
    """
    return [
        Audited(rule, rule.manifest, max(_began(rule, now), now - WINDOW))
        for rule in rules
        if isinstance(rule.manifest, ValidatorRule) and _is_audit(rule)
    ]


def _is_audit(rule: Declared) -> bool:
    manifest = rule.manifest
    in_force = rule.status.get("inForceGeneration") == rule.generation
    return isinstance(manifest, ValidatorRule) and manifest.spec.action is Action.AUDIT and in_force


def _began(rule: Declared, now: datetime) -> datetime:
    told = rule.status.get("audit") or {}
    if told.get("generation") == rule.generation and told.get("since"):
        return datetime.fromisoformat(told["since"])
    return now.replace(second=0, microsecond=0)  # in common with others that come now


def _count(store: StoreSettings, audited: list[Audited]) -> list[tuple[Declared, dict[str, Any]]]:
    beginnings: dict[datetime, list[Audited]] = {}
    for one in audited:
        beginnings.setdefault(one.since, []).append(one)
    counted: list[tuple[Declared, dict[str, Any]]] = []
    with connect(store, "the-eye operator", STATEMENT_SECONDS) as connection:
        for since, some in sorted(beginnings.items(), key=_last_told)[:MOST_BEGINNINGS]:
            counts = audit_counts(connection, [one.manifest for one in some], since)
            counted += [(one.rule, _fields(one, counts)) for one in some]
    return counted


def _last_told(group: tuple[datetime, list[Audited]]) -> str:
    return min(str((one.rule.status.get("audit") or {}).get("updatedAt", "")) for one in group[1])


def _fields(audited: Audited, counts: AuditCounts) -> dict[str, Any]:
    of_rule = counts.rules[audited.manifest.id]
    return {
        "generation": audited.rule.generation,
        "since": rfc3339(counts.since),
        "events": of_rule.events,
        "violations": of_rule.violations,
    }


def _says_less(rule: Declared, fields: Mapping[str, Any]) -> bool:
    told = rule.status.get("audit") or {}
    return any(told.get(field) != fields[field] for field in ("generation", "events", "violations"))
