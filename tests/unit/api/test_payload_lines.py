"""A payload is shown as it was spelt, line by line, each with its path."""

import json
import random
from typing import Any

import pytest

from the_eye_api.pages.payload import MAX_LINES, MAX_STRING, read_lines


def shown(data: str) -> list[tuple[str, str]]:
    """Give each line's path and its text, indented."""
    return [
        (line.path, "  " * line.depth + "".join(token.text for token in line.tokens))
        for line in read_lines(data.encode(), "$.data").lines
    ]


def test_each_line_has_the_path_of_its_value() -> None:
    data = '{"a": [1, {"b c": null}], "e": {}, "f": [], "g":"x,{}"}'

    assert shown(data) == [
        ("$.data", "{"),
        ("$.data.a", '  "a":['),
        ("$.data.a[0]", "    1,"),
        ("$.data.a[1]", "    {"),
        ('$.data.a[1]["b c"]', '      "b c":null'),
        ("", "    }"),
        ("", "  ],"),
        ("$.data.e", '  "e":{},'),
        ("$.data.f", '  "f":[],'),
        ("$.data.g", '  "g":"x,{}"'),
        ("", "}"),
    ]


def test_spelling_is_the_senders() -> None:
    """Numbers that decoding would round, equal keys, and what was escaped."""
    data = r'{"n":1.10,"n":123456789012345678901234567890,"s":"\u00e9\"\\","t":true}'

    assert "".join(line.strip() for _, line in shown(data)) == data


@pytest.mark.parametrize("data", ["{}", " { } ", '{\n"a"\t:\r1}'])
def test_white_space_is_ours(data: str) -> None:
    assert "".join(line for _, line in shown(data)).replace(" ", "") == "".join(data.split())


def made(depth: int, chance: random.Random) -> Any:
    """Make any JSON value."""
    kind = chance.randrange(6 if depth else 4)
    if kind == 4:
        return [made(depth - 1, chance) for _ in range(chance.randrange(4))]
    if kind == 5:
        return {
            chance.choice(['a"b', "[", "é", "", "x{"]) + str(n): made(depth - 1, chance)
            for n in range(chance.randrange(4))
        }
    return [None, True, -1.5e3, 'te"x,t:}]'][kind]


def test_nothing_is_lost_of_any_payload() -> None:
    chance = random.Random(1)  # noqa: S311 - no secret
    for _ in range(300):
        value = {"v": made(5, chance)}
        lines = read_lines(json.dumps(value).encode(), "$").lines
        assert json.loads("".join(token.text for line in lines for token in line.tokens)) == value
        assert len({line.path for line in lines if line.path}) == sum(bool(line.path) for line in lines)


def test_what_is_large_is_cut_and_said_to_be() -> None:
    long = read_lines(json.dumps({"s": "x" * (MAX_STRING + 1)}).encode(), "$")
    assert "(3 characters more)" in long.lines[1].tokens[2].text

    many = read_lines(json.dumps({"a": [0] * MAX_LINES}).encode(), "$")
    assert not many.whole
    assert len(many.lines) == MAX_LINES
    deep = read_lines(b'{"a":' * 64 + b"1" + b"}" * 64, "$")
    assert deep.whole
    assert deep.lines[64].depth == 64
