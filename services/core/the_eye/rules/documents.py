"""YAML and JSON texts, read as the JSON values they stand for; what cannot be read is a value too, not an exception.

A text means here what it means to ``kubectl apply``: what YAML 1.1 calls a timestamp is text, and so is ``12:30``.
What readers of YAML disagree about (``yes``, ``0777``, ``1_000``) is refused, because a rule must not change its
meaning between a laptop and a cluster.
"""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import Any, cast

import msgspec
import yaml

MAX_TEXT_BYTES = 4 * 1024 * 1024
"""The largest text that is read: room for thousands of rules, and a bound on a poll's work."""

MAX_DEPTH = 64
"""The deepest nesting of a document; the schema library stops at about as many."""

MAX_WEIGHT = 8 * 1024 * 1024
"""The heaviest document, weighed after aliases are expanded: what stops a "billion laughs"."""

VALUE_WEIGHT = 16
"""What a value or a key weighs beside its characters."""

MAX_DIGITS = 400
"""The longest literal of a number; longer ones are beyond a double or pretend to a precision that is lost."""


class Document(msgspec.Struct, frozen=True):
    """One document of a text."""

    number: int
    """From 1, as the documents stand in the text."""
    value: Any


class Unreadable(msgspec.Struct, frozen=True):
    """A document that is not read, or the rest of a text from which nothing more can be read."""

    number: int
    message: str
    """Begins with the line and the column where they are known."""


class _UnreadableError(Exception):
    """Raised inside a document where it stops being readable."""

    def __init__(self, message: str, event: yaml.Event | None = None) -> None:
        super().__init__(message if event is None else _place(event.start_mark) + message)


class _TooDeepError(_UnreadableError):
    """Raised where a document is nested too deeply; the parser's time grows with the square of the depth."""

    def __init__(self, event: yaml.Event | None = None) -> None:
        super().__init__(f"a document is nested at most {MAX_DEPTH} levels deep", event)


def read_documents(text: str | bytes) -> Iterator[Document | Unreadable]:
    """Read every document of a text.

    After an error of syntax and after a document that is nested too deeply nothing more is read; other faults spare
    the rest.
    """
    try:
        decoded = _decoded(text)
        if decoded.lstrip().startswith(("{", "[")) and (document := _read_json(decoded)) is not None:
            yield document
            return
        events = iter(yaml.parse(decoded, Loader=_Loader))
    except _UnreadableError as error:
        yield Unreadable(1, str(error))
        return
    number = 0
    try:
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                number += 1
                yield _read_document(number, events)
    except _TooDeepError as error:
        yield Unreadable(number, str(error))
    except yaml.MarkedYAMLError as error:
        yield Unreadable(max(number, 1), f"{_place(error.problem_mark)}{_syntax_problem(error)}")
    except yaml.YAMLError as error:
        yield Unreadable(max(number, 1), str(error).partition("\n")[0])


_Loader = cast("type[yaml.SafeLoader]", getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _decoded(text: str | bytes) -> str:
    try:
        raw = text.encode() if isinstance(text, str) else text
        decoded = raw.decode("utf-8-sig")
    except UnicodeError as error:
        message = f"text is UTF-8: {error}"
        raise _UnreadableError(message) from error
    if len(raw) > MAX_TEXT_BYTES:
        message = f"a text has at most {MAX_TEXT_BYTES} bytes"
        raise _UnreadableError(message)
    return decoded


def _syntax_problem(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "the text is not YAML"
    return f"{problem}: is there a tab?" if problem == "found character that cannot start any token" else problem


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""


def _read_json(text: str) -> Document | None:
    """Read JSON, or give None for what may yet be YAML in flow style.

    JSON has a reader of its own because YAML's knows neither tabs for indentation nor surrogate pairs.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_no_number,
            parse_float=_float,
            parse_int=_int,
        )
    except (ValueError, RecursionError):
        return None
    _check_depth(value, MAX_DEPTH)
    return Document(1, value)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        message = f"key {twice!r} stands twice"
        raise _UnreadableError(message)
    return mapping


def _no_number(literal: str) -> float:
    message = f"{literal} is no number of JSON"
    raise _UnreadableError(message)


def _int(literal: str) -> int:
    if len(literal) > MAX_DIGITS:
        _no_number("a number of more than 400 digits")
    return int(literal)


def _float(literal: str) -> float:
    number = float(literal)
    if number in (float("inf"), float("-inf")):
        _no_number(literal if len(literal) <= MAX_DIGITS else "a number of more than 400 digits")
    return number


def _check_depth(value: Any, levels: int) -> None:
    if isinstance(value, dict | list):
        if levels == 0:
            raise _TooDeepError
        for inner in value.values() if isinstance(value, dict) else value:
            _check_depth(inner, levels - 1)


_TOO_HEAVY = "the document is too large, its aliases expanded"


def _read_document(number: int, events: Iterator[yaml.Event]) -> Document | Unreadable:
    """Consume the events of one document, to its end even when it is not readable.

    Raises _TooDeepError where going on to the end is not worth its time.
    """
    of_document = takewhile(lambda event: not isinstance(event, yaml.DocumentEndEvent), events)
    try:
        return Document(number, _Builder(of_document).build())
    except _TooDeepError:
        raise
    except _UnreadableError as error:
        for _ in of_document:
            pass
        return Unreadable(number, str(error))


class _Node(msgspec.Struct, frozen=True):
    value: Any
    weight: int = VALUE_WEIGHT
    height: int = 0


class _Builder:
    """Builds one document's value from the parser's events; PyYAML's own constructor takes YAML's types, not JSON's."""

    def __init__(self, events: Iterable[yaml.Event]) -> None:
        self._events = iter(events)
        self._anchors: dict[str, _Node] = {}
        self._budget = MAX_WEIGHT

    def build(self) -> Any:
        return self._node(next(self._events), 0).value

    def _node(self, event: yaml.Event, depth: int) -> _Node:
        node = self._alias(event) if isinstance(event, yaml.AliasEvent) else self._fresh(event, depth)
        if depth + node.height > MAX_DEPTH:
            raise _TooDeepError(event)
        return node

    def _alias(self, event: yaml.AliasEvent) -> _Node:
        node = self._anchors.get(event.anchor or "")
        if node is None:
            message = f"alias *{event.anchor} has no anchor before it"
            raise _UnreadableError(message, event)
        self._spend(node.weight, event)
        return node

    def _fresh(self, event: yaml.Event, depth: int) -> _Node:
        self._spend(VALUE_WEIGHT, event)
        if isinstance(event, yaml.ScalarEvent):
            node = _Node(_scalar(event), VALUE_WEIGHT + len(event.value))
        elif depth >= MAX_DEPTH:
            raise _TooDeepError(event)
        elif isinstance(event, yaml.MappingStartEvent):
            node = self._mapping(event, depth + 1)
        else:
            node = self._sequence(event, depth + 1)
        if event.anchor is not None:  # type: ignore[attr-defined] # every node event has it; the stubs' base class has not
            self._anchors[event.anchor] = node  # type: ignore[attr-defined]
        return node

    def _mapping(self, start: yaml.MappingStartEvent, depth: int) -> _Node:
        _check_tag(start, "tag:yaml.org,2002:map")
        mapping: dict[str, Any] = {}
        nodes: list[_Node] = []
        for event in takewhile(lambda event: not isinstance(event, yaml.MappingEndEvent), self._events):
            key = self._key(event, depth)
            if key in mapping:
                message = f"key {key!r} stands twice"
                raise _UnreadableError(message, event)
            node = self._node(next(self._events), depth)
            nodes += (_Node(key, VALUE_WEIGHT + len(key)), node)
            mapping[key] = node.value
        return _container(mapping, nodes)

    def _key(self, event: yaml.Event, depth: int) -> str:
        if isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]:
            message = "merge keys (<<) are not supported"
            raise _UnreadableError(message, event)
        key = self._node(event, depth).value
        if not isinstance(key, str):
            message = "a key is text: put it in quotes"
            raise _UnreadableError(message, event)
        return key

    def _sequence(self, start: yaml.Event, depth: int) -> _Node:
        _check_tag(start, "tag:yaml.org,2002:seq")
        items = takewhile(lambda event: not isinstance(event, yaml.SequenceEndEvent), self._events)
        nodes = [self._node(event, depth) for event in items]
        return _container([node.value for node in nodes], nodes)

    def _spend(self, weight: int, event: yaml.Event) -> None:
        self._budget -= weight
        if self._budget < 0:
            raise _UnreadableError(_TOO_HEAVY, event)


def _container(value: Any, nodes: list[_Node]) -> _Node:
    weight = VALUE_WEIGHT + sum(node.weight for node in nodes)
    return _Node(value, weight, 1 + max((node.height for node in nodes), default=0))


def _check_tag(event: yaml.Event, own: str) -> None:
    tag = event.tag  # type: ignore[attr-defined] # as above
    if tag not in (None, "!", own):
        message = f"tag {tag} is not supported"
        raise _UnreadableError(message, event)


_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
_UNCLEAR_WORDS = {"y", "yes", "n", "no", "on", "off"}
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_UNCLEAR_NUMBER = re.compile(
    r"[-+]?(?:0x[0-9a-f_]+|0o[0-7_]+|0b[01_]+|[0-9][0-9_]*\.?[0-9_]*(?:e[-+]?[0-9]+)?|\.[0-9][0-9_]*(?:e[-+]?[0-9]+)?)",
    re.IGNORECASE,
)
_NO_NUMBER = re.compile(r"[-+]?\.(?:inf|nan)", re.IGNORECASE)


def _scalar(event: yaml.ScalarEvent) -> Any:
    _check_tag(event, "tag:yaml.org,2002:str")
    if event.tag is not None or not event.implicit[0]:
        return event.value
    try:
        return _plain(event.value)
    except _UnreadableError as error:
        raise _UnreadableError(str(error), event) from error


def _plain(text: str) -> Any:
    """Tell what an unquoted scalar stands for."""
    if text.lower() in _WORDS and text in (text.lower(), text.capitalize(), text.upper()):
        return _WORDS[text.lower()]
    if number := _NUMBER.fullmatch(text):
        return _float(text) if number[1] or number[2] else _int(text)
    if _NO_NUMBER.fullmatch(text):
        return _no_number(text)
    if text.lower() in _UNCLEAR_WORDS or (len(text) <= MAX_DIGITS and _UNCLEAR_NUMBER.fullmatch(text)):
        message = f"{text} does not mean the same to every reader of YAML: quote it if it is text"
        raise _UnreadableError(message)
    return text


_BaseDumper = cast("type[yaml.SafeDumper]", getattr(yaml, "CSafeDumper", yaml.SafeDumper))


class _Dumper(_BaseDumper):  # type: ignore[valid-type,misc] # which of the two it is, is known when it runs
    """Quotes what is unclear, and keeps the lines of texts."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = "|" if "\n" in text else None if _is_clear(text) else '"'
        return cast("yaml.ScalarNode", self.represent_scalar("tag:yaml.org,2002:str", text, style=style))


_Dumper.add_representer(str, _Dumper.represent_text)


def _is_clear(text: str) -> bool:
    try:
        return bool(_plain(text) == text)
    except _UnreadableError:
        return False


def write_document(value: Any) -> str:
    """Write a JSON value as YAML, its keys in the order they have."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
