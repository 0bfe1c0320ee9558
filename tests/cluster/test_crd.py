"""The definition of ValidatorRule on a real API server: what it takes, what it refuses and why, and how it reads.

``manifests/bad`` begins each file with what the refusal must say, so that none is refused for another reason.
"""

import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from tests.cluster import chart
from tests.cluster.control_plane.cluster import ControlPlane
from tests.cluster.control_plane.kubectl import Answer, Kubectl
from tests.machine import until

from the_eye.rules.crd import Audit, Backtest, Condition, Status, definition
from the_eye.rules.manifest import RefusedManifest, ValidatorRule, parse_manifests, read_manifest
from the_eye.rules.ruleset import compile_ruleset

SECONDS = 30.0
ROOT = Path(__file__).parents[2]
MANIFESTS = Path(__file__).parent / "manifests"
GOOD = sorted((MANIFESTS / "good").glob("*.yaml"))
BAD = sorted((MANIFESTS / "bad").glob("*.yaml"))
SAMPLES = sorted((ROOT / "k8s" / "rules").glob("*.yaml"))

API_SERVERS_ALONE = {
    "metadata-label-not-one": "labels mean nothing to rules",
    "metadata-unknown-field": "of metadata only the name, the namespace and the generation are looked at",
}
"""What a directory of rules takes and the API server does not, and why."""

NOT_SERVER_SIDE = {
    "nulls-are-not-given": "it is kubectl that drops what is null, and here it sends everything",
    "status-is-passed-over": "the status must have its types at least",
}
"""What only ``kubectl apply`` without ``--server-side`` takes, and why."""


@pytest.fixture(scope="module")
def kubectl(control_plane: ControlPlane) -> Kubectl:
    """Runs kubectl as the administrator, in a cluster that knows ValidatorRules."""
    chart.install_definition(control_plane.kubectl)
    until(lambda: control_plane.kubectl("explain", "vrule", check=False).exit_code == 0, SECONDS)
    return control_plane.kubectl


@pytest.fixture(scope="module")
def home(control_plane: ControlPlane) -> Iterator[str]:
    """A namespace for rules."""
    with chart.namespaces(control_plane, 1) as (name,):
        yield name


def apply(kubectl: Kubectl, home: str, manifest: Path, *options: str) -> Answer:
    """Apply a manifest as a person would, but with its errors left to be looked at."""
    return kubectl("apply", "--validate=strict", "-f", str(manifest), *options, namespace=home, check=False)


def test_the_definition_is_structural_and_its_names_are_taken(kubectl: Kubectl) -> None:
    installed = kubectl("get", chart.CRD, "-o", "json").json()

    conditions = {found["type"]: found["status"] for found in installed["status"]["conditions"]}
    assert conditions == {"Established": "True", "NamesAccepted": "True"}  # NonStructuralSchema would be a third


def declare(kubectl: Kubectl, home: str, name: str, spec: dict[str, Any], *options: str) -> dict[str, Any]:
    """Apply a rule; gives it as it is stored."""
    manifest = {"apiVersion": "the-eye.io/v1alpha1", "kind": "ValidatorRule", "metadata": {"name": name}, "spec": spec}
    kubectl.apply(manifest, options=options, namespace=home)
    stored: dict[str, Any] = kubectl("get", "vrule", name, "-o", "json", namespace=home).json()
    return stored


def tell(kubectl: Kubectl, home: str, name: str, status: Any) -> Answer:
    """Patch a rule's status, as the operator does, but with its errors left to be looked at."""
    patch = msgspec.json.encode({"status": status}).decode()
    return kubectl(
        "patch", "vrule", name, "--subresource=status", "--type=merge", "-p", patch, namespace=home, check=False
    )


@pytest.mark.parametrize(
    ("manifest", "server_side"),
    [
        pytest.param(manifest, server_side, id=f"{manifest.stem}{'-server-side' if server_side else ''}")
        for server_side in (False, True)
        for manifest in (*GOOD, *SAMPLES)
        if not (server_side and manifest.stem in NOT_SERVER_SIDE)
    ],
)
def test_what_the_api_server_gives_back_is_the_rule_that_was_applied(
    kubectl: Kubectl,
    home: str,
    manifest: Path,
    server_side: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """With its defaults filled in, and whatever else a server adds."""
    (declared,) = parse_manifests(manifest.read_bytes())
    assert isinstance(declared, ValidatorRule)
    kubectl("delete", "vrule", declared.metadata.name, "--ignore-not-found", namespace=home)

    answer = apply(kubectl, home, manifest, "-o", "json", f"--server-side={server_side}".lower())

    assert answer.exit_code == 0, answer.stderr
    assert "Warning" not in answer.stderr
    given = read_manifest(answer.json())
    assert isinstance(given, ValidatorRule)
    assert given.spec == declared.spec
    assert (given.metadata.name, given.metadata.namespace) == (declared.metadata.name, home)
    assert compile_ruleset([given], future_tolerance=timedelta()).refused == ()


@pytest.mark.parametrize("name", NOT_SERVER_SIDE)
def test_server_side_apply_refuses_what_kubectl_puts_right(kubectl: Kubectl, home: str, name: str) -> None:
    manifest = MANIFESTS / "good" / f"{name}.yaml"

    assert apply(kubectl, home, manifest, "--server-side").exit_code != 0


def test_a_rule_is_handed_out_with_its_defaults(kubectl: Kubectl, home: str) -> None:
    stored = declare(kubectl, home, "defaults", {"match": {}, "schema": {}})

    assert stored["spec"] == {
        "match": {"category": "*", "name": "*", "applications": []},
        "action": "Enforce",
        "failurePolicy": "Fail",
        "schema": {},
        "validations": [],
    }


def test_a_schema_is_replaced_as_a_whole(kubectl: Kubectl, home: str) -> None:
    """Server-side apply neither merges it with another author's, nor takes what became empty for null."""
    schema = {"properties": {"a": {"const": 1}}}
    declare(kubectl, home, "whole", {"match": {"category": "a"}, "schema": schema}, "--server-side")

    stored = declare(
        kubectl, home, "whole", {"match": {}, "schema": {}}, "--server-side", "--field-manager=b", "--force-conflicts"
    )

    assert stored["spec"]["schema"] == {}
    assert stored["spec"]["match"]["category"] == "*"


def test_a_null_in_a_schema_needs_server_side_apply(kubectl: Kubectl, home: str) -> None:
    """What docs/rules.md warns of: kubectl itself drops the key. When this fails, the warning may go."""
    schema = {"properties": {"a": {"const": None, "enum": [None]}}}

    dropped = declare(kubectl, home, "null-of-client", {"match": {}, "schema": schema})
    kept = declare(kubectl, home, "null-of-server", {"match": {}, "schema": schema}, "--server-side")

    assert dropped["spec"]["schema"] == {"properties": {"a": {"enum": [None]}}}
    assert kept["spec"]["schema"] == schema


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


ANY: dict[str, Any] = {"match": {}, "schema": {}}
DEEP: dict[str, Any] = {}
for _ in range(70):
    DEEP = {"not": DEEP}


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        pytest.param({"validations": [{"expression": "event.data.a +"}]}, "Syntax error", id="syntax"),
        pytest.param({"validations": [{"expression": "event.nmae == 'a'"}]}, "undeclared reference", id="variable"),
        pytest.param({"validations": [{"expression": "has(event.name)"}]}, "always there", id="has"),
        pytest.param({"validations": [{"expression": "event.name"}]}, "gives a bool", id="no bool"),
        pytest.param({"schema": {"type": "objct"}}, "a type is array,", id="type"),
        pytest.param({"schema": {"format": "emial"}}, "emial", id="format"),
        pytest.param({"schema": {"pattern": "(?=a)"}}, "look-around", id="pattern"),
        pytest.param({"schema": {"$schema": "http://json-schema.org/draft-07/schema#"}}, "dialect", id="dialect"),
        pytest.param({"schema": {"$ref": "https://example.invalid/a"}}, "example.invalid", id="reference"),
        pytest.param({"schema": {"const": "\0"}}, "holds no NUL", id="NUL"),
        pytest.param({"schema": {"properties": {"a\0": {}}}}, "without NUL", id="NUL in a key"),
        pytest.param({"schema": {"enum": ["x" * 65_536]}}, "at most 65536 bytes", id="large"),
        pytest.param({"schema": DEEP}, "more than 64 levels", id="deep"),
    ],
)
def test_what_only_compiling_shows_is_left_to_the_operator(
    kubectl: Kubectl, home: str, spec: dict[str, Any], reason: str
) -> None:
    """The API server takes what is wrong inside of schemas and expressions; this is all that it takes too much."""
    stored = declare(kubectl, home, "left-to-the-operator", {"match": {}, **spec}, "--server-side")

    rule = read_manifest(stored)
    errors = rule.errors if isinstance(rule, RefusedManifest) else refusal_of(rule)
    assert len(errors) == 1
    assert reason in str(errors[0])


def refusal_of(rule: ValidatorRule) -> Any:
    (refused,) = compile_ruleset([rule], future_tolerance=timedelta()).refused
    return refused.errors


SCHEMA: dict[str, Any] = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def structs(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """What has fields, by its path."""
    if "properties" in schema:
        yield path, schema["properties"]
        for name, inner in schema["properties"].items():
            yield from structs(inner.get("items", inner), f"{path}.{name}")


STRUCTS = dict(structs(SCHEMA, "validatorrule"))


@pytest.mark.parametrize("path", STRUCTS)
def test_kubectl_explains_every_field(kubectl: Kubectl, path: str) -> None:
    told = " ".join(kubectl("explain", path).stdout.split())

    for name, field in STRUCTS[path].items():
        assert f" {name} <" in told
        assert field["description"] in told


def test_kubectl_explains_all_fields_at_once(kubectl: Kubectl) -> None:
    told = kubectl("explain", "validatorrule", "--recursive").stdout

    for name in (name for fields in STRUCTS.values() for name in fields):
        assert re.search(rf"^ +{name}\t<", told, re.MULTILINE), name


def test_kubectl_explains_what_to_write_in_a_field(kubectl: Kubectl) -> None:
    told = " ".join(kubectl("explain", "vrule.spec.match.category").stdout.split())

    assert "exact text or a glob" in told
    assert told.endswith('1 to 255 characters. Defaults to "*".')


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_kubectl_lists_rules_with_what_became_of_them(kubectl: Kubectl, namespace: str) -> None:
    spec = {"match": {"category": "page *", "name": "click"}, "action": "Audit", "schema": {}}
    declare(kubectl, namespace, "told", spec)
    declare(kubectl, namespace, "untold", ANY)
    conditions = [
        Condition("Accepted", "True", NOON, "Accepted", "the rule compiles"),
        Condition("Ready", "False", NOON, "WorkersBehind", "3/5 workers"),
    ]
    assert tell(kubectl, namespace, "told", {"conditions": conditions}).exit_code == 0

    narrow, wide = (
        [re.split("   +", line) for line in kubectl("get", "vrule", *how, namespace=namespace).stdout.splitlines()]
        for how in ((), ("-o", "wide"))
    )

    assert narrow[0] == ["NAME", "CATEGORY", "EVENT", "ACTION", "ACCEPTED", "READY", "AGE"]
    assert narrow[1][:6] == ["told", "page *", "click", "Audit", "True", "False"]
    assert narrow[2][:4] == ["untold", "*", "*", "Enforce"]
    assert (wide[0][-1], wide[1][-1]) == ("MESSAGE", "3/5 workers")


@pytest.mark.parametrize("name", ["validatorrules", "validatorrule", "vrule", "the-eye"])
def test_kubectl_knows_rules_by_their_names(kubectl: Kubectl, home: str, name: str) -> None:
    declare(kubectl, home, "named", ANY)

    assert "named" in kubectl("get", name, "-o", "name", namespace=home).stdout


@pytest.mark.parametrize(
    "selector", ["spec.action=Audit", "spec.match.category=page view", "spec.match.name=load", "spec.action!=Enforce"]
)
def test_rules_are_selected_by_what_they_are_for(kubectl: Kubectl, namespace: str, selector: str) -> None:
    match = {"category": "page view", "name": "load"}
    declare(kubectl, namespace, "wanted", {"match": match, "action": "Audit", "schema": {}})
    declare(kubectl, namespace, "other", ANY)

    found = kubectl("get", "vrule", "--field-selector", selector, "-o", "name", namespace=namespace).stdout

    assert found == "validatorrule.the-eye.io/wanted\n"


def test_the_status_is_not_part_of_what_is_applied(kubectl: Kubectl, home: str) -> None:
    """And patching it counts no generation up."""
    name = "status-apart"
    rule = chart.rule(name) | {"status": {"observedGeneration": 7}}
    kubectl.apply(rule, namespace=home)
    applied = kubectl("get", "vrule", name, "-o", "json", namespace=home).json()

    patch = '{"status": {"observedGeneration": 1}}'
    kubectl("patch", "vrule", name, "--subresource=status", "--type=merge", "-p", patch, namespace=home)
    patched = kubectl("get", "vrule", name, "-o", "json", namespace=home).json()

    assert "status" not in applied
    assert patched["status"] == {"observedGeneration": 1}
    assert patched["metadata"]["generation"] == applied["metadata"]["generation"]


STATUS = Status(
    observed_generation=1,
    in_force_generation=1,
    ruleset="sha256:" + "9f2c" * 16,
    conditions=(
        Condition("Accepted", "True", NOON, "Accepted", "", 1),
        Condition("Programmed", "Unknown", NOON, "NoWorkers", "m" * 32_768, 1),
        Condition("Ready", "False", NOON, "r" * 1024, "😀", 1),
        Condition("Paused", "True", NOON, "Paused", ""),
    ),
    audit=Audit(1, NOON, NOON, 2**63 - 1, 0),
    backtest=Backtest(
        requested="é" * 63,
        generation=2**63 - 1,
        state="Done",
        from_=NOON,
        to=NOON,
        examined=3,
        violations=1,
        share=1 / 3,
        event_ids=tuple(UUID(int=number) for number in range(10)),
        truncated=True,
        message="m" * 1024,
        finished_at=NOON,
    ),
)


def test_a_status_up_to_all_bounds_is_taken_as_it_is(kubectl: Kubectl, home: str) -> None:
    declare(kubectl, home, "full-status", ANY)

    answer = tell(kubectl, home, "full-status", STATUS)

    assert answer.exit_code == 0, answer.stderr
    stored = kubectl("get", "vrule", "full-status", "-o", "json", namespace=home).json()
    assert stored["status"] == msgspec.json.decode(msgspec.json.encode(STATUS))


def test_a_status_changes_nothing_but_itself(kubectl: Kubectl, home: str) -> None:
    declare(kubectl, home, "status-alone", ANY)

    patch = '{"spec": {"action": "Audit"}, "status": {"observedGeneration": 1}}'
    kubectl("patch", "vrule", "status-alone", "--subresource=status", "--type=merge", "-p", patch, namespace=home)

    stored = kubectl("get", "vrule", "status-alone", "-o", "json", namespace=home).json()
    assert stored["spec"]["action"] == "Enforce"
    assert stored["status"] == {"observedGeneration": 1}


CONDITION = {
    "type": "Ready",
    "status": "True",
    "reason": "Ready",
    "message": "",
    "lastTransitionTime": "2026-03-01T12:00:00Z",
}
COUNTS = {
    "generation": 1,
    "since": "2026-03-01T12:00:00Z",
    "updatedAt": "2026-03-01T12:00:00Z",
    "events": 1,
    "violations": 1,
}
TRIAL = {"requested": "24h", "generation": 1, "state": "Running"}


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({"observedGeneration": 0}, "observedGeneration in body should be greater than or equal to 1"),
        ({"observedGeneration": "1"}, "observedGeneration in body must be of type integer"),
        ({"inForceGeneration": 0}, "inForceGeneration in body should be greater than or equal to 1"),
        ({"ruleset": "sha256:9f2c"}, "ruleset in body should match"),
        ({"ruleset": "sha256:" + "9" * 65}, "status.ruleset: Too long: may not be more than 71"),
        ({"conditions": [CONDITION] * 2}, "status.conditions[1]: Duplicate value"),
        ({"conditions": [{**CONDITION, "type": f"T{n}"} for n in range(17)]}, "status.conditions: Too many: 17"),
        ({"conditions": [{**CONDITION, "type": "not one"}]}, "conditions[0].type in body should match"),
        ({"conditions": [{**CONDITION, "type": "T" * 317}]}, "status.conditions[0].type: Too long"),
        ({"conditions": [{**CONDITION, "status": "Yes"}]}, "status.conditions[0].status: Unsupported value"),
        ({"conditions": [{**CONDITION, "reason": "not one"}]}, "conditions[0].reason in body should match"),
        ({"conditions": [{**CONDITION, "reason": ""}]}, "conditions[0].reason in body should be at least 1"),
        ({"conditions": [{**CONDITION, "reason": "r" * 1025}]}, "status.conditions[0].reason: Too long"),
        ({"conditions": [{**CONDITION, "message": "m" * 32_769}]}, "status.conditions[0].message: Too long"),
        ({"conditions": [{**CONDITION, "message": None}]}, "status.conditions[0].message: Required value"),
        ({"conditions": [{**CONDITION, "lastTransitionTime": "noon"}]}, "must be of type date-time"),
        ({"audit": {**COUNTS, "events": -1}}, "audit.events in body should be greater than or equal to 0"),
        ({"audit": {**COUNTS, "since": None}}, "status.audit.since: Required value"),
        ({"backtest": {**TRIAL, "state": "Begun"}}, "status.backtest.state: Unsupported value"),
        ({"backtest": {**TRIAL, "requested": "h" * 64}}, "status.backtest.requested: Too long"),
        ({"backtest": {**TRIAL, "share": 1.01}}, "backtest.share in body should be less than or equal to 1"),
        ({"backtest": {**TRIAL, "share": -0.01}}, "backtest.share in body should be greater than or equal to 0"),
        ({"backtest": {**TRIAL, "eventIds": [str(UUID(int=0))] * 11}}, "status.backtest.eventIds: Too many: 11"),
        ({"backtest": {**TRIAL, "eventIds": ["one"]}}, "backtest.eventIds[0] in body must be of type uuid"),
        ({"backtest": {**TRIAL, "message": "m" * 1025}}, "status.backtest.message: Too long"),
        ({"backtest": {**TRIAL, "truncated": "no"}}, "backtest.truncated in body must be of type boolean"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_status_beyond_its_bounds_is_refused(
    kubectl: Kubectl, home: str, status: dict[str, Any], reason: str
) -> None:
    declare(kubectl, home, "bad-status", ANY)

    answer = tell(kubectl, home, "bad-status", status)

    assert answer.exit_code != 0
    assert reason in answer.stderr


def test_the_commands_of_the_page_on_rules_run(kubectl: Kubectl, namespace: str) -> None:
    """With the operator's part played here: it is what makes a rule Ready."""
    page = (ROOT / "docs" / "rules.md").read_text().partition("## On Kubernetes\n")[2].partition("\n## ")[0]
    commands = re.findall(r"^\$ kubectl (.+)$", page.replace("k8s/rules", f"{ROOT}/k8s/rules"), re.MULTILINE)

    for command in commands:
        kubectl(*shlex.split(command), namespace=namespace)
        if command.startswith("apply"):
            ready = Condition("Ready", "True", NOON, "Ready", "5/5 workers")
            assert tell(kubectl, namespace, "cta-click-element", {"conditions": [ready]}).exit_code == 0

    assert len(commands) == 6
    stored = kubectl("get", "vrule", "cta-click-element", "-o", "json", namespace=namespace).json()
    assert (
        stored["metadata"]["annotations"].items() >= {"the-eye.io/backtest": "24h", "the-eye.io/paused": "true"}.items()
    )
