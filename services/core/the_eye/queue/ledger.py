"""The ledger: how many events were queued and how they ended, counted in Redis by the steps that queue and end them.

``accepted`` is raised by the script that queues a message, an outcome by the script that takes the message away. Each
script is one step, in memory and on disk, so that ``accepted = valid + invalid + duplicate + dead + queued`` whatever
process or server is killed. What is queued is no counter: it is read from the ids of the messages that are there, so
that a message that was lost makes a difference.

- A message that is delivered twice has its outcomes counted once, by whoever takes it away.
- A dead letter is counted as dead when it becomes one, and is no longer queued.
- What is replayed is accepted once more and ends once more: counters never fall.
- A message whose id does not tell its events, as those of an older version, is in no part of the ledger.
- What a person has found to be lost for good is written off as ``lost``, so that the next loss is seen.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from enum import StrEnum

from the_eye.queue.message_ids import event_count


class Outcome(StrEnum):
    """How an accepted event ends."""

    VALID = "valid"
    INVALID = "invalid"
    DUPLICATE = "duplicate"
    DEAD = "dead"


ACCEPTED, LOST = "accepted", "lost"
STATES = (ACCEPTED, *Outcome, LOST)
"""What the ledger counts events as."""

LEDGER_KEY = "__ledger__"

# Both are put around Dramatiq's script, whose arguments they share: KEYS[1] is the namespace, ARGV[3] the queue,
# ARGV[9] the message. That a command changed anything shows in the hash of the messages: a write that a client repeats
# because it got no answer counts once.

_WORDS = {b"ledger": LEDGER_KEY.encode(), b"counted": rb"'^[^.]*%.(%d+)$'", b"timed": rb"'^%x+%-%x+%-7'"}
"""Where the ledger is, how the number of events is found in a message's id, and whether the id begins with a time."""

ACCEPTING = (
    b"""
if ARGV[1] == 'enqueue' then
    local events = string.match(ARGV[9], %(counted)s)
    if events and redis.call('hexists', KEYS[1] .. ':' .. ARGV[3] .. '.msgs', ARGV[9]) == 0 then
        redis.call('hincrby', KEYS[1] .. ':%(ledger)s', 'accepted', events)
    end
end
"""
    % _WORDS
)
"""Counts what Dramatiq's script, which follows it, is about to queue."""

_SETTLING = b"""
local function dispatch(KEYS, ARGV)
%(dispatch)s
end

local messages = KEYS[1] .. ':' .. ARGV[3] .. '.msgs'
local arguments = {unpack(ARGV, 1, 8)}
local ended = {}
for i = 9, #ARGV, 2 do
    local message = ARGV[i]
    arguments[9] = message
    local present = redis.call('hexists', messages, message)
    dispatch(KEYS, arguments)
    if present > redis.call('hexists', messages, message) then
        for outcome, events in string.gmatch(ARGV[i + 1], '(%%a+)=(%%d+)') do
            ended[outcome] = (ended[outcome] or 0) + events
        end
    end
end
for outcome, events in pairs(ended) do
    redis.call('hincrby', KEYS[1] .. ':%(ledger)s', outcome, events)
end
"""


_LOOK = (
    b"""
local ready, delayed, held, hashes = 0, 0, 0, {}
for i = 3, #ARGV do
    local queue = KEYS[1] .. ':' .. ARGV[i]
    ready = ready + redis.call('llen', queue)
    delayed = delayed + redis.call('hlen', queue .. '.DQ.msgs')
    held = held + redis.call('hlen', queue .. '.msgs')
    table.insert(hashes, queue .. '.msgs')
    table.insert(hashes, queue .. '.DQ.msgs')
end
local events, uncounted, oldest = 0, 0, ''
if held + delayed > tonumber(ARGV[1]) then
    events = -1
else
    for _, hash in ipairs(hashes) do
        for _, message in ipairs(redis.call('hkeys', hash)) do
            local count = string.match(message, %(counted)s)
            if count then events = events + count else uncounted = uncounted + 1 end
            if string.match(message, %(timed)s) and (oldest == '' or message < oldest) then oldest = message end
        end
    end
end
local ledger = redis.call('hgetall', KEYS[1] .. ':%(ledger)s')
"""
    % _WORDS
)
"""Looks at the messages and the ledger; after the most messages to count and an argument of its users come the queues.

A message counts wherever its id is: also one that no list and no worker has is not finished.
"""

SNAPSHOT = (
    b"#!lua flags=no-writes"
    + _LOOK
    + b"""
return {ready, delayed, held, events, uncounted, oldest, ledger}
"""
)
"""Reads the messages and the ledger as of one moment; the arguments are those of ``_LOOK``.

It returns how many messages are ready, delayed, and ready or unacknowledged; their events, -1 where they are too many
to count; how many messages are in no part of the ledger; the id of the oldest, empty where there is none or there are
too many; and the ledger, a list of names and numbers."""

WRITING_OFF = (
    _LOOK
    + b"""
local difference = -events
for i = 1, #ledger, 2 do
    if ledger[i] == 'accepted' then difference = difference + ledger[i + 1]
    else difference = difference - ledger[i + 1] end
end
if events < 0 or difference == 0 or difference ~= tonumber(ARGV[2]) then return 0 end
redis.call('hincrby', KEYS[1] .. ':%(ledger)s', difference > 0 and 'lost' or 'accepted', math.abs(difference))
return 1
"""
    % _WORDS
)
"""Closes the ledger over a difference, the second argument, if it is that; returns 1, or 0 where nothing was done.

Counters never fall: events that ended without having been accepted are accepted now.
"""


def settling(dispatch: bytes) -> bytes:
    """Make the script that runs ``ack`` or ``nack`` of Dramatiq's script for several messages and counts the outcomes.

    After Dramatiq's own arguments come, for each message, its id and its outcomes as ``shares`` gives them.
    """
    return _SETTLING % {**_WORDS, b"dispatch": dispatch}


def shares(message_ids: Sequence[str], outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Give each of several messages that were stored together its outcomes, such as ``valid=499 dead=1``.

    ``outcomes`` are those of all their events, in order; empty for a message that is in no part of the ledger.
    """
    begin = 0
    for message_id in message_ids:
        end = begin + (event_count(message_id) or 0)
        yield " ".join(f"{outcome}={events}" for outcome, events in Counter(outcomes[begin:end]).items())
        begin = end
