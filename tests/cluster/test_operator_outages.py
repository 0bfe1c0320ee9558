"""The operator is killed, is there twice, or is without an API server or without the definition of its rules.

Each time what is published stays as it is meanwhile, and all is well again without anyone's help.
"""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tests.cluster import chart
from tests.cluster.chart import Release, rule
from tests.cluster.control_plane.cluster import ControlPlane
from tests.cluster.operator_process import Operator, operating
from tests.cluster.rules import BAD_EXPRESSION, Cluster, Published, seen_in

LONGEST_BACK_OFF = 40.0
"""Seconds after which the operator tries again, however often it has failed; with some for the trying itself."""

OFTEN = {"THE_EYE_OPERATOR_RESYNC_SECONDS": "0.5"}


class House:
    """A release in a namespace of its own, without an operator as yet."""

    def __init__(self, control_plane: ControlPlane, cluster: Cluster, release: Release) -> None:
        self.control_plane = control_plane
        self.kubectl = control_plane.kubectl
        self.cluster = cluster
        self.release = release
        self.home = release.namespace

    def apply(self, *documents: dict[str, Any]) -> None:
        """Apply rules."""
        self.kubectl.apply(*documents, namespace=self.home)

    def published(self) -> Published | None:
        """Read the published ruleset."""
        return self.cluster.published(self.home, self.release.ruleset)

    def in_force(self) -> dict[str, int]:
        """Give the generations of the published rules, by name."""
        found = self.published()
        return {id_.partition("/")[2]: generation for id_, generation in found.generations.items()} if found else {}

    def says(self, name: str, generation: int) -> Callable[[], bool]:
        """See whether the operator has said something of a generation of a rule."""
        return lambda: self.cluster.settled(self.home, name, generation)


@pytest.fixture
def house(control_plane: ControlPlane) -> Iterator[House]:
    """A release whose operator is not started."""
    chart.install_definition(control_plane.kubectl)
    with chart.namespaces(control_plane, 1) as (home,), seen_in(control_plane) as cluster:
        release = chart.render(home)
        release.apply(control_plane.kubectl)
        yield House(control_plane, cluster, release)


@pytest.fixture
def operator(house: House, tmp_path: Path) -> Iterator[Operator]:
    """The release's operator, which has done what there is to do."""
    with operating(house.control_plane, house.release, tmp_path / "first") as running:
        running.wait_until_settled()
        yield running


def test_what_happened_while_the_operator_was_dead_is_made_good(house: House, operator: Operator) -> None:
    """A rule that broke stays in force as it was, one that was deleted leaves; and deleting waits for no one."""
    house.apply(rule("breaks", elements=["a"]), rule("goes"), rule("stays"), rule("changes"))
    operator.wait(lambda: house.in_force() == {"breaks": 1, "goes": 1, "stays": 1, "changes": 1})

    operator.kill()
    house.apply(rule("breaks", validations=BAD_EXPRESSION), rule("changes", elements=["b"]), rule("comes"))
    house.kubectl("delete", "vrule", "goes", "--timeout=10s", namespace=house.home)
    assert house.in_force() == {"breaks": 1, "goes": 1, "stays": 1, "changes": 1}

    operator.start()

    operator.wait(lambda: house.in_force() == {"breaks": 1, "stays": 1, "changes": 2, "comes": 1})
    operator.wait(house.says("breaks", 2))
    broken = house.cluster.conditions(house.home, "breaks")["Accepted"]
    assert (broken["status"], broken["reason"]) == ("False", "InvalidExpression")
    assert broken["message"].endswith("generation 1, the last good one, stays in force")
    found = house.published()
    assert found is not None
    schema = found.rules[f"{house.home}/breaks"].spec.schema
    assert isinstance(schema, dict)
    assert schema["properties"]["element"]["enum"] == ["a"]


@pytest.mark.usefixtures("audited_control_plane")
def test_a_restart_of_an_operator_that_has_nothing_to_do_changes_nothing(house: House, operator: Operator) -> None:
    house.apply(rule("good"), rule("bad", validations=BAD_EXPRESSION))
    operator.wait(house.says("good", 1))
    operator.wait(house.says("bad", 1))
    operator.wait(lambda: len(house.cluster.events(house.home, "bad")) == 1)
    operator.kill()
    operator.audit.forget()

    operator.start()
    operator.wait_until_settled()

    # The shards that no index names any more are removed at a start, and that is all.
    assert {found.permission for found in operator.audit.writes()} <= {("", "configmaps", "patch")}
    found = house.published()
    assert found is not None
    assert found.leftovers == set()


@pytest.mark.usefixtures("audited_control_plane")
def test_two_operators_come_to_one_end_and_then_are_silent(house: House, operator: Operator, tmp_path: Path) -> None:
    """Nobody asks for two; but a Deployment that is rolled out has them for a while."""
    operator.kill()
    first = operating(house.control_plane, house.release, tmp_path / "second", OFTEN)
    second = operating(house.control_plane, house.release, tmp_path / "third", OFTEN)
    with first as one, second as other:
        both = (one, other)
        for number in range(5):
            house.apply(rule("edited", elements=[str(number)]), rule(f"new-{number}"))
        house.apply(rule("new-0", validations=BAD_EXPRESSION))
        house.kubectl("delete", "vrule", "new-1", namespace=house.home)

        one.wait(lambda: house.in_force() == {"edited": 5, "new-0": 1, "new-2": 1, "new-3": 1, "new-4": 1})
        one.wait(house.says("new-0", 2))
        one.wait(house.says("edited", 5))
        wait_for_silence(both)

        assert house.in_force() == {"edited": 5, "new-0": 1, "new-2": 1, "new-3": 1, "new-4": 1}
        found = house.published()
        assert found is not None
        assert found.leftovers == set()
        events = [event.message or "" for event in house.cluster.events(house.home, "new-0")]
        assert [message.partition(":")[0] for message in events] == ["generation 1", "generation 2"]
        assert [*one.audit.denied(), *other.audit.denied()] == []


def wait_for_silence(operators: tuple[Operator, ...]) -> None:
    """Wait until all have reconciled several times in a row, with a list each time, and have written nothing."""

    def settled() -> bool:
        for operator in operators:
            operator.audit.forget()
        before = [operator.successes() for operator in operators]
        rounds = [operator.successes for operator in operators]
        operators[0].wait(lambda: all(now() >= then + 5 for now, then in zip(rounds, before, strict=True)))
        return operators[0].audit.writes() == []

    operators[0].wait(settled)


def test_an_api_server_that_goes_is_waited_for(
    stoppable_control_plane: ControlPlane, house: House, operator: Operator
) -> None:
    """The operator says so in its log and its health, and finds by itself what it has to do afterwards."""
    house.apply(rule("before"))
    operator.wait(house.says("before", 1))
    pid = operator.process.pid

    with stoppable_control_plane.api_server_stopped():
        operator.wait(lambda: operator.said("workers_not_observed"))
        status, health = operator.health()
        assert (status, health["status"]) == (200, "ok"), "a restart would not bring the API server back"
        age = health["last_success_age_seconds"]
        operator.wait(lambda: operator.health()[1]["last_success_age_seconds"] > age)

    house.apply(rule("before", elements=["b"]), rule("after"))
    operator.wait(lambda: house.in_force() == {"before": 2, "after": 1}, LONGEST_BACK_OFF)
    operator.wait(house.says("after", 1))
    operator.wait(lambda: operator.health()[1]["last_success_age_seconds"] < 10)
    assert operator.runs
    assert operator.process.pid == pid

    # And it watches again, once the API server, which has just started, has read the Roles that allow it.
    edits = count(2)

    def an_edit_is_seen_without_a_list() -> bool:
        operator.audit.forget()
        generation = next(edits)
        house.apply(rule("after", elements=[f"edit {generation}"]))
        operator.wait(lambda: house.in_force() == {"before": 2, "after": generation}, LONGEST_BACK_OFF)
        return operator.audit.count()["validatorrules list"] == 0

    operator.wait(an_edit_is_seen_without_a_list, LONGEST_BACK_OFF)


def test_without_the_definition_the_operator_waits_for_it(house: House, tmp_path: Path) -> None:
    """An operator may be installed before the definition is."""
    chart.delete_definition(house.kubectl)
    with operating(house.control_plane, house.release, tmp_path / "early") as operator:
        operator.wait(lambda: operator.metric("the_eye_operator_definition_missing") == 1)
        operator.wait(lambda: operator.health()[1]["last_error"] is not None)
        status, health = operator.health()
        assert (status, health["status"], health["last_success_age_seconds"]) == (200, "ok", None)
        assert "list validatorrules" in health["last_error"]
        assert "404" in operator.said("reconcile_failed")[0]["error"]
        assert house.published() is None, "nothing is known of what there should be"

        chart.install_definition(house.kubectl)
        house.apply(rule("first"))

        operator.wait(lambda: house.in_force() == {"first": 1}, LONGEST_BACK_OFF)
        operator.wait(house.says("first", 1))
        operator.wait(lambda: operator.metric("the_eye_operator_definition_missing") == 0)
        assert operator.health()[1]["last_error"] is None
        house.apply(rule("first", elements=["b"]))
        operator.wait(lambda: house.in_force() == {"first": 2}, 10)


def test_what_is_published_outlives_the_definition_and_follows_the_rules_once_it_is_back(
    stoppable_control_plane: ControlPlane, house: House, operator: Operator
) -> None:
    """Kubernetes deletes all rules before their definition; no one has wished for events to be judged by none."""
    assert stoppable_control_plane is house.control_plane
    house.apply(*(rule(f"rule-{number}") for number in range(20)))
    operator.wait(lambda: len(house.in_force()) == 20)
    operator.wait(house.says("rule-19", 1))
    published = len(operator.said("ruleset_published"))

    chart.delete_definition(house.kubectl)
    operator.wait(lambda: operator.metric("the_eye_operator_definition_missing") == 1, 10)
    operator.wait(lambda: "404" in (operator.health()[1]["last_error"] or ""))
    assert operator.health()[0] == 200
    assert len(house.in_force()) == 20
    assert len(operator.said("ruleset_published")) == published

    chart.install_definition(house.kubectl)
    house.apply(rule("rule-0", elements=["b"]))

    operator.wait(lambda: house.in_force() == {"rule-0": 1}, LONGEST_BACK_OFF)
    operator.wait(house.says("rule-0", 1))
    operator.wait(lambda: operator.metric("the_eye_operator_definition_missing") == 0)
    house.apply(rule("rule-0", elements=["c"]))
    operator.wait(lambda: house.in_force() == {"rule-0": 2}, 10)
    assert operator.audit.denied() == []
