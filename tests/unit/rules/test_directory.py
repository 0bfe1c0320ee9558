"""A watched directory: changes are taken whole and soon, and whatever goes wrong leaves the rules in force."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs
from tests.unit.rules.making import TOLERANCE, cel, event, manifest

from the_eye.rules.directory import RuleDirectory
from the_eye.rules.ruleset import RuleSet
from the_eye.settings import SettingsError


def text(name: str, expression: str = "true") -> str:
    return msgspec.json.encode(manifest(name, **cel(expression))).decode()


def directory_of(path: Path | None, on_change: Callable[[RuleSet], object] | None = None) -> RuleDirectory:
    return RuleDirectory(path, poll_seconds=0.05, future_tolerance=TOLERANCE, on_change=on_change)


def loaded(path: Path) -> RuleDirectory:
    directory = directory_of(path)
    directory.load()
    return directory


@contextmanager
def watched(path: Path) -> Iterator[RuleDirectory]:
    directory = RuleDirectory(path, poll_seconds=0.5, future_tolerance=TOLERANCE)
    directory.load()
    directory.start()
    try:
        yield directory
    finally:
        directory.stop()


def in_force(directory: RuleDirectory) -> dict[str, str]:
    return {
        rule.manifest.metadata.name: rule.manifest.spec.validations[0].expression for rule in directory.current.rules
    }


def look_twice(directory: RuleDirectory) -> None:
    directory.poll()
    directory.poll()


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_without_a_directory_the_ruleset_is_empty() -> None:
    directory = directory_of(None)
    directory.load()
    directory.start()
    directory.poll()
    directory.stop()

    assert directory.current.rules == ()
    assert directory.problems == ()


@pytest.mark.parametrize("name", ["missing", "a.file"])
def test_a_directory_that_is_none_at_start_is_an_error_of_the_settings(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.file").touch()

    with pytest.raises(SettingsError, match=rf"^THE_EYE_RULES_DIR='{tmp_path}/{name}' does not fit: N"):
        directory_of(tmp_path / name).load()


def test_files_count_by_their_suffix_at_the_top_level(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yml", "c.json", ".d.yaml", "e.txt", "f.yaml~", "g", "..h.json"):
        (tmp_path / name).write_text(text(name.strip(".")[0]))
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "i.yaml").write_text(text("i"))

    assert list(in_force(loaded(tmp_path))) == ["a", "b", "c"]


def test_a_broken_file_at_start_is_a_problem_and_no_end(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: [")
    (tmp_path / "b.yaml").write_text(text("b"))

    directory = loaded(tmp_path)

    assert list(in_force(directory)) == ["b"]
    assert [problem.file for problem in directory.problems] == ["a.yaml"]


def test_a_change_is_live_within_two_seconds(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text("a"))
    with watched(tmp_path) as directory:
        (tmp_path / "a.yaml").write_text(text("a", "event.data.a == 1"))

        assert within(2, lambda: in_force(directory) == {"a": "event.data.a == 1"})
        assert not directory.current.judge(event({"a": 2}))


def test_a_change_is_taken_once_two_looks_agree(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text("a"))
    directory = loaded(tmp_path)
    whole = text("a", "1 == 1")

    for half in (whole[:50], whole[:100], whole):
        (tmp_path / "a.yaml").write_text(half)
        directory.poll()
        assert in_force(directory) == {"a": "true"}
        assert directory.problems == ()

    directory.poll()
    assert in_force(directory) == {"a": "1 == 1"}


def test_a_change_of_the_same_size_and_time_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text("a", "1 == 1"))
    directory = loaded(tmp_path)
    before = file.stat()

    (tmp_path / "new").write_text(text("a", "2 == 2"))
    os.utime(tmp_path / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    (tmp_path / "new").replace(file)
    look_twice(directory)

    assert in_force(directory) == {"a": "2 == 2"}


def test_a_change_while_the_files_are_read_is_not_taken_by_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is read between two looks that differ is not put in force."""
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text(text(name))
    directory = loaded(tmp_path)
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text(text(name, "1 == 1"))
    directory.poll()

    def read_and_change(path: Path) -> bytes:
        content = path.read_bytes()
        (tmp_path / "b.yaml").write_text(text("b", "2 == 2"))
        return content

    with monkeypatch.context() as patched:
        patched.setattr("the_eye.rules.directory.read_file", read_and_change)
        directory.poll()
    assert in_force(directory) == {"a": "true", "b": "true"}

    look_twice(directory)
    assert in_force(directory) == {"a": "1 == 1", "b": "2 == 2"}


def test_a_kubelets_swap_is_taken_whole(tmp_path: Path) -> None:
    """As kubelets do it: the files are links through ``..data``, which is replaced by one rename."""

    def fill(version: str, files: dict[str, str]) -> None:
        (tmp_path / version).mkdir()
        for name, content in files.items():
            (tmp_path / version / name).write_text(content)
        (tmp_path / "..data_tmp").symlink_to(version)
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")

    fill("..2026_03_01", {"a.yaml": text("a"), "b.yaml": text("b")})
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    directory = loaded(tmp_path)
    assert in_force(directory) == {"a": "true", "b": "true"}

    fill("..2026_03_02", {"a.yaml": text("a", "1 == 1"), "c.yaml": text("c")})
    (tmp_path / "c.yaml").symlink_to("..data/c.yaml")
    (tmp_path / "b.yaml").unlink()
    shutil.rmtree(tmp_path / "..2026_03_01")
    look_twice(directory)

    assert in_force(directory) == {"a": "1 == 1", "c": "true"}
    assert directory.problems == ()


def test_a_broken_change_keeps_the_last_good_version_until_it_is_repaired(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text("a"))
    (tmp_path / "b.yaml").write_text(text("b"))
    directory = loaded(tmp_path)

    (tmp_path / "a.yaml").write_text("a: [")
    (tmp_path / "b.yaml").write_text(text("b", "1 == 1"))
    look_twice(directory)
    assert in_force(directory) == {"a": "true", "b": "1 == 1"}
    assert [problem.kept for problem in directory.problems] == [True]

    (tmp_path / "a.yaml").write_text(text("a", "2 == 2"))
    look_twice(directory)
    assert in_force(directory) == {"a": "2 == 2", "b": "1 == 1"}
    assert directory.problems == ()


def test_a_deleted_file_takes_its_rules_with_it(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text("a"))
    directory = loaded(tmp_path)

    (tmp_path / "a.yaml").unlink()
    look_twice(directory)

    assert directory.current.rules == ()


def test_a_directory_that_vanishes_keeps_the_rules_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "rules"
    path.mkdir()
    (path / "a.yaml").write_text(text("a"))
    directory = loaded(path)

    path.rename(tmp_path / "elsewhere")
    look_twice(directory)
    assert in_force(directory) == {"a": "true"}
    assert [str(problem) for problem in directory.problems] == [
        f"{path}: the directory cannot be listed: No such file or directory"
    ]

    path.mkdir()
    (path / "b.yaml").write_text(text("b"))
    look_twice(directory)
    assert in_force(directory) == {"b": "true"}
    assert directory.problems == ()


def _a_folder(path: Path) -> None:
    path.mkdir()


def _a_pipe(path: Path) -> None:
    os.mkfifo(path)


def _a_link_to_nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


def _a_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def _a_very_large_file(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


@pytest.mark.parametrize(
    "make",
    [_a_folder, _a_pipe, _a_link_to_nowhere, _a_link_to_itself, _a_very_large_file],
    ids=lambda make: make.__name__,
)
def test_what_is_no_file_to_read_is_a_problem_of_its_own(tmp_path: Path, make: Callable[[Path], None]) -> None:
    (tmp_path / "a.yaml").write_text(text("a"))
    (tmp_path / "b.yaml").write_text(text("b"))
    directory = loaded(tmp_path)

    (tmp_path / "a.yaml").unlink()
    make(tmp_path / "a.yaml")
    look_twice(directory)

    assert in_force(directory) == {"a": "true", "b": "true"}
    assert [problem.file for problem in directory.problems] == ["a.yaml"]


def test_a_change_is_announced_once_it_is_in_force(tmp_path: Path) -> None:
    announced: list[tuple[str, bool]] = []
    (tmp_path / "a.yaml").write_text(text("a"))
    directory = directory_of(
        tmp_path, on_change=lambda ruleset: announced.append((ruleset.revision, ruleset is directory.current))
    )

    directory.load()
    look_twice(directory)
    (tmp_path / "b.yaml").write_text(text("b"))
    look_twice(directory)
    (tmp_path / "c.yaml").write_text("a: [")
    look_twice(directory)

    assert [current for _, current in announced] == [True, True]
    assert announced[-1][0] == directory.current.revision


def test_loaded_at_is_when_the_ruleset_came_into_force(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text("a"))
    directory = loaded(tmp_path)
    first = directory.loaded_at
    assert first <= datetime.now(UTC)

    (tmp_path / "b.yaml").write_text("a: [")
    look_twice(directory)
    assert directory.loaded_at == first

    (tmp_path / "b.yaml").write_text(text("b"))
    look_twice(directory)
    assert directory.loaded_at > first


def test_a_problem_is_logged_when_it_comes_and_when_it_goes(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text("a"))
    directory = loaded(tmp_path)

    with capture_logs() as logs:
        (tmp_path / "a.yaml").write_text(text("a", "nope"))
        look_twice(directory)
        look_twice(directory)
        (tmp_path / "b.yaml").write_text(text("b"))
        look_twice(directory)
        (tmp_path / "a.yaml").write_text(text("a"))
        look_twice(directory)

    problem = "a.yaml: default/a: spec.validations[0].expression: 1:1: undeclared reference to 'nope'"
    assert [log for log in logs if log["event"] != "ruleset_loaded"] == [
        {"event": "rules_problem", "problem": problem, "last_good_kept": True, "log_level": "warning"},
        {"event": "rules_problem_solved", "problem": problem, "log_level": "info"},
    ]


def test_watching_goes_on_after_an_unexpected_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text("a"))
    failures: list[RuleSet] = []

    def fail_once(ruleset: RuleSet) -> None:
        if not failures:
            failures.append(ruleset)
            raise RuntimeError

    directory = directory_of(tmp_path, on_change=fail_once)
    directory.start()
    try:
        assert within(5, lambda: in_force(directory) == {"a": "true"})
        (tmp_path / "a.yaml").write_text(text("a", "1 == 1"))
        assert within(5, lambda: in_force(directory) == {"a": "1 == 1"})
    finally:
        directory.stop()
    assert len(failures) == 1


def test_readers_see_whole_rulesets_while_the_directory_changes(tmp_path: Path) -> None:
    """Both files change in one rename, so that a ruleset with one new and one old rule must never be in force."""

    def put(version: int) -> None:
        folder = tmp_path / f"..{version}"
        folder.mkdir()
        for name in "ab":
            (folder / f"{name}.yaml").write_text(text(name, f"event.data.v == {version}"))
        (tmp_path / "..new").symlink_to(folder.name)
        (tmp_path / "..new").rename(tmp_path / "..data")

    put(0)
    for name in "ab":
        (tmp_path / f"{name}.yaml").symlink_to(f"..data/{name}.yaml")
    directory = RuleDirectory(tmp_path, poll_seconds=0.002, future_tolerance=TOLERANCE)
    directory.load()
    directory.start()
    seen: set[str] = set()
    try:
        deadline = time.monotonic() + 30
        version = 0
        while version < 40 or len(seen) < 4:
            assert time.monotonic() < deadline, f"only {sorted(seen)} were ever in force"
            version += 1
            put(version)
            until = time.monotonic() + 0.02
            while time.monotonic() < until:
                expressions = set(in_force(directory).values())
                assert len(expressions) == 1
                seen |= expressions
        assert within(30, lambda: in_force(directory)["a"] == f"event.data.v == {version}")
    finally:
        directory.stop()
