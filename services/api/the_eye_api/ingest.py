"""Accepting events: from a request's body to events on disk in the queue."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
import uuid_utils
from msgspec import UNSET, Raw, UnsetType

from the_eye.event import Fault, SentEvent, parse_event, parse_events
from the_eye.queue import QueuedEvent, QueueUnavailableError
from the_eye.tokens import Caller
from the_eye_api import metrics
from the_eye_api.backlog import BacklogBound
from the_eye_api.group_commit import GroupCommit
from the_eye_api.limits import RateLimiter
from the_eye_api.problems import ProblemError, malformed, problem, unavailable
from the_eye_api.turns import CrowdedError, Turns

if TYPE_CHECKING:
    from the_eye.spans import Creation

MAX_BATCH_EVENTS = 1_000
MAX_BATCH_BYTES = 4 * 1024 * 1024
MAX_PARSED_BYTES = 16 * 1024
"""How much is looked at before other requests have their turn."""
MAX_FAULTS = 1_000
"""Faults in one answer beyond which only the first of each event is listed."""

Settle = Callable[[UUID, Exception | None], None]
"""Takes in that an event is on disk in the queue, or why that is not certain."""


class Batch(msgspec.Struct, frozen=True):
    """A batch that was taken apart into events."""

    bodies: Sequence[bytes]
    trace_ids: Mapping[int, UUID] = {}
    """Traces of those events that name one, by their place; the others have that of the request."""


Split = Callable[[bytes], Batch]
"""Takes a batch apart."""


class Accepted(msgspec.Struct, frozen=True):
    """Answer to one event: it is on disk in the queue."""

    event_id: UUID


class Refused(msgspec.Struct, frozen=True):
    """An event of a batch that was not accepted."""

    index: int
    """Its place in the batch, counted from 0."""
    errors: tuple[Fault, ...]


class BatchAccepted(msgspec.Struct, frozen=True):
    """Answer to a batch: the accepted events are on disk in the queue."""

    accepted: int
    refused: list[Refused]


class Ingest:
    """Accepts events of callers that were authorized."""

    def __init__(self, group_commit: GroupCommit, limiter: RateLimiter, backlog: BacklogBound, turns: Turns) -> None:
        self._group_commit = group_commit
        self._turns = turns
        self._slice = asyncio.Lock()
        """Held while a slice of a batch is parsed, so that an iteration of the event loop has one and not one of each
        batch: a write to the queue takes several iterations."""
        self._limiter = limiter
        self._backlog = backlog

    def let_in(self, caller: Caller) -> None:
        """See whether a caller may send now, before its body is read. Raises ProblemError: 429, 503."""
        self._backlog.check()
        self._limiter.check(caller)

    async def accept_one(self, caller: Caller, body: bytes, trace_id: UUID | None = None) -> Accepted:
        """Accept a single event, which came with a trace or without. Raises ProblemError: 400, 503."""
        self._limiter.charge(caller, 1)
        await self._take_turn(caller, body)
        try:
            sent = parse_event(body)
            if isinstance(sent, tuple):
                metrics.REFUSED.labels(sent[0].code).inc()
                raise malformed(sent)
            event = _queued(caller, _event_id(sent), body, time.time_ns() // 1_000, trace_id)
            await self._commit([event], event.event_id)
        finally:
            self._turns.give_back(caller.application_id)
        return Accepted(event.event_id)

    def accept_one_at_once(
        self,
        caller: Caller,
        body: bytes,
        trace_id: UUID | None,
        settle: Settle,
        creation: "Creation | None" = None,
    ) -> bool:
        """Accept a single event if it is good and not large, and call ``settle`` with its id when it is on disk.

        Without ``creation`` it is not traced. Gives False otherwise, with nothing done: ``accept_one`` says what is
        wrong.
        """
        if len(body) > MAX_PARSED_BYTES:  # it is not parsed before it is its turn
            return False
        sent = parse_event(body)
        if isinstance(sent, tuple):
            return False
        event = _queued(caller, _event_id(sent), body, time.time_ns() // 1_000, trace_id)
        begin = partial(self._begin, caller, event, settle, creation)
        try:
            self._turns.at_turn(caller.application_id, len(body), begin)
        except CrowdedError:
            return False
        self._limiter.charge(caller, 1)
        return True

    def _begin(self, caller: Caller, event: QueuedEvent, settle: Settle, creation: "Creation | None") -> bool:
        try:
            self._group_commit.add([event], partial(self._settle, caller, event.event_id, settle), creation)
        except QueueUnavailableError as error:
            # Not now: an answer lets the connection's next request in, which may be refused, and so on.
            asyncio.get_running_loop().call_soon(settle, event.event_id, error)
            return False
        return True

    def _settle(self, caller: Caller, event_id: UUID, settle: Settle, error: Exception | None) -> None:
        try:
            self._turns.give_back(caller.application_id)
        finally:  # whatever another request's beginning fails of
            settle(event_id, error)

    async def accept_batch(
        self, caller: Caller, body: bytes, split: Split, trace_id: UUID | None = None
    ) -> BatchAccepted:
        """Accept the good events of a batch. Raises ProblemError: 400 when none is good, 413, 429, 503."""
        await self._take_turn(caller, body)
        try:
            self._limiter.check(caller)  # those before it in the line have been charged meanwhile
            return await self._accept_batch(caller, split(body), trace_id)
        finally:
            self._turns.give_back(caller.application_id)

    async def _take_turn(self, caller: Caller, body: bytes) -> None:
        try:
            await self._turns.take(caller.application_id, len(body))
        except CrowdedError as error:
            raise unavailable("crowded", "Too many requests of the application wait already.") from error

    async def _accept_batch(self, caller: Caller, batch: Batch, trace_id: UUID | None) -> BatchAccepted:
        if not batch.bodies:
            raise malformed((Fault("$", "empty_batch", "a batch has at least one event"),))
        self._limiter.charge(caller, len(batch.bodies))
        accepted, refused = await self._sort(caller, batch, trace_id)
        for one in refused:
            metrics.REFUSED.labels(one.errors[0].code).inc()
        if not accepted:
            raise malformed(
                tuple(islice(_indexed(refused), MAX_FAULTS)), "The batch has no event that can be accepted."
            )
        await self._commit(accepted)
        return BatchAccepted(len(accepted), refused)

    async def _sort(
        self, caller: Caller, batch: Batch, trace_id: UUID | None
    ) -> tuple[list[QueuedEvent], list[Refused]]:
        """Tell good events from bad ones, a slice at a time: other requests must not wait for whole large batches."""
        received_at = time.time_ns() // 1_000
        listed = 0
        accepted: list[QueuedEvent] = []
        refused: list[Refused] = []
        for places in _slices(batch.bodies):
            async with self._slice:
                bodies = batch.bodies[places.start : places.stop]
                parsed = parse_events(bodies)
                for index, body, sent, event_id in zip(places, bodies, parsed, _event_ids(parsed), strict=True):
                    if isinstance(sent, tuple):
                        # Past the bound each event still has its first fault, so that none is refused without a reason.
                        refused.append(Refused(index, sent if listed < MAX_FAULTS else sent[:1]))
                        listed += len(sent)
                    else:
                        trace = batch.trace_ids.get(index, trace_id)
                        accepted.append(_queued(caller, event_id, body, received_at, trace))
                await asyncio.sleep(0)
        return accepted, refused

    async def _commit(self, events: Sequence[QueuedEvent], event_id: UUID | None = None) -> None:
        try:
            await self._group_commit.commit(events)
        except QueueUnavailableError as error:
            raise queue_unavailable(event_id) from error


def split_array(body: bytes) -> Batch:
    """Take a JSON array of at most ``MAX_BATCH_EVENTS`` apart. Raises ProblemError: 400, 413."""
    try:
        places = msgspec.structs.astuple(_decode_batch(body))
    except RecursionError as error:
        raise malformed((Fault("$", "too_deep", "the batch is nested too deep"),)) from error
    except msgspec.ValidationError as error:
        if "at most length" in str(error):
            raise _too_many_events() from error
        raise malformed((Fault("$", "invalid_type", "a batch is a JSON array of events"),)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise malformed((Fault("$", "malformed_json", str(error)),)) from error
    return Batch([bytes(place) for place in places if place is not UNSET])


def split_lines(body: bytes) -> Batch:
    """Take NDJSON of at most ``MAX_BATCH_EVENTS`` apart; empty lines are no events. Raises ProblemError: 413."""
    lines = (line for line in BytesIO(body) if not line.isspace())
    bodies = list(islice(lines, MAX_BATCH_EVENTS + 1))
    if len(bodies) > MAX_BATCH_EVENTS:
        raise _too_many_events()
    return Batch(bodies)


# A struct of so many places, not a list: decoding stops at the first event too many, where a list would first make
# an object of each of the millions of values that fit into a body.
_Batch = msgspec.defstruct(
    "_Batch",
    [(f"event_{index}", Raw | UnsetType, UNSET) for index in range(MAX_BATCH_EVENTS)],
    array_like=True,
    forbid_unknown_fields=True,
    frozen=True,
)
_decode_batch = msgspec.json.Decoder(_Batch).decode


def _too_many_events() -> ProblemError:
    detail = f"A batch has at most {MAX_BATCH_EVENTS} events."
    return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_many_events", detail)


def _slices(bodies: Sequence[bytes]) -> Iterator[range]:
    """Divide bodies into slices of about ``MAX_PARSED_BYTES``: their places."""
    begin = size = 0
    for end, body in enumerate(bodies, 1):
        size += len(body)
        if size > MAX_PARSED_BYTES or end == len(bodies):
            yield range(begin, end)
            begin, size = end, 0


def _event_id(sent: SentEvent) -> UUID:
    """Give an event an id, its sender's or a new one, before it is written: delivered twice, it is still the same."""
    return _decode_uuid(_MSGPACK_BIN_16 + uuid_utils.uuid7().bytes) if sent.event_id is UNSET else sent.event_id


# Of all that makes a UUID of Python's from 16 bytes this takes least.
_decode_uuid = msgspec.msgpack.Decoder(UUID).decode
_MSGPACK_BIN_16 = b"\xc4\x10"


def _event_ids(parsed: Sequence[SentEvent | tuple[Fault, ...]]) -> Sequence[UUID]:
    """Do as ``_event_id`` for several, good ones or not, for less than one by one."""
    given = [UNSET if isinstance(sent, tuple) else sent.event_id for sent in parsed]
    missing = [uuid_utils.uuid7().bytes for event_id in given if event_id is UNSET]
    made = iter(msgspec.convert(missing, list[UUID]))
    return [next(made) if event_id is UNSET else event_id for event_id in given]


def _queued(caller: Caller, event_id: UUID, body: bytes, received_at: int, trace_id: UUID | None) -> QueuedEvent:
    return QueuedEvent(event_id, caller.application_id, caller.application, received_at, body, trace_id)


def _indexed(refused: Iterable[Refused]) -> Iterable[Fault]:
    for one in refused:
        for fault in one.errors:
            yield msgspec.structs.replace(fault, path=f"$[{one.index}]{fault.path[1:]}")


def queue_unavailable(event_id: UUID | None = None) -> ProblemError:
    """Say that it is not certain whether an event was queued."""
    detail = (
        "It is not certain that what was sent is on disk. Send it again: an event with the same event_id and timestamp "
        "counts once."
    )
    error = unavailable("queue_unavailable", detail)
    return ProblemError(msgspec.structs.replace(error.problem, event_id=str(event_id or "")), error.headers)
