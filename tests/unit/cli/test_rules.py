"""``the-eye rules``, as a person and as CI run it; what a back-test finds in a store is shown elsewhere."""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from the_eye_cli.rules import rules
from the_eye_cli.windows import Time

RULE = """
apiVersion: the-eye.io/v1alpha1
kind: ValidatorRule
metadata: {name: element, namespace: shop}
spec:
  match: {category: page interaction, name: cta click}
  schema: {required: [element], properties: {element: {enum: [chat bubble, buy button]}}}
"""
AUDIT = """
apiVersion: the-eye.io/v1alpha1
kind: ValidatorRule
metadata: {name: host}
spec:
  match: {category: page *, applications: [shop]}
  action: Audit
  validations: [{expression: event.data.host == 'x', message: host is x}]
"""

BAD_TYPE = (
    "spec.schema.properties.element.type: a type is array, boolean, integer, null, number, object or string, "
    "or a list of these"
)
TAB = "line 2, column 1: found character that cannot start any token: is there a tab?"
DUPLICATE = "metadata.name: the rule is already in"


def run(*arguments: str | Path, stdin: str | bytes | None = None) -> Result:
    result = CliRunner().invoke(rules, [str(argument) for argument in arguments], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def line(**fields: Any) -> str:
    plain = {
        "session_id": "e2085be5-9137-4e4e-80b5-f1ffddc25423",
        "category": "page interaction",
        "name": "cta click",
        "data": {"host": "x", "element": "chat bubble"},
        "timestamp": "2023-01-01 09:15:27.243860Z",
    }
    return json.dumps({**plain, **fields})


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "element.yaml").write_text(RULE)
    return folder


def test_sound_rules_pass(directory: Path) -> None:
    result = run("lint", directory)

    assert result.exit_code == 0
    assert result.output == "1 sound rule in 1 file, 0 problems\n"


def test_each_problem_is_one_line_with_file_rule_and_field(directory: Path) -> None:
    (directory / "a.yaml").write_text(RULE.replace("name: element", "name: a").replace("enum: [", "type: ["))
    (directory / "b.yaml").write_text("a:\n\tb")
    (directory / "c.yaml").write_text(f"{AUDIT}---{RULE.replace('cta click', '').replace('shop', '5')}")
    (directory / "d.yaml").write_text(RULE)

    result = run("lint", directory)

    assert result.exit_code == 1
    assert sorted(result.output.splitlines()) == sorted(
        [
            f"{directory}/a.yaml: shop/a: {BAD_TYPE}",
            f"{directory}/b.yaml: document 1: {TAB}",
            f"{directory}/c.yaml: document 2: metadata.namespace: expected `str`, got `int`",
            f"{directory}/element.yaml: shop/element: {DUPLICATE} {directory}/d.yaml, whose version counts",
            "2 sound rules in 5 files, 4 problems",
        ]
    )


def test_files_and_standard_input_are_linted_together(directory: Path) -> None:
    result = run("lint", directory / "element.yaml", "-", stdin=RULE)

    assert result.exit_code == 1
    assert f"{directory}/element.yaml: shop/element: metadata.name: the rule is already in -" in result.output


def test_problems_as_json_for_programs(directory: Path) -> None:
    (directory / "b.yaml").write_text(RULE.replace("name: element", "name: b").replace("category", "catgory"))

    result = run("lint", directory, "--output", "json")

    linted = json.loads(result.output)
    assert result.exit_code == 1
    assert (linted["files"], linted["rules"]) == (2, 1)
    assert linted["revision"].startswith("sha256:")
    assert linted["problems"] == [
        {
            "file": f"{directory}/b.yaml",
            "rule": "shop/b",
            "path": "spec.match.catgory",
            "reason": "InvalidField",
            "message": "no such field; there are category, name, applications",
        }
    ]


def test_a_directory_without_manifests_does_not_pass(tmp_path: Path) -> None:
    result = run("lint", tmp_path)

    assert result.exit_code == 1
    assert f"{tmp_path}: no manifests are here" in result.output


def test_a_path_that_is_not_there_is_a_wrong_usage(tmp_path: Path) -> None:
    assert run("lint", tmp_path / "nope").exit_code == 2
    assert run("lint").exit_code == 2


def test_a_manifest_does_not_steer_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "\x1b[31m.yaml").write_text("kind: x")

    result = run("lint", tmp_path)

    assert "\x1b" not in result.output
    assert "\\x1b[31m.yaml: document 1: " in result.output


def test_verdicts_are_shown_as_a_table(directory: Path, tmp_path: Path) -> None:
    (directory / "host.yaml").write_text(AUDIT)
    events = tmp_path / "events.ndjson"
    events.write_text(
        "\n".join(
            [
                line(),
                line(data={"host": "y", "element": "banner"}),
                "",
                line(category="other", name="a very long name of an event"),
                line(session_id="x", extra=1),
            ]
        )
    )

    result = run("test", directory, "--events", events, "--application", "shop")

    assert result.exit_code == 1
    assert result.output == (
        "index  category          name                      verdict           violations\n"
        "0      page interaction  cta click                 valid             0\n"
        "1      page interaction  cta click                 invalid           2\n"
        "       default/host $ expression.false: host is x (audited)\n"
        '       shop/element $.data.element schema.enum: the value is not one of "chat\n'
        '         bubble" or "buy button"\n'
        "2      other             a very long name of an …  valid, unmatched  0\n"
        "3      -                 -                         refused           0\n"
        "       $.session_id invalid_uuid: session_id is a UUID\n"
        "       $.extra unknown_field: an event has no such field\n"
        "4 events: 2 valid, 1 invalid, 1 refused\n"
    )
    assert max(map(len, result.output.splitlines())) <= 80


def test_verdicts_as_json_for_programs(directory: Path) -> None:
    result = run("test", directory, "--events", "-", "--output", "json", stdin=f"{line()}\n{line(data={})}\n{{}}")

    tested = json.loads(result.output)
    assert result.exit_code == 1
    assert tested["revision"].startswith("sha256:")
    assert (tested["valid"], tested["invalid"], tested["refused"]) == (1, 1, 1)
    assert [event["verdict"] for event in tested["events"]] == ["valid", "invalid", "refused"]
    assert tested["events"][0] == {
        "index": 0,
        "category": "page interaction",
        "name": "cta click",
        "verdict": "valid",
        "matched": True,
        "violations": [],
        "faults": [],
    }
    assert tested["events"][1]["violations"] == [
        {
            "rule": "shop/element",
            "generation": 1,
            "action": "Enforce",
            "path": "$.data",
            "code": "schema.required",
            "message": '"element" is a required property',
        }
    ]
    assert tested["events"][2]["faults"][0]["code"] == "missing_field"


@pytest.mark.parametrize(
    ("events", "status"),
    [
        pytest.param(line(), 0, id="valid"),
        pytest.param(line(category="other"), 0, id="unmatched"),
        pytest.param(f"[{line()}, {line()}]", 0, id="an array"),
        pytest.param(line(data={}), 1, id="invalid"),
        pytest.param(line(timestamp="2923-01-01T00:00:00Z"), 1, id="in the future"),
        pytest.param("{", 1, id="malformed"),
        pytest.param("\n \n", 2, id="no events"),
        pytest.param("[]", 2, id="an empty array"),
        pytest.param("[{]", 2, id="a broken array"),
        pytest.param("[" * 100_000, 2, id="a deep array"),
    ],
)
def test_the_exit_status_is_for_ci(directory: Path, events: str, status: int) -> None:
    assert run("test", directory, "--events", "-", stdin=events).exit_code == status


def test_an_audited_violation_does_not_fail(directory: Path) -> None:
    (directory / "element.yaml").write_text(AUDIT)

    result = run("test", directory, "--events", "-", "--application", "shop", stdin=line(data={}))

    assert result.exit_code == 0
    assert "expression.error: not evaluated (a key is missing): host is x (audited)" in " ".join(result.output.split())


def test_rules_of_other_applications_do_not_match(directory: Path) -> None:
    (directory / "element.yaml").write_text(AUDIT.replace("Audit", "Enforce"))

    for arguments, status in ((("--application", "shop"), 1), (("--application", "blog"), 0), ((), 0)):
        assert run("test", directory, "--events", "-", *arguments, stdin=line(data={})).exit_code == status


def test_events_are_not_tested_with_broken_rules(directory: Path) -> None:
    (directory / "b.yaml").write_text("a: [")

    result = run("test", directory, "--events", "-", stdin=line())

    assert result.exit_code == 2
    assert result.stdout == ""
    assert f"{directory}/b.yaml: document 1: line 2" in result.stderr


def test_standard_input_is_not_read_twice() -> None:
    assert run("test", "-", "--events", "-", stdin="").exit_code == 2


def test_an_event_does_not_steer_the_terminal(directory: Path) -> None:
    result = run("test", directory, "--events", "-", stdin=line(category="\x1b[31m", name="a\nb\u202e"))

    assert "\x1b" not in result.output
    assert "\\x1b[31m" in result.output
    assert "a\\nb\\u202e" in result.output


def test_the_tolerance_of_the_settings_holds(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_EYE_FUTURE_TOLERANCE_SECONDS", "1e8")
    soon = (datetime.now(UTC) + timedelta(days=1000)).isoformat()

    assert run("test", directory, "--events", "-", stdin=line(timestamp=soon)).exit_code == 0


def test_a_sample_directory_is_linted_from_the_repository() -> None:
    result = run("lint", Path(__file__).parents[3] / "k8s" / "rules")

    assert result.output == "3 sound rules in 3 files, 0 problems\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--last", "1w"), "Invalid value for '--last': '1w' is no duration"),
        (("--last", "0h"), "Invalid value for '--last': '0h' is no duration"),
        (("--from", "yesterday"), "Invalid value for '--from': 'yesterday' is no time"),
        (("--to", "0001-01-01T12:00:00Z"), "Invalid value for '--last': it begins before the year 1"),
        (("--last", "1h", "--from", "2026-03-01"), "give either --last or --from"),
        (("--from", "2999-03-01"), "Invalid value for '--from': 2999-03-01T00:00:00Z is not before"),
        (("--rule", "shop/other"), "Invalid value for '--rule': there is no rule shop/other; there are shop/element"),
        (("--limit-rows", "0"), "Invalid value for '--limit-rows'"),
        (("--limit-seconds", "0"), "Invalid value for '--limit-seconds'"),
    ],
    ids=str,
)
def test_a_wrong_option_of_a_backtest_is_named(directory: Path, arguments: tuple[str, ...], message: str) -> None:
    """Before any server is asked."""
    result = run("backtest", directory, *arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_broken_rules_and_no_rules_are_not_backtested(directory: Path) -> None:
    none = run("backtest", "-", stdin="")
    (directory / "b.yaml").write_text("a: [")
    broken = run("backtest", directory)

    assert (none.exit_code, broken.exit_code) == (2, 2)
    assert "there are no rules to test" in none.stderr
    assert f"{directory}/b.yaml: document 1: line 2" in broken.stderr


def test_a_time_without_a_zone_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the machine is."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    read = [Time().convert(text, None, None) for text in ("2026-03-10 12:00", "2026-03-10T13:00:00+01:00")]
    monkeypatch.undo()
    time.tzset()

    assert read == [datetime(2026, 3, 10, 12, tzinfo=UTC)] * 2
