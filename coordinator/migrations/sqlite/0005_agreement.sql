-- Records of one kind more: cells of an agreement. SQLite cannot change a rule of a table that is there,
-- so that the records move into a new one.
CREATE TABLE records_of_5 (
    run        TEXT NOT NULL,
    job        INTEGER NOT NULL,
    attempt    INTEGER NOT NULL,
    sequence   INTEGER NOT NULL CHECK (sequence >= 0),
    at_unix_ns INTEGER NOT NULL,
    kind       TEXT NOT NULL CHECK (kind IN ('measurement', 'tokens', 'item', 'facts', 'cell')),
    metric     TEXT,
    item_index INTEGER,
    payload    BLOB NOT NULL,
    PRIMARY KEY (run, job, attempt, sequence),
    FOREIGN KEY (run, job, attempt) REFERENCES attempts (run, job, attempt)
) STRICT, WITHOUT ROWID;
INSERT INTO records_of_5 (run, job, attempt, sequence, at_unix_ns, kind, metric, item_index, payload)
SELECT run, job, attempt, sequence, at_unix_ns, kind, metric, item_index, payload
FROM records ORDER BY run, job, attempt, sequence;
DROP TABLE records;
ALTER TABLE records_of_5 RENAME TO records;
CREATE INDEX records_by_item ON records (run, job, item_index) WHERE item_index IS NOT NULL;
