"""The directory of rules is read by one process, however many look at the page."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from the_eye.rules.listing import Head
from the_eye_api.pages.ruleset import Ruleset

if TYPE_CHECKING:
    from the_eye_api.pages.children import Children


class Counting:
    """Stands for the processes: each finds a directory without rules."""

    def __init__(self) -> None:
        self.started = 0

    async def run(self, *_: object, **__: object) -> bytes:
        """Answer, once others had their turn."""
        self.started += 1
        await asyncio.sleep(0)
        return msgspec.json.encode(Head("sha256:00"))


async def test_who_looks_at_the_same_time_waits_for_the_same_reading(tmp_path: Path) -> None:
    counting = Counting()
    ruleset = Ruleset(tmp_path, cast("Children", counting))

    found = await asyncio.gather(*(ruleset.look() for _ in range(8)))

    assert counting.started == 1
    assert {(known.reading, known.listing is not None) for known in found} == {(False, True)}
