-- migrate:up

ALTER TABLE applications
    ADD COLUMN events_per_second double precision CHECK (events_per_second > 0 AND events_per_second <= 1e6),
    ADD COLUMN burst integer CHECK (burst > 0),
    ADD CONSTRAINT applications_limit_is_whole CHECK ((events_per_second IS NULL) = (burst IS NULL));
COMMENT ON COLUMN applications.events_per_second IS
    'Events that it may send per second to each API process, over time; NULL: what the settings say.';
COMMENT ON COLUMN applications.burst IS 'Events that it may send at once after a pause.';

-- migrate:down

ALTER TABLE applications DROP COLUMN events_per_second, DROP COLUMN burst;
