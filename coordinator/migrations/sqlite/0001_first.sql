-- Runs, their jobs and attempts, and everything the attempts found out.
-- Times are nanoseconds since 1970. Columns named spec, labels, suites and failure hold JSON.

CREATE TABLE runs (
    id                TEXT PRIMARY KEY,
    name              TEXT NOT NULL,
    plan_toml         TEXT NOT NULL,
    plan_hash         TEXT NOT NULL,
    submitted_unix_ns INTEGER NOT NULL,
    ended_unix_ns     INTEGER,
    tritmark_version  TEXT NOT NULL
) STRICT;
CREATE INDEX runs_by_plan ON runs (plan_hash);

CREATE TABLE jobs (
    run   TEXT NOT NULL REFERENCES runs (id),
    job   INTEGER NOT NULL,
    spec  TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    PRIMARY KEY (run, job)
) STRICT, WITHOUT ROWID;
CREATE INDEX jobs_to_do ON jobs (run) WHERE state IN ('queued', 'running');

CREATE TABLE machines (
    id   TEXT PRIMARY KEY,
    spec TEXT NOT NULL
) STRICT;

CREATE TABLE agents (
    id                TEXT PRIMARY KEY,
    version           TEXT NOT NULL,
    machine           TEXT NOT NULL REFERENCES machines (id),
    labels            TEXT NOT NULL,
    suites            TEXT NOT NULL,
    last_seen_unix_ns INTEGER NOT NULL
) STRICT;

-- `fence` grows with every attempt of any job; a message with an older one is refused.
CREATE TABLE attempts (
    run                 TEXT NOT NULL,
    job                 INTEGER NOT NULL,
    attempt             INTEGER NOT NULL CHECK (attempt > 0),
    fence               INTEGER NOT NULL UNIQUE,
    agent               TEXT NOT NULL REFERENCES agents (id),
    machine             TEXT NOT NULL REFERENCES machines (id),
    state               TEXT NOT NULL
        CHECK (state IN ('running', 'succeeded', 'failed', 'lost', 'cancelled')),
    started_unix_ns     INTEGER NOT NULL,
    lease_until_unix_ns INTEGER NOT NULL,
    ended_unix_ns       INTEGER,
    n_records           INTEGER,
    -- every record with a lower sequence is stored
    stored_below        INTEGER NOT NULL DEFAULT 0,
    failure             TEXT,
    -- whether it uses up one of the job's tries
    counts              INTEGER NOT NULL DEFAULT 1,
    -- its items were made with other weights or data than those of a later attempt
    void                INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (run, job, attempt),
    FOREIGN KEY (run, job) REFERENCES jobs (run, job)
) STRICT, WITHOUT ROWID;

CREATE TABLE fence (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    value INTEGER NOT NULL
) STRICT;
INSERT INTO fence (one, value) VALUES (1, 0);

-- `payload` is the record as it came over the wire (tritmark.v1.Record); the other columns repeat
-- what is asked for by itself.
CREATE TABLE records (
    run        TEXT NOT NULL,
    job        INTEGER NOT NULL,
    attempt    INTEGER NOT NULL,
    sequence   INTEGER NOT NULL CHECK (sequence >= 0),
    at_unix_ns INTEGER NOT NULL,
    kind       TEXT NOT NULL CHECK (kind IN ('measurement', 'tokens', 'item', 'facts')),
    metric     TEXT,
    item_index INTEGER,
    payload    BLOB NOT NULL,
    PRIMARY KEY (run, job, attempt, sequence),
    FOREIGN KEY (run, job, attempt) REFERENCES attempts (run, job, attempt)
) STRICT, WITHOUT ROWID;
CREATE INDEX records_by_item ON records (run, job, item_index) WHERE item_index IS NOT NULL;

-- What happened, for people; nothing is decided by it.
CREATE TABLE events (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at_unix_ns INTEGER NOT NULL,
    run        TEXT NOT NULL REFERENCES runs (id),
    job        INTEGER,
    attempt    INTEGER,
    kind       TEXT NOT NULL,
    detail     TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX events_by_run ON events (run, id);
