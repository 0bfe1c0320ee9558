"""What became of each event: asked of the tables, once nothing is on its way any more."""

import msgspec
import psycopg
from psycopg.rows import TupleRow, args_row
from tests.faults import numbered

Connection = psycopg.Connection[TupleRow]


class Ledger(msgspec.Struct, frozen=True):
    """How the events that were answered with 202 have ended."""

    accepted: int
    valid: int
    invalid: int
    dead: int
    """Set aside in ``dead_events``, one by one or with the whole message."""
    lost: list[int]
    """Numbers of events that are nowhere; the first few."""
    doubled: int
    """Rows beyond the first of an event, in both tables together."""
    strange: int
    """Rows of events that were refused or never sent."""
    altered: int
    """Rows whose data are not those that were sent under their id."""
    misjudged: int
    """Rows with a verdict that is not the rules'."""

    @property
    def closed(self) -> bool:
        """Whether each accepted event has ended once, as it was, and nothing else is there."""
        return self.accepted == self.valid + self.invalid + self.dead and not (
            self.lost or self.doubled or self.strange or self.altered or self.misjudged
        )


# An event's number is in its id and in its data.
_STORED = """
CREATE TEMPORARY TABLE stored AS
SELECT ('x' || right(event_id::text, 12))::bit(48)::bigint AS number, event_id, valid, (data->>'n')::bigint AS n
  FROM events
"""
_DEAD = """
CREATE TEMPORARY TABLE dead AS
SELECT ('x' || right(event_id::text, 12))::bit(48)::bigint AS number, event_id
  FROM (SELECT event_id FROM dead_events WHERE kind = 'event' UNION ALL SELECT unnest(%(in_messages)s::uuid[])) d
"""
_LEDGER = """
WITH ended AS (SELECT number, event_id FROM stored UNION ALL SELECT number, event_id FROM dead)
SELECT %(accepted)s::integer AS accepted,
       (SELECT count(*) FROM stored WHERE valid) AS valid,
       (SELECT count(*) FROM stored WHERE NOT valid) AS invalid,
       (SELECT count(*) FROM dead) AS dead,
       ARRAY(SELECT number FROM generate_series(0, %(accepted)s - 1) AS sent (number)
              WHERE NOT EXISTS (SELECT FROM ended e WHERE e.number = sent.number) LIMIT 20) AS lost,
       (SELECT count(*) - count(DISTINCT event_id) FROM ended) AS doubled,
       (SELECT count(*) FROM ended WHERE number >= %(accepted)s OR left(event_id::text, 8) <> '00000000') AS strange,
       (SELECT count(*) FROM stored WHERE n <> number) AS altered,
       (SELECT count(*) FROM stored WHERE valid <> (number %% %(invalid_every)s <> 0)) AS misjudged
"""


def audit(connection: Connection, accepted: int, in_messages: range = range(0)) -> Ledger:
    """Look for the events with the numbers below ``accepted``.

    ``in_messages`` are those that must be inside of messages that were set aside whole.
    """
    ids = [numbered.event_id(number) for number in in_messages]
    parameters = {"accepted": accepted, "invalid_every": numbered.INVALID_EVERY, "in_messages": ids}
    connection.execute(_STORED)
    connection.execute(_DEAD, {"in_messages": ids})
    ledger = connection.cursor(row_factory=args_row(Ledger)).execute(_LEDGER, parameters).fetchone()
    connection.execute("DROP TABLE stored, dead")
    assert ledger is not None
    return ledger


def dead_codes(connection: Connection) -> list[tuple[str, str, int]]:
    """List what was set aside: kind, code, and how often."""
    return connection.execute("SELECT kind, code, count(*) FROM dead_events GROUP BY 1, 2 ORDER BY 1, 2").fetchall()
