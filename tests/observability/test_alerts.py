"""Each alert fires when it should and not when it nearly should, says what it is to say, and has its runbook."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from tests.chart.prometheus_rules import FOLDER

from the_eye_cli.main import main

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "docs" / "runbooks"
CASES: dict[str, list[dict[str, Any]]] = yaml.safe_load((Path(__file__).parent / "alert_cases.yaml").read_text())

PROMTOOL_SECONDS = 120.0


GROUPS = [
    group
    for name in ("recording-rules.yaml", "alerts.yaml")
    for group in yaml.safe_load((FOLDER / name).read_text())["groups"]
]
ALERTS = [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]
COMMANDS = sorted(
    {
        command
        for page in RUNBOOKS.glob("*.md")
        for command in re.findall(r"(?:^\$ |`|-- )the-eye ([a-z]+(?: [a-z]+)?)", page.read_text(), re.MULTILINE)
    }
)
"""Commands of ours that the runbooks name, without their options."""

ONE_BY_ONE = [rule["alert"] + rule["labels"].get("long", rule["labels"].get("of", "")) for rule in ALERTS]

NAMES = list(dict.fromkeys(rule["alert"] for rule in ALERTS))


def promtool(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run promtool."""
    return subprocess.run(  # noqa: S603 - our own files
        ["promtool", *arguments],  # noqa: S607 - where the system has it
        capture_output=True,
        text=True,
        timeout=PROMTOOL_SECONDS,
        check=False,
    )


@pytest.mark.usefixtures("programs")
def test_promtool_finds_no_fault_with_the_rules() -> None:
    checked = promtool("check", "rules", "--lint-fatal", *map(str, FOLDER.glob("*.yaml")))

    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.usefixtures("programs")
def test_promtool_finds_no_fault_with_the_configuration() -> None:
    checked = promtool("check", "config", str(FOLDER.parent / "prometheus.yml"))

    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("programs")
def test_it_fires_when_it_should_and_only_then(name: str, tmp_path: Path) -> None:
    files = [_write(name, case, tmp_path / f"{number}.yaml") for number, case in enumerate(CASES[name])]

    tested = promtool("test", "rules", *map(str, files))

    assert tested.returncode == 0, tested.stdout + tested.stderr


def _write(name: str, case: dict[str, Any], file: Path) -> Path:
    """Write a file for each case: it is the file that says how often rules are evaluated."""
    test = {
        "rule_files": [str(FOLDER / "*.yaml")],
        "evaluation_interval": case.get("evaluate", "1m"),
        "group_eval_order": [group["name"] for group in GROUPS],
        "tests": [_test(name, case)],
    }
    file.write_text(yaml.safe_dump(test))
    return file


def _test(name: str, case: dict[str, Any]) -> dict[str, Any]:
    """Write a case as promtool has it."""
    series = [{"series": selector, "values": values} for selector, values in case["series"].items()]
    expected = [
        {"exp_labels": fire["labels"], "exp_annotations": {**_fixed(name), "description": fire["description"]}}
        for fire in case["fires"]
    ]
    looks = [{"alertname": name, "eval_time": case["at"], "exp_alerts": expected}]
    if "quiet_until" in case:
        looks.append({"alertname": name, "eval_time": case["quiet_until"], "exp_alerts": []})
    return {
        "name": case["why"],
        "interval": case.get("interval", "1m"),
        "input_series": series,
        "alert_rule_test": looks,
    }


def _fixed(name: str) -> dict[str, str]:
    """Give the annotations that are the same for all instances of an alert."""
    (first, *_) = [rule["annotations"] for rule in ALERTS if rule["alert"] == name]
    return {key: text for key, text in first.items() if key != "description"}


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    assert list(CASES) == NAMES
    for name, cases in CASES.items():
        assert any(not case["fires"] for case in cases), name
        severities = {fire["labels"]["severity"] for case in cases for fire in case["fires"]}
        assert severities == {rule["labels"]["severity"] for rule in ALERTS if rule["alert"] == name}, name


def test_an_alert_that_waits_has_cases_that_look_a_minute_before_it_fires() -> None:
    for rule in ALERTS:
        fires = [case for case in CASES[rule["alert"]] if case["fires"]]
        assert ("for" in rule) is all("quiet_until" in case for case in fires), rule["alert"]


@pytest.mark.parametrize("rule", ALERTS, ids=ONE_BY_ONE)
def test_it_says_how_grave_it_is_what_it_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url", "dashboard"}
    assert "{{" not in rule["annotations"]["summary"], "a summary is the same for all instances, for grouping"
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"


def test_every_alert_has_its_runbook_and_every_runbook_its_alert() -> None:
    pages = {page.stem for page in RUNBOOKS.glob("*.md")} - {"README"}
    index = (RUNBOOKS / "README.md").read_text()

    assert pages == set(NAMES)
    for name in NAMES:
        assert f"[{name}]({name}.md)" in index


@pytest.mark.parametrize("name", NAMES)
def test_a_runbook_says_what_it_means_how_to_look_what_to_do_and_when_it_is_over(name: str) -> None:
    lines = (RUNBOOKS / f"{name}.md").read_text().splitlines()

    assert lines[0] == f"# {name}"
    headings = [line for line in lines if line.startswith("## ")]
    assert headings == ["## What it means", "## How to look", "## What to do", "## When it is over"]


@pytest.mark.parametrize("rule", ALERTS, ids=ONE_BY_ONE)
def test_it_links_to_a_panel_that_there_is(rule: dict[str, Any]) -> None:
    link = re.fullmatch(r"/d/([a-z-]+)\?viewPanel=(\d+)", rule["annotations"]["dashboard"])
    assert link is not None
    dashboard = json.loads((ROOT / "observability" / "grafana" / f"{link[1]}.json").read_text())

    assert dashboard["uid"] == link[1]
    assert int(link[2]) in {panel["id"] for panel in dashboard["panels"] if panel["type"] != "row"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_runbooks_exists(command: str) -> None:
    found = CliRunner().invoke(main, [*command.split(), "--help"])

    assert found.exit_code == 0, found.output
    assert found.output.splitlines()[0].split()[2:4][: len(command.split())] == command.split()
