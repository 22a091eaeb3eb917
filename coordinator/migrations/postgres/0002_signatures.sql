-- Agents' signatures over the records of their attempts: encoded tritmark.v1.SignedManifest.
CREATE TABLE signatures (
    run     UUID NOT NULL,
    job     BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    signed  BYTEA NOT NULL,
    PRIMARY KEY (run, job, attempt),
    FOREIGN KEY (run, job, attempt) REFERENCES attempts (run, job, attempt)
);
