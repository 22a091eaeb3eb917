//! Records are added, and attempts asked how far they are.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row as _;
use tracing::warn;
use tritmark_proto::{job::AttemptId, record::Record};

use super::{PostgresStore, attempt_columns, job_of};
use crate::store::{
    Appended, AttemptState, StoreError,
    rows::{self, Columns as _, RecordColumns, database, stale},
};

/// Adds records to an attempt that runs and moves `stored_below` over what has no gap: one statement,
/// hence one round trip and one transaction, since this is what a fleet asks for most.
///
/// `$1` to `$4` are the attempt with its fence. A record that two links of one agent add at the same
/// moment may be missing from the count of one of them, never be in it wrongly; the next count has it.
const ADD: &str = "\
WITH standing AS MATERIALIZED (
    SELECT state, fence, stored_below, lease_until_unix_ns FROM attempts
    WHERE run = $1 AND job = $2 AND attempt = $3 FOR NO KEY UPDATE
), added AS (
    INSERT INTO records (run, job, attempt, sequence, at_unix_ns, kind, metric, item_index, payload)
    SELECT $1, $2, $3, r.* FROM standing, UNNEST($5::bigint[], $6::bigint[], $7::text[], $8::text[],
        $9::bigint[], $10::bytea[]) AS r(sequence, at, kind, metric, item_index, payload)
    WHERE standing.state = 'running' AND standing.fence = $4
    ON CONFLICT DO NOTHING RETURNING sequence
), ranked AS (
    SELECT sequence, row_number() OVER (ORDER BY sequence) - 1 AS rank FROM (
        SELECT sequence FROM records
        WHERE run = $1 AND job = $2 AND attempt = $3
        AND sequence >= (SELECT stored_below FROM standing)
        UNION ALL
        SELECT sequence FROM added WHERE sequence >= (SELECT stored_below FROM standing)
    ) AS all_above
), counted AS (
    SELECT stored_below + (SELECT count(*) FROM ranked WHERE sequence = rank + stored_below) AS below
    FROM standing
), moved AS (
    UPDATE attempts SET stored_below = counted.below FROM counted
    WHERE run = $1 AND job = $2 AND attempt = $3 AND state = 'running' AND fence = $4
    AND stored_below < counted.below
)
SELECT state, fence, lease_until_unix_ns, below AS stored_below,
    (SELECT coalesce(array_agg(sequence), '{}') FROM added) AS added
FROM standing, counted";

/// Stores records; see the trait.
pub(super) async fn add_records(
    store: &PostgresStore,
    attempt: AttemptId,
    records: &[Record],
) -> Result<Appended, StoreError> {
    let add = database("store records");
    let columns: Vec<RecordColumns> = records
        .iter()
        .map(RecordColumns::of)
        .collect::<Result<_, _>>()?;
    let sequences: Vec<i64> = columns.iter().map(|record| record.sequence).collect();
    let times: Vec<i64> = records.iter().map(|record| record.at_unix_ns).collect();
    let kinds: Vec<&str> = columns.iter().map(|record| record.kind).collect();
    let metrics: Vec<Option<&str>> = columns.iter().map(|record| record.metric).collect();
    let items: Vec<Option<i64>> = columns
        .iter()
        .map(|record| record.item_index.map(i64::from))
        .collect();
    let payloads: Vec<&[u8]> = columns.iter().map(|record| &*record.payload).collect();
    let row = sqlx::query(ADD)
        .bind(attempt.job.run.0)
        .bind(i64::from(attempt.job.index))
        .bind(i64::from(attempt.attempt.get()))
        .bind(rows::to_i64("fence", attempt.fence)?)
        .bind(&sequences)
        .bind(&times)
        .bind(&kinds)
        .bind(&metrics)
        .bind(&items)
        .bind(&payloads)
        .fetch_optional(&store.records)
        .await
        .map_err(&add)?
        .ok_or_else(|| stale(attempt, "unknown"))?;
    let standing = rows::standing(attempt, &row)?;
    let mut appended = standing.appended(attempt)?;
    if standing.state != AttemptState::Running {
        return Ok(appended);
    }
    let added: Vec<i64> = row.try_get("added").map_err(&add)?;
    appended.n_new = added.len() as u64;
    if added.len() < columns.len() {
        let added: BTreeSet<i64> = added.into_iter().collect();
        appended.n_conflicts = conflicts(store, attempt, &columns, added).await?;
    }
    Ok(appended)
}

/// Keeps a signature of an attempt that runs; see the trait.
pub(super) async fn put_signature(
    store: &PostgresStore,
    attempt: AttemptId,
    signed: &[u8],
) -> Result<(), StoreError> {
    let row = sqlx::query(
        "WITH standing AS MATERIALIZED (
            SELECT state, fence, stored_below, lease_until_unix_ns FROM attempts
            WHERE run = $1 AND job = $2 AND attempt = $3 FOR NO KEY UPDATE
        ), put AS (
            INSERT INTO signatures (run, job, attempt, signed)
            SELECT $1, $2, $3, $5 FROM standing WHERE state = 'running' AND fence = $4
            ON CONFLICT (run, job, attempt) DO UPDATE SET signed = excluded.signed
        )
        SELECT * FROM standing",
    )
    .bind(attempt.job.run.0)
    .bind(i64::from(attempt.job.index))
    .bind(i64::from(attempt.attempt.get()))
    .bind(rows::to_i64("fence", attempt.fence)?)
    .bind(signed)
    .fetch_optional(&store.records)
    .await
    .map_err(database("keep a signature"))?
    .ok_or_else(|| stale(attempt, "unknown"))?;
    // Said again once it is over: the agent has not seen that it is; the first word counts.
    rows::standing(attempt, &row)?.appended(attempt)?;
    Ok(())
}

/// Counts the records that were there with other contents. What is stored never changes, so that this
/// may look later.
async fn conflicts(
    store: &PostgresStore,
    attempt: AttemptId,
    records: &[RecordColumns],
    mut added: BTreeSet<i64>,
) -> Result<u64, StoreError> {
    let look = database("compare records");
    // The first of several with one sequence was added; the others are compared with it.
    let there: Vec<&RecordColumns> = records
        .iter()
        .filter(|record| !added.remove(&record.sequence))
        .collect();
    let sequences: Vec<i64> = there.iter().map(|record| record.sequence).collect();
    let found = sqlx::query(
        "SELECT sequence, payload FROM records \
         WHERE run = $1 AND job = $2 AND attempt = $3 AND sequence = ANY($4)",
    )
    .bind(attempt.job.run.0)
    .bind(i64::from(attempt.job.index))
    .bind(i64::from(attempt.attempt.get()))
    .bind(&sequences)
    .fetch_all(&store.records)
    .await
    .map_err(&look)?;
    let stored: BTreeMap<i64, &[u8]> = found
        .iter()
        .map(|row| Ok((row.number("sequence")?, row.bytes("payload")?)))
        .collect::<Result<_, StoreError>>()?;
    let mut n_conflicts = 0;
    for record in there {
        if stored.get(&record.sequence) != Some(&&*record.payload) {
            n_conflicts += 1;
            warn!(job = %attempt.job, attempt = attempt.attempt, sequence = record.sequence,
                "a record came again with other contents; the first one is kept");
        }
    }
    Ok(n_conflicts)
}

/// Tells how attempts stand; see the trait.
pub(super) async fn standings(
    store: &PostgresStore,
    attempts: &[AttemptId],
) -> Result<Vec<Result<Appended, StoreError>>, StoreError> {
    let (runs, jobs, counts) = attempt_columns(attempts.iter().copied());
    let found = sqlx::query(
        "SELECT run, job, attempt, state, stored_below, fence, lease_until_unix_ns FROM attempts \
         WHERE (run, job, attempt) IN \
         (SELECT * FROM UNNEST($1::uuid[], $2::bigint[], $3::bigint[]))",
    )
    .bind(&runs)
    .bind(&jobs)
    .bind(&counts)
    .fetch_all(&store.pool)
    .await
    .map_err(database("look up attempts"))?;
    let mut by_name = BTreeMap::new();
    for row in &found {
        by_name.insert((job_of(row)?, row.number("attempt")?), row);
    }
    Ok(attempts
        .iter()
        .map(|attempt| {
            let row = by_name
                .get(&(attempt.job, i64::from(attempt.attempt.get())))
                .ok_or_else(|| stale(*attempt, "unknown"))?;
            rows::standing(*attempt, *row)?.appended(*attempt)
        })
        .collect())
}
