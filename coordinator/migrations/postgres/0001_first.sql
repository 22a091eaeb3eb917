-- Runs, their jobs and attempts, and everything the attempts found out.
-- Times are nanoseconds since 1970. Columns named spec, labels, suites and failure hold JSON as it
-- was written; nothing is asked of their insides.

CREATE TABLE runs (
    id                UUID PRIMARY KEY,
    name              TEXT NOT NULL,
    plan_toml         TEXT NOT NULL,
    plan_hash         TEXT NOT NULL,
    submitted_unix_ns BIGINT NOT NULL,
    ended_unix_ns     BIGINT,
    tritmark_version  TEXT NOT NULL
);
CREATE INDEX runs_by_plan ON runs (plan_hash);
CREATE INDEX runs_open ON runs (id) WHERE ended_unix_ns IS NULL;

CREATE TABLE jobs (
    run   UUID NOT NULL REFERENCES runs (id),
    job   BIGINT NOT NULL,
    spec  TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    PRIMARY KEY (run, job)
);
-- Ended jobs, which soon are nearly all, are in no index but the key.
CREATE INDEX jobs_to_do ON jobs (run, job) WHERE state IN ('queued', 'running');

CREATE TABLE machines (
    id   TEXT PRIMARY KEY,
    spec TEXT NOT NULL
);

CREATE TABLE agents (
    id                TEXT PRIMARY KEY,
    version           TEXT NOT NULL,
    machine           TEXT NOT NULL REFERENCES machines (id),
    labels            TEXT NOT NULL,
    suites            TEXT NOT NULL,
    last_seen_unix_ns BIGINT NOT NULL,
    -- the coordinator it is linked to: only that one gives it jobs
    coordinator       UUID
);

-- Grows with every attempt of any job, whoever begins it; a message with an older one is refused.
CREATE SEQUENCE fence AS BIGINT CACHE 1;

CREATE TABLE attempts (
    run                 UUID NOT NULL,
    job                 BIGINT NOT NULL,
    attempt             BIGINT NOT NULL CHECK (attempt > 0),
    fence               BIGINT NOT NULL UNIQUE,
    agent               TEXT NOT NULL REFERENCES agents (id),
    machine             TEXT NOT NULL REFERENCES machines (id),
    -- whether it needs its machine to itself
    exclusive           BOOLEAN NOT NULL,
    state               TEXT NOT NULL
        CHECK (state IN ('running', 'succeeded', 'failed', 'lost', 'cancelled')),
    started_unix_ns     BIGINT NOT NULL,
    lease_until_unix_ns BIGINT NOT NULL,
    ended_unix_ns       BIGINT,
    n_records           BIGINT,
    -- every record with a lower sequence is stored
    stored_below        BIGINT NOT NULL DEFAULT 0,
    failure             TEXT,
    -- whether it uses up one of the job's tries
    counts              BOOLEAN NOT NULL DEFAULT TRUE,
    -- its items were made with other weights or data than those of a later attempt
    void                BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (run, job, attempt),
    FOREIGN KEY (run, job) REFERENCES jobs (run, job)
);
CREATE INDEX attempts_running_by_machine ON attempts (machine) WHERE state = 'running';
CREATE INDEX attempts_running_by_agent ON attempts (agent) WHERE state = 'running';

-- Where the comparisons of open runs are measured.
CREATE TABLE pins (
    run        UUID NOT NULL,
    comparison TEXT NOT NULL,
    machine    TEXT NOT NULL,
    PRIMARY KEY (run, comparison)
);

-- `payload` is the record as it came over the wire (tritmark.v1.Record); the other columns repeat
-- what is asked for by itself. That the attempt is there is seen by the statement that adds records,
-- which holds it: a foreign key would look again for every row.
CREATE TABLE records (
    run        UUID NOT NULL,
    job        BIGINT NOT NULL,
    attempt    BIGINT NOT NULL,
    sequence   BIGINT NOT NULL CHECK (sequence >= 0),
    at_unix_ns BIGINT NOT NULL,
    kind       TEXT NOT NULL CHECK (kind IN ('measurement', 'tokens', 'item', 'facts')),
    metric     TEXT,
    item_index BIGINT,
    payload    BYTEA NOT NULL,
    PRIMARY KEY (run, job, attempt, sequence)
);
CREATE INDEX records_by_item ON records (run, job, item_index) WHERE item_index IS NOT NULL;

-- What happened, for people; nothing is decided by it, and nothing is checked.
CREATE TABLE events (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at_unix_ns BIGINT NOT NULL,
    run        UUID NOT NULL,
    job        BIGINT,
    attempt    BIGINT,
    kind       TEXT NOT NULL,
    detail     TEXT NOT NULL DEFAULT ''
);
CREATE INDEX events_by_run ON events (run, id);
