-- What goes before what, until when, and what waits for a person's word.

-- Runs with a higher priority go first. A job that is still queued when its run expires fails.
ALTER TABLE runs ADD COLUMN priority BIGINT NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN expires_unix_ns BIGINT;
ALTER TABLE runs ADD COLUMN paused_unix_ns BIGINT;
-- Nearly empty: who claims a job looks here whether it may.
CREATE INDEX runs_paused ON runs (id) WHERE paused_unix_ns IS NOT NULL;

-- Why a job was given up that no attempt of it tells: JSON, as an attempt's.
ALTER TABLE jobs ADD COLUMN failure TEXT;

-- What an agent was told by a person, and why it takes no performance jobs.
ALTER TABLE agents ADD COLUMN drain_unix_ns BIGINT;
ALTER TABLE agents ADD COLUMN quarantined_unix_ns BIGINT;
ALTER TABLE agents ADD COLUMN quarantine_reason TEXT;

-- What machines could do, when they were asked. Those that count are what later ones are held to.
CREATE TABLE calibrations (
    machine    TEXT NOT NULL REFERENCES machines (id),
    at_unix_ns BIGINT NOT NULL,
    agent      TEXT NOT NULL REFERENCES agents (id),
    boot_id    TEXT NOT NULL,
    counts     BOOLEAN NOT NULL,
    spec       TEXT NOT NULL,
    PRIMARY KEY (machine, at_unix_ns, agent)
);
