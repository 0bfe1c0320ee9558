"""What values.yaml says: its keys, their defaults, and the comments above them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml

CHART = Path(__file__).parents[2] / "charts" / "the-eye"
VALUES = CHART / "values.yaml"

WHOLE = frozenset({"behavior", "from", "labels", "resources", "to", "topologySpread"})
"""Keys whose defaults are of Kubernetes' making: they are one value, whatever is in them."""


class Value(msgspec.Struct, frozen=True):
    """One key."""

    path: tuple[str, ...]
    default: Any
    comment: str
    """On one line; empty when there is none."""
    is_section: bool
    """Whether there are keys of ours below it."""


def read() -> list[Value]:
    """Read all keys in the order of the file."""
    text = VALUES.read_text()
    node = yaml.compose(text, yaml.SafeLoader)
    assert isinstance(node, yaml.MappingNode)
    return list(_keys(node, (), text.splitlines()))


def defaults() -> dict[str, Any]:
    """Read the defaults."""
    found: dict[str, Any] = yaml.safe_load(VALUES.read_text())
    return found


def _keys(node: yaml.MappingNode, above: tuple[str, ...], lines: list[str]) -> Iterator[Value]:
    default = _plain(node)
    for key, value in node.value:
        path = (*above, key.value)
        is_section = isinstance(value, yaml.MappingNode) and bool(value.value) and key.value not in WHOLE
        yield Value(path, default[key.value], _comment(key.start_mark.line, lines), is_section)
        if is_section:
            yield from _keys(value, path, lines)


def _plain(node: yaml.Node) -> Any:
    return yaml.safe_load(yaml.serialize(node))


def _comment(line: int, lines: list[str]) -> str:
    """Join the comment's lines that stand directly above a key."""
    found: list[str] = []
    while line and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        found.insert(0, lines[line].lstrip().lstrip("#").strip())
    return " ".join(found)
