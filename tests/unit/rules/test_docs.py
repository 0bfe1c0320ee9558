"""What ``docs/rules.md`` says is so: its rule compiles, its commands run, its lists are complete."""

import re
import subprocess
import sys
from collections.abc import Iterator
from os import environ, pathsep
from pathlib import Path
from shutil import which
from typing import Any

import msgspec
from tests.unit.rules.making import TOLERANCE

from the_eye.rules import crd, documents, expression, manifest
from the_eye.rules.manifest import Metadata, ValidatorRule, parse_manifests
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


METADATA = msgspec.json.schema(Metadata)["$defs"]["Metadata"]
SPEC = crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
STATUS = crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]


def fields(schema: dict[str, Any], path: str) -> Iterator[tuple[str, bool, dict[str, Any]]]:
    """Each field's path, whether it is required, and its schema."""
    for name, inner in schema.get("properties", {}).items():
        yield f"{path}.{name}", name in schema.get("required", ()), inner
        yield from fields(inner, f"{path}.{name}")
        yield from fields(inner.get("items", {}), f"{path}.{name}[]")


FIELDS = {path: (required, schema) for path, required, schema in (*fields(METADATA, "metadata"), *fields(SPEC, "spec"))}


def section(title: str) -> str:
    return DOCS.partition(f"## {title}\n")[2].partition("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    lines = re.findall(r"^\|(.+)\|$", section(title), re.MULTILINE)
    return [[cell.strip() for cell in line.split(" | ")] for line in lines[2:]]


def default(*, required: bool, schema: dict[str, Any]) -> str:
    if required:
        return "required"
    value = schema.get("default")
    if value in (None, ""):
        return "none"
    return f"`{value if isinstance(value, str) else msgspec.json.encode(value).decode()}`"


def bounds(schema: dict[str, Any]) -> list[str]:
    """What a row says, in lower case, of the choices and the lengths that a field allows."""
    said = [f"`{choice.lower()}`" for choice in schema.get("enum", ())]
    if "maxItems" in schema:
        said.append(f"up to {schema['maxItems']} ")
    if "maxLength" in schema:
        said.append(f"{schema.get('minLength', 'up')} to {schema['maxLength']:,} characters")
    return said + (bounds(schema["items"]) if "items" in schema else [])


def test_the_table_of_fields_names_exactly_those_that_there_are() -> None:
    assert sorted(field for field, _, _ in rows("Fields")) == sorted(f"`{path}`" for path in FIELDS)


def test_the_table_of_fields_has_their_defaults() -> None:
    assert {field: given for field, given, _ in rows("Fields")} == {
        f"`{path}`": default(required=required, schema=schema) for path, (required, schema) in FIELDS.items()
    }


def test_the_table_of_fields_has_their_bounds() -> None:
    meanings = {field: meaning.lower() for field, _, meaning in rows("Fields")}

    missing = {
        path: [bound for bound in bounds(schema) if bound not in meanings[f"`{path}`"]]
        for path, (_, schema) in FIELDS.items()
    }

    assert {path: bounds for path, bounds in missing.items() if bounds} == {}
    assert f"up to {manifest.MAX_SCHEMA_BYTES // 1024} kib" in meanings["`spec.schema`"]
    assert f"up to {documents.MAX_DEPTH} levels" in meanings["`spec.schema`"]


def test_every_field_of_the_status_is_described() -> None:
    for name in STATUS["properties"]:
        assert f"`{name}`" in section("On Kubernetes")


def test_every_variable_and_what_is_built_in_is_described() -> None:
    for name in (*expression.VARIABLES, FUTURE_TIMESTAMP, UNREADABLE_DATA):
        assert f"`{name}`" in DOCS
