"""``the-eye events`` and ``the-eye rules backtest``, as a person runs them."""

import json
import os
import re
import shlex
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import click
import pytest
from click.testing import CliRunner, Result
from tests.integration.store.rows import NOON, event, insert, violating

from the_eye.settings import StoreSettings
from the_eye.store import revalidations
from the_eye.store.connect import Connection
from the_eye_cli.events import events
from the_eye_cli.output import Progress
from the_eye_cli.rules import rules

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "revalidate.md"

RULE = """
apiVersion: the-eye.io/v1alpha1
kind: ValidatorRule
metadata: {name: ok, namespace: shop}
spec:
  match: {category: page interaction}
  validations: [{expression: event.data.ok, message: ok is true}]
"""
GOOD, BAD = '{"ok": true}', '{"ok": false}'
WINDOW = ("--from", "2026-03-10T12:00:00Z", "--to", "2026-03-11 12:00:00")
REVALIDATE = ("revalidate", "--rule", "shop/ok", *WINDOW)


class Commands:
    """The commands with a store and a directory of rules."""

    def __init__(self, url: str, directory: Path) -> None:
        self.directory = directory
        self._environment = {"THE_EYE_DATABASE_URL": url, "THE_EYE_RULES_DIR": str(directory)}

    def run(self, *arguments: str, group: click.Group = events, **environment: str) -> Result:
        """Run a command."""
        result = CliRunner().invoke(group, arguments, env={**self._environment, **environment})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    def json(self, *arguments: str, group: click.Group = events) -> Any:
        """Run a command for programs."""
        return json.loads(self.run(*arguments, "--output", "json", group=group).stdout)


@pytest.fixture
def commands(store_settings: StoreSettings, connection: Connection, tmp_path: Path) -> Commands:
    """The commands with an empty store and one rule."""
    connection.execute("TRUNCATE revised_verdicts, revalidations RESTART IDENTITY")
    (tmp_path / "ok.yaml").write_text(RULE)
    return Commands(store_settings.database_url, tmp_path)


def stored(connection: Connection, *data: str, **changes: Any) -> list[UUID]:
    """Store events a minute apart, the first at the window's beginning."""
    return insert(
        connection, *(event(timestamp=NOON + timedelta(minutes=i), data=one, **changes) for i, one in enumerate(data))
    )


def test_a_dry_run_says_what_would_be(commands: Commands, connection: Connection) -> None:
    stored(connection, GOOD, BAD, BAD)
    stored(connection, GOOD, **violating("shop/ok"))

    result = commands.run(*REVALIDATE)

    assert result.exit_code == 0
    assert re.sub("sha256:[0-9a-f]{64}", "REVISION", result.stdout).splitlines() == [
        "rule: shop/ok",
        "events: from 2026-03-10T12:00:00Z to 2026-03-11T12:00:00Z, by their timestamp",
        "ruleset: REVISION",
        "examined: 4",
        "would become valid: 1",
        "would become invalid: 2",
        "violations would change: 0",
        "unchanged: 1",
    ]
    assert "a dry run: nothing was written; --apply writes it" in result.stderr
    assert commands.json("revalidations") == []


def test_applied_it_says_what_has_been(commands: Commands, connection: Connection) -> None:
    stored(connection, GOOD, BAD, BAD)
    dry = commands.json(*REVALIDATE)

    applied = commands.json(*REVALIDATE, "--apply")
    again = commands.run(*REVALIDATE, "--apply").stdout

    assert (dry["applied"], dry["run"], applied["applied"], applied["run"]) == (False, None, True, 1)
    assert (applied["finished"], applied["from"], applied["to"]) == (
        True,
        "2026-03-10T12:00:00Z",
        "2026-03-11T12:00:00Z",
    )
    assert dry["counts"] == applied["counts"]
    assert applied["counts"]["became_invalid"] == 2
    assert "became invalid: 0\nviolations changed: 0\nunchanged: 3\n" in again


def test_ctrl_c_ends_after_the_batch_in_work(
    commands: Commands, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command goes on."""
    stored(connection, *[BAD] * 3)
    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(Progress, "say", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    stopped = commands.run(*REVALIDATE, "--apply", "--batch", "2")
    monkeypatch.undo()

    assert stopped.exit_code == 1
    assert "examined: 2\n" in stopped.stdout
    assert (
        "stopping after this batch\nstopped between two batches: the same command goes on from here" in stopped.stderr
    )
    assert signal.getsignal(signal.SIGINT) is handler
    finished = commands.run(*REVALIDATE, "--apply", "--batch", "2")
    assert "going on with run 1, begun by " in finished.stderr
    assert (finished.exit_code, "examined: 3\n" in finished.stdout) == (0, True)


def test_a_second_ctrl_c_ends_at_once(
    commands: Commands, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not committed is not there."""
    stored(connection, *[BAD] * 3)

    def twice(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(revalidations, "_advance", twice)

    stopped = commands.run(*REVALIDATE, "--apply")

    assert (stopped.exit_code, stopped.stdout) == (1, "")
    assert connection.execute("SELECT FROM revised_verdicts").rowcount == 0


def test_rules_that_are_broken_judge_nothing(commands: Commands, connection: Connection) -> None:
    """Without the broken one, events would pass that it is there to stop."""
    stored(connection, BAD)
    (commands.directory / "b.yaml").write_text(RULE.replace("name: ok", "name: b").replace("event.data.ok", "nope"))

    result = commands.run(*REVALIDATE, "--apply")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "b.yaml: shop/b: spec.validations[0].expression" in result.stderr
    assert commands.json("revalidations") == []


def test_a_directory_without_rules_judges_nothing(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    result = commands.run(*REVALIDATE, "--rules", str(tmp_path / "empty"))

    assert result.exit_code == 2
    assert "there are no rules in" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rule", "the-eye/future-timestamp", *WINDOW), "Invalid value for '--rule': the-eye/future-timestamp is"),
        (("--rule", "ok", *WINDOW), "Invalid value for '--rule': 'ok' is no rule, such as"),
        (
            ("--rule", "shop/ok", "--from", "noon", "--to", "2026-03-11"),
            "Invalid value for '--from': 'noon' is no time",
        ),
        (
            ("--rule", "shop/ok", "--from", "2026-03-11", "--to", "2026-03-11"),
            "Invalid value for '--from': 2026-03-11T",
        ),
        (("--rule", "shop/ok", "--from", "2026-03-11"), "Missing option '--to'"),
        (("--rule", "shop/ok", *WINDOW, "--batch", "0"), "Invalid value for '--batch'"),
        (("--rule", "shop/ok", *WINDOW, "--rules", "nowhere"), "Invalid value for '--rules'"),
    ],
    ids=str,
)
def test_a_wrong_option_is_named(commands: Commands, arguments: tuple[str, ...], message: str) -> None:
    result = commands.run("revalidate", *arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_without_a_directory_it_asks_for_one(commands: Commands) -> None:
    result = commands.run(*REVALIDATE, THE_EYE_RULES_DIR="")

    assert result.exit_code == 2
    assert "give --rules, or set THE_EYE_RULES_DIR" in result.stderr


def test_a_rule_that_is_gone_is_said(commands: Commands, connection: Connection) -> None:
    stored(connection, GOOD, **violating("shop/gone"))

    result = commands.run("revalidate", "--rule", "shop/gone", *WINDOW)

    assert "would become valid: 1\n" in result.stdout
    assert "there is no rule shop/gone now: only events that have violated it are judged again" in result.stderr


def test_the_verdicts_of_an_event_are_listed(commands: Commands, connection: Connection) -> None:
    (bad,) = stored(connection, BAD)
    commands.run(*REVALIDATE, "--apply")

    table = commands.run("verdicts", str(bad)).stdout.splitlines()
    old, new = commands.json("verdicts", str(bad))

    assert re.split("  +", table[0])[:4] == ["application", "timestamp", "valid", "violated_rules"]
    assert [("True" in line, "shop/ok" in line, line.endswith("-")) for line in table[1:]] == [
        (True, True, False),  # shop/ok is what it was judged again for
        (False, True, True),
    ]
    assert (old["valid"], old["violations"], old["revalidation"], old["rule"]) == (True, [], 1, "shop/ok")
    assert (new["valid"], new["violations"][0]["rule"], new["revised_at"]) == (False, "shop/ok", None)
    assert "@" in old["revised_by"]


def test_an_event_that_is_not_there_is_said(commands: Commands) -> None:
    unknown = uuid4()

    result = commands.run("verdicts", str(unknown))

    assert (result.exit_code, result.stderr) == (1, f"Error: there is no event {unknown}\n")


def test_runs_are_listed_newest_first(commands: Commands, connection: Connection) -> None:
    stored(connection, BAD)
    commands.run(*REVALIDATE, "--apply")
    commands.run(*REVALIDATE, "--apply")

    table = commands.run("revalidations").stdout.splitlines()

    assert [line.split()[:2] for line in table] == [["id", "rule"], ["2", "shop/ok"], ["1", "shop/ok"]]
    assert [run["became_invalid"] for run in commands.json("revalidations")] == [0, 1]
    assert len(commands.json("revalidations", "--limit", "1")) == 1


def test_a_backtest_is_told_to_a_person(commands: Commands, connection: Connection) -> None:
    ids = stored(connection, *[BAD] * 12, GOOD)

    result = commands.run("backtest", str(commands.directory), *WINDOW, "--limit-rows", "12", group=rules)

    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "events from 2026-03-10T12:00:00Z to 2026-03-11T12:00:00Z, by their timestamp",
        "shop/ok: 11 of 12 events violate it (91.7 %)",
        *(f"       {one}" for one in ids[11:1:-1]),
        "       and 1 more",
        "       not all of it: the bound of 12 events was reached: nothing before 2026-03-10T12:01:00Z was looked at",
    ]


def test_each_rule_is_backtested_alone(commands: Commands, connection: Connection) -> None:
    stored(connection, BAD, GOOD)
    (commands.directory / "b.yaml").write_text(
        RULE.replace("name: ok", "name: b").replace("data.ok", "data.ok || true")
    )

    both = commands.json("backtest", str(commands.directory), *WINDOW, group=rules)
    one = commands.run("backtest", str(commands.directory), *WINDOW, "--rule", "shop/b", group=rules)

    assert [(found["rule"], found["state"], found["violations"]) for found in both] == [
        ("shop/b", "Done", 0),
        ("shop/ok", "Done", 1),
    ]
    assert one.exit_code == 0
    assert "shop/b: 0 of 2 events violate it (0 %)\n" in one.stdout


def test_the_last_hours_are_those_before_now(commands: Commands, connection: Connection) -> None:
    now = connection.execute("SELECT now()").fetchall()[0][0]
    insert(connection, *(event(timestamp=now - timedelta(hours=hours), data=BAD) for hours in (-1, 1, 23, 25)))
    counts = [
        commands.json("backtest", str(commands.directory), *last, group=rules)[0]["violations"]
        for last in ((), ("--last", "2h"), ("--last", "90m", "--to", str(now - timedelta(hours=22))))
    ]

    assert counts == [2, 1, 1]


def test_a_store_that_is_away_is_no_violation(commands: Commands) -> None:
    result = commands.run(
        "backtest", str(commands.directory), group=rules, THE_EYE_DATABASE_URL="postgresql:///x?host=/nowhere"
    )

    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


def test_the_commands_of_the_page_work(
    commands: Commands, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other, as they stand there."""
    monkeypatch.chdir(ROOT)
    example = UUID("0195512b-7e14-7cc0-a3c1-8d6e3d9d6f10")
    insert(connection, event(event_id=example, timestamp=NOON.replace(day=1), data='{"element": "banner"}'))
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]
    groups = {"events": events, "rules": rules}

    results = [commands.run(*line[1:], group=groups[line[0]]) for line in lines]

    assert [result.exit_code for result in results] == [0] * 5
    assert "became invalid: 1\n" in results[2].stdout
    assert "default/cta-click-element" in results[3].stdout
    assert "default/cta-click-element" in results[4].stdout
