"""The definition of ValidatorRule on a real API server: what it takes, what it refuses and why, and how it reads.

``manifests/bad`` begins each file with what the refusal must say, so that none is refused for another reason.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.cluster import chart
from tests.cluster.control_plane.cluster import ControlPlane
from tests.cluster.control_plane.kubectl import Kubectl

from the_eye.rules.manifest import (
    Match,
    RefusedManifest,
    Spec,
    Validation,
    ValidatorRule,
    parse_manifests,
    read_manifest,
)

MANIFESTS = Path(__file__).parent / "manifests"
GOOD = sorted((MANIFESTS / "good").glob("*.yaml"))
BAD = sorted((MANIFESTS / "bad").glob("*.yaml"))

API_SERVERS_ALONE = {
    "metadata-label-not-one": "labels mean nothing to rules",
    "metadata-unknown-field": "of metadata only the name, the namespace and the generation are looked at",
}
"""What a directory of rules takes and the API server does not, and why."""


@pytest.fixture(scope="module")
def kubectl(control_plane: ControlPlane) -> Kubectl:
    """Runs kubectl as the administrator, in a cluster that knows ValidatorRules."""
    chart.install_definition(control_plane.kubectl)
    return control_plane.kubectl


@pytest.fixture(scope="module")
def home(control_plane: ControlPlane) -> Iterator[str]:
    """A namespace for rules."""
    with chart.namespaces(control_plane, 1) as (name,):
        yield name


def apply(kubectl: Kubectl, home: str, manifest: Path, *options: str) -> Any:
    """Apply a manifest as a person would, but with its errors left to be looked at."""
    return kubectl("apply", "--validate=strict", "-f", str(manifest), *options, namespace=home, check=False)


def test_the_definition_is_structural_and_its_names_are_taken(kubectl: Kubectl) -> None:
    definition = kubectl("get", chart.CRD, "-o", "json").json()

    conditions = {found["type"]: found["status"] for found in definition["status"]["conditions"]}
    assert conditions == {"Established": "True", "NamesAccepted": "True"}  # NonStructuralSchema would be a third


@pytest.mark.parametrize("manifest", GOOD, ids=lambda path: path.stem)
def test_what_the_api_server_gives_back_is_the_rule_that_was_applied(
    kubectl: Kubectl, home: str, manifest: Path
) -> None:
    """With its defaults filled in, and whatever else a server adds."""
    (declared,) = parse_manifests(manifest.read_bytes())
    assert isinstance(declared, ValidatorRule)

    answer = apply(kubectl, home, manifest, "-o", "json")

    assert answer.exit_code == 0, answer.stderr
    assert "Warning" not in answer.stderr
    given = read_manifest(answer.json())
    assert isinstance(given, ValidatorRule)
    assert given.spec == declared.spec
    assert (given.metadata.name, given.metadata.namespace) == (declared.metadata.name, home)


@pytest.mark.parametrize("manifest", BAD, ids=lambda path: path.stem)
def test_what_is_no_rule_is_refused_for_the_reason_intended(kubectl: Kubectl, home: str, manifest: Path) -> None:
    reason = manifest.read_text().partition("\n")[0].removeprefix("# ")

    answer = apply(kubectl, home, manifest)

    assert answer.exit_code != 0, answer.stdout
    assert reason in answer.stderr


@pytest.mark.parametrize("manifest", BAD, ids=lambda path: path.stem)
def test_a_laptop_refuses_what_the_api_server_refuses(manifest: Path) -> None:
    (read,) = parse_manifests(manifest.read_bytes())

    assert isinstance(read, RefusedManifest) != (manifest.stem in API_SERVERS_ALONE), manifest.stem


def test_kubectl_explains_every_field(kubectl: Kubectl) -> None:
    told = " ".join(kubectl("explain", "validatorrule.spec", "--recursive").stdout.split())

    for struct in (Spec, Match, Validation):
        for field in msgspec.structs.fields(struct):
            assert f"{field.encode_name} <" in told
    category = " ".join(kubectl("explain", "validatorrule.spec.match.category").stdout.split())
    assert "exact text or a glob" in category


def test_kubectl_lists_rules_by_their_short_name_and_their_category(kubectl: Kubectl, home: str) -> None:
    apply(kubectl, home, GOOD[0])

    header, *rows = kubectl("get", "vrule", namespace=home).stdout.splitlines()
    wide = kubectl("get", "vrule", "-o", "wide", namespace=home).stdout.splitlines()[0]

    assert header.split() == ["NAME", "CATEGORY", "EVENT", "ACTION", "ACCEPTED", "READY", "AGE"]
    assert wide.split()[-1] == "MESSAGE"
    assert rows
    assert len(kubectl("get", "the-eye", namespace=home).stdout.splitlines()) == 1 + len(rows)


def test_the_status_is_not_part_of_what_is_applied(kubectl: Kubectl, home: str) -> None:
    """And patching it counts no generation up."""
    name = "status-apart"
    rule = chart.rule(name) | {"status": {"observedGeneration": 7}}
    kubectl("apply", "-f", "-", input=msgspec.json.encode(rule).decode(), namespace=home)
    applied = kubectl("get", "vrule", name, "-o", "json", namespace=home).json()

    patch = '{"status": {"observedGeneration": 1}}'
    kubectl("patch", "vrule", name, "--subresource=status", "--type=merge", "-p", patch, namespace=home)
    patched = kubectl("get", "vrule", name, "-o", "json", namespace=home).json()

    assert "status" not in applied
    assert patched["status"] == {"observedGeneration": 1}
    assert patched["metadata"]["generation"] == applied["metadata"]["generation"]
