"""The rules that the workers' directory holds, read when someone looks, by another process."""

import asyncio
import time
from contextvars import Context
from pathlib import Path

import msgspec

from the_eye.rules.files import Signature, signature_of
from the_eye.rules.listing import PROGRAM, Listing, ReadRequest, read_lines
from the_eye_api.pages.children import ChildError, Children

READ_SECONDS = 120.0
PROCESSOR_SECONDS = 60
MEMORY_BYTES = 256 * 1024 * 1024
"""Five thousand rules take 115 MB."""
OUTPUT_BYTES = 32 * 1024 * 1024
WHOLE_SECONDS = 3.0
"""How long a ruleset in shards may take to be whole: kubelets swap them one by one."""

PATIENCE_SECONDS = 2.0
"""How long a page waits for rules that are being read."""

AGAIN_SECONDS = 10.0
"""When to try again what failed."""


class Known(msgspec.Struct, frozen=True):
    """What there is to show."""

    directory: Path | None
    listing: Listing | None = None
    """What was read last; None before anything was."""
    reading: bool = False
    """Whether it is being read anew."""
    failure: str = ""
    """Why it could not be read the last time."""


class Ruleset:
    """Keeps what was read for as long as the directory does not change."""

    def __init__(self, directory: Path | None, children: Children) -> None:
        self._directory = directory
        self._children = children
        self._known = Known(directory)
        self._signature: Signature | None = None
        self._tried_at = 0.0
        self._task: asyncio.Task[None] | None = None

    async def look(self) -> Known:
        """Tell what the directory holds, or held when it was read last."""
        if self._directory is None:
            return self._known
        due = self._task is None and await asyncio.to_thread(self._is_due, self._directory)
        if due and self._task is None:  # nobody else has begun meanwhile
            self._task = asyncio.create_task(self._read(self._directory), context=Context())
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=PATIENCE_SECONDS)
        return msgspec.structs.replace(self._known, reading=self._task is not None)

    def _is_due(self, directory: Path) -> bool:
        if self._known.failure:
            return time.monotonic() - self._tried_at >= AGAIN_SECONDS
        signature = _signature(directory)
        return signature is None or signature != self._signature

    async def _read(self, directory: Path) -> None:
        self._tried_at = time.monotonic()
        try:
            self._signature = await asyncio.to_thread(_signature, directory)
            listing = await self._listing(directory)
            failure = listing.head.failure
            self._known = Known(directory, self._known.listing if failure else listing, failure=failure)
        except (ChildError, msgspec.DecodeError) as error:
            self._known = msgspec.structs.replace(self._known, failure=str(error))
        finally:
            self._task = None

    async def _listing(self, directory: Path) -> Listing:
        request = ReadRequest(str(directory), WHOLE_SECONDS, PROCESSOR_SECONDS, MEMORY_BYTES)
        output = await self._children.run(
            PROGRAM, msgspec.json.encode(request), seconds=READ_SECONDS, output_bytes=OUTPUT_BYTES
        )
        # Line by line beside the event loop, which so never waits for more than one of them.
        return await asyncio.to_thread(read_lines, output.split(b"\n"))


def _signature(directory: Path) -> Signature | None:
    try:
        return signature_of(directory)
    except OSError:  # which the reading tells of
        return None
