-- migrate:up

-- Rows lie in the order they were stored: a summary of a few bytes for each 128 pages finds the newest ones.
CREATE INDEX events_stored_at ON events USING brin (stored_at) WITH (autosummarize = on);

-- migrate:down

DROP INDEX events_stored_at;
