"""What the operator tells of stored events: back-tests that are asked for, and counts of rules in Audit.

API server, operator and PostgreSQL are real; so the definition judges each status, and the back-test's process reads
the store. The events are judged and written as a worker does it.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from tests.cluster import chart
from tests.cluster.control_plane.cluster import ControlPlane
from tests.cluster.operator_process import Operator, operating
from tests.cluster.rules import BAD_EXPRESSION, Cluster, seen_in
from tests.servers import Postgres, running
from tests.unit.rules import making

from the_eye.rules.manifest import ValidatorRule, read_manifest
from the_eye.settings import StoreSettings
from the_eye.store.applications import Application, create_application
from the_eye.store.connect import connect
from the_eye.store.events import Connection, Row, write_events
from the_eye_cli.maintain import maintain
from the_eye_cli.migrate import migrate

BACKTEST = "the-eye.io/backtest"
AUDIT_SECONDS = 0.5


class Eye:
    """An operator with a store, and what a person does with both."""

    def __init__(
        self,
        control_plane: ControlPlane,
        cluster: Cluster,
        operator: Operator,
        connection: Connection,
        application: Application,
    ) -> None:
        self._kubectl = control_plane.kubectl
        self._cluster = cluster
        self._connection = connection
        self._application = application
        self.operator = operator
        self.home = operator.release.namespace

    def apply(self, document: dict[str, Any]) -> None:
        """Apply a rule."""
        self._kubectl.apply(document, namespace=self.home)

    def annotate(self, name: str, annotation: str) -> None:
        """Set an annotation, or remove one with a ``-`` after it."""
        self._kubectl("annotate", "--overwrite", "validatorrule", name, annotation, namespace=self.home)

    def wait_for(self, name: str, field: str, condition: Callable[[Any], bool]) -> Any:
        """Wait until a field of a rule's status is as it should be, None while it is not there; gives it."""
        self.operator.wait(lambda: condition(self.status(name).get(field)))
        return self.status(name).get(field)

    def status(self, name: str) -> Any:
        """Read a rule's status, empty while there is none."""
        return self._cluster.rule(self.home, name).get("status") or {}

    def wait_for_counts(self, name: str, events: int, violations: int) -> Any:
        """Wait until a rule in Audit has these counts."""
        counts = (events, violations)
        return self.wait_for(name, "audit", lambda told: bool(told) and (told["events"], told["violations"]) == counts)

    def wait_for_backtest(self, name: str, window: str = "24h", generation: int = 1) -> Any:
        """Wait for the end of a back-test."""
        asked = (window, generation)
        return self.wait_for(
            name,
            "backtest",
            lambda told: (
                bool(told) and (told["requested"], told["generation"]) == asked and told["state"] in {"Done", "Failed"}
            ),
        )

    def store(self, judge: dict[str, Any], *elements: str, at: datetime, **fields: Any) -> list[UUID]:
        """Store events a second apart, judged by one rule; gives their ids, newest first."""
        rule = read_manifest({**judge, "metadata": {**judge["metadata"], "namespace": self.home, "generation": 1}})
        assert isinstance(rule, ValidatorRule), rule
        ruleset = making.ruleset(rule)
        events = [
            making.event(
                {"element": element},
                event_id=uuid4(),
                application_id=self._application.id,
                application=self._application.name,
                timestamp=at + timedelta(seconds=number),
                received_at=datetime.now(UTC),
                **fields,
            )
            for number, element in enumerate(elements)
        ]
        write_events(self._connection, [Row(event, ruleset.judge(event), bytes(32)) for event in events])
        return [event.event_id for event in reversed(events)]


@pytest.fixture
def database_url() -> Iterator[str]:
    """A database of The Eye's without events."""
    with running(Postgres) as postgres, pytest.MonkeyPatch.context() as environment:
        assert isinstance(postgres, Postgres)
        url = postgres.create_database("the_eye")
        environment.setenv("THE_EYE_DATABASE_URL", url)
        migrate.main([], standalone_mode=False)
        maintain.main([], standalone_mode=False)
        yield url


@pytest.fixture
def eye(control_plane: ControlPlane, database_url: str, tmp_path: Path) -> Iterator[Eye]:
    """An operator with a store, and no worker."""
    chart.install_definition(control_plane.kubectl)
    settings = {"THE_EYE_DATABASE_URL": database_url, "THE_EYE_OPERATOR_AUDIT_SECONDS": str(AUDIT_SECONDS)}
    with ExitStack() as up:
        (home,) = up.enter_context(chart.namespaces(control_plane, 1))
        connection = up.enter_context(connect(StoreSettings(database_url=database_url), "test"))
        application = create_application(connection, "shop")
        operator = up.enter_context(operating(control_plane, chart.render(home), tmp_path / "operator", settings))
        yield Eye(control_plane, up.enter_context(seen_in(control_plane)), operator, connection, application)


def a_while_ago(**time: float) -> datetime:
    return datetime.now(UTC) - timedelta(**time)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_a_rule_is_tried_out_on_stored_events_when_its_annotation_asks_for_it(eye: Eye) -> None:
    """Again for each generation, until the annotation goes and its result with it."""
    rule = chart.rule("element", elements=["a"])
    eye.store(rule, "a", "b", at=a_while_ago(hours=30))
    eye.store(rule, "b", at=a_while_ago(hours=1), name="page view")
    ids = eye.store(rule, *"b" * 12, *"a" * 4, at=a_while_ago(hours=2))

    eye.apply(rule)
    eye.annotate("element", f"{BACKTEST}=24h")
    told = eye.wait_for_backtest("element")
    assert (told["state"], told["examined"], told["violations"], told["share"]) == ("Done", 16, 12, 0.75)
    assert told["eventIds"] == [str(each) for each in ids[4:14]]
    assert (told["truncated"], "message" in told) == (False, False)
    assert moment(told["to"]) - moment(told["from"]) == timedelta(days=1)
    assert a_while_ago(minutes=1) < moment(told["to"]) <= moment(told["finishedAt"])

    eye.apply(chart.rule("element", elements=["b"]))
    told = eye.wait_for_backtest("element", generation=2)
    assert (told["state"], told["examined"], told["violations"], told["share"]) == ("Done", 16, 4, 0.25)
    assert told["eventIds"] == [str(each) for each in ids[:4]]

    eye.annotate("element", f"{BACKTEST}=2d")
    told = eye.wait_for_backtest("element", "2d", generation=2)
    assert (told["examined"], told["violations"], told["share"]) == (18, 5, 0.277778)

    eye.annotate("element", f"{BACKTEST}-")
    eye.wait_for("element", "backtest", lambda told: told is None)


def test_what_cannot_be_tried_out_is_told_as_failed_without_the_result_before_it(eye: Eye) -> None:
    rule = chart.rule("element", elements=["a"])
    eye.store(rule, "b", at=a_while_ago(hours=1))
    eye.apply(rule)
    eye.annotate("element", f"{BACKTEST}=24h")
    assert eye.wait_for_backtest("element")["violations"] == 1

    eye.apply(chart.rule("element", elements=["a"], validations=BAD_EXPRESSION))
    told = eye.wait_for_backtest("element", generation=2)
    assert told.keys() == {"requested", "generation", "state", "message", "finishedAt"}
    assert told["state"] == "Failed"
    assert "spec.validations[0].expression" in told["message"]

    eye.annotate("element", f"{BACKTEST}=a day")
    told = eye.wait_for_backtest("element", "a day", generation=2)
    assert told.keys() == {"requested", "generation", "state", "message", "finishedAt"}
    assert told["message"].startswith(f"the annotation {BACKTEST}: ")

    eye.apply(rule)
    eye.annotate("element", f"{BACKTEST}=1d")
    told = eye.wait_for_backtest("element", "1d", generation=3)
    assert (told["state"], told["violations"], "message" in told) == ("Done", 1, False)


def test_a_rule_in_audit_is_counted_until_it_is_enforced(eye: Eye) -> None:
    audited = chart.rule("element", elements=["a"], action="Audit")
    eye.store(audited, "a", "b", at=a_while_ago(minutes=10))  # before there was such a rule
    eye.apply(audited)
    eye.apply(chart.rule("enforced"))
    told = eye.wait_for_counts("element", 0, 0)
    since = told["since"]
    assert told["generation"] == 1
    assert a_while_ago(minutes=2) < moment(since) <= moment(told["updatedAt"])

    eye.store(audited, "a", at=datetime.now(UTC), name="page view")
    eye.store(audited, "a", "b", "b", at=datetime.now(UTC))
    assert eye.wait_for_counts("element", 3, 2)["since"] == since
    eye.store(audited, "b", at=datetime.now(UTC))
    assert eye.wait_for_counts("element", 4, 3)["since"] == since

    eye.apply(chart.rule("element", elements=["a"], action="Enforce"))
    eye.wait_for("element", "audit", lambda told: told is None)
    assert "audit" not in eye.status("enforced")
