-- migrate:up

CREATE TABLE dead_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('event', 'message')),
    died_at timestamptz NOT NULL DEFAULT now(),
    event_id uuid,
    application_id integer,
    received_at timestamptz,
    code text NOT NULL,
    error text NOT NULL,
    original bytea NOT NULL,
    queue_id text COLLATE "C" UNIQUE,
    CONSTRAINT dead_events_can_be_replayed CHECK (
        kind = 'message' OR (event_id IS NOT NULL AND application_id IS NOT NULL AND received_at IS NOT NULL)
    )
);
COMMENT ON TABLE dead_events IS 'What could not be stored, with its error and its original bytes, until it is replayed or discarded.';
COMMENT ON COLUMN dead_events.original IS 'The sender''s bytes of one event, or a whole message of the queue that could not be read.';
COMMENT ON COLUMN dead_events.queue_id IS 'Place in the queue it came from: a redelivery is not set aside twice.';

CREATE INDEX dead_events_event_id ON dead_events (event_id);

-- migrate:down

DROP TABLE dead_events;
