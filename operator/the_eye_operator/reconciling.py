"""The loop that brings about what is declared: it looks at all there is, and does what is left to do.

A change only wakes it. Whatever it does may fail in the middle: it is time to look again then, so that an API server
that is away, throttles or contradicts is waited for, and nothing more.
"""

import asyncio
import math
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

from the_eye.rules.ruleset import RuleSet
from the_eye.settings import OperatorSettings
from the_eye_operator import metrics
from the_eye_operator.backing_off import BackOff
from the_eye_operator.cluster import Cluster, ClusterError
from the_eye_operator.decision import Decision, Outcome, decide
from the_eye_operator.declared import Declared, DeclaredRules
from the_eye_operator.health import Health
from the_eye_operator.observing import Observer
from the_eye_operator.publishing import Publisher
from the_eye_operator.status import Published, status_of
from the_eye_operator.telling import Teller
from the_eye_operator.workers import WorkerView

CONFIRM_SECONDS = 1.0
"""How long a deletion waits for the list that confirms it."""

UNSEEN_SECONDS = 30.0
"""How soon a namespace that may not be listed is tried again."""

_log = structlog.get_logger(__name__)


class Watching(Protocol):
    """What the loop tells the watch."""

    def allow(self, namespaces: Collection[str]) -> None:
        """In these namespaces ValidatorRules can be listed."""

    def forbid(self) -> None:
        """They cannot."""

    def restart(self) -> None:
        """Something was missed."""


class Reconciler:
    """Keeps the published ruleset and the statuses true to the declared rules."""

    def __init__(
        self,
        cluster: Cluster,
        namespaces: Sequence[str],
        settings: OperatorSettings,
        publisher: Publisher,
    ) -> None:
        self._cluster = cluster
        self._namespaces = namespaces
        self._settings = settings
        self._publisher = publisher
        self.declared = DeclaredRules()
        self._wake = asyncio.Event()
        self._list_at = 0.0
        self._losses = 0
        """How often changes may have gone by unseen."""
        self._listed_before = False
        self._unseen: frozenset[str] = frozenset()
        """Namespaces whose rules may not be listed."""
        self._listed_version = -1
        """Of the declared rules, when a list last said which there are."""
        self._decided: tuple[tuple[object, ...], Decision] | None = None
        """With what it depended on."""
        self.health = Health(settings.operator_resync_seconds)
        self._teller = Teller(cluster, self.declared, self.health)

    def on_event(self, type_: str | None, body: Mapping[str, Any]) -> None:
        """Take what the watch tells."""
        if self.declared.gone(body["metadata"]["uid"]) if type_ == "DELETED" else self.declared.seen(body):
            self.wake()

    def on_lost(self) -> None:
        """Take it that changes may have gone by unseen."""
        self._losses += 1
        self._list_at = 0.0
        self.wake()

    def wake(self) -> None:
        """Ask for a reconcile soon."""
        self._wake.set()

    async def run(self, watch: Watching, observer: Observer) -> None:
        """Reconcile again and again, until cancelled."""
        back_off = BackOff()
        while True:
            try:
                with metrics.RECONCILE_SECONDS.time():
                    again_in, refusal = await self.reconcile(watch, observer)
            except ClusterError as error:
                pause = back_off.failed(error)
                self._note_failure(error, pause)
                if error.concerns_one_object:  # for others all may be well: an edit is looked at all the same
                    await self._sleep(pause)
                else:
                    await asyncio.sleep(pause)
                continue
            if refusal is None:
                back_off.succeeded()
                self._note_success()
            else:
                pause = back_off.failed(refusal)
                self._note_failure(refusal, pause)
                again_in = min(again_in, pause)
            await self._sleep(min(again_in, max(0.0, self._list_at - time.monotonic())))

    async def reconcile(self, watch: Watching, observer: Observer) -> tuple[float, ClusterError | None]:
        """Look once and do what is left to do.

        Returns the seconds until what was put off is due, infinite when nothing was, and why nothing could be
        published, if so. Raises ClusterError.
        """
        due = time.monotonic() >= self._list_at
        if due:
            await self._list(watch)
        decision = await self._decide()
        if not due and self._loses(decision) and self._listed_version != self.declared.version:
            await asyncio.sleep(CONFIRM_SECONDS)
            await self._list(watch)
            decision = await self._decide()
        refusal = await self._publish(decision.ruleset)
        published = self._publisher.in_force
        _note_ruleset(published)
        _note_rules(decision)
        observer.want(published)
        again_in = await self._teller.tell(self._statuses(decision, published, await observer.first_view()))
        return math.inf if again_in is None else again_in, refusal

    async def _publish(self, ruleset: RuleSet) -> ClusterError | None:
        """Publish; where the ConfigMaps are refused, authors still have to hear what became of their rules.

        Raises ClusterError when the API server fails for everything.
        """
        try:
            if await self._publisher.publish(ruleset):
                _log.info("ruleset_published", revision=ruleset.revision, rules=len(ruleset.rules))
        except ClusterError as error:
            if not error.concerns_one_object:
                raise
            return error
        return None

    def _loses(self, decision: Decision) -> bool:
        """Whether rules would leave the ruleset, which a list has to confirm.

        Deleting their definition deletes all rules first; that is no wish to judge events by none. Once it is gone a
        list says so, and what is published stays.
        """
        return not {rule.id for rule in self._publisher.in_force.rules} <= {rule.id for rule in decision.ruleset.rules}

    async def _list(self, watch: Watching) -> None:
        """Read everything anew: the rules, and what is published."""
        began, losses = time.monotonic(), self._losses
        self.declared.begin_list()
        bodies = await self._ask_for_rules(watch)
        missed = self.declared.end_list(bodies, self._unseen)
        metrics.DEFINITION_MISSING.set(0)
        watch.allow(frozenset(self._namespaces) - self._unseen)
        if missed and self._listed_before:
            metrics.MISSED.inc(missed)
            watch.restart()
        self._listed_version = self.declared.version
        await self._look_at_published()
        self._listed_before = True
        if self._losses == losses:  # else this list may have been too early for what was lost
            self._list_at = began + (UNSEEN_SECONDS if self._unseen else self._settings.operator_resync_seconds)

    async def _look_at_published(self) -> None:
        """Read what is published, and tidy up there; once it is known it may be kept from being read.

        Raises ClusterError.
        """
        try:
            await self._publisher.load(self.declared.uids)
            await self._publisher.tidy()
        except ClusterError as error:
            if not (error.concerns_one_object and self._publisher.is_loaded):
                raise
            self.health.note("published", str(error))
            _log.warning("published_not_read", error=str(error))
        else:
            self.health.note("published")

    async def _ask_for_rules(self, watch: Watching) -> list[dict[str, Any]]:
        """List all namespaces; one whose rules may not be listed is noted, and hurts no other."""
        bodies: list[dict[str, Any]] = []
        refused: dict[str, ClusterError] = {}
        for namespace in self._namespaces:
            try:
                bodies += await self._cluster.rules(namespace)
            except ClusterError as error:
                if error.missing:  # their definition is not installed; what is published stays
                    metrics.DEFINITION_MISSING.set(1)
                    watch.forbid()
                if not error.forbidden:
                    raise
                refused[namespace] = error
                _log.warning("namespace_not_listed", namespace=namespace, error=str(error))
        if len(refused) == len(self._namespaces):
            raise next(iter(refused.values()))
        self._unseen = frozenset(refused)
        self.health.note("namespaces", "; ".join(map(str, refused.values())))
        return bodies

    async def _decide(self) -> Decision:
        """Decide in a thread: compiling thousands of rules takes its time. Nothing is decided twice."""
        key = (self.declared.version, self._unseen, self._publisher.taken_over)
        if self._decided is None or self._decided[0] != key:
            rules, in_force = self.declared.all(), self._publisher.in_force
            self._decided = (key, await asyncio.to_thread(decide, rules, in_force, self._unseen))
        return self._decided[1]

    def _statuses(
        self, decision: Decision, ruleset: RuleSet, view: WorkerView | None
    ) -> Iterable[tuple[Declared, dict[str, Any]]]:
        published, now = Published.of(ruleset), datetime.now(UTC)
        for uid, outcome in decision.outcomes.items():
            rule = self.declared.get(uid)
            # What was edited meanwhile is for the next reconcile: of its new version nothing is known yet.
            if rule is not None and rule.wanted == decision.declared[uid].wanted:
                yield rule, status_of(rule, outcome, published, view, now)

    async def _sleep(self, seconds: float) -> None:
        try:
            # Not wait_for: up to Python 3.11 it loses a cancellation that comes together with what is waited for.
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return
        await asyncio.sleep(self._settings.operator_debounce_seconds)
        self._wake.clear()

    def _note_failure(self, error: ClusterError, pause: float) -> None:
        metrics.RECONCILES.labels("error").inc()
        self.health.failed(str(error))
        _log.warning("reconcile_failed", error=str(error), again_in_seconds=round(pause, 1))

    def _note_success(self) -> None:
        metrics.RECONCILES.labels("success").inc()
        metrics.LAST_SUCCESS.set_to_current_time()
        self.health.succeeded()


def _note_ruleset(published: RuleSet) -> None:
    metrics.RULESET_INFO.clear()
    metrics.RULESET_INFO.labels(published.revision).set(1)
    metrics.RULESET_BYTES.set(len(published.document))


def _note_rules(decision: Decision) -> None:
    states = [_state(decision.declared[uid], outcome) for uid, outcome in decision.outcomes.items()]
    for state in ("accepted", "paused", "kept", "refused"):
        metrics.RULES.labels(state).set(states.count(state))


def _state(rule: Declared, outcome: Outcome) -> str:
    if outcome.errors:
        return "kept" if outcome.in_force else "refused"
    in_force = outcome.in_force is not None and outcome.in_force.generation == rule.generation
    return "accepted" if in_force else "paused"
