-- migrate:up

CREATE TABLE revalidations (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rule text COLLATE "C" NOT NULL,
    since timestamptz NOT NULL,
    until timestamptz NOT NULL,
    ruleset bytea NOT NULL CHECK (octet_length(ruleset) = 32),
    started_at timestamptz NOT NULL DEFAULT now(),
    started_by text NOT NULL,
    finished_at timestamptz,
    "timestamp" timestamptz,
    event_id uuid,
    application_id integer,
    examined bigint NOT NULL DEFAULT 0,
    became_valid bigint NOT NULL DEFAULT 0,
    became_invalid bigint NOT NULL DEFAULT 0,
    violations_changed bigint NOT NULL DEFAULT 0,
    unchanged bigint NOT NULL DEFAULT 0,
    CONSTRAINT revalidations_position_is_whole CHECK (num_nulls("timestamp", event_id, application_id) IN (0, 3)),
    CONSTRAINT revalidations_counts_add_up CHECK (
        examined = became_valid + became_invalid + violations_changed + unchanged
    )
);
COMMENT ON TABLE revalidations IS 'Runs that judged stored events again and kept the verdicts that changed. Never deleted.';
COMMENT ON COLUMN revalidations.rule IS 'The rule whose events were judged again, by all rules, as namespace/name.';
COMMENT ON COLUMN revalidations.until IS 'End of the range of the events'' timestamp, not included.';
COMMENT ON COLUMN revalidations.ruleset IS 'SHA-256 revision of the ruleset that gave the new verdicts.';
COMMENT ON COLUMN revalidations.started_by IS 'User and machine that started it.';
COMMENT ON COLUMN revalidations."timestamp" IS
    'With event_id and application_id the last event that was judged; the order is newest first.';

-- Whoever asks for the same again goes on with what was not finished, also when two ask at once.
CREATE UNIQUE INDEX revalidations_unfinished ON revalidations (rule, since, until, ruleset) WHERE finished_at IS NULL;

CREATE TABLE revised_verdicts (
    "timestamp" timestamptz NOT NULL,
    event_id uuid NOT NULL,
    application_id integer NOT NULL,
    revalidation_id bigint NOT NULL REFERENCES revalidations,
    revised_at timestamptz NOT NULL DEFAULT now(),
    valid boolean NOT NULL,
    ruleset bytea NOT NULL CHECK (octet_length(ruleset) = 32),
    violations jsonb CHECK (jsonb_typeof(violations) = 'array'),
    PRIMARY KEY ("timestamp", event_id, application_id, revalidation_id)
);
COMMENT ON TABLE revised_verdicts IS
    'The verdict that an event had before a revalidation gave it another. Each goes when its event goes.';
COMMENT ON COLUMN revised_verdicts.ruleset IS 'SHA-256 revision of the ruleset that gave this verdict.';

CREATE INDEX revised_verdicts_event_id ON revised_verdicts (event_id);
CREATE INDEX revised_verdicts_revalidation_id ON revised_verdicts (revalidation_id);

-- migrate:down

DROP TABLE revised_verdicts;
DROP TABLE revalidations;
