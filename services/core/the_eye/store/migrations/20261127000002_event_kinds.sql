-- migrate:up

CREATE TABLE event_kinds (
    category text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (category, name)
);
COMMENT ON TABLE event_kinds IS 'The categories and names that events have had, the first 10,000 of them: free text is looked for here, not in events.';
COMMENT ON COLUMN event_kinds.seen_at IS 'When a worker first stored an event of this kind.';

-- From kind to kind along the index events_kind: as many steps as there are kinds, however many events.
INSERT INTO event_kinds (category, name)
WITH RECURSIVE kinds AS (
    (SELECT category, name FROM events ORDER BY category, name LIMIT 1)
    UNION ALL
    SELECT n.category, n.name
      FROM kinds k CROSS JOIN LATERAL (
          SELECT e.category, e.name FROM events e
           WHERE (e.category, e.name) > (k.category, k.name) ORDER BY e.category, e.name LIMIT 1
      ) n
)
SELECT category, name FROM kinds LIMIT 10000;

-- migrate:down

DROP TABLE event_kinds;
