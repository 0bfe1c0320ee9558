"""Keeping an eye on the workers: telling their kubelets to look, and asking what they run."""

import asyncio
from collections.abc import Callable

import structlog

from the_eye.rules.ruleset import RuleSet
from the_eye.settings import OperatorSettings
from the_eye_operator import metrics
from the_eye_operator.backing_off import BackOff
from the_eye_operator.cluster import Cluster, ClusterError, WorkerPod
from the_eye_operator.health import Health
from the_eye_operator.workers import Workers, WorkerView

RULESET_ANNOTATION = "the-eye.io/ruleset"
"""On a worker's pod: the ruleset it should run. A change of it makes the kubelet refresh what is mounted at once."""

AT_REST = 10
"""How many times as long as usual it may take to notice a change while no worker is behind."""

_log = structlog.get_logger(__name__)


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
        self._kicked = asyncio.Event()
        self.view: WorkerView | None = None
        """None before the first look."""

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
        await asyncio.gather(*(self._nudge(pod, revision) for pod in pods if pod.ruleset != revision))
        view = await self._workers.look([pod for pod in pods if pod.is_ready])
        metrics.WORKERS.labels("current").set(view.at(revision))
        metrics.WORKERS.labels("behind").set(len(view.workers) - view.at(revision))
        if view != self.view:
            self.view = view
            self._on_change()
        return view

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
        try:
            await self._cluster.annotate_pod(pod.name, {RULESET_ANNOTATION: revision})
        except ClusterError as error:
            if not error.concerns_one_object:
                raise
            if not error.missing:  # else the pod has gone meanwhile
                _log.warning("worker_not_told", pod=pod.name, error=str(error))

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
