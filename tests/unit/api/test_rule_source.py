"""A rule is shown as its author would write it, at a price that any viewer may have the API pay."""

from typing import Any

import pytest
from tests.unit.rules.making import manifest

from the_eye.rules.documents import Document, read_documents
from the_eye.rules.manifest import ValidatorRule, read_manifest
from the_eye_api.pages.rules import MAX_YAML_BYTES, source_of

SMALL: dict[str, Any] = {"enum": ["chat bubble", "yes"]}
LARGE: dict[str, Any] = {"enum": [f"item {number}" for number in range(MAX_YAML_BYTES // 10)]}


@pytest.mark.parametrize(("schema", "beginning"), [(SMALL, "apiVersion: "), (LARGE, '{\n  "apiVersion": ')])
def test_a_rule_is_shown_as_yaml_and_a_large_one_as_json(schema: dict[str, Any], beginning: str) -> None:
    """Either is the same rule to whoever applies it."""
    rule = read_manifest(manifest("a", schema=schema))
    assert isinstance(rule, ValidatorRule)

    source = source_of(rule)

    assert source.startswith(beginning)
    (document,) = read_documents(source)
    assert isinstance(document, Document)
    assert read_manifest(document.value) == rule
