"""Which ruleset each worker runs, asked of the workers themselves."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import httpx2
import msgspec
import structlog

from the_eye.rules.ruleset import RuleSet
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
    """Empty when it has not answered for a while."""
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


class _Known(msgspec.Struct, frozen=True):
    """What a revision stands for."""

    generations: Mapping[str, int]
    documents: Mapping[str, bytes] = {}
    """The rules themselves, where it is a ruleset of this operator's."""


class Workers:
    """Asks the workers, and remembers what their revisions stand for."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client
        self._known: dict[str, _Known] = {}
        self._wanted = _Known({})
        self._told: dict[str, Mapping[str, int]] = {}
        """What a revision means beside the ruleset that is wanted now."""
        self._answers: dict[str, tuple[float, Running]] = {}
        """When each pod last answered, and what."""

    def remember(self, ruleset: RuleSet) -> None:
        """Learn what workers should run, and what its revision stands for."""
        self._wanted = _Known(
            {rule.id: rule.generation for rule in ruleset.rules}, {rule.id: rule.document for rule in ruleset.rules}
        )
        self._told.clear()
        self._learn(ruleset.revision, self._wanted)

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
                rules = await self._get(pod, "/ruleset/rules", _Rules)
                self._learn(revision, _Known({rule.rule: rule.generation for rule in rules.rules}))
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, msgspec.DecodeError) as error:
            _log.debug("worker_not_answering", pod=pod.name, address=pod.address, error=str(error))
            return None
        return Running(pod.name, revision, self._generations(revision))

    def _generations(self, revision: str) -> Mapping[str, int]:
        """Tell what a revision runs, without what only looks like what is wanted.

        A rule that was deleted and made again counts its generations from one again.
        """
        if revision not in self._told:
            known = self._known[revision]
            self._told[revision] = {
                rule: generation for rule, generation in known.generations.items() if not self._is_another(rule, known)
            }
        return self._told[revision]

    def _is_another(self, rule: str, known: _Known) -> bool:
        return (
            rule in known.documents
            and known.generations[rule] == self._wanted.generations.get(rule)
            and known.documents[rule] != self._wanted.documents.get(rule)
        )

    async def _get(self, pod: WorkerPod, path: str, type_: type[Any]) -> Any:
        response = await self._client.get(f"http://{pod.address}{path}", timeout=ANSWER_SECONDS)
        response.raise_for_status()
        return msgspec.json.decode(response.content, type=type_)

    def _learn(self, revision: str, known: _Known) -> None:
        self._known[revision] = self._known.pop(revision, known)
        while len(self._known) > REMEMBERED_RULESETS:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._told.pop(oldest, None)
