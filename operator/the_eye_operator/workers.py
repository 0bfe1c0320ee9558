"""Which ruleset each worker runs, asked of the workers themselves."""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx2
import msgspec
import structlog

from the_eye.rules.ruleset import RuleSet
from the_eye_operator.cluster import WorkerPod

ANSWER_SECONDS = 2.0
"""Deadline of one worker's answer."""

REMEMBERED_RULESETS = 16
"""How many rulesets are remembered, to tell what a worker runs that is behind."""

_log = structlog.get_logger(__name__)


class _Ruleset(msgspec.Struct, frozen=True):
    revision: str
    declared: str | None = None


class _Rule(msgspec.Struct, frozen=True):
    rule: str
    generation: int


class _Rules(msgspec.Struct, frozen=True):
    rules: tuple[_Rule, ...]


class Running(msgspec.Struct, frozen=True):
    """What one worker runs."""

    pod: str
    revision: str
    """Empty when it did not answer."""
    generations: Mapping[str, int]
    """The generation of each rule that it runs, by id."""


class WorkerView(msgspec.Struct, frozen=True):
    """The workers that are ready, and what they run."""

    workers: tuple[Running, ...] = ()

    def running(self, rule: str, generation: int) -> int:
        """Count the workers that run this generation of a rule."""
        return sum(worker.generations.get(rule) == generation for worker in self.workers)

    def at(self, revision: str) -> int:
        """Count the workers that run a ruleset."""
        return sum(worker.revision == revision for worker in self.workers)


class Workers:
    """Asks the workers, and remembers what their revisions stand for."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client
        self._known: dict[str, Mapping[str, int]] = {}

    def remember(self, ruleset: RuleSet) -> None:
        """Learn what a revision stands for, so that workers need not be asked for it."""
        self._learn(ruleset.revision, {rule.id: rule.generation for rule in ruleset.rules})

    async def look(self, pods: list[WorkerPod]) -> WorkerView:
        """Ask all of them at once."""
        return WorkerView(tuple(await asyncio.gather(*(self._ask(pod) for pod in pods))))

    async def _ask(self, pod: WorkerPod) -> Running:
        try:
            revision = (await self._get(pod, "/ruleset", _Ruleset)).revision
            if revision not in self._known:
                rules = await self._get(pod, "/ruleset/rules", _Rules)
                self._learn(revision, {rule.rule: rule.generation for rule in rules.rules})
        except (httpx2.HTTPError, OSError, msgspec.DecodeError) as error:
            _log.debug("worker_not_answering", pod=pod.name, address=pod.address, error=str(error))
            return Running(pod.name, "", {})
        return Running(pod.name, revision, self._known[revision])

    async def _get(self, pod: WorkerPod, path: str, type_: type[Any]) -> Any:
        response = await self._client.get(f"http://{pod.address}{path}", timeout=ANSWER_SECONDS)
        response.raise_for_status()
        return msgspec.json.decode(response.content, type=type_)

    def _learn(self, revision: str, generations: Mapping[str, int]) -> None:
        self._known[revision] = self._known.pop(revision, generations)
        while len(self._known) > REMEMBERED_RULESETS:
            del self._known[next(iter(self._known))]
