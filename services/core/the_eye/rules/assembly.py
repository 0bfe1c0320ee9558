"""Files of manifests put together to one ruleset, the last good version in the place of whatever is not good now."""

from collections.abc import Iterable, Mapping
from datetime import timedelta

import msgspec

from the_eye.rules.manifest import FieldError, Manifest, RefusedManifest, ValidatorRule, parse_manifests
from the_eye.rules.ruleset import Compilation, RuleSet, compile_ruleset, empty_ruleset


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong with one file, or with one of its rules."""

    file: str
    rule: str
    """``namespace/name``; ``document N`` where a name could not be read; empty when it is the whole file."""
    error: FieldError
    kept: bool = False
    """Whether an earlier version stays in force."""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.rule, str(self.error)) if part)


class Assembly(msgspec.Struct, frozen=True, eq=False):
    """What files came to."""

    ruleset: RuleSet
    problems: tuple[Problem, ...] = ()
    files: Mapping[str, str] = {}
    """The file of each rule in force, by the rule's id."""
    parsed: Mapping[bytes, tuple[Manifest, ...]] = {}
    """What was read of each content, so that one edit does not read the rest again."""


class _Claim(msgspec.Struct, frozen=True):
    """A rule that a file says is in it, or that was in it before the file became unreadable."""

    file: str
    manifest: ValidatorRule | None


def nothing_assembled(*, future_tolerance: timedelta) -> Assembly:
    """What precedes the first files."""
    return Assembly(empty_ruleset(future_tolerance=future_tolerance))


def assemble(contents: Mapping[str, bytes | Problem], previous: Assembly) -> Assembly:
    """Make a ruleset of the contents of files, each given by its name; a Problem stands for what could not be read.

    A rule that is refused keeps its version in ``previous``. A file that cannot be read keeps its rules, and one that
    holds something whose name cannot be read keeps those that it does not name. Of two files that hold the same rule
    the first by name has it.
    """
    work = _Work(previous)
    for file in sorted(contents):
        work.read(file, contents[file])
    compilation = work.compile()
    return Assembly(
        ruleset=compilation.ruleset,
        problems=tuple(work.problems),
        files={rule.id: work.claims[rule.id].file for rule in compilation.ruleset.rules},
        parsed=work.parsed,
    )


class _Work:
    def __init__(self, previous: Assembly) -> None:
        self.previous = previous
        self.last_good = {rule.id: rule.manifest for rule in previous.ruleset.rules}
        self.claims: dict[str, _Claim] = {}
        self.problems: list[Problem] = []
        self.parsed: dict[bytes, tuple[Manifest, ...]] = {}

    def read(self, file: str, content: bytes | Problem) -> None:
        if isinstance(content, Problem):
            self.problems.append(msgspec.structs.replace(content, kept=self._keep_rest(file)))
            return
        if content not in self.parsed:
            self.parsed[content] = self.previous.parsed.get(content) or parse_manifests(content)
        nameless = [manifest for manifest in self.parsed[content] if not self._claim(file, manifest)]
        kept = bool(nameless) and self._keep_rest(file)
        for manifest in nameless:
            if isinstance(manifest, RefusedManifest):
                self._refuse(file, f"document {manifest.document}", manifest.errors, kept=kept)

    def _claim(self, file: str, manifest: Manifest) -> bool:
        """Give the rule to the file, unless it has an owner already; false when the rule has no name."""
        rule = manifest.id
        if rule is None:
            return False
        if rule in self.claims:
            self._refuse(file, rule, [self._duplicate(file, rule)], kept=False)
        elif isinstance(manifest, ValidatorRule):
            self.claims[rule] = _Claim(file, manifest)
        else:
            self.claims[rule] = _Claim(file, None)
            self._refuse(file, rule, manifest.errors, kept=rule in self.last_good)
        return True

    def _keep_rest(self, file: str) -> bool:
        """Let a file keep the rules it had and does not name now; tells whether there are any."""
        rest = [rule for rule, owner in self.previous.files.items() if owner == file and rule not in self.claims]
        self.claims.update({rule: _Claim(file, None) for rule in rest})
        return bool(rest)

    def _duplicate(self, file: str, rule: str) -> FieldError:
        other = self.claims[rule].file
        where = "twice in this file" if other == file else f"already in {other}, whose version counts"
        return FieldError("metadata.name", "Duplicate", f"the rule is {where}")

    def _refuse(self, file: str, rule: str, errors: Iterable[FieldError], *, kept: bool) -> None:
        self.problems.extend(Problem(file, rule, error, kept) for error in errors)

    def compile(self) -> Compilation:
        """Compile what the claims ask for, and again with the last good version of what was refused."""
        wanted = {rule: claim.manifest or self.last_good.get(rule) for rule, claim in self.claims.items()}
        compilation = self._compile(wanted, self.previous.ruleset)
        for refused in compilation.refused:
            wanted[refused.id] = self.last_good.get(refused.id)
            file, kept = self.claims[refused.id].file, refused.id in self.last_good
            self._refuse(file, refused.id, refused.errors, kept=kept)
        return self._compile(wanted, compilation.ruleset) if compilation.refused else compilation

    def _compile(self, wanted: Mapping[str, ValidatorRule | None], known: RuleSet) -> Compilation:
        rules = [rule for rule in wanted.values() if rule is not None]
        return compile_ruleset(rules, future_tolerance=self.previous.ruleset.future_tolerance, previous=known)
