"""A directory is listed as a worker would load it, for who only shows it."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
from tests.unit.rules.making import cel, manifest, ruleset
from tests.unit.rules.making import rule as sound

from the_eye.rules.documents import read_documents, write_document
from the_eye.rules.listing import PROGRAM, Head, ListedRule, Listing, ReadRequest, plain_manifest, read_lines
from the_eye.rules.manifest import Match, read_manifest
from the_eye.rules.read_listing import read

RULE = manifest("a", match={"category": "page *"}, action="Audit", schema={"type": "object"}, **cel("true", "false"))


def request(folder: Path) -> ReadRequest:
    """Ask for a directory, with room for what it holds."""
    return ReadRequest(str(folder), wait_seconds=0.0, processor_seconds=60, memory_bytes=2**30)


def listed(folder: Path) -> Listing:
    """List a directory."""
    return read_lines(map(msgspec.json.encode, read(request(folder))))


def test_sound_rules_are_listed_with_their_source_and_the_others_with_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_bytes(msgspec.json.encode(manifest("b", **cel("nonsense("))))
    (tmp_path / "a.json").write_bytes(msgspec.json.encode(RULE))

    listing = listed(tmp_path)

    (only,) = listing.rules
    assert (only.id, only.file, only.match, only.action) == ("default/a", "a.json", Match("page *"), "Audit")
    assert (only.has_schema, only.validations) == (True, 2)
    assert only.manifest() == read_manifest(RULE)
    assert listing.head.revision == ruleset(only.manifest()).revision
    (wrong,) = listing.head.problems
    assert (wrong.file, wrong.rule, wrong.error.path) == ("b.json", "default/b", "spec.validations[0].expression")


def test_a_directory_that_is_not_there_is_a_failure_that_names_it(tmp_path: Path) -> None:
    (head,) = read(request(tmp_path / "gone"))

    assert isinstance(head, Head)
    assert f"{tmp_path}/gone" in head.failure


def test_the_process_writes_what_it_has_read_and_nothing_else(tmp_path: Path) -> None:
    """Its logs go elsewhere."""
    (tmp_path / "a.json").write_bytes(msgspec.json.encode(RULE))
    (tmp_path / "b.yaml").write_text("{")

    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", PROGRAM],
        input=msgspec.json.encode(request(tmp_path)),
        capture_output=True,
        check=True,
        env=os.environ,
    )

    listing = read_lines(done.stdout.split(b"\n"))
    assert listing == listed(tmp_path)
    assert isinstance(listing.rules[0], ListedRule)


def test_a_manifest_is_shown_as_its_author_would_write_it() -> None:
    """It is read as the same rule, generation and uid aside."""
    rule = sound("a", match={"name": "cta click"}, metadata={"generation": 7}, **cel("true"))

    shown = plain_manifest(rule)

    assert list(shown["spec"]) == ["match", "action", "failurePolicy", "validations"]
    assert shown["spec"]["match"] == {"name": "cta click"}
    (document,) = read_documents(write_document(shown))
    assert read_manifest(getattr(document, "value", None)) == sound("a", match={"name": "cta click"}, **cel("true"))
