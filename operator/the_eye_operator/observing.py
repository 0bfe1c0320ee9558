"""Keeping an eye on the workers: telling their kubelets to look, and asking what they run."""

import asyncio
import time
from collections.abc import Callable

import msgspec
import structlog

from the_eye.rules.ruleset import RuleSet
from the_eye.settings import OperatorSettings
from the_eye_operator import metrics
from the_eye_operator.backing_off import BackOff
from the_eye_operator.cluster import Cluster, ClusterError, WorkerPod
from the_eye_operator.health import Health
from the_eye_operator.workers import GRACE_SECONDS, Workers, WorkerView

RULESET_ANNOTATION = "the-eye.io/ruleset"
"""On a worker's pod: the ruleset it should run. A change of it makes the kubelet refresh what is mounted at once."""

AT_REST = 10
"""How many times as long as usual it may take to notice a change while no worker is behind."""

UNTOLD_SECONDS = 60.0
"""How soon a pod that could not be annotated is tried again."""

_log = structlog.get_logger(__name__)


class _Untold(msgspec.Struct, frozen=True):
    """That a pod could not be annotated."""

    revision: str
    error: str
    again_at: float
    """By the monotonic clock."""


class Observer:
    """Knows which ruleset the workers run."""

    def __init__(
        self,
        cluster: Cluster,
        workers: Workers,
        settings: OperatorSettings,
        on_change: Callable[[], object],
        health: Health,
    ) -> None:
        """``on_change`` is called when other workers are there than before, or when they run something else."""
        self._cluster = cluster
        self._workers = workers
        self._settings = settings
        self._on_change = on_change
        self._health = health
        self._revision = ""
        self._seen_at = time.monotonic()
        self._untold: dict[str, _Untold] = {}
        """Pods that could not be annotated, by name."""
        self._kicked = asyncio.Event()
        self.view: WorkerView | None = None
        """None before the first look, and when they may not be looked at any more."""

    def want(self, ruleset: RuleSet) -> None:
        """Say what the workers should run from now on."""
        self._workers.remember(ruleset)
        if ruleset.revision != self._revision:
            self._revision = ruleset.revision
            self._kicked.set()

    async def look(self) -> WorkerView:
        """Look once.

        Raises ClusterError.
        """
        revision = self._revision
        pods = await self._cluster.worker_pods(
            self._settings.operator_worker_selector, self._settings.operator_worker_port, RULESET_ANNOTATION
        )
        # Those that are not ready, too: it may be for want of a ruleset that they are not.
        self._untold = {pod.name: self._untold[pod.name] for pod in pods if pod.name in self._untold}
        await asyncio.gather(*(self._nudge(pod, revision) for pod in pods if pod.ruleset != revision))
        self._health.note("pods", next((untold.error for untold in self._untold.values()), ""))
        view = await self._workers.look([pod for pod in pods if pod.is_ready])
        metrics.WORKERS.labels("current").set(view.at(revision))
        metrics.WORKERS.labels("behind").set(len(view.workers) - view.at(revision))
        self._seen_at = time.monotonic()
        self._change(view)
        return view

    def _change(self, view: WorkerView | None) -> None:
        if view != self.view:
            self.view = view
            self._on_change()

    async def first_view(self) -> WorkerView | None:
        """Give what was seen last; look if nothing was yet. None when the workers may not be looked at.

        Raises ClusterError when the API server fails for everything.
        """
        try:
            return self.view or await self.look()
        except ClusterError as error:
            if not error.concerns_one_object:
                raise
            self._health.note("workers", str(error))
            return None

    async def _nudge(self, pod: WorkerPod, revision: str) -> None:
        """Have a pod's kubelet look at once. One that may not be told looks by itself, within a minute or two."""
        untold = self._untold.get(pod.name)
        if untold and untold.revision == revision and time.monotonic() < untold.again_at:
            return
        try:
            await self._cluster.annotate_pod(pod.name, {RULESET_ANNOTATION: revision})
        except ClusterError as error:
            if not error.concerns_one_object:
                raise
            if not error.missing:  # else the pod has gone meanwhile
                self._untold[pod.name] = _Untold(revision, str(error), time.monotonic() + UNTOLD_SECONDS)
                _log.warning("worker_not_told", pod=pod.name, error=str(error))
        else:
            self._untold.pop(pod.name, None)

    async def run(self) -> None:
        """Look again and again, until cancelled; begins when it is known what the workers should run."""
        await self._kicked.wait()
        back_off = BackOff()
        while True:
            try:
                pause = self._pause(await self.look())
                back_off.succeeded()
                self._health.note("workers")
            except ClusterError as error:
                pause = back_off.failed(error)
                self._health.note("workers", str(error))
                if error.concerns_one_object and time.monotonic() - self._seen_at > GRACE_SECONDS:
                    self._change(None)  # what was seen then says nothing of what they run now
                _log.warning("workers_not_observed", error=str(error), again_in_seconds=round(pause, 1))
            await self._wait(pause)

    def _pause(self, view: WorkerView) -> float:
        behind = view.at(self._revision) < len(view.workers)
        return self._settings.operator_worker_poll_seconds * (1 if behind else AT_REST)

    async def _wait(self, seconds: float) -> None:
        try:
            # Not wait_for: up to Python 3.11 it loses a cancellation that comes together with what is waited for.
            async with asyncio.timeout(seconds):
                await self._kicked.wait()
        except TimeoutError:
            return
        self._kicked.clear()
