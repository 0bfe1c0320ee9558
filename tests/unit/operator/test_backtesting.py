"""Back-tests that rules ask for: which are due, what is told of them, and what ends them.

What a back-test finds is for the tests of the store. The process is a shell here that prints what a test wants, but
for one test; with a store, and its status held against the definition, the cluster tests run it.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from kmock import KubernetesScaffold
from structlog.testing import capture_logs
from tests.unit.operator.api_server import NAMESPACE, RULES, ApiServer
from tests.unit.operator.declaring import SOUND, body
from tests.unit.operator.operating import until
from tests.unit.rules.making import cel

from the_eye.rules.backtest import BacktestResult, Request, State
from the_eye.rules.manifest import read_manifest
from the_eye_operator import backing_off, backtesting
from the_eye_operator.backtesting import MAX_MESSAGE, PROGRAM, Backtests, is_due, request_for
from the_eye_operator.cluster import Cluster, ClusterError, connect
from the_eye_operator.declared import Declared, DeclaredRules, read_declared

pytestmark = pytest.mark.kmock(cls=KubernetesScaffold)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DAY_BEFORE = NOW - timedelta(days=1)
IDS = tuple(uuid4() for _ in range(12))

RUNNING = BacktestResult(
    state=State.RUNNING, from_=DAY_BEFORE, to=NOW, examined=3, violations=1, share=1 / 3, event_ids=IDS[:1]
)
DONE = msgspec.structs.replace(RUNNING, state=State.DONE)

DONE_BEFORE = {
    "requested": "1h",
    "generation": 1,
    "state": "Done",
    "from": "2026-01-01T00:00:00Z",
    "to": "2026-01-01T01:00:00Z",
    "examined": 9,
    "violations": 9,
    "share": 1.0,
    "eventIds": [str(IDS[0])],
    "truncated": True,
    "message": "the bound of 9 events was reached",
    "finishedAt": "2026-01-01T01:00:01Z",
}


class Trial:
    """Back-tests of the rules on a server, of which a test says when a watch tells."""

    def __init__(self, server: ApiServer, cluster: Cluster) -> None:
        self.server = server
        self.cluster = cluster
        self.declared = DeclaredRules()

    async def ask(self, name: str, window: str = "24h", told: dict[str, Any] | None = None, **spec: Any) -> None:
        """Create a rule that asks for a back-test, and see it."""
        self.server.apply(name, **(spec or SOUND))
        self.server.annotate(name, backtest=window)
        if told:
            await self.cluster.patch_status(NAMESPACE, name, {"backtest": told})
        self.see()

    def see(self) -> None:
        """Be told by the watch of all that has happened."""
        there = self.server.objects(RULES)
        for rule in there:
            self.declared.seen(rule)
        for uid in {rule.uid for rule in self.declared.all()} - {rule["metadata"]["uid"] for rule in there}:
            self.declared.gone(uid)

    def backtests(self, program: Sequence[str]) -> Backtests:
        """Make what is tested."""
        return Backtests(self.cluster, self.declared, program)

    async def run(self, program: Sequence[str]) -> None:
        """Run what is due."""
        await self.backtests(program).run_due()

    def told(self, name: str = "rule") -> Any:
        """What the status says of the back-test; None when nothing."""
        return self.server.status(name).get("backtest")

    def states(self) -> list[tuple[str | None, str]]:
        """Each state that was told, with the rule's name, in the order of the patches."""
        told = [(write.name, write.body["status"]["backtest"]) for write in self.server.writes()]
        return [(name, backtest["state"]) for name, backtest in told if backtest is not None]


@pytest.fixture
async def trial(kmock: KubernetesScaffold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Trial]:
    """A server without rules."""
    server = ApiServer(kmock)
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))
    cluster = connect("")
    yield Trial(server, cluster)
    await cluster.close()


def printing(*lines: BacktestResult | str, then: str = "") -> tuple[str, ...]:
    """A process that prints lines and ends."""
    texts = [line if isinstance(line, str) else msgspec.json.encode(line).decode() for line in lines]
    return ("sh", "-c", f'cat > /dev/null; for line; do printf "%s\\n" "$line"; done; {then}', "sh", *texts)


def asking(window: str = "24h", *, told: dict[str, Any] | None = None, generation: int = 1, **spec: Any) -> Declared:
    """A rule that asks for a back-test."""
    status = None if told is None else {"backtest": told}
    return read_declared(body(annotations={"backtest": window}, generation=generation, status=status, **spec))


@pytest.mark.parametrize(
    ("rule", "due"),
    [
        (asking(), True),
        (asking(""), False),
        (asking(told={"requested": "24h", "generation": 1, "state": "Pending"}), True),
        (asking(told={"requested": "24h", "generation": 1, "state": "Running"}), True),
        (asking(told={"requested": "24h", "generation": 1, "state": "Done"}), False),
        (asking(told={"requested": "24h", "generation": 1, "state": "Failed"}), False),
        (asking(told={"requested": "1h", "generation": 1, "state": "Done"}), True),
        (asking(told={"requested": "24h", "generation": 1, "state": "Done"}, generation=2), True),
        (asking("", told={"requested": "", "generation": 1, "state": "Pending"}), False),
        (asking("x" * 70, told={"requested": "x" * 63, "generation": 1, "state": "Failed"}), False),
    ],
    ids=[
        "asked",
        "not asked",
        "another operator left it pending",
        "another operator was at it",
        "done",
        "failed",
        "another window",
        "another generation",
        "not asked any more",
        "more text than a status repeats",
    ],
)
def test_a_window_is_due_for_each_generation_until_its_end_is_told(rule: Declared, *, due: bool) -> None:
    assert is_due(rule) is due


def test_a_window_ends_now() -> None:
    rule = asking("24h", match={"name": "cta*"}, **cel("event.data.ok"))

    request = request_for(rule, NOW)

    assert isinstance(request, Request)
    assert (request.from_, request.to) == (DAY_BEFORE, NOW)
    assert read_manifest(msgspec.json.decode(msgspec.json.encode(request)).pop("rule")) == rule.manifest


async def test_a_result_is_told_as_the_definition_has_it(trial: Trial, tmp_path: Path) -> None:
    """And the process is given what request_for makes."""
    await trial.ask("rule")
    done = msgspec.json.encode(DONE).decode()

    await trial.run(("sh", "-c", 'cat > "$1"; echo "$2"', "sh", str(tmp_path / "request"), done))

    request = msgspec.json.decode((tmp_path / "request").read_bytes(), type=Request)
    assert request.to - request.from_ == timedelta(days=1)
    told = trial.told()
    finished = datetime.fromisoformat(told.pop("finishedAt"))
    assert abs(datetime.now(UTC) - finished) < timedelta(seconds=10)
    assert told == {
        "requested": "24h",
        "generation": 1,
        "state": "Done",
        "from": "2026-02-28T12:00:00Z",
        "to": "2026-03-01T12:00:00Z",
        "examined": 3,
        "violations": 1,
        "share": 0.333333,
        "eventIds": [str(IDS[0])],
        "truncated": False,
    }
    assert not is_due(trial.declared.all()[0])


async def test_no_more_events_are_named_than_the_definition_allows(trial: Trial) -> None:
    await trial.ask("rule")

    await trial.run(printing(msgspec.structs.replace(DONE, event_ids=IDS)))

    assert trial.told()["eventIds"] == [str(each) for each in IDS[:10]]


async def test_what_is_truncated_says_why_in_as_many_words_as_there_is_room_for(trial: Trial) -> None:
    await trial.ask("rule")

    await trial.run(printing(msgspec.structs.replace(DONE, truncated=True, message="x" * 2_000)))

    assert (trial.told()["truncated"], trial.told()["message"]) == (True, "x" * MAX_MESSAGE)


async def test_nothing_is_told_of_a_rule_that_asks_for_nothing(trial: Trial) -> None:
    trial.server.apply("rule", **SOUND)
    trial.see()

    await trial.run(printing(DONE))

    assert trial.server.writes() == []


async def test_without_its_annotation_a_rule_has_no_result(trial: Trial) -> None:
    await trial.ask("rule", told=DONE_BEFORE)
    trial.server.annotate("rule", backtest=None)
    trial.see()

    await trial.run(printing(DONE))

    assert trial.told() is None
    assert "backtest" not in trial.declared.all()[0].status


@pytest.mark.parametrize("window", ["a day", "0h", "24", "-1h", "367d", "x" * 100, " "])
async def test_a_window_that_is_none_fails_and_the_annotation_is_named(trial: Trial, window: str) -> None:
    await trial.ask("rule", window)

    await trial.run(printing(DONE))

    assert (trial.told()["state"], trial.told()["requested"]) == ("Failed", window[:63])
    assert trial.told()["message"].startswith("the annotation the-eye.io/backtest: expected ")


async def test_a_rule_that_cannot_be_read_fails_with_what_is_wrong_with_it(trial: Trial) -> None:
    await trial.ask("rule", match={"name": 1})

    await trial.run(printing(DONE))

    assert trial.told()["state"] == "Failed"
    assert "spec.match.name" in trial.told()["message"]


async def test_of_several_the_others_are_pending(trial: Trial) -> None:
    for name in "abc":
        await trial.ask(name)

    await trial.run(printing(DONE))

    assert trial.states() == [("b", "Pending"), ("c", "Pending"), ("a", "Done"), ("b", "Done"), ("c", "Done")]


async def test_one_that_is_not_asked_for_any_more_when_its_turn_comes_is_left_out(trial: Trial, tmp_path: Path) -> None:
    for name in "ab":
        await trial.ask(name)
    end, pids = tmp_path / "end", tmp_path / "pids"
    running = asyncio.create_task(trial.run(waiting_for(end, pids, then=DONE)))
    await until(pids.exists)
    trial.server.delete("b")
    trial.see()
    end.touch()
    await running

    assert trial.states() == [("b", "Pending"), ("a", "Done")]
    assert len(pids.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("every", "told"),
    [(0.0, ["Running", "Running", "Done"]), (60.0, ["Running", "Done"])],
    ids=["each", "now and then"],
)
async def test_it_is_told_how_far_it_is(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, every: float, told: list[str]
) -> None:
    monkeypatch.setattr(backtesting, "TELL_SECONDS", every)
    await trial.ask("rule")

    await trial.run(printing(RUNNING, msgspec.structs.replace(RUNNING, examined=4), DONE))

    assert [state for _, state in trial.states()] == told
    first = trial.server.writes()[0].body["status"]["backtest"]
    assert (first["examined"], first["finishedAt"]) == (3, None)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (printing(then="exit 3"), "its process ended by itself, with status 3"),
        (printing(RUNNING, then="kill -9 $$"), "its process ended by itself, with status -9"),
        (printing("Traceback (most recent call last):"), "its process cannot be started or talked to: "),
        (printing('{"state": "Ready"}'), "its process cannot be started or talked to: "),
        (printing("x" * 100_000), "its process cannot be started or talked to: "),
        (
            printing(msgspec.structs.replace(RUNNING, state=State.FAILED, message="the store is away" + "!" * 2_000)),
            "the store is away",
        ),
        (("/no/such/program",), "its process cannot be started or talked to: "),
        (("true",), "its process ended by itself, with status 0"),
        (("sleep", "60"), "it did not end within 0.3 seconds"),
        (("sh", "-c", "exec sleep 60 >&-"), "it did not end within 0.3 seconds"),
    ],
    ids=[
        "dies",
        "is killed",
        "prints garbage",
        "no such state",
        "line too long",
        "says so",
        "is not there",
        "silent",
        "hangs",
        "hangs, mute",
    ],
)
async def test_a_process_that_does_not_do_its_work_is_told_as_failed_and_nothing_of_an_earlier_one_stays(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, program: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr(backtesting, "END_SECONDS", 0.3)
    await trial.ask("rule", told=DONE_BEFORE)

    await trial.run(program)

    told = trial.told()
    assert told.keys() == {"requested", "generation", "state", "message", "finishedAt"}
    assert (told["requested"], told["generation"], told["state"]) == ("24h", 1, "Failed")
    assert told["message"].startswith(message)
    assert len(told["message"]) <= MAX_MESSAGE


def waiting_for(end: Path, pid: Path, then: BacktestResult | None = None) -> tuple[str, ...]:
    """A process that is silent until there is a file, and then prints a last line or dies."""
    last = "exit 3" if then is None else 'echo "$3"'
    script = f'echo $$ >> "$2"; while [ ! -e "$1" ]; do sleep 0.01; done; {last}'
    return ("sh", "-c", script, "sh", str(end), str(pid), msgspec.json.encode(then).decode())


def going_on(end: Path, pid: Path) -> tuple[str, ...]:
    """A process that goes on for ever, and says something as soon as there is a file."""
    script = 'echo $$ > "$2"; while :; do [ ! -e "$1" ] || echo "$3"; sleep 0.01; done'
    return ("sh", "-c", script, "sh", str(end), str(pid), msgspec.json.encode(RUNNING).decode())


def delete(server: ApiServer) -> None:
    server.delete("rule")


def edit(server: ApiServer) -> None:
    server.apply("rule", **cel("false"))


def ask_for_another(server: ApiServer) -> None:
    server.annotate("rule", backtest="1h")


def ask_for_none(server: ApiServer) -> None:
    server.annotate("rule", backtest=None)


@pytest.mark.parametrize("change", [delete, edit, ask_for_another, ask_for_none])
@pytest.mark.parametrize("program", [going_on, waiting_for])
async def test_one_that_is_not_wanted_any_more_is_ended_and_not_told(
    trial: Trial,
    tmp_path: Path,
    change: Callable[[ApiServer], None],
    program: Callable[[Path, Path], tuple[str, ...]],
) -> None:
    """Whatever its process does."""
    end, pid = tmp_path / "end", tmp_path / "pid"
    await trial.ask("rule")
    running = asyncio.create_task(trial.run(program(end, pid)))
    await until(lambda: pid.exists() and pid.read_text().endswith("\n"))
    change(trial.server)
    trial.see()
    end.touch()
    async with asyncio.timeout(5):
        await running

    assert trial.server.writes() == []
    assert_ended(pid)


def assert_ended(pid: Path) -> None:
    """Assert that there is no such process any more."""
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


async def test_when_the_operator_ends_so_does_the_process(trial: Trial, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    await trial.ask("rule")
    running = asyncio.create_task(trial.run(going_on(tmp_path / "end", pid)))
    await until(lambda: pid.exists() and pid.read_text().endswith("\n"))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert_ended(pid)


async def test_what_could_not_be_told_is_due_again(trial: Trial) -> None:
    await trial.ask("rule")
    trial.server.fail(HTTPStatus.SERVICE_UNAVAILABLE, times=1, plural=RULES, subresource="status")

    with pytest.raises(ClusterError):
        await trial.run(printing(DONE))
    assert trial.told() is None
    assert is_due(trial.declared.all()[0])

    await trial.run(printing(DONE))
    assert trial.told()["state"] == "Done"


async def test_a_process_does_not_outlive_a_failure_to_tell_how_far_it_is(trial: Trial, tmp_path: Path) -> None:
    await trial.ask("rule")
    trial.server.fail(HTTPStatus.SERVICE_UNAVAILABLE, times=1, plural=RULES, subresource="status")
    end, pid = tmp_path / "end", tmp_path / "pid"
    end.touch()

    with pytest.raises(ClusterError):
        await trial.run(going_on(end, pid))

    assert_ended(pid)


async def test_where_the_status_of_one_rule_is_refused_the_others_have_their_turn(trial: Trial) -> None:
    """And the refusal is told nonetheless, so that it is not tried again all the time."""
    for name in "abc":
        await trial.ask(name)
    trial.server.annotate("c", backtest=None)
    await trial.cluster.patch_status(NAMESPACE, "c", {"backtest": DONE_BEFORE})
    trial.see()
    trial.server.fail(HTTPStatus.FORBIDDEN, plural=RULES, name="a", subresource="status")

    with pytest.raises(ClusterError, match="403"):
        await trial.run(printing(DONE))

    assert (trial.told("b")["state"], trial.told("c")) == ("Done", None)
    assert [rule.name for rule in trial.declared.all() if is_due(rule)] == ["a"]


async def test_a_rule_that_is_deleted_before_its_result_is_told_is_no_failure(trial: Trial) -> None:
    """Of which the watch has not told yet."""
    await trial.ask("rule")
    trial.server.delete("rule", unseen=True)

    await trial.run(printing(DONE))

    assert trial.server.objects(RULES) == []


async def test_it_looks_again_and_again_and_after_failures_too(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backtesting, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(backing_off, "FIRST", 0.01)
    failure = trial.server.fail(HTTPStatus.SERVICE_UNAVAILABLE, times=2, plural=RULES, subresource="status")
    with capture_logs() as logs:
        running = asyncio.create_task(trial.backtests(printing(DONE)).run())
        for name in "ab":
            await asyncio.sleep(0)
            await trial.ask(name)
            await until(lambda name=name: trial.told(name) is not None)  # type: ignore[misc]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    assert len(failure.times) == 2
    assert len([log for log in logs if log["event"] == "backtest_not_told"]) == 2


async def test_the_true_process_says_in_one_line_that_it_has_no_database(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("THE_EYE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    await trial.ask("rule")

    await trial.run(PROGRAM)

    assert trial.told()["state"] == "Failed"
    assert "127.0.0.1" in trial.told()["message"]
    assert "\n" not in trial.told()["message"]
    assert "Traceback" not in capfd.readouterr().err
