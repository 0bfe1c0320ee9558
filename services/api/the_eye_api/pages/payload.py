"""A payload as lines to look at: the sender's own spelling, indented, each line with the JSON path it is about.

It is cut into tokens and not decoded: decoding would round numbers, and drop all but the last of equal keys.
"""

import re
from collections.abc import Iterator
from itertools import islice

import msgspec

from the_eye.event import json_path

MAX_LINES = 2_000
MAX_STRING = 20_000
"""Characters of one string that are shown."""

_TOKEN = re.compile(rb'\s*(?:("(?:[^"\\]|\\.)*")|([{}\[\]:,])|([^\s{}\[\]:,"]+))')
_CLOSING = {"{": "}", "[": "]"}


class Token(msgspec.Struct, frozen=True):
    """A piece of a line."""

    kind: str
    """``key``, ``text``, ``number``, ``word`` or ``mark``; what the style sheet goes by."""
    text: str


class Line(msgspec.Struct, frozen=True):
    """A line."""

    path: str
    """Of the value that begins here; empty where one ends."""
    depth: int
    tokens: list[Token]


class Lines(msgspec.Struct, frozen=True):
    """A payload, or its beginning."""

    lines: list[Line]
    whole: bool


def read_lines(data: bytes, path: str) -> Lines:
    """Cut ``data``, which is JSON, into lines; ``path`` is its own."""
    lines = list(islice(_Reader(data, path).lines(), MAX_LINES + 1))
    return Lines(lines[:MAX_LINES], len(lines) <= MAX_LINES)


class _Container:
    """An object or array that is not closed yet."""

    def __init__(self, opening: str, path: str) -> None:
        self.opening = opening
        self.path = path
        self.index = 0


class _Reader:
    """Makes lines of tokens as they come."""

    def __init__(self, data: bytes, path: str) -> None:
        self._tokens = (_read(match) for match in _TOKEN.finditer(data))
        self._path = path
        self._open: list[_Container] = []
        self._line: list[Token] = []

    def lines(self) -> Iterator[Line]:
        path, depth = self._path, 0
        for token in self._tokens:
            if token.kind == "mark" and token.text in "}]":
                if self._line and self._line[-1].text == self._open[-1].opening:  # empty: it closes in its own line
                    self._line.append(token)
                else:
                    yield from self._end(path, depth)
                    path, depth = "", len(self._open) - 1
                    self._line.append(token)
                self._open.pop()
                continue
            if token.text == "," and token.kind == "mark":
                self._line.append(token)
                yield from self._end(path, depth)
                path, depth = self._next(), len(self._open)
                continue
            if self._line and self._line[-1].kind == "mark" and self._line[-1].text in "{[":
                yield from self._end(path, depth)
                path, depth = self._next(), len(self._open)
            if self._expects_key():
                path = json_path(self._open[-1].path, _decoded(token.text))
                token = Token("key", token.text)  # noqa: PLW2901 - the same token, known better
            elif token.kind == "mark" and token.text in "{[":
                self._open.append(_Container(token.text, path))
            self._line.append(token)
        yield from self._end(path, depth)

    def _expects_key(self) -> bool:
        return bool(self._open) and self._open[-1].opening == "{" and not self._line

    def _next(self) -> str:
        """Give the path of the next value of an array; an object's is known with its key."""
        container = self._open[-1]
        path = json_path(container.path, container.index) if container.opening == "[" else container.path
        container.index += 1
        return path

    def _end(self, path: str, depth: int) -> Iterator[Line]:
        if self._line:
            yield Line(path, depth, self._line)
            self._line = []


def _read(match: re.Match[bytes]) -> Token:
    string, mark, other = match.groups()
    if string is not None:
        return Token("text", _cut(string.decode()))
    if mark is not None:
        return Token("mark", mark.decode())
    text = other.decode()
    return Token("word" if text in {"true", "false", "null"} else "number", _cut(text))


def _cut(text: str) -> str:
    if len(text) <= MAX_STRING:
        return text
    return f"{text[:MAX_STRING]}… ({len(text) - MAX_STRING:,} characters more)"


def _decoded(key: str) -> str:
    try:
        return msgspec.json.decode(key, type=str)
    except msgspec.MsgspecError:  # a key that was cut
        return key
