"""What becomes of rules that people apply, edit, break, repair, pause and delete with kubectl.

One operator for all tests here, which looks after two namespaces; each test has rules of its own. That the definition
itself refuses what is malformed is a matter of test_crd.py; here are the rules that only compiling shows to be bad.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.cluster import chart
from tests.cluster.chart import rule
from tests.cluster.control_plane.cluster import ControlPlane
from tests.cluster.control_plane.kubectl import Kubectl
from tests.cluster.operator_process import Operator, operating
from tests.cluster.rules import BAD_EXPRESSION, Cluster, Published, conditions, seen_in

KUBECTLS = "kubectl.kubernetes.io/last-applied-configuration"
PAUSED = "the-eye.io/paused"


class Eye:
    """The operator at work, and who applies rules."""

    def __init__(self, kubectl: Kubectl, cluster: Cluster, operator: Operator, stranger: str) -> None:
        self.kubectl = kubectl
        self.cluster = cluster
        self.operator = operator
        self.home, self.other = operator.release.rule_namespaces
        self.stranger = stranger
        """A namespace whose rules do not count."""

    def settle(self, namespace: str, document: dict[str, Any]) -> dict[str, Any]:
        """Apply a rule, and give it as it is when the operator has had its say."""
        self.kubectl.apply(document, namespace=namespace)
        name = document["metadata"]["name"]
        generation = self.cluster.rule(namespace, name)["metadata"]["generation"]
        self.operator.wait(lambda: self.cluster.settled(namespace, name, generation))
        return self.cluster.rule(namespace, name)

    def published(self) -> Published:
        """Read the published ruleset."""
        found = self.cluster.published(self.home, self.operator.release.ruleset)
        assert found is not None
        return found

    def generation_in_force(self, namespace: str, name: str) -> int | None:
        """Tell which generation of a rule is published."""
        return self.published().generations.get(f"{namespace}/{name}")

    def elements_in_force(self, namespace: str, name: str) -> list[str]:
        """Tell what a published rule demands."""
        schema = self.published().rules[f"{namespace}/{name}"].spec.schema
        assert isinstance(schema, dict)
        found: list[str] = schema["properties"]["element"]["enum"]
        return found

    def columns(self, namespace: str, name: str, *options: str) -> list[str]:
        """Give the line that `kubectl get` prints, without the age."""
        printed = self.kubectl("get", "vrule", name, *options, namespace=namespace).stdout
        head, line = printed.splitlines()
        starts = [head.index(word) for word in head.split()]
        cells = [line[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)]
        return [cell for word, cell in zip(head.split(), cells, strict=True) if word != "AGE"]

    def described_events(self, namespace: str, name: str) -> list[tuple[str, str, str]]:
        """Give type, reason and message of each Event that `kubectl describe` shows."""
        described = self.kubectl("describe", "vrule", name, namespace=namespace).stdout
        lines = described.partition("\nEvents:")[2].splitlines()[3:]
        return sorted((cells[0], cells[1], cells[4]) for cells in (line.split(maxsplit=4) for line in lines) if cells)

    def wait_for_another_second(self, since: str) -> None:
        """Wait until a time in a status would differ from ``since``: they are whole seconds."""
        then = datetime.fromisoformat(since)
        self.operator.wait(lambda: (datetime.now(UTC) - then).total_seconds() > 1)


@pytest.fixture(scope="module")
def eye(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Eye]:
    """An operator for two namespaces, and a third one."""
    chart.install_definition(control_plane.kubectl)
    with chart.namespaces(control_plane, 3) as (home, other, stranger):
        release = chart.render(home, [home, other])
        with operating(control_plane, release, tmp_path_factory.mktemp("operator")) as operator:
            operator.wait_until_settled()
            with seen_in(control_plane) as cluster:
                yield Eye(control_plane.kubectl, cluster, operator, stranger)
            assert operator.audit.denied() == []
            assert operator.stop() == 0


def truths(found: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Give status and reason of a rule's conditions, by type."""
    return {type_: (told["status"], told["reason"]) for type_, told in conditions(found).items()}


def test_a_rule_that_is_applied_is_in_force_and_says_so(eye: Eye) -> None:
    applied = eye.settle(eye.home, rule("new", elements=["a", "b"]))

    assert truths(applied) == {
        "Accepted": ("True", "Accepted"),
        "Programmed": ("Unknown", "NoWorkers"),
        "Ready": ("Unknown", "NoWorkers"),
    }
    status = applied["status"]
    assert {told["observedGeneration"] for told in status["conditions"]} == {1}
    assert (status["observedGeneration"], status["inForceGeneration"]) == (1, 1)
    assert status["ruleset"] == eye.published().index.revision
    assert eye.elements_in_force(eye.home, "new") == ["a", "b"]
    age = datetime.now(UTC) - datetime.fromisoformat(conditions(applied)["Accepted"]["lastTransitionTime"])
    assert -1 < age.total_seconds() < 60


def test_kubectl_shows_what_became_of_a_rule(eye: Eye) -> None:
    """In `get`, `describe` and `wait`."""
    eye.kubectl.apply(rule("shown"), namespace=eye.home)

    eye.kubectl("wait", "--for=condition=Accepted", "--timeout=20s", "vrule/shown", namespace=eye.home)

    assert eye.columns(eye.home, "shown") == ["shown", "page interaction", "cta click", "Enforce", "True", "Unknown"]
    assert eye.columns(eye.home, "shown", "-o", "wide")[-1] == "no worker is ready"
    assert eye.described_events(eye.home, "shown") == [("Normal", "Accepted", "generation 1: the rule compiles")]


def test_rules_of_every_named_namespace_count_and_no_others(eye: Eye) -> None:
    eye.kubectl.apply(rule("counted"), namespace=eye.stranger)
    eye.settle(eye.other, rule("counted"))
    eye.settle(eye.home, rule("counted"))

    ids = eye.published().generations.keys()

    assert {f"{eye.home}/counted", f"{eye.other}/counted"} <= ids
    assert f"{eye.stranger}/counted" not in ids
    assert "status" not in eye.cluster.rule(eye.stranger, "counted")
    assert eye.cluster.events(eye.stranger, "counted") == []
    assert {found.namespace for found in eye.operator.audit.requests()} <= {eye.home, eye.other}


def test_an_edit_is_in_force_as_the_next_generation(eye: Eye) -> None:
    """And a condition that stays true keeps the time since when it is."""
    first = eye.settle(eye.home, rule("edited", elements=["a"]))
    since = conditions(first)["Accepted"]["lastTransitionTime"]
    eye.wait_for_another_second(since)

    second = eye.settle(eye.home, rule("edited", elements=["b"]))

    assert (second["status"]["observedGeneration"], second["status"]["inForceGeneration"]) == (2, 2)
    assert {told["observedGeneration"] for told in second["status"]["conditions"]} == {2}
    assert conditions(second)["Accepted"]["lastTransitionTime"] == since
    assert eye.elements_in_force(eye.home, "edited") == ["b"]
    assert second["status"]["ruleset"] == eye.published().index.revision != first["status"]["ruleset"]
    assert [event.message for event in eye.cluster.events(eye.home, "edited")] == [
        "generation 1: the rule compiles",
        "generation 2: the rule compiles",
    ]


def test_a_rule_that_breaks_stays_in_force_as_it_was_until_it_is_repaired(eye: Eye) -> None:
    """Its conditions name the field; the times of those that turn say when."""
    good = eye.settle(eye.home, rule("breaks", elements=["a"]))
    since = conditions(good)["Accepted"]["lastTransitionTime"]
    eye.wait_for_another_second(since)

    broken = eye.settle(eye.home, rule("breaks", elements=["b"], validations=BAD_EXPRESSION))

    accepted = conditions(broken)["Accepted"]
    assert (accepted["status"], accepted["reason"]) == ("False", "InvalidExpression")
    assert accepted["message"].startswith("spec.validations[0].expression: ")
    assert accepted["message"].endswith("; generation 1, the last good one, stays in force")
    assert accepted["lastTransitionTime"] > since
    assert truths(broken)["Ready"] == ("False", "InvalidExpression")
    assert (broken["status"]["observedGeneration"], broken["status"]["inForceGeneration"]) == (2, 1)
    assert broken["status"]["ruleset"] == good["status"]["ruleset"]
    assert eye.elements_in_force(eye.home, "breaks") == ["a"]
    assert eye.columns(eye.home, "breaks")[-2:] == ["False", "False"]

    eye.wait_for_another_second(accepted["lastTransitionTime"])
    repaired = eye.settle(eye.home, rule("breaks", elements=["c"]))

    assert truths(repaired)["Accepted"] == ("True", "Accepted")
    assert conditions(repaired)["Accepted"]["lastTransitionTime"] > accepted["lastTransitionTime"]
    assert (repaired["status"]["observedGeneration"], repaired["status"]["inForceGeneration"]) == (3, 3)
    assert eye.elements_in_force(eye.home, "breaks") == ["c"]
    assert eye.described_events(eye.home, "breaks") == [
        ("Normal", "Accepted", "generation 1: the rule compiles"),
        ("Normal", "Accepted", "generation 3: the rule compiles"),
        ("Warning", "InvalidExpression", f"generation 2: {accepted['message']}"),
    ]


def test_a_rule_that_was_never_good_hurts_no_other(eye: Eye) -> None:
    eye.settle(eye.home, rule("bystander", elements=["a"]))

    refused = eye.settle(eye.home, rule("never-good", schema={"type": "objekt"}))
    eye.settle(eye.home, rule("bystander", elements=["b"]))

    accepted = conditions(refused)["Accepted"]
    assert (accepted["status"], accepted["reason"]) == ("False", "InvalidSchema")
    assert accepted["message"].startswith("spec.schema.type: ")
    assert accepted["message"].endswith("; no version is in force")
    assert truths(refused)["Programmed"] == ("False", "NotInForce")
    assert "inForceGeneration" not in refused["status"]
    assert "ruleset" not in refused["status"]
    assert eye.generation_in_force(eye.home, "never-good") is None
    assert eye.elements_in_force(eye.home, "bystander") == ["b"]


def test_a_paused_rule_stays_as_it_is_until_it_goes_on(eye: Eye) -> None:
    eye.settle(eye.home, rule("paused", elements=["a"]))
    eye.kubectl("annotate", "vrule", "paused", f"{PAUSED}=true", namespace=eye.home)
    eye.operator.wait(lambda: "Paused" in eye.cluster.conditions(eye.home, "paused"))

    edited = eye.settle(eye.home, rule("paused", elements=["b"]))

    assert truths(edited)["Paused"] == ("True", "Paused")
    assert conditions(edited)["Paused"]["message"].endswith(": generation 1 stays in force")
    assert edited["status"]["inForceGeneration"] == 1
    assert eye.elements_in_force(eye.home, "paused") == ["a"]

    eye.kubectl("annotate", "vrule", "paused", f"{PAUSED}-", namespace=eye.home)
    eye.operator.wait(lambda: eye.generation_in_force(eye.home, "paused") == 2)

    eye.operator.wait(lambda: "Paused" not in eye.cluster.conditions(eye.home, "paused"))
    assert eye.elements_in_force(eye.home, "paused") == ["b"]
    assert truths(eye.cluster.rule(eye.home, "paused"))["Accepted"] == ("True", "Accepted")


def test_a_rule_that_is_deleted_is_gone_at_once_and_leaves_the_ruleset(eye: Eye) -> None:
    eye.settle(eye.home, rule("deleted"))
    eye.settle(eye.home, rule("stays"))
    eye.settle(eye.other, rule("stays"))

    begun = time.monotonic()
    eye.kubectl("delete", "vrule", "deleted", "--timeout=10s", namespace=eye.home)
    assert time.monotonic() - begun < 5

    eye.operator.wait(lambda: eye.generation_in_force(eye.home, "deleted") is None)
    assert eye.generation_in_force(eye.home, "stays") == eye.generation_in_force(eye.other, "stays") == 1


def test_no_more_than_one_old_shard_lies_beside_the_new_one(eye: Eye) -> None:
    """However often a rule is edited: two of the largest shards are what a ConfigMap holds."""
    for number in range(4):
        eye.settle(eye.home, rule("edited-often", elements=[str(number)]))
        assert max(len(files) for files in eye.published().files.values()) <= 2


def test_a_rule_that_is_made_anew_begins_anew(eye: Eye) -> None:
    eye.settle(eye.home, rule("again", elements=["a"]))
    eye.settle(eye.home, rule("again", elements=["b"]))
    eye.kubectl("delete", "vrule", "again", namespace=eye.home)

    anew = eye.settle(eye.home, rule("again", elements=["c"]))

    assert (anew["status"]["observedGeneration"], anew["status"]["inForceGeneration"]) == (1, 1)
    eye.operator.wait(lambda: eye.elements_in_force(eye.home, "again") == ["c"])


def test_a_rule_that_is_made_anew_has_no_last_good_version(eye: Eye) -> None:
    """Not that of the one before, which had its name."""
    eye.settle(eye.home, rule("namesake"))
    eye.kubectl("delete", "vrule", "namesake", namespace=eye.home)
    eye.operator.wait(lambda: eye.generation_in_force(eye.home, "namesake") is None)

    anew = eye.settle(eye.home, rule("namesake", validations=BAD_EXPRESSION))

    assert truths(anew)["Accepted"] == ("False", "InvalidExpression")
    assert conditions(anew)["Accepted"]["message"].endswith("; no version is in force")
    assert truths(anew)["Programmed"] == ("False", "NotInForce")
    assert not anew["status"].keys() & {"inForceGeneration", "ruleset"}
    assert eye.generation_in_force(eye.home, "namesake") is None


def test_the_operator_changes_nothing_of_a_rule_but_its_status(eye: Eye) -> None:
    eye.settle(eye.home, rule("untouched"))
    eye.settle(eye.home, rule("untouched", validations=BAD_EXPRESSION))

    metadata = eye.cluster.rule(eye.home, "untouched")["metadata"]

    assert metadata["annotations"].keys() == {KUBECTLS}
    assert not metadata.keys() & {"finalizers", "labels", "ownerReferences"}
    changed = {owner["manager"]: owner.get("subresource") for owner in metadata["managedFields"]}
    assert changed == {"kubectl-client-side-apply": None, "the-eye-operator": "status"}


def test_many_rules_applied_at_once_are_published_together(eye: Eye) -> None:
    """A folder of rules is one change or a few, not one for each."""
    before = len(eye.operator.said("ruleset_published"))

    eye.kubectl.apply(*(rule(f"folder-{number}") for number in range(30)), namespace=eye.other)

    ids = {f"{eye.other}/folder-{number}" for number in range(30)}
    eye.operator.wait(lambda: ids <= eye.published().generations.keys())
    assert len(eye.operator.said("ruleset_published")) - before <= 10
