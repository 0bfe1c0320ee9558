"""What was sent and what became of it, added up over users and processes, and told at the end."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tests.load.loadtest.answers import Asked, Broken, Outcome, Rejected, Settled
from tests.load.loadtest.traffic import Fate, Request

_SEPARATOR = "\t"
"""Between the parts of a key: what is counted, then of what."""


class Tally:
    """Counts that can be sent to another process and added up there."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def sent(self, application: int, request: Request) -> None:
        """Count the events of a request that is on its way; until it is settled they are unanswered."""
        self._add(len(request.fates), "sent")
        self._add(len(request.fates), "unanswered", application)

    def answered(self, application: int, request: Request, outcome: Outcome) -> None:
        """Count what an answer says."""
        match outcome:
            case Settled():
                self._add(-len(request.fates), "unanswered", application)
                for fate, events in outcome.accepted.items():
                    self._add(events, "accepted", application, fate)
                for code, events in outcome.refused.items():
                    self._add(events, "refused", code)
                for surprise in outcome.surprises:
                    self._add(1, "failed", surprise)
            case Asked():
                self._add(1, "asked", outcome.reason)
            case Broken():
                self._add(1, "failed", outcome.reason)
            case Rejected():
                self._add(-len(request.fates), "unanswered", application)
                self._add(1, "failed", outcome.reason)

    def session(self) -> None:
        """Count a session that has begun."""
        self._add(1, "sessions")

    def mark(self, mark: int) -> None:
        """Note how the events are marked."""
        self._add(1, "marks", mark)

    def _add(self, number: int, *key: object) -> None:
        self._counts[_SEPARATOR.join(map(str, key))] += number

    def take(self) -> dict[str, int]:
        """Give the counts away, to be added up elsewhere."""
        taken, self._counts = dict(self._counts), Counter()
        return taken

    def add(self, taken: Mapping[str, int]) -> None:
        """Add what another process has taken."""
        self._counts.update(taken)

    def total(self, *key: object) -> int:
        """Add up what was counted under a key and under all that it begins."""
        return sum(number for _, number in self._below(*key))

    def by(self, *key: object) -> dict[str, int]:
        """Give what was counted by the next part of the key, most first."""
        found: Counter[str] = Counter()
        for rest, number in self._below(*key):
            found[rest[0]] += number
        return dict(found.most_common())

    def _below(self, *key: object) -> Iterator[tuple[list[str], int]]:
        wanted = list(map(str, key))
        for text, number in self._counts.items():
            parts = text.split(_SEPARATOR)
            if parts[: len(wanted)] == wanted:
                yield parts[len(wanted) :], number

    @property
    def marks(self) -> frozenset[int]:
        """The marks of the processes that have sent."""
        return frozenset(map(int, self.by("marks")))


@dataclass(frozen=True, slots=True)
class Stored:
    """What was found of an application's events."""

    valid: int = 0
    invalid: int = 0
    unread: str = ""
    """Why it was not looked for, or not to the end."""

    @property
    def events(self) -> int:
        """Rows."""
        return self.valid + self.invalid


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far what is stored agrees with what was accepted."""

    stored: Mapping[int, Stored]
    """By application."""
    missing: int
    """Accepted and not stored."""
    unexplained: int
    """Stored beyond what was accepted or not answered."""

    @classmethod
    def of(cls, tally: Tally, stored: Mapping[int, Stored]) -> "Agreement":
        """Compare, application by application, so that one cannot make up for another."""
        missing = unexplained = 0
        for application, found in stored.items():
            if not found.unread:
                over = found.events - tally.total("accepted", application)
                missing += max(0, -over)
                unexplained += max(0, over - tally.total("unanswered", application))
        return cls(stored, missing, unexplained)

    @property
    def complete(self) -> bool:
        """Whether every application could be read."""
        return not any(found.unread for found in self.stored.values())


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds and milliseconds of a run."""

    seconds: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


def summary(tally: Tally, times: Times, agreement: Agreement) -> Iterator[str]:
    """Tell a person how it went."""
    accepted = tally.total("accepted")
    yield (
        f"sent            {tally.total('sent'):,} events of {tally.total('sessions'):,} sessions by "
        f"{len(tally.by('accepted'))} applications in {times.seconds:.0f} s"
    )
    yield f"accepted        {accepted:,} ({accepted / times.seconds:,.0f}/s)"
    yield f"refused         {_listed(tally, 'refused')}, as they should be"
    yield f"asked to wait   {_listed(tally, 'asked')}"
    yield f"failed          {_listed(tally, 'failed')}"
    yield f"unanswered      {tally.total('unanswered'):,}"
    yield f"answered in     p50 {times.p50_ms:,.0f} ms, p95 {times.p95_ms:,.0f} ms, p99 {times.p99_ms:,.0f} ms"
    yield from _told(tally, agreement)


def _told(tally: Tally, agreement: Agreement) -> Iterator[str]:
    found = agreement.stored.values()
    valid, invalid = sum(one.valid for one in found), sum(one.invalid for one in found)
    yield f"stored          {valid + invalid:,}: {valid:,} valid, {invalid:,} invalid"
    made = {fate: sum(tally.total("accepted", one, fate) for one in agreement.stored) for fate in Fate}
    yield f"by the samples  {made[Fate.VALID]:,} valid, {made[Fate.INVALID]:,} invalid, were k8s/rules in force"
    yield f"missing         {agreement.missing:,}"
    if agreement.unexplained:
        yield f"unexplained     {agreement.unexplained:,} stored that were neither accepted nor left unanswered"
    for reason, applications in _unread(agreement.stored):
        yield f"not compared    token {', '.join(applications)}: {reason}"


def _listed(tally: Tally, key: str) -> str:
    details = ", ".join(f"{detail} {number:,}" for detail, number in tally.by(key).items())
    return f"{tally.total(key):,}" + (f" ({details})" if details else "")


def _unread(stored: Mapping[int, Stored]) -> Iterable[tuple[str, list[str]]]:
    reasons: dict[str, list[str]] = {}
    for application, found in stored.items():
        if found.unread:
            reasons.setdefault(found.unread, []).append(str(application + 1))
    return reasons.items()
