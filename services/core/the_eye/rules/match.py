"""Finding the rules of an event without trying each: exact texts in a dictionary, globs once per kind of event."""

import re
from collections.abc import Callable, Iterable
from fnmatch import translate
from functools import lru_cache
from typing import Generic, Protocol, TypeVar

from the_eye.rules.manifest import Match

REMEMBERED = 4096
"""How many combinations of category, name and application are remembered; bounded, because senders choose them."""


class _Matching(Protocol):
    @property
    def match(self) -> Match: ...


R = TypeVar("R", bound=_Matching)


class Index(Generic[R]):
    """Rules by what they match."""

    def __init__(self, rules: Iterable[R]) -> None:
        self._exact: dict[tuple[str, str], list[tuple[int, R]]] = {}
        self._globs: list[tuple[int, R, Callable[[str, str], bool]]] = []
        for order, rule in enumerate(rules):
            category, name = rule.match.category, rule.match.name
            if is_glob(category) or is_glob(name):
                self._globs.append((order, rule, _pair_matcher(category, name)))
            else:
                self._exact.setdefault((category, name), []).append((order, rule))
        self.find = lru_cache(REMEMBERED)(self._find)
        """The rules for a category, a name and an application, in the order they were given."""

    def _find(self, category: str, name: str, application: str) -> tuple[R, ...]:
        found = list(self._exact.get((category, name), ()))
        found += [(order, rule) for order, rule, matches in self._globs if matches(category, name)]
        found.sort(key=lambda pair: pair[0])
        return tuple(rule for _, rule in found if _application_matches(rule.match.applications, application))


def is_glob(pattern: str) -> bool:
    """Whether a pattern is more than exact text."""
    return any(character in pattern for character in "*?[")


def _pair_matcher(category: str, name: str) -> Callable[[str, str], bool]:
    matches_category, matches_name = _matcher(category), _matcher(name)
    return lambda category, name: matches_category(category) and matches_name(name)


def _matcher(pattern: str) -> Callable[[str], bool]:
    if pattern == "*":
        return lambda _: True
    if not is_glob(pattern):
        return pattern.__eq__
    matches = re.compile(translate(pattern)).match
    return lambda text: matches(text) is not None


def _application_matches(patterns: tuple[str, ...], application: str) -> bool:
    return not patterns or any(_matcher(pattern)(application) for pattern in patterns)
