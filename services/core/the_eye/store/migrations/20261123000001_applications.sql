-- migrate:up

CREATE TABLE applications (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    created_at timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz
);
COMMENT ON TABLE applications IS 'Senders of events. Never deleted, because events name them without a foreign key.';

CREATE FUNCTION refuse_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% are never deleted: disable them instead', tg_table_name USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER applications_stay BEFORE DELETE OR TRUNCATE ON applications
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();

CREATE TABLE tokens (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    application_id integer NOT NULL REFERENCES applications,
    hash bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    hint text NOT NULL CHECK (char_length(hint) = 4),
    scopes text[] NOT NULL CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['ingest', 'read', 'admin']),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz CHECK (expires_at > created_at),
    revoked_at timestamptz
);
CREATE INDEX tokens_application_id ON tokens (application_id);
COMMENT ON COLUMN tokens.hash IS 'SHA-256 of the token, whose text is shown once and kept nowhere.';
COMMENT ON COLUMN tokens.hint IS 'Last four characters of the token, to tell tokens apart in lists.';

-- migrate:down

DROP TABLE tokens;
DROP TABLE applications;
DROP FUNCTION refuse_delete();
