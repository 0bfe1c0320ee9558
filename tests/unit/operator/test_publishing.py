"""Publishing: whatever is written and wherever it stops, a reader finds a whole ruleset, and no version is lost."""

import asyncio
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.unit.operator.declaring import BROKEN, declared
from tests.unit.rules.making import cel

from the_eye.rules.ruleset import RuleSet
from the_eye.rules.shards import INDEX, RuleSetIndex, read_index, read_shards
from the_eye_operator.cluster import ClusterError
from the_eye_operator.decision import compiled, decide
from the_eye_operator.publishing import LABELS, Publisher

NAME = "the-eye-ruleset"


class Memory:
    """ConfigMaps; after each change a reader must find whatever ruleset the index names."""

    def __init__(self) -> None:
        self.maps: dict[str, dict[str, str]] = {}
        self.labels: dict[str, Mapping[str, str]] = {}
        self.writes: list[tuple[str, list[str]]] = []
        """The ConfigMap of each write and its keys, each with a sign for whether it is set or deleted."""
        self.fail_after: int | None = None

    async def config_map(self, name: str) -> dict[str, str] | None:
        """Read one."""
        found = self.maps.get(name)
        return None if found is None else dict(found)

    async def change_config_map(self, name: str, data: Mapping[str, str | None], labels: Mapping[str, str]) -> None:
        """Change one, or fail when it is time to."""
        if self.fail_after is not None and len(self.writes) >= self.fail_after:
            message = "the server is away"
            raise ClusterError(message)
        self.writes.append((name, [f"{'-' if text is None else '+'}{key}" for key, text in data.items()]))
        merged = {**self.maps.get(name, {}), **data}
        self.maps[name] = {key: text for key, text in merged.items() if text is not None}
        self.labels[name] = labels
        self.revision()

    def revision(self) -> str:
        """What a worker that mounts all of them runs now; it must be whole."""
        files = {key: text.encode() for data in self.maps.values() for key, text in data.items()}
        if INDEX not in files:
            return ""
        index = read_index(files[INDEX])
        assert isinstance(index, RuleSetIndex), index
        assert isinstance(read_shards(index, files), tuple)
        return index.revision

    def shards(self) -> dict[str, int]:
        """How many shards each slot's ConfigMap holds."""
        return {name: len(data) for name, data in self.maps.items() if name != NAME}


def of(**generations: int) -> RuleSet:
    """A ruleset of rules of these generations."""
    rules = [
        declared(name, generation=generation, **cel(f"{generation} > 0")) for name, generation in generations.items()
    ]
    return decide(rules, compiled(())).ruleset


def large(names: Iterable[str], generation: int = 1) -> RuleSet:
    """A ruleset of rules of which eight fill a shard."""
    rules = [declared(name, generation=generation, schema={"description": "x" * 60_000}) for name in names]
    return decide(rules, compiled(())).ruleset


async def loaded(memory: Memory) -> Publisher:
    """A publisher that has just started."""
    publisher = Publisher(memory, NAME)
    await publisher.load()
    return publisher


async def resync(publisher: Publisher) -> None:
    """What a reconcile does from time to time before it publishes."""
    await publisher.load()
    await publisher.tidy()


def kept(publisher: Publisher) -> dict[str, int]:
    """The generations in force, by name."""
    return {rule.manifest.metadata.name: rule.generation for rule in publisher.in_force.rules}


@pytest.fixture
def memory() -> Memory:
    """No ConfigMaps."""
    return Memory()


def test_before_the_first_load_nothing_is_known(memory: Memory) -> None:
    with pytest.raises(RuntimeError, match="load"):
        _ = Publisher(memory, NAME).in_force


async def test_where_nothing_is_published_nothing_is_in_force_and_nothing_wrong(memory: Memory) -> None:
    with capture_logs() as logs:
        publisher = await loaded(memory)
        await publisher.tidy()

    assert kept(publisher) == {}
    assert logs == []
    assert memory.writes == []


async def test_a_first_ruleset_is_its_shards_and_then_its_index(memory: Memory) -> None:
    publisher = await loaded(memory)
    rules = large("abcdefghij")

    assert await publisher.publish(rules)
    assert [name for name, _ in memory.writes] == [f"{NAME}-0", f"{NAME}-1", NAME]
    assert memory.writes[-1] == (NAME, [f"+{INDEX}"])
    assert memory.revision() == rules.revision
    assert all(labels == LABELS for labels in memory.labels.values())


async def test_an_empty_ruleset_is_an_index(memory: Memory) -> None:
    publisher = await loaded(memory)

    assert await publisher.publish(of())
    assert memory.writes == [(NAME, [f"+{INDEX}"])]


async def test_what_is_published_already_is_not_written(memory: Memory) -> None:
    publisher = await loaded(memory)
    await publisher.publish(of(a=1, b=1))
    writes = list(memory.writes)

    assert not await publisher.publish(of(a=1, b=1))
    await resync(publisher)
    assert not await publisher.publish(of(a=1, b=1))
    assert memory.writes == writes


async def test_a_new_shard_lies_beside_the_old_one_until_the_index_names_it(memory: Memory) -> None:
    publisher = await loaded(memory)
    await publisher.publish(of(a=1))
    [old] = memory.maps[f"{NAME}-0"]
    del memory.writes[:]

    assert await publisher.publish(of(a=2))
    [new] = memory.maps[f"{NAME}-0"].keys() - {old}
    assert memory.writes == [(f"{NAME}-0", [f"+{new}"]), (NAME, [f"+{INDEX}"])]

    await resync(publisher)
    assert memory.maps[f"{NAME}-0"].keys() == {new}
    assert memory.writes[2:] == [(f"{NAME}-0", [f"-{old}"])]


async def test_a_slot_never_holds_more_than_the_shard_in_force_and_the_next(memory: Memory) -> None:
    """Two shards are what fits into a ConfigMap."""
    publisher = await loaded(memory)
    for generation in range(1, 6):
        await publisher.publish(of(a=generation))
        assert memory.shards()[f"{NAME}-0"] <= 2


async def test_a_ruleset_that_was_given_up_half_way_leaves_no_third_shard(memory: Memory) -> None:
    publisher = await loaded(memory)
    await publisher.publish(of(a=1))
    for generation in (2, 3, 4):
        memory.fail_after = len(memory.writes) + 1
        with pytest.raises(ClusterError):
            await publisher.publish(of(a=generation))
        assert memory.shards()[f"{NAME}-0"] == 2
    memory.fail_after = None
    await publisher.publish(of(a=5))

    assert memory.revision() == of(a=5).revision


async def test_what_was_written_before_a_failure_is_not_written_again(memory: Memory) -> None:
    publisher = await loaded(memory)
    memory.fail_after = 1
    with pytest.raises(ClusterError):
        await publisher.publish(of(a=1))
    memory.fail_after = None
    await publisher.publish(of(a=1))

    assert [name for name, _ in memory.writes] == [f"{NAME}-0", NAME]


async def test_a_failure_leaves_what_was_in_force(memory: Memory) -> None:
    publisher = await loaded(memory)
    await publisher.publish(of(a=1))
    memory.fail_after = len(memory.writes)
    with pytest.raises(ClusterError):
        await publisher.publish(of(a=2, b=1))

    assert kept(publisher) == {"a": 1}
    assert memory.revision() == of(a=1).revision


@pytest.mark.parametrize("is_restarted", [True, False], ids=["restarted", "going on"])
async def test_after_a_crash_at_any_write_the_next_publishing_sets_all_right(*, is_restarted: bool) -> None:
    before, after = large("abcdefghij"), large("acdefghijklmn", generation=2)
    crashes = 0
    while True:
        memory = Memory()
        publisher = await loaded(memory)
        await publisher.publish(before)
        memory.fail_after = len(memory.writes) + crashes
        try:
            await publisher.publish(after)
            await resync(publisher)
        except ClusterError:
            memory.fail_after = None
        else:
            break
        assert memory.revision() in (before.revision, after.revision)

        publisher = await loaded(memory) if is_restarted else publisher
        assert publisher.in_force.revision == memory.revision() or not is_restarted
        await publisher.tidy()
        await publisher.publish(after)
        await resync(publisher)
        assert memory.revision() == after.revision
        assert set(memory.shards().values()) <= {0, 1}
        crashes += 1

    assert crashes >= 5  # shards, index and leftovers


async def test_a_restart_finds_the_last_good_versions(memory: Memory) -> None:
    publisher = await loaded(memory)
    good = of(a=1, b=3)
    await publisher.publish(good)
    broken = decide(
        [declared("a", generation=2, **BROKEN), declared("b", generation=4, **cel("4 > 0"))], publisher.in_force
    )
    await publisher.publish(broken.ruleset)

    again = await loaded(memory)

    assert kept(again) == {"a": 1, "b": 4}
    assert again.in_force.revision == broken.ruleset.revision


async def test_a_later_load_does_not_forget_the_last_good_versions(memory: Memory) -> None:
    publisher = await loaded(memory)
    await publisher.publish(of(a=1, b=1))
    memory.maps.clear()
    with capture_logs():
        await publisher.load()

    assert kept(publisher) == {"a": 1, "b": 1}


@pytest.mark.parametrize(
    "damage",
    ["no index", "no slot", "an empty slot", "another shard", "a broken index", "nothing"],
)
@pytest.mark.parametrize("is_restarted", [True, False], ids=["restarted", "going on"])
async def test_what_is_damaged_is_set_right(memory: Memory, damage: str, *, is_restarted: bool) -> None:
    rules = of(a=1, b=1)
    publisher = await loaded(memory)
    await publisher.publish(rules)
    whole = {name: dict(data) for name, data in memory.maps.items()}
    [shard] = whole[f"{NAME}-0"]
    match damage:
        case "no index":
            del memory.maps[NAME]
        case "no slot":
            del memory.maps[f"{NAME}-0"]
        case "an empty slot":
            memory.maps[f"{NAME}-0"] = {}
        case "another shard":
            memory.maps[f"{NAME}-0"][shard] = "{}"
        case "a broken index":
            memory.maps[NAME][INDEX] = "{"
        case _:
            memory.maps.clear()
    memory.revision = lambda: ""  # type: ignore[method-assign] # a reader cannot find what is damaged
    with capture_logs() as logs:
        publisher = await loaded(memory) if is_restarted else publisher
        await resync(publisher)
        await publisher.publish(rules)

    assert memory.maps == whole
    assert bool(logs) == (damage != "nothing")


async def test_a_shard_that_is_not_what_its_name_says_is_written_again(memory: Memory) -> None:
    publisher = await loaded(memory)
    await publisher.publish(of(a=1))
    whole = dict(memory.maps[f"{NAME}-0"])
    memory.maps[f"{NAME}-0"] = dict.fromkeys(whole, "{}")
    with capture_logs():
        await publisher.load()
    await publisher.publish(of(a=1))

    assert memory.maps[f"{NAME}-0"] == whole


async def test_what_others_keep_in_these_config_maps_is_left_alone(memory: Memory) -> None:
    memory.maps = {NAME: {"note": "ours"}, f"{NAME}-0": {"readme.txt": "theirs"}}
    publisher = await loaded(memory)
    await publisher.publish(of(a=1))
    await resync(publisher)
    await publisher.publish(of())
    await resync(publisher)

    assert memory.maps[NAME]["note"] == "ours"
    assert memory.maps[f"{NAME}-0"] == {"readme.txt": "theirs"}


async def test_shards_that_no_index_names_are_removed(memory: Memory) -> None:
    publisher = await loaded(memory)
    await publisher.publish(of(a=1))
    memory.maps[f"{NAME}-7"] = {f"{'0' * 64}.json": "{}"}
    await resync(publisher)

    assert memory.shards() == {f"{NAME}-0": 1, f"{NAME}-7": 0}


async def test_a_ruleset_of_any_size_is_read_from_all_slots(memory: Memory) -> None:
    rules = large([f"rule-{number}" for number in range(60)])
    publisher = await loaded(memory)
    await publisher.publish(rules)

    assert len(memory.shards()) > 1
    assert (await loaded(memory)).in_force.revision == rules.revision


NAMES = st.sets(st.sampled_from("abcdefgh"), max_size=8)


@settings(max_examples=25, deadline=None)
@given(steps=st.lists(st.tuples(NAMES, st.integers(1, 3), st.integers(0, 4), st.booleans()), max_size=8))
def test_through_any_history_of_crashes_and_restarts_what_is_published_is_whole(
    steps: list[tuple[set[str], int, int, bool]],
) -> None:
    """Each step publishes, perhaps fails after some writes, and perhaps goes on with another process."""

    async def history() -> None:
        memory = Memory()
        publisher = await loaded(memory)
        for names, generation, writes, is_restarted in steps:
            rules = large(sorted(names), generation)
            memory.fail_after = len(memory.writes) + writes
            try:
                await resync(publisher)
                await publisher.publish(rules)
            except ClusterError:
                memory.fail_after = None
            if is_restarted:
                publisher = await loaded(memory)
                assert memory.revision() in ("", publisher.in_force.revision)
        memory.fail_after = None
        await resync(publisher)
        await publisher.publish(of(last=1))
        await resync(publisher)
        assert memory.revision() == of(last=1).revision
        assert sum(memory.shards().values()) == 1

    asyncio.run(history())


async def test_two_operators_agree_on_the_newest_version_that_either_has_published() -> None:
    """One of them has not seen the generation that is the last good one."""
    memory = Memory()
    slow, quick = Publisher(memory, NAME), Publisher(memory, NAME)
    for publisher in (slow, quick):
        await publisher.load()
    await slow.publish(decide([declared(generation=1)], slow.in_force).ruleset)
    await quick.publish(decide([declared(generation=2)], quick.in_force).ruleset)
    revision = memory.revision()
    edited = [declared(generation=3, **BROKEN)]

    for publisher in (slow, quick, slow):
        await publisher.load({"rule"})
        assert not await publisher.publish(decide(edited, publisher.in_force).ruleset)

    assert memory.revision() == revision


async def test_of_a_rule_that_was_made_again_the_version_that_is_declared_counts() -> None:
    """Its generations begin anew, so that the higher one may be that of the former."""
    memory = Memory()
    slow, quick = Publisher(memory, NAME), Publisher(memory, NAME)
    for publisher in (slow, quick):
        await publisher.load()
    await slow.publish(decide([declared(generation=5)], slow.in_force).ruleset)
    again = declared(uid="again")
    await quick.publish(decide([again], quick.in_force).ruleset)

    await slow.load({"again"})

    assert [rule.manifest.metadata.uid for rule in slow.in_force.rules] == ["again"]
    await slow.publish(decide([declared(uid="again", generation=2)], slow.in_force).ruleset)
    await quick.load({"again"})
    assert [rule.generation for rule in quick.in_force.rules] == [2]
