"""What ``docs/rules.md`` says is so: its rule compiles, its commands run, its lists are complete."""

import re
import subprocess
import sys
from os import environ, pathsep
from pathlib import Path
from shutil import which

import msgspec
from tests.unit.rules.making import TOLERANCE

from the_eye.rules import expression, manifest
from the_eye.rules.manifest import ValidatorRule, parse_manifests
from the_eye.rules.ruleset import FUTURE_TIMESTAMP, UNREADABLE_DATA, compile_ruleset

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "rules.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)


def test_the_rule_compiles() -> None:
    (block,) = blocks("yaml")
    (rule,) = parse_manifests(block)

    assert isinstance(rule, ValidatorRule)
    assert compile_ruleset([rule], future_tolerance=TOLERANCE).refused == ()


def test_the_commands_run() -> None:
    (block,) = blocks("sh")
    path = f"{Path(sys.executable).parent}{pathsep}{environ['PATH']}"
    bash = which("bash")
    assert bash is not None

    done = subprocess.run(  # noqa: S603 - the commands are this repository's
        [bash, "-ec", block], cwd=ROOT, env={**environ, "PATH": path}, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "1 event: 1 valid" in done.stdout


def test_every_field_and_its_bounds_are_described() -> None:
    for struct, prefix in (
        (manifest.Spec, "spec."),
        (manifest.Match, "spec.match."),
        (manifest.Validation, "spec.validations[]."),
    ):
        for field in msgspec.structs.fields(struct):
            assert f"`{prefix}{field.encode_name}`" in DOCS


def test_every_variable_and_what_is_built_in_is_described() -> None:
    for name in (*expression.VARIABLES, FUTURE_TIMESTAMP, UNREADABLE_DATA):
        assert f"`{name}`" in DOCS
