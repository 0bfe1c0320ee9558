-- migrate:up

ALTER TABLE tokens ADD COLUMN last_used_at timestamptz;
COMMENT ON COLUMN tokens.last_used_at IS 'About when it was last accepted: each API writes it once a minute.';

-- migrate:down

ALTER TABLE tokens DROP COLUMN last_used_at;
