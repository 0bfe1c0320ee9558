"""The benchmark's own arithmetic. What it measures is not tested here: that takes servers and quiet processors."""

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.load.bench import bare, events, figures, plots, report
from tests.load.bench.figures import TARGETS, Figure, Runs, Target
from tests.load.bench.fixed_rate import Schedule, is_whole, percentile
from tests.load.bench.rules import write_rules

from the_eye.event import SentEvent, parse_event
from the_eye.rules.directory import RuleDirectory
from the_eye.settings import ApiSettings
from the_eye_api import command

AT = datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)


def test_every_event_is_well_formed_and_has_its_time() -> None:
    sent = [parse_event(events.whole(head, AT)) for head in events.heads()]
    assert all(isinstance(event, SentEvent) and event.timestamp == AT for event in sent)


def test_the_batches_hold_each_event_once_and_carry_the_current_second() -> None:
    batches = [
        msgspec.json.decode(events.stamped(batch), type=list[SentEvent]) for batch in events.prepared_batches(500)
    ]
    assert [len(batch) for batch in batches] == [500, 500, 500, 500]
    assert all(abs((datetime.now(UTC) - event.timestamp).total_seconds()) < 60 for batch in batches for event in batch)


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
    edge: Any = SimpleNamespace(asgi=bare.accept)
    ours, theirs = vars(bare.config()), vars(command._config(edge, ApiSettings()))  # noqa: SLF001
    different = {name for name in ours if ours[name] != theirs[name]}
    assert different == {"http", "lifespan", "timeout_graceful_shutdown"}


def test_what_is_due_counts_from_when_it_was_due() -> None:
    schedule = Schedule(rate=10.0, total=3, start=100.0)
    assert not schedule.due(99.9)
    assert schedule.pause(99.95) == pytest.approx(0.05)
    assert schedule.due(100.15)
    assert [schedule.take(), schedule.take()] == [100.0, pytest.approx(100.1)]
    assert not schedule.due(100.15)


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


def test_memory_is_held_against_its_peak_and_time_against_the_slower_rate() -> None:
    runs = Runs()
    for value in (90.0, 120.0, 100.0):
        runs.add("peak_api", value, "MB")
        runs.add("half_stored_p99_ms", value, "ms")
        runs.add("low_stored_p99_ms", value / 2, "ms")
    known = figures.by_name(runs.figures())
    assert (known["rss_api_mb"].value, known["stored_p99_ms"].value) == (120.0, 100.0)


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
