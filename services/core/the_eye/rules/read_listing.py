"""Reads a directory of rules as a worker does, and lists them: ``python -m the_eye.rules.read_listing``.

In a process of its own, whose memory goes with it: thousands of rules take long to compile, and whoever shows them
needs nothing that was compiled.
"""

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec

from the_eye.confinement import confine
from the_eye.logs import configure_logging
from the_eye.rules.assembly import Problem
from the_eye.rules.directory import RuleDirectory, State
from the_eye.rules.listing import MAX_PROBLEMS, Head, ListedProblem, ListedRule, ReadRequest
from the_eye.rules.ruleset import CompiledRule
from the_eye.settings import LogSettings, SettingsError

_POLL_SECONDS = 0.2


def main() -> None:
    """List what the ReadRequest on standard input asks for."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=ReadRequest)
    confine(processor_seconds=request.processor_seconds, memory_bytes=request.memory_bytes)
    configure_logging(LogSettings(log_level="error"))  # of each problem the workers log already
    for line in read(request):
        sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")


def read(request: ReadRequest) -> Iterator[Head | ListedRule]:
    """Read the directory: the head, then the rules by their ids."""
    rules = RuleDirectory(
        Path(request.directory),
        poll_seconds=_POLL_SECONDS,
        future_tolerance=timedelta(),
        wait_seconds=request.wait_seconds,
    )
    try:
        rules.load()
    except SettingsError as error:
        yield Head(rules.current.revision, failure=str(error))
        return
    state = rules.state
    problems = tuple(map(_problem, state.problems[:MAX_PROBLEMS]))
    yield Head(state.assembly.ruleset.revision, problems, len(state.problems))
    yield from (_listed(rule, state) for rule in state.assembly.ruleset.rules)


def _problem(problem: Problem) -> ListedProblem:
    return ListedProblem(problem.file, problem.rule, problem.error)


def _listed(rule: CompiledRule, state: State) -> ListedRule:
    spec = rule.manifest.spec
    return ListedRule(
        id=rule.id,
        generation=rule.generation,
        file=state.assembly.files[rule.id],
        match=rule.match,
        action=rule.action,
        failure_policy=spec.failure_policy,
        has_schema=isinstance(spec.schema, dict),
        validations=len(spec.validations),
        document=msgspec.Raw(rule.document),
    )


if __name__ == "__main__":
    main()
