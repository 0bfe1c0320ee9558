"""The benchmark's own arithmetic. What it measures is not tested here: that takes servers and quiet processors."""

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any, TypeVar

import msgspec
import pytest
from tests.load.bench import bare, events, figures, plots, prepared, report
from tests.load.bench.answers import is_whole, percentile
from tests.load.bench.batches import Sender as BatchSender
from tests.load.bench.batches import Waiting, whole_answer
from tests.load.bench.figures import TARGETS, Figure, Runs, Target
from tests.load.bench.fixed_rate import LATE_SECONDS, Schedule, Sender, measure
from tests.load.bench.plots import Panel
from tests.load.bench.rules import write_rules

from the_eye.event import SentEvent, parse_event
from the_eye.rules.directory import RuleDirectory
from the_eye.settings import ApiSettings
from the_eye_api import command

T = TypeVar("T")
ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}"
AT = datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)


def test_every_event_is_well_formed_and_has_its_time() -> None:
    sent = [parse_event(events.whole(head, AT)) for head in events.heads()]
    assert all(isinstance(event, SentEvent) and event.timestamp == AT for event in sent)


def test_the_batches_hold_each_event_once_and_carry_the_second_they_are_asked_for() -> None:
    batches = prepared.batches(events.heads(), "secret", 500)
    second = int(AT.timestamp())
    sent = [_body(batch.at(second), "/events/batch", list[SentEvent]) for batch in batches]
    assert [len(batch) for batch in sent] == [500, 500, 500, 500]
    assert {event.timestamp.replace(microsecond=0) for batch in sent for event in batch} == {AT.replace(microsecond=0)}
    assert len({bytes(event.data) for batch in sent for event in batch}) > 1_500
    later = _body(batches[0].at(second + 1), "/events/batch", list[SentEvent])
    assert {int(event.timestamp.timestamp()) for event in later} == {second + 1}


def test_a_single_event_has_the_time_at_which_it_is_taken() -> None:
    heads = events.heads()[:2]
    taken = [_body(request, "/events", SentEvent) for request in islice(prepared.singles(heads, "secret"), 3)]
    assert [event.session_id for event in taken[:2]] == [event.session_id for event in taken[1:]]
    assert taken[0].timestamp <= taken[1].timestamp <= taken[2].timestamp
    assert abs((datetime.now(UTC) - taken[2].timestamp).total_seconds()) < 60


def _body(request: bytes, path: str, kind: type[T]) -> T:
    """See that a request is whole and gives its events."""
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == f"POST {path} HTTP/1.1"
    assert "Authorization: Bearer secret" in lines
    assert f"Content-Length: {len(body)}" in lines
    return msgspec.json.decode(body, type=kind)


def test_of_a_thousand_rules_one_matches(tmp_path: Path) -> None:
    rules = RuleDirectory(
        write_rules(tmp_path, 1_000), poll_seconds=1.0, future_tolerance=AT - AT, on_change=lambda _: None
    )
    rules.load()
    matching = rules.current._find("page interaction", "pageview", "bench")  # noqa: SLF001 - the index has no other door
    assert (len(rules.current.rules), len(matching)) == (1_000, 1)


def test_bare_runs_on_the_settings_of_the_api() -> None:
    """The ratio would say nothing about the API if the server under it were another.

    What the edge adds to uvicorn's protocol, or saves there, is its own and counts in the ratio.
    """
    edge: Any = SimpleNamespace(asgi=bare.accept, at_once={})
    ours, theirs = vars(bare.config()), vars(command._config(edge, ApiSettings()))  # noqa: SLF001
    different = {name for name in ours if ours[name] != theirs[name]}
    assert different == {"http", "lifespan", "timeout_graceful_shutdown", "timeout_keep_alive"}


def test_what_is_due_counts_from_when_it_was_due() -> None:
    schedule = Schedule(rate=10.0, total=3, start=100.0)
    assert not schedule.due(99.9)
    assert schedule.pause(99.95) == pytest.approx(0.05)
    assert schedule.due(100.15)
    assert [schedule.take(), schedule.take()] == [100.0, pytest.approx(100.1)]
    assert not schedule.due(100.15)
    schedule.take()
    assert not schedule.due(200.0)
    assert schedule.pause(200.0) == LATE_SECONDS


def test_the_generator_rests_only_where_it_saves_turns() -> None:
    assert Schedule(rate=100.0, total=1, start=0.0).rest == 0.0
    assert Schedule(rate=4_000.0, total=1, start=0.0).rest > 0.0


@pytest.mark.parametrize(
    ("answer", "whole"),
    [
        (b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}", True),
        (b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n", False),
        (b"HTTP/1.1 202 Accepted\r\ncontent-le", False),
    ],
)
def test_an_answer_that_comes_in_pieces_is_waited_for(answer: bytes, whole: bool) -> None:  # noqa: FBT001
    assert is_whole(answer) == whole


def test_a_fixed_rate_waits_for_answers_in_pieces_and_counts_what_is_refused() -> None:
    """Every second request is refused, and each answer comes in two pieces."""
    answers = cycle([b"202 Accepted", b"429 Too Many Requests"])
    with (
        _server(lambda: b"HTTP/1.1 " + next(answers) + b"\r\nContent-Length: 2\r\n\r\n{}") as address,
        closing(Sender(address, 2, prepared.singles(events.heads(), "secret"))) as sender,
    ):
        load = measure(sender, 1_000.0, 0.02)
    assert (load.answers, load.failed) == (20, 10)
    assert 0.0 < load.p50_ms <= load.p99_ms


def test_a_server_that_hesitates_is_charged_and_the_generator_is_not() -> None:
    """Nine requests wait for the only connection: their times show it, the generator's lateness does not."""
    slow = Event()

    def answer() -> bytes:
        slow.wait(0.02)
        return ACCEPTED

    with _server(answer) as address, closing(Sender(address, 1, prepared.singles(events.heads(), "secret"))) as sender:
        load = measure(sender, 1_000.0, 0.01)
    assert (load.answers, load.failed) == (10, 0)
    assert load.p99_ms > 10 * 20.0 - 10.0
    assert load.late_p99_ms < load.p99_ms / 2


def test_requests_due_since_the_last_turn_are_late_by_all_of_it() -> None:
    with (
        _server(lambda: ACCEPTED) as address,
        closing(Sender(address, 4, prepared.singles(events.heads(), "secret"))) as sender,
    ):
        now = time.perf_counter()
        sender._send_due(Schedule(10.0, 3, now - 0.3), earlier=now - 0.4)  # noqa: SLF001 - a turn that took 0.4 s
        spent = time.perf_counter() - now
    for late, least in zip(sender.late, (0.3, 0.2, 0.1), strict=True):
        assert least - 0.001 <= late <= least + spent + 0.001


def test_batches_are_counted_when_they_are_answered_with_2xx() -> None:
    answers = cycle([b"202 Accepted", b"503 Service Unavailable"])
    with _server(lambda: b"HTTP/1.1 " + next(answers) + b"\r\nContent-Length: 2\r\n\r\n{}") as address:
        sender = BatchSender(address, prepared.batches(events.heads(), "secret", 500), lambda: True)
        sender.run(seconds=10.0, most=8)
    assert (len(sender.taken), sender.failed) == (8, 4)


def test_a_batch_needs_leave() -> None:
    with _server(lambda: ACCEPTED) as address:
        leave = iter([True, False, True])
        sender = BatchSender(address, prepared.batches(events.heads(), "secret", 500), lambda: next(leave, False))
        sender.run(seconds=0.05, most=0)
    assert (len(sender.taken), sender.failed) == (2, 0)


def test_an_answer_that_ends_too_early_is_an_error() -> None:
    pieces = iter([b"HTTP/1.1 202 Accepted\r\ncontent-le", b""])
    with pytest.raises(ConnectionError):
        whole_answer(lambda _: next(pieces))


def test_the_length_of_a_list_is_asked_for_in_the_protocol_of_redis(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                asked.append(connection.recv(1_000))
                connection.sendall(b":1")
                connection.sendall(b"2\r\n")

        thread = Thread(target=answer)
        thread.start()
        with closing(Waiting(path, "the-list")) as waiting:
            assert len(waiting) == 12
        thread.join()
    assert asked == [b"*2\r\n$4\r\nLLEN\r\n$8\r\nthe-list\r\n"]


@contextmanager
def _server(answer: Callable[[], bytes]) -> Iterator[str]:
    """Answer each request of any length, the answer torn in two; gives the address."""

    class Connection(StreamRequestHandler):
        def handle(self) -> None:
            length = 0
            with suppress(ConnectionError):  # the sender has what it wants
                while line := self.rfile.readline():
                    if line.startswith(b"Content-Length: "):
                        length = int(line.split()[1])
                    if line == b"\r\n":
                        self.rfile.read(length)
                        whole = answer()
                        self.wfile.write(whole[:20])
                        self.wfile.write(whole[20:])

    with ThreadingTCPServer(("127.0.0.1", 0), Connection, bind_and_activate=True) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            host, port = server.server_address[:2]
            yield f"{host!s}:{port}"
        finally:
            server.shutdown()


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(number) for number in range(1, 201)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [100.0, 198.0, 200.0]


def test_a_ratio_is_taken_round_by_round() -> None:
    """What slows both sides of one round must not look like a difference between them."""
    runs = Runs()
    for single, bare_ in ((30.0, 100.0), (15.0, 50.0), (33.0, 100.0)):
        runs.add("single_64", single, "events/s")
        runs.add("bare_64", bare_, "events/s")
    ratio = figures.by_name(runs.figures())["single_vs_bare"]
    assert (ratio.value, ratio.ratio_to) == (0.3, "bare_64")
    assert ratio.spread == pytest.approx(0.1)


def test_what_is_measured_in_turns_counts_as_one_run() -> None:
    """A median of parts would pair the first part of one figure with a whole run of another."""
    runs = Runs()
    runs.add("bare_64", 80.0, "events/s")
    with runs.as_one_run():
        for bare_, api in ((90.0, 40.0), (110.0, 60.0)):
            runs.add("bare_64", bare_, "events/s")
            runs.add("api_64", api, "events/s")
    found = figures.by_name(runs.figures())
    assert found["bare_64"].runs == (80.0, 100.0)
    assert found["api_64"].runs == (50.0,)


def test_memory_is_held_against_its_peak_and_time_against_the_slower_rate() -> None:
    runs = Runs()
    for value in (90.0, 120.0, 100.0):
        runs.add("peak_api", value, "MB")
        runs.add("half_stored_p99_ms", value, "ms")
        runs.add("low_stored_p99_ms", value / 2, "ms")
    known = figures.by_name(runs.figures())
    assert (known["rss_api_mb"].value, known["stored_p99_ms"].value) == (120.0, 100.0)


def test_a_flood_is_judged_by_the_worse_of_its_kinds_each_beside_the_rounds_of_its_own() -> None:
    runs = Runs()
    for alone, singles, batches in ((2.0, 4.0, 6.0), (4.0, 8.0, 4.0), (2.0, 3.0, 3.0)):
        runs.add("quiet_alone_p99_ms", alone, "ms")
        runs.add("quiet_beside_singles_p99_ms", singles, "ms")
        runs.add("quiet_beside_batches_p99_ms", batches, "ms")
    worse = figures.by_name(runs.figures())["flooded_p99_vs_alone"]
    assert (worse.value, worse.unit, worse.runs) == (2.0, "ratio", (2.0, 2.0, 1.5))
    target = next(one for one in TARGETS if one.figure == "flooded_p99_vs_alone")
    assert [target.verdict(value) for value in (2.0, 2.1)] == ["must", "missed"]


@pytest.mark.parametrize(("value", "verdict"), [(9.0, "aim"), (10.0, "aim"), (20.0, "must"), (25.1, "missed")])
def test_a_bound_from_above(value: float, verdict: str) -> None:
    assert Target("p99_half_ms", "", 25.0, 10.0, more_is_better=False).verdict(value) == verdict


@pytest.mark.parametrize(("value", "verdict"), [(0.31, "aim"), (0.22, "must"), (0.21, "missed")])
def test_a_bound_from_below(value: float, verdict: str) -> None:
    assert Target("single_vs_bare", "", 0.22, 0.30).verdict(value) == verdict


def test_figures_survive_their_file_and_new_ones_replace_old(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    old = [Figure("a", 1.0, "ms"), Figure("b", 2.0, "ratio", "a", (2.0, 2.5))]
    figures.write(path, figures.merged(old, [Figure("a", 1.23456, "ms")]))
    assert figures.read(path) == [Figure("a", 1.235, "ms"), old[1]]


def test_a_section_measured_again_lowers_no_peak_of_another() -> None:
    old = [Figure("rss_api_mb", 90.0, "MB"), Figure("rss_worker_mb", 85.0, "MB")]
    new = [Figure("rss_api_mb", 83.0, "MB"), Figure("rss_worker_mb", 99.0, "MB")]

    assert figures.merged(old, new) == [old[0], new[1]]


def test_the_document_keeps_what_people_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report.DOCUMENT.parent.mkdir()
    report.DOCUMENT.write_text(f"# Performance\n\nwritten by hand\n\n{report.MARK}old figures")
    report.write([Figure("copy_1", 50_000.0, "events/s"), Figure("p99_half_ms", 12.0, "ms")])
    text = report.DOCUMENT.read_text()
    assert "written by hand" in text
    assert "old figures" not in text
    assert "| `p99_half_ms` | p99 of single POSTs at half of the maximum, ms | 25 | 10 | 12 | 0% | must |" in text
    assert [path.name for path in report.PLOTS.iterdir()] == ["rates.svg"]


def test_the_table_names_what_was_not_measured() -> None:
    lines = list(report.table([Figure("single_vs_bare", 0.25, "ratio", "bare_64", (0.24, 0.25, 0.26))]))
    assert lines[1].split() == ["single_vs_bare", "0.22", "0.3", "0.25", "8%", "must"]
    assert sum("not measured" in line for line in lines) == len(TARGETS) - 1


def test_plots_are_text_with_names_made_safe() -> None:
    drawn = plots.bars("a < b", {"one & two": [1.0, 2.0]}, ["first", "second"])
    assert drawn.startswith("<svg")
    assert "a &lt; b" in drawn
    assert "one &amp; two" in drawn


def test_courses_step_from_value_to_value_over_one_time() -> None:
    panels = [
        Panel("MiB", {"backlog": [(0.0, 0.0), (5.0, 2.0), (10.0, 1.0)]}),
        Panel("workers", {"ready": [(10.0, 3.0)]}),
    ]
    drawn = plots.courses("a < b", panels, {"events are sent": (0.0, 5.0)})

    assert "a &lt; b" in drawn
    # Up at half the time to the panel's height, and down at its end to half of it.
    up, down = re.findall(r"H([\d.]+)V([\d.]+)", drawn)
    (start,) = re.findall(r'd="M([\d.]+) ([\d.]+)H', drawn)
    assert float(up[0]) - float(start[0]) == pytest.approx((float(down[0]) - float(start[0])) / 2)
    assert float(down[1]) - float(up[1]) == pytest.approx((float(start[1]) - float(up[1])) / 2)
    assert drawn.count("<rect") == 1
