"""Texts become the JSON values that kubectl would make of them, or say what is wrong with them."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from the_eye.rules.documents import (
    MAX_TEXT_BYTES,
    MAX_WEIGHT,
    Document,
    Unreadable,
    read_documents,
    write_document,
)


def values(text: str | bytes) -> list[Any]:
    return [document.value if isinstance(document, Document) else document.message for document in read_documents(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a: b", [{"a": "b"}], id="a mapping"),
        pytest.param("- 1\n- [2, x]", [[1, [2, "x"]]], id="lists"),
        pytest.param("", [], id="no document"),
        pytest.param("# only a comment\n", [], id="a comment"),
        pytest.param("---\n---\na: 1\n", [None, {"a": 1}], id="an empty document"),
        pytest.param("--- a\n--- b\n", ["a", "b"], id="two documents"),
        pytest.param("a: ~\nb: null\nc:\nd: NULL", [{"a": None, "b": None, "c": None, "d": None}], id="nulls"),
        pytest.param("[true, False, TRUE, tRUE]", [[True, False, True, "tRUE"]], id="booleans"),
        pytest.param("[0, -7, 12, 1.5, -1e3, 2E+2]", [[0, -7, 12, 1.5, -1000.0, 200.0]], id="numbers of JSON"),
        pytest.param("['yes', \"0777\", '1']", [["yes", "0777", "1"]], id="quoted text is text"),
        pytest.param(
            "[1.2.3, 10.0.0.1, -, 1e, v1, 5m]", [["1.2.3", "10.0.0.1", "-", "1e", "v1", "5m"]], id="no numbers"
        ),
        pytest.param(
            "[2023-01-01, 2023-01-01T09:15:27Z, '12:30', 12:30:45]",
            [["2023-01-01", "2023-01-01T09:15:27Z", "12:30", "12:30:45"]],
            id="times are text",
        ),
        pytest.param("a: !!str 5\nb: ! x", [{"a": "5", "b": "x"}], id="the tag of text"),
        pytest.param("a: |\n  x\n  y\nb: >-\n  x\n  y", [{"a": "x\ny\n", "b": "x y"}], id="blocks of text"),
        pytest.param(
            "a: &x {b: 1}\nc: *x\nd: [*x, *x]", [{"a": {"b": 1}, "c": {"b": 1}, "d": [{"b": 1}] * 2}], id="aliases"
        ),
        pytest.param("a: &x 1\nb: &x 2\nc: *x", [{"a": 1, "b": 2, "c": 2}], id="an anchor given again"),
        pytest.param("\ufeffa: 1", [{"a": 1}], id="a byte order mark"),
        pytest.param("ключ: значення 😀", [{"ключ": "значення 😀"}], id="Unicode"),
        pytest.param(
            '{\n\t"a": "\\ud83d\\ude00\\/",\n\t"b": [1, 2.5, null, true]\n}',
            [{"a": "😀/", "b": [1, 2.5, None, True]}],
            id="JSON",
        ),
        pytest.param("{a: b, c: [d]}", [{"a": "b", "c": ["d"]}], id="flow style that is no JSON"),
        pytest.param('{"a": 1}\n---\n{"a": 2}', [{"a": 1}, {"a": 2}], id="JSON in YAML documents"),
    ],
)
def test_a_text_stands_for_these_values(text: str, expected: list[Any]) -> None:
    assert values(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a: b: c", "line 1, column 5: mapping values are not allowed", id="syntax"),
        pytest.param(
            "a:\n\t- b", "line 2, column 1: found character that cannot start any token: is there a tab?", id="tab"
        ),
        pytest.param("a: [1, 2", "line 2, column 1: did not find expected ',' or ']'", id="unclosed list"),
        pytest.param("a: 1\nb: 2\na: 3", "line 3, column 1: key 'a' stands twice", id="duplicate key"),
        pytest.param('{"a": {"b": 1, "b": 2}}', "key 'b' stands twice", id="duplicate key in JSON"),
        pytest.param("1: a", "line 1, column 1: a key is text", id="number for a key"),
        pytest.param("? [a]\n: b", "line 1, column 3: a key is text", id="list for a key"),
        pytest.param("~: a", "line 1, column 1: a key is text", id="null for a key"),
        pytest.param("<<: {a: 1}", "line 1, column 1: merge keys", id="merge key"),
        pytest.param("a: *nope", "line 1, column 4: alias *nope has no anchor", id="unknown alias"),
        pytest.param("a: &x [*x]", "line 1, column 8: alias *x has no anchor", id="alias inside itself"),
        pytest.param(
            "a: !!binary eA==", "line 1, column 4: tag tag:yaml.org,2002:binary is not supported", id="binary"
        ),
        pytest.param(
            "a: !!python/object:os.system x", "line 1, column 4: tag tag:yaml.org,2002:python", id="python tag"
        ),
        pytest.param("a: !mine {b: c}", "line 1, column 4: tag !mine is not supported", id="own tag"),
        pytest.param("a: yes", "line 1, column 4: yes does not mean the same", id="yes"),
        pytest.param("[x, y]", "line 1, column 5: y does not mean the same", id="y"),
        pytest.param("a: 0777", "line 1, column 4: 0777 does not mean the same", id="octal"),
        pytest.param("a: 0x1F", "line 1, column 4: 0x1F does not mean the same", id="hexadecimal"),
        pytest.param("a: 1_000", "line 1, column 4: 1_000 does not mean the same", id="underscore"),
        pytest.param("a: .5", "line 1, column 4: .5 does not mean the same", id="no digit before the point"),
        pytest.param("a: +1", "line 1, column 4: +1 does not mean the same", id="plus"),
        pytest.param("a: .nan", "line 1, column 4: .nan is no number of JSON", id="nan"),
        pytest.param("a: -.inf", "line 1, column 4: -.inf is no number of JSON", id="infinity"),
        pytest.param('{"a": NaN}', "NaN is no number of JSON", id="nan in JSON"),
        pytest.param("a: 1e999", "line 1, column 4: 1e999 is no number of JSON", id="beyond a double"),
        pytest.param("a: " + "9" * 5000, "line 1, column 4: a number of more than 400 digits", id="very many digits"),
        pytest.param("a: " + "1_" * 100_000, None, id="what would be slow to take for a number"),
        pytest.param(b"a: \xff", "text is UTF-8", id="no UTF-8"),
        pytest.param("a: \ud800", "text is UTF-8", id="lone surrogate"),
        pytest.param("a: \x00", "unacceptable character #x0000", id="control character"),
        pytest.param(
            "a: " + "[" * 1_000_000,
            "line 1, column 67: a document is nested at most",
            id="so deep that it would take hours",
        ),
        pytest.param("[" * 100 + "]" * 100, "a document is nested at most 64 levels", id="deep"),
        pytest.param('{"a":' * 100 + "1" + "}" * 100, "a document is nested at most 64 levels", id="deep JSON"),
        pytest.param("- " * 70 + "x", "line 1, column 129: a document is nested at most 64 levels", id="deep block"),
        pytest.param("x" * (MAX_TEXT_BYTES + 1), "a text has at most 4194304 bytes", id="large"),
        pytest.param("[" + "x," * (MAX_WEIGHT // 16) + "x]", "the document is too large", id="many values"),
    ],
)
def test_an_unreadable_text_says_where_and_why(text: str | bytes, message: str | None) -> None:
    last = list(read_documents(text))[-1]
    if message is None:
        assert isinstance(last, Document)
    else:
        assert isinstance(last, Unreadable)
        assert message in last.message


def test_a_billion_laughs_are_counted_and_not_laughed() -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]

    (outcome,) = read_documents("\n".join(lines))

    assert isinstance(outcome, Unreadable)
    assert "the document is too large, its aliases expanded" in outcome.message


@pytest.mark.parametrize("anchored", ["x" * 100_000, '["x' + "x" * 100_000 + '"]', "{" + "x" * 1000 + ": 1}"])
def test_a_long_text_cannot_be_multiplied_by_aliases(anchored: str) -> None:
    (outcome,) = read_documents(f"a: &a {anchored}\nb: [{'*a, ' * 10_000}]")

    assert isinstance(outcome, Unreadable)
    assert "the document is too large, its aliases expanded" in outcome.message


def test_aliases_cannot_nest_deeper_than_brackets() -> None:
    lines = ["a0: &a0 [[[[[[[[[[x]]]]]]]]]]"]
    lines += [f"a{i}: &a{i} [[[[[[[[[*a{i - 1}]]]]]]]]]" for i in range(1, 10)]

    (outcome,) = read_documents("\n".join(lines))

    assert isinstance(outcome, Unreadable)
    assert "nested at most" in outcome.message


def test_a_fault_in_one_document_spares_the_others() -> None:
    first, second, third = read_documents("a: 1\n---\na: yes\nb: [1, {c: d}]\n---\na: 3\n")

    assert first == Document(1, {"a": 1})
    assert isinstance(second, Unreadable)
    assert second.number == 2
    assert third == Document(3, {"a": 3})


def test_after_a_syntax_error_nothing_more_is_read() -> None:
    first, second = read_documents("a: 1\n---\na: [\n---\na: 3\n")

    assert first == Document(1, {"a": 1})
    assert isinstance(second, Unreadable)


@settings(deadline=None)  # a busy machine is no failure
@given(st.one_of(st.text(alphabet="ab:-[]{}&*!|>'\"#%@`,?\n\t 019.~<=eEnyux\\\u00e9\ud800"), st.binary(max_size=60)))
def test_no_text_raises(text: str | bytes) -> None:
    for outcome in read_documents(text):
        assert isinstance(outcome, Document | Unreadable)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_what_is_written_is_read_as_the_same(value: Any) -> None:
    assert list(read_documents(write_document({"value": value}))) == [Document(1, {"value": value})]


@pytest.mark.parametrize(
    "text", ["yes", "n", "0o17", "1_000", "~", "null", "12:30", "2026-03-01", "1e3", "<<", "", "- a"]
)
def test_text_that_could_be_misread_is_quoted(text: str) -> None:
    assert list(read_documents(write_document({text: [text]}))) == [Document(1, {text: [text]})]


def test_values_are_written_in_order_and_texts_by_their_lines() -> None:
    written = write_document({"b": "one\ntwo\n", "a": {"name": "cta click", "ok": True, "n": [1, 2.5]}})

    assert written == 'b: |\n  one\n  two\na:\n  name: cta click\n  ok: true\n  "n":\n  - 1\n  - 2.5\n'
