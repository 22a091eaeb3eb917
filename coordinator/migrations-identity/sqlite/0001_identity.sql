-- Who may speak to the coordinator, and what was asked of it. Times are seconds since 1970 unless
-- a column's name says otherwise. `labels` holds a JSON object of texts.

CREATE TABLE identities (
    serial            TEXT PRIMARY KEY,
    name              TEXT NOT NULL,
    role              TEXT NOT NULL CHECK (role IN ('agent', 'submitter', 'viewer', 'admin')),
    labels            TEXT NOT NULL,
    agent_id          TEXT,
    signing_key       BLOB,
    certificate_pem   TEXT NOT NULL,
    not_before_unix_s INTEGER NOT NULL,
    not_after_unix_s  INTEGER NOT NULL,
    revoked_unix_s    INTEGER,
    revoked_reason    TEXT
) STRICT;
CREATE INDEX identities_by_name ON identities (name);
CREATE INDEX identities_revoked ON identities (not_after_unix_s) WHERE revoked_unix_s IS NOT NULL;

-- The token itself is kept nowhere: `hash` is the SHA-256 of its secret.
CREATE TABLE tokens (
    hash            BLOB PRIMARY KEY,
    role            TEXT NOT NULL CHECK (role IN ('agent', 'submitter', 'viewer', 'admin')),
    name            TEXT,
    labels          TEXT NOT NULL,
    created_unix_s  INTEGER NOT NULL,
    expires_unix_s  INTEGER NOT NULL,
    used_unix_s     INTEGER,
    used_by         TEXT REFERENCES identities (serial)
) STRICT;

-- Only ever added to. A call that changes something has a row before it is let through ('call')
-- and one when it has ended ('outcome', whose `refers` is the first one's id).
CREATE TABLE audit (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at_unix_ns INTEGER NOT NULL,
    event      TEXT NOT NULL CHECK (event IN ('call', 'outcome', 'denied')),
    refers     INTEGER,
    peer       TEXT NOT NULL,
    serial     TEXT,
    address    TEXT,
    what       TEXT NOT NULL,
    detail     TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
CREATE TRIGGER audit_is_not_cut BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
