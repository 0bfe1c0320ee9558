-- migrate:up

-- Columns of fixed width stand first and by alignment: no padding, and the keys are read without walking the row.
-- Texts compare by bytes: cheap to index, and no new version of a locale can break an index.
-- That data is an object is for the edge to see: a constraint would parse it a second time.
CREATE TABLE events (
    "timestamp" timestamptz NOT NULL CHECK ("timestamp" >= '0001-01-01 00:00Z' AND "timestamp" < '10000-01-01 00:00Z'),
    event_id uuid NOT NULL,
    received_at timestamptz NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    session_id uuid NOT NULL,
    application_id integer NOT NULL,
    valid boolean NOT NULL,
    category text COLLATE "C" NOT NULL CHECK (char_length(category) BETWEEN 1 AND 255),
    name text COLLATE "C" NOT NULL CHECK (char_length(name) BETWEEN 1 AND 255),
    data json NOT NULL,
    ruleset bytea NOT NULL CHECK (octet_length(ruleset) = 32),
    violations jsonb CHECK (jsonb_typeof(violations) = 'array'),
    violated_rules text[] COLLATE "C" CHECK (cardinality(violated_rules) > 0),
    PRIMARY KEY ("timestamp", event_id, application_id),
    CONSTRAINT events_invalid_has_violations CHECK (valid OR violations IS NOT NULL),
    CONSTRAINT events_violations_name_rules CHECK ((violations IS NULL) = (violated_rules IS NULL))
) PARTITION BY RANGE ("timestamp");
COMMENT ON TABLE events IS 'Every accepted event with its verdict, in partitions of one UTC day, events_pYYYYMMDD.';
COMMENT ON COLUMN events.application_id IS
    'An application; no foreign key, which would cost a lookup per row, since applications are never deleted.';
COMMENT ON COLUMN events.data IS 'json and not jsonb: the sender''s bytes are kept exactly.';
COMMENT ON COLUMN events.ruleset IS 'SHA-256 revision of the ruleset that judged the event.';
COMMENT ON COLUMN events.violations IS 'Array of the broken rules, or NULL; a valid event may have some that are only audited.';
COMMENT ON COLUMN events.violated_rules IS 'Distinct rules of the violations as namespace/name, or NULL.';

CREATE INDEX events_event_id ON events (event_id);
CREATE INDEX events_session ON events (session_id, "timestamp", event_id);
CREATE INDEX events_application ON events (application_id, "timestamp", event_id);
CREATE INDEX events_kind ON events (category, name, "timestamp", event_id);
CREATE INDEX events_violations ON events ("timestamp", event_id) WHERE violated_rules IS NOT NULL;
CREATE INDEX events_application_violations ON events (application_id, "timestamp", event_id)
    WHERE violated_rules IS NOT NULL;
-- The same rows, said otherwise: with IS NOT NULL this index would also be taken, and read whole, for all violations.
CREATE INDEX events_violated_rules ON events USING gin (violated_rules) WHERE cardinality(violated_rules) > 0;

-- That invalid events have violations is news to the planner, which would otherwise expect far too few of them.
CREATE STATISTICS events_verdict (mcv) ON valid, violated_rules FROM events;

-- As all partitions are made: only LIKE copies the statistics.
CREATE TABLE events_default (LIKE events INCLUDING ALL);
ALTER TABLE events ATTACH PARTITION events_default DEFAULT;
COMMENT ON TABLE events_default IS 'Events of days that have no partition; the retention deletes them by stored_at.';

-- migrate:down

DROP TABLE events;
