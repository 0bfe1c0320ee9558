"""A watched directory: changes are taken whole and soon, and whatever goes wrong leaves the rules in force.

First directories of manifests, then what the operator writes: shards and their index.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Event as Signal
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs
from tests.unit.rules.making import TOLERANCE, cel, event, manifest, rule, ruleset

from the_eye.rules.directory import RuleDirectory
from the_eye.rules.manifest import Manifest, read_manifest
from the_eye.rules.ruleset import CompiledRule, RuleSet
from the_eye.rules.shards import INDEX, Layout, Shard, pack
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

    def is_in_force(version: int) -> bool:
        return in_force(directory)["a"] == f"event.data.v == {version}"

    put(0)
    for name in "ab":
        (tmp_path / f"{name}.yaml").symlink_to(f"..data/{name}.yaml")
    directory = RuleDirectory(tmp_path, poll_seconds=0.002, future_tolerance=TOLERANCE)
    directory.load()
    directory.start()
    try:
        for version in range(1, 41):
            put(version)
            until = time.monotonic() + 0.02
            while time.monotonic() < until:
                assert len(set(in_force(directory).values())) == 1
            if version % 10 == 0:  # among changes that come too fast for a look there are some that are taken
                assert within(30, partial(is_in_force, version))
    finally:
        directory.stop()


class Mount:
    """A directory that a kubelet keeps: its files are links through ``..data``, which is replaced by one rename."""

    def __init__(self, path: Path, files: Mapping[str, bytes]) -> None:
        path.mkdir()
        self.path = path
        self._version = 0
        self.swap(files)

    def swap(self, files: Mapping[str, bytes], between: Callable[[], object] = lambda: None) -> None:
        """Replace what is mounted; ``between`` is called when the links at the top do not fit it yet."""
        old, new = f"..{self._version}", f"..{self._version + 1}"
        self._version += 1
        (self.path / new).mkdir()
        for name, content in files.items():
            (self.path / new / name).write_bytes(content)
        (self.path / "..data_tmp").symlink_to(new)
        (self.path / "..data_tmp").rename(self.path / "..data")
        between()
        links = {path.name for path in self.path.iterdir() if not path.name.startswith("..")}
        for name in files.keys() - links:
            (self.path / name).symlink_to(f"..data/{name}")
        for name in links - files.keys():
            (self.path / name).unlink()
        shutil.rmtree(self.path / old, ignore_errors=True)


def laid_out(rules: RuleSet) -> Layout:
    """Each rule in a shard of its own."""
    return pack(rules, Layout({slot: Shard.of({rule.id: rule.document}) for slot, rule in enumerate(rules.rules)}))


def files_of(rules: RuleSet) -> dict[str, bytes]:
    """What workers mount."""
    layout = laid_out(rules)
    return {INDEX: layout.index} | {shard.name: shard.content for shard in layout.slots.values()}


def two(expression: str, other: str | None = None) -> RuleSet:
    """The rules ``a`` and ``b``."""
    return ruleset(rule("a", **cel(expression)), rule("b", **cel(other or expression)))


OLD = two("true")
NEW = two("1 == 1")
OLD_FILES = files_of(OLD)
NEW_FILES = files_of(NEW)
OLD_SHARDS = [shard.name for shard in laid_out(OLD).slots.values()]
NEW_SHARDS = [shard.name for shard in laid_out(NEW).slots.values()]


def without(files: Mapping[str, bytes], *names: str) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name not in names}


def test_a_whole_ruleset_in_shards_is_taken_by_one_look(tmp_path: Path) -> None:
    mount = Mount(tmp_path / "rules", OLD_FILES)
    directory = loaded(mount.path)
    assert directory.current.revision == OLD.revision
    assert directory.state.declared == OLD.revision

    mount.swap(NEW_FILES)
    directory.poll()

    assert directory.current.revision == NEW.revision
    assert directory.state.declared == NEW.revision
    assert directory.problems == ()


def test_what_the_index_does_not_name_is_not_read(tmp_path: Path) -> None:
    """An old shard waits beside the new one for readers of the old index."""
    other = text("other").encode()
    mount = Mount(tmp_path / "rules", {**NEW_FILES, **OLD_FILES, "z.yaml": other, INDEX: NEW_FILES[INDEX]})

    directory = loaded(mount.path)

    assert directory.current.revision == NEW.revision
    assert directory.problems == ()


HALVES: dict[str, tuple[dict[str, bytes], str, str]] = {
    "a new index with old shards": (
        {**OLD_FILES, INDEX: NEW_FILES[INDEX]},
        NEW_SHARDS[0],
        "it cannot be read: No such file or directory",
    ),
    "a new index with one new shard": (
        without(NEW_FILES, NEW_SHARDS[1]),
        NEW_SHARDS[1],
        "it cannot be read: No such file or directory",
    ),
    "an old index with new shards": (
        {**NEW_FILES, INDEX: OLD_FILES[INDEX]},
        OLD_SHARDS[0],
        "it cannot be read: No such file or directory",
    ),
    "a damaged shard": (
        NEW_FILES | {NEW_SHARDS[1]: NEW_FILES[NEW_SHARDS[1]] + b" "},
        NEW_SHARDS[1],
        "its SHA-256 is not its name",
    ),
    "the index of another revision": (
        NEW_FILES | {INDEX: NEW_FILES[INDEX].replace(NEW.revision.encode(), OLD.revision.encode())},
        INDEX,
        f"its shards are {NEW.revision}, not {OLD.revision}",
    ),
    "shards without an index": (without(NEW_FILES, INDEX), INDEX, "it is missing"),
    "a broken index": (
        NEW_FILES | {INDEX: b'{"kind":"RuleSetIndex"}'},
        INDEX,
        "it is no index of a ruleset: Object missing required field `apiVersion`",
    ),
    "half an index": (
        NEW_FILES | {INDEX: b'{"kind"'},
        INDEX,
        "it is no index of a ruleset: Input data was truncated",
    ),
    "nothing": ({}, INDEX, "it is missing"),
    "manifests": ({"c.yaml": text("c").encode()}, INDEX, "it is missing"),
}


@pytest.mark.parametrize(("files", "file", "message"), HALVES.values(), ids=HALVES)
def test_what_is_no_whole_ruleset_keeps_the_last_good_one_until_it_is_whole(
    tmp_path: Path, files: dict[str, bytes], file: str, message: str
) -> None:
    mount = Mount(tmp_path / "rules", OLD_FILES)
    directory = loaded(mount.path)

    mount.swap(files)
    look_twice(directory)
    assert directory.current.revision == OLD.revision
    [problem] = directory.problems
    assert (problem.file, problem.rule, problem.kept) == (file, "", True)
    assert (problem.error.reason, problem.error.message) == ("InvalidFile", message)

    mount.swap(NEW_FILES)
    directory.poll()
    assert directory.current.revision == NEW.revision
    assert directory.problems == ()


def test_a_ruleset_that_is_not_whole_is_told_once_and_solved_once(tmp_path: Path) -> None:
    mount = Mount(tmp_path / "rules", OLD_FILES)
    directory = loaded(mount.path)

    with capture_logs() as logs:
        mount.swap(without(NEW_FILES, NEW_SHARDS[0]))
        look_twice(directory)
        look_twice(directory)
        assert directory.state.declared == NEW.revision
        mount.swap(NEW_FILES)
        look_twice(directory)

    problem = f"{NEW_SHARDS[0]}: it cannot be read: No such file or directory"
    assert logs == [
        {"event": "rules_problem", "problem": problem, "last_good_kept": True, "log_level": "warning"},
        {"event": "rules_problem_solved", "problem": problem, "log_level": "info"},
        {"event": "ruleset_loaded", "revision": NEW.revision, "rules": 2, "log_level": "info"},
    ]


def test_a_look_while_a_kubelet_swaps_its_links_is_no_problem(tmp_path: Path) -> None:
    """The index is the new one by the rename, and the links to new shards are made after it."""
    mount = Mount(tmp_path / "rules", OLD_FILES)
    directory = loaded(mount.path)

    def look() -> None:
        directory.poll()
        assert directory.current.revision == OLD.revision
        assert directory.problems == ()

    mount.swap(NEW_FILES, between=look)
    directory.poll()

    assert directory.current.revision == NEW.revision


@pytest.mark.parametrize("file", [INDEX, *NEW_SHARDS])
def test_a_swap_while_a_ruleset_is_read_is_not_taken_by_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """Whether the rest of what was begun can still be read or not."""
    newest = two("2 == 2")
    mount = Mount(tmp_path / "rules", OLD_FILES)
    directory = loaded(mount.path)
    mount.swap(NEW_FILES)

    def read_and_swap(path: Path) -> bytes:
        content = path.read_bytes()
        if path.name == file:
            mount.swap(files_of(newest) | without(NEW_FILES, INDEX))
        return content

    with monkeypatch.context() as patched:
        patched.setattr("the_eye.rules.directory.read_file", read_and_swap)
        directory.poll()
    assert directory.current.revision in {OLD.revision, NEW.revision}

    directory.poll()
    assert directory.current.revision == newest.revision
    assert directory.problems == ()


def test_readers_see_whole_rulesets_while_a_kubelet_swaps_shards(tmp_path: Path) -> None:
    mount = Mount(tmp_path / "rules", OLD_FILES)
    directory = RuleDirectory(mount.path, poll_seconds=0.002, future_tolerance=TOLERANCE)
    directory.load()
    directory.start()
    seen: set[str] = set()
    try:
        for version in range(40):
            mount.swap(files_of(two(f"event.data.v == {version}")))
            until = time.monotonic() + 0.02
            while time.monotonic() < until:
                expressions = set(in_force(directory).values())
                assert len(expressions) == 1
                seen |= expressions
        assert within(30, lambda: in_force(directory)["b"] == "event.data.v == 39")
    finally:
        directory.stop()
    assert directory.problems == ()
    assert len(seen) > 1


def unchecked(name: str, expression: str) -> CompiledRule:
    """A rule that an operator with other libraries let through."""
    manifest = rule(name, metadata={"generation": 2}, **cel(expression))
    document = msgspec.json.encode(manifest, order="sorted")
    return CompiledRule(manifest=manifest, document=document, schema=None, expressions=())


def test_a_rule_that_the_worker_refuses_keeps_its_last_good_version(tmp_path: Path) -> None:
    """The revision is that of what is in force, which is not what the index asks for."""
    mount = Mount(tmp_path / "rules", OLD_FILES)
    directory = loaded(mount.path)
    declared = RuleSet([unchecked("a", "nope"), unchecked("b", "1 == 1")], TOLERANCE)

    mount.swap(files_of(declared))
    directory.poll()

    assert in_force(directory) == {"a": "true", "b": "1 == 1"}
    assert directory.state.declared == declared.revision
    assert directory.current.revision not in {OLD.revision, declared.revision}
    assert [(problem.rule, problem.kept) for problem in directory.problems] == [("default/a", True)]


def test_the_same_ruleset_in_other_shards_is_no_change(tmp_path: Path) -> None:
    mount = Mount(tmp_path / "rules", OLD_FILES)
    announced: list[str] = []
    directory = directory_of(mount.path, on_change=lambda ruleset: announced.append(ruleset.revision))
    directory.load()
    loaded_at = directory.loaded_at

    together = pack(OLD, Layout())
    mount.swap({INDEX: together.index, together.slots[0].name: together.slots[0].content})
    directory.poll()

    assert announced == [OLD.revision]
    assert directory.loaded_at == loaded_at
    assert directory.problems == ()


def test_a_rule_that_stays_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where another one in its shard changes."""
    mount = Mount(tmp_path / "rules", OLD_FILES)
    directory = loaded(mount.path)
    kept = directory.current.rules[0]
    read: list[str] = []

    def reading(value: dict[str, Any], *, document: int) -> Manifest:
        read.append(value["metadata"]["name"])
        return read_manifest(value, document=document)

    monkeypatch.setattr("the_eye.rules.shards.read_manifest", reading)
    together = pack(two("true", "2 == 2"), Layout())
    mount.swap({INDEX: together.index, together.slots[0].name: together.slots[0].content})
    directory.poll()

    assert read == ["b"]
    assert in_force(directory) == {"a": "true", "b": "2 == 2"}
    assert directory.current.rules[0] is kept


def test_no_rules_are_a_ruleset_too(tmp_path: Path) -> None:
    none = ruleset()
    mount = Mount(tmp_path / "rules", OLD_FILES)
    directory = loaded(mount.path)

    mount.swap(files_of(none))
    directory.poll()

    assert directory.current.rules == ()
    assert directory.state.declared == none.revision
    assert loaded(mount.path).state.declared == none.revision


class Waiting(Signal):
    """What calls ``act`` instead of waiting."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._act = act

    def wait(self, timeout: float | None = None) -> bool:
        """Tell whether it was set."""
        assert timeout is not None
        self._act()
        return self.is_set()


@pytest.mark.parametrize(
    ("files", "file", "message"),
    [half for name, half in HALVES.items() if name != "manifests"],
    ids=[name for name in HALVES if name != "manifests"],
)
def test_at_start_a_ruleset_is_waited_for_until_it_is_whole(
    tmp_path: Path, files: dict[str, bytes], file: str, message: str
) -> None:
    mount = Mount(tmp_path / "rules", files)
    directory = directory_of(mount.path)
    seen: list[Any] = []

    def come() -> None:
        seen.extend((str(problem), problem.kept, directory.current.rules) for problem in directory.problems)
        mount.swap(NEW_FILES)

    assert directory.load(Waiting(come)) is True
    assert seen == [(f"{file}: {message}", False, ())]
    assert directory.current.revision == NEW.revision
    assert directory.problems == ()


def test_a_worker_does_not_start_without_the_rules_that_are_declared(tmp_path: Path) -> None:
    """It would store as valid what they forbid; until it starts, events are queued."""
    mount = Mount(tmp_path / "rules", {})
    directory = RuleDirectory(mount.path, poll_seconds=0.01, future_tolerance=TOLERANCE, wait_seconds=0.05)

    with pytest.raises(SettingsError) as raised:
        directory.load()

    assert str(raised.value) == (
        f"THE_EYE_RULES_DIR='{mount.path}' does not fit: no whole ruleset came within 0.05 seconds: "
        "index.json: it is missing"
    )


def test_the_waiting_ends_when_the_worker_is_stopped(tmp_path: Path) -> None:
    mount = Mount(tmp_path / "rules", {})
    stopping = Signal()
    stopping.set()

    assert directory_of(mount.path).load(stopping) is False


def test_a_directory_that_no_kubelet_mounted_may_be_empty(tmp_path: Path) -> None:
    directory = loaded(tmp_path)
    assert directory.state.declared is None
    assert directory.problems == ()

    (tmp_path / "a.yaml").write_text(text("a"))
    look_twice(directory)
    assert in_force(directory) == {"a": "true"}


def test_a_mounted_config_map_of_manifests_may_become_empty(tmp_path: Path) -> None:
    """One without an index is as good a directory of manifests as any."""
    mount = Mount(tmp_path / "rules", {"a.yaml": text("a").encode()})
    directory = loaded(mount.path)

    mount.swap({})
    look_twice(directory)

    assert directory.current.rules == ()
    assert directory.problems == ()


@pytest.mark.parametrize("content", [text("a"), "a: [", "", "[]"])
def test_a_manifest_may_be_called_index(tmp_path: Path, content: str) -> None:
    (tmp_path / INDEX).write_text(text("a"))
    (tmp_path / "b.yaml").write_text(text("b"))
    directory = loaded(tmp_path)
    assert in_force(directory) == {"a": "true", "b": "true"}

    (tmp_path / INDEX).write_text(content)
    (tmp_path / "b.yaml").write_text(text("b", "1 == 1"))
    directory.poll()
    assert in_force(directory)["b"] == "true"

    directory.poll()
    assert in_force(directory)["b"] == "1 == 1"
    assert directory.state.declared is None
