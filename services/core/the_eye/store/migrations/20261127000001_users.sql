-- migrate:up

CREATE TABLE users (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9]([a-z0-9._@-]{0,61}[a-z0-9])?$'),
    password_hash text NOT NULL,
    role text NOT NULL CHECK (role IN ('viewer', 'admin')),
    created_at timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz
);
COMMENT ON TABLE users IS 'People who sign in to the pages. A viewer reads all events; an admin also replays, discards and makes tokens.';
COMMENT ON COLUMN users.password_hash IS 'Argon2id with its parameters, in the PHC form.';

CREATE TABLE sign_ins (
    hash bytea PRIMARY KEY CHECK (octet_length(hash) = 32),
    user_id integer NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL CHECK (expires_at > created_at)
);
CREATE INDEX sign_ins_user_id ON sign_ins (user_id);
CREATE INDEX sign_ins_expires_at ON sign_ins (expires_at);
COMMENT ON COLUMN sign_ins.hash IS 'SHA-256 of the random text that the browser keeps as a cookie.';

CREATE TABLE sign_in_attempts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject bytea NOT NULL CHECK (octet_length(subject) = 32),
    attempted_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX sign_in_attempts_subject ON sign_in_attempts (subject, attempted_at);
CREATE INDEX sign_in_attempts_attempted_at ON sign_in_attempts (attempted_at);
COMMENT ON TABLE sign_in_attempts IS 'Recent attempts to sign in that have not succeeded, of a name and of an address; too many lock both out.';
COMMENT ON COLUMN sign_in_attempts.subject IS 'SHA-256 of the name or the address: what is typed as a name may be a password.';

CREATE TABLE audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    act text NOT NULL,
    subject text NOT NULL
);
COMMENT ON TABLE audit_log IS 'What was done to users, applications, tokens and dead events, and by whom. Never deleted.';
COMMENT ON COLUMN audit_log.actor IS 'Name of a user of the pages, or user@machine of the command line.';

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is only added to', tg_table_name USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER audit_log_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- migrate:down

DROP TABLE audit_log;
DROP FUNCTION refuse_change();
DROP TABLE sign_in_attempts;
DROP TABLE sign_ins;
DROP TABLE users;
