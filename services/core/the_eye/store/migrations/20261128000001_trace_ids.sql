-- migrate:up

-- No constraint to check and no default: existing rows are neither read nor written. It takes a moment's lock of all
-- partitions. Behind whoever waits for that, all others wait, too: behind a dump for hours. So it gives up, and the
-- migration's job tries again.
SET LOCAL lock_timeout = '2s';
ALTER TABLE events ADD COLUMN trace_id uuid;
COMMENT ON COLUMN events.trace_id IS
    'W3C trace id of the request that brought the event, or of its CloudEvent; NULL where there was none. A uuid for its 16 bytes: dashes aside, it reads as traces have it.';

ALTER TABLE dead_events ADD COLUMN trace_id uuid;
COMMENT ON COLUMN dead_events.trace_id IS 'As in events, for a replay.';

-- migrate:down

ALTER TABLE events DROP COLUMN trace_id;
ALTER TABLE dead_events DROP COLUMN trace_id;
