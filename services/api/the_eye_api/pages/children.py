"""Processes that do for the pages what must not be done in the API's own: each bounded, and one at a time."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator

import structlog

from the_eye.settings import StoreSettings

TURN_SECONDS = 10.0
"""How long to wait for the one before."""

_SAID_BYTES = 64 * 1024
_LOGGED_CHARACTERS = 2_000

_INTERPRETER = "PYTHON.*|LD_LIBRARY_PATH|LANG|LC_.*|TZ|TMPDIR"
_STORE = "|".join(["PG.*", "HOME", "SSL_CERT_.*", *StoreSettings.by_key()])
"""What libpq goes by, and our settings of it."""

log = structlog.get_logger(__name__)


class ChildError(Exception):
    """Raised when a process gave no answer; its text is for whoever asked."""


class BusyError(ChildError):
    """Raised when others had their turn for too long."""


class Children:
    """Starts processes in turn: together with the API's own memory, that of one has to fit in its container."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(1)

    async def run(
        self, module: str, request: bytes, *, seconds: float, output_bytes: int, reads_store: bool = False
    ) -> bytes:
        """Run ``python -m module``, give it ``request`` and return what it wrote. Raises ChildError.

        Of the API's environment it has what Python needs and, if it ``reads_store``, what leads to the database.
        """
        async with self._in_turn(), _process(module, _environ(reads_store=reads_store)) as process:
            try:
                async with asyncio.timeout(seconds):
                    return await _answer(process, request, output_bytes)
            except TimeoutError as error:
                message = f"It did not end within {seconds:g} seconds and was stopped."
                raise ChildError(message) from error

    @contextlib.asynccontextmanager
    async def _in_turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._turn.acquire()
        except TimeoutError as error:
            message = "Rules are being tried or read by someone else just now: try again in a few seconds."
            raise BusyError(message) from error
        try:
            yield
        finally:
            self._turn.release()


def _environ(*, reads_store: bool) -> dict[str, str]:
    needed = re.compile(f"{_INTERPRETER}|{_STORE}" if reads_store else _INTERPRETER)
    return {name: value for name, value in os.environ.items() if needed.fullmatch(name)}


@contextlib.asynccontextmanager
async def _process(module: str, environ: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start it, and see to its end however the block ends."""
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            env=environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        message = f"Its process could not be started: {error.strerror}."
        raise ChildError(message) from error
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()  # what is left in a pipe that nobody reads would keep its end from being seen


async def _answer(process: asyncio.subprocess.Process, request: bytes, output_bytes: int) -> bytes:
    assert process.stdin is not None  # noqa: S101 - pipes were asked for
    assert process.stdout is not None  # noqa: S101 - as above
    assert process.stderr is not None  # noqa: S101 - as above
    _, output, said = await asyncio.gather(
        _feed(process.stdin, request),
        _read(process, process.stdout, output_bytes),
        _read(process, process.stderr, _SAID_BYTES),
    )
    if len(output) > output_bytes:
        message = f"It wrote more than {output_bytes:,} bytes and was stopped."
        raise ChildError(message)
    status = await process.wait()
    if status:
        log.warning("child_failed", status=status, said=said.decode(errors="replace")[-_LOGGED_CHARACTERS:])
        raise ChildError(_why(status, said))
    return output


def _why(status: int, said: bytes) -> str:
    if status == -signal.SIGXCPU:
        return "It took too much of the processor's time and was stopped."
    # Libraries that are not given memory end the process, each in its own way.
    if b"MemoryError" in said or status in {-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS}:
        return "It took too much memory and was stopped."
    return f"Its process ended with status {status}; the log of the API says more."


async def _feed(stdin: asyncio.StreamWriter, request: bytes) -> None:
    with contextlib.suppress(ConnectionError):  # its status tells why it reads no more
        stdin.write(request)
        await stdin.drain()
    stdin.close()


async def _read(process: asyncio.subprocess.Process, stream: asyncio.StreamReader, most: int) -> bytes:
    """Read to the end; a process that writes more than ``most`` is killed, and the rest of it is dropped."""
    read = bytearray()
    while chunk := await stream.read(2**16):
        if len(read) <= most:
            read += chunk
        elif process.returncode is None:
            process.kill()
    return bytes(read)
