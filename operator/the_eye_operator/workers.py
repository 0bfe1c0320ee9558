"""Which ruleset each worker runs, asked of the workers themselves."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import httpx2
import msgspec
import structlog

from the_eye.rules.ruleset import CompiledRule, RuleSet
from the_eye_operator.cluster import WorkerPod

ANSWER_SECONDS = 2.0
"""Deadline of one worker's answer."""

GRACE_SECONDS = 15.0
"""How long a worker that does not answer counts as running what it ran: with thousands of rules, one that is busy for a
moment would otherwise be a patch of every status, twice."""

REMEMBERED_RULESETS = 16
"""How many rulesets are remembered, to tell what a worker runs that is behind."""

_log = structlog.get_logger(__name__)


class _Ruleset(msgspec.Struct, frozen=True):
    revision: str


class _Rule(msgspec.Struct, frozen=True):
    rule: str
    digest: str


class _Rules(msgspec.Struct, frozen=True):
    revision: str
    rules: tuple[_Rule, ...]


class Running(msgspec.Struct, frozen=True):
    """What one worker runs."""

    pod: str
    revision: str
    """Empty when it has not answered for a while."""
    rules: Mapping[str, str]
    """The digest of each rule that it runs, by id."""


class WorkerView(msgspec.Struct, frozen=True):
    """The workers that are ready, and what they run."""

    workers: tuple[Running, ...] = ()

    def running(self, rule: CompiledRule) -> int:
        """Count the workers that run just this version of a rule."""
        digest = rule.digest
        return sum(worker.rules.get(rule.id) == digest for worker in self.workers)

    def at(self, revision: str) -> int:
        """Count the workers that run a ruleset."""
        return sum(worker.revision == revision for worker in self.workers)


class Workers:
    """Asks the workers, and remembers what their revisions stand for."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client
        self._known: dict[str, Mapping[str, str]] = {}
        """The digest of each rule by id, by revision."""
        self._answers: dict[str, tuple[float, Running]] = {}
        """When each pod last answered, and what."""

    def remember(self, ruleset: RuleSet) -> None:
        """Learn what a revision stands for, so that no worker has to be asked for it."""
        known = self._known.get(ruleset.revision)
        self._learn(ruleset.revision, known or {rule.id: rule.digest for rule in ruleset.rules})

    async def look(self, pods: list[WorkerPod]) -> WorkerView:
        """Ask all of them at once."""
        view = WorkerView(tuple(await asyncio.gather(*(self._ask(pod) for pod in pods))))
        self._answers = {pod.name: self._answers[pod.name] for pod in pods if pod.name in self._answers}
        return view

    async def _ask(self, pod: WorkerPod) -> Running:
        now = time.monotonic()
        running = await self._answer(pod)
        if running is not None:
            self._answers[pod.name] = (now, running)
            return running
        answered_at, last = self._answers.get(pod.name, (now - GRACE_SECONDS, None))
        return last if last and now - answered_at < GRACE_SECONDS else Running(pod.name, "", {})

    async def _answer(self, pod: WorkerPod) -> Running | None:
        try:
            revision = (await self._get(pod, "/ruleset", _Ruleset)).revision
            if revision not in self._known:
                answer = await self._get(pod, "/ruleset/rules", _Rules)
                revision = answer.revision  # a worker may have changed its ruleset in between
                self._learn(revision, {rule.rule: rule.digest for rule in answer.rules})
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, msgspec.DecodeError) as error:
            _log.debug("worker_not_answering", pod=pod.name, address=pod.address, error=str(error))
            return None
        return Running(pod.name, revision, self._known[revision])

    async def _get(self, pod: WorkerPod, path: str, type_: type[Any]) -> Any:
        response = await self._client.get(f"http://{pod.address}{path}", timeout=ANSWER_SECONDS)
        response.raise_for_status()
        return msgspec.json.decode(response.content, type=type_)

    def _learn(self, revision: str, rules: Mapping[str, str]) -> None:
        self._known.pop(revision, None)
        self._known[revision] = rules  # as the latest
        while len(self._known) > REMEMBERED_RULESETS:
            del self._known[next(iter(self._known))]
