-- Agents' signatures over the records of their attempts: encoded tritmark.v1.SignedManifest.
CREATE TABLE signatures (
    run     TEXT NOT NULL,
    job     INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    signed  BLOB NOT NULL,
    PRIMARY KEY (run, job, attempt),
    FOREIGN KEY (run, job, attempt) REFERENCES attempts (run, job, attempt)
) STRICT, WITHOUT ROWID;
