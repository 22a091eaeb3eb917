//! Records are added, and attempts asked how far they are.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{Row as _, postgres::PgRow};
use tracing::warn;
use tritmark_proto::{
    job::{AttemptId, JobId},
    record::ModelFacts,
};

use super::{PostgresStore, attempt_columns, columns, job_of};
use crate::store::{
    Appended, AttemptState, RecordBatch, StoreError,
    rows::{self, Columns as _, RecordColumns, database, stale},
};

/// Adds records to attempts that run and moves `stored_below` over what has no gap: one statement for
/// the batches of many links, hence one round trip and one commit, since this is what a fleet asks for
/// most.
///
/// `$1` to `$4` are the attempts with their fences, `$5` tells by position in them whose a record is.
/// Whatever the planner thinks of the sizes, rows are looked up by their keys: that is what the
/// `LATERAL` parts are for. A record that two links of one agent add at the same moment may be missing
/// from the count of one of them, never be in it wrongly; the next count has it.
const ADD: &str = "\
WITH standing AS MATERIALIZED (
    SELECT n, run, job, attempt, state, attempts.fence, stored_below, lease_until_unix_ns,
        state = 'running' AND attempts.fence = asked.fence AS takes
    FROM UNNEST($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[])
        WITH ORDINALITY AS asked(run, job, attempt, fence, n)
    JOIN attempts USING (run, job, attempt)
    ORDER BY run, job, attempt FOR NO KEY UPDATE OF attempts
), added AS (
    INSERT INTO records (run, job, attempt, sequence, at_unix_ns, kind, metric, item_index, payload)
    SELECT run, job, attempt, sequence, at, kind, metric, item_index, payload
    FROM UNNEST($5::bigint[], $6::bigint[], $7::bigint[], $8::text[], $9::text[], $10::bigint[],
        $11::bytea[]) AS r(n, sequence, at, kind, metric, item_index, payload)
    JOIN standing USING (n) WHERE takes
    ON CONFLICT DO NOTHING RETURNING run, job, attempt, sequence
), fresh AS (
    SELECT n, array_agg(sequence) AS sequences
    FROM standing JOIN added USING (run, job, attempt) GROUP BY n
), counted AS (
    SELECT n, stored_below + (
        SELECT count(*) FROM (
            SELECT sequence, row_number() OVER (ORDER BY sequence) - 1 AS rank FROM (
                SELECT sequence FROM records
                WHERE run = standing.run AND job = standing.job AND attempt = standing.attempt
                AND sequence >= stored_below
                UNION ALL
                SELECT sequence FROM UNNEST(sequences) AS added(sequence)
                WHERE sequence >= stored_below
            ) AS all_above
        ) AS ranked WHERE sequence = rank + stored_below
    ) AS below
    FROM standing LEFT JOIN fresh USING (n)
), moved AS (
    UPDATE attempts SET stored_below = counted.below FROM counted JOIN standing USING (n)
    WHERE attempts.run = standing.run AND attempts.job = standing.job
    AND attempts.attempt = standing.attempt AND takes AND standing.stored_below < counted.below
)
SELECT n, state, fence, lease_until_unix_ns, below AS stored_below,
    coalesce(sequences, '{}') AS added
FROM standing JOIN counted USING (n) LEFT JOIN fresh USING (n)";

/// Stores records; see the trait.
pub(super) async fn append(
    store: &PostgresStore,
    batches: &[RecordBatch],
) -> Result<Vec<Result<Appended, StoreError>>, StoreError> {
    let mut answers: Vec<Option<Result<Appended, StoreError>>> = Vec::new();
    answers.resize_with(batches.len(), || None);
    // A statement changes a row once, so that a second batch of one attempt waits for the first.
    let mut left: Vec<Prepared<'_>> = Vec::new();
    for (place, batch) in batches.iter().enumerate() {
        match Prepared::of(place, batch) {
            Ok(prepared) => left.push(prepared),
            Err(error) => answers[place] = Some(Err(error)),
        }
    }
    while !left.is_empty() {
        let mut seen = BTreeSet::new();
        let (now, later): (Vec<_>, Vec<_>) = left
            .into_iter()
            .partition(|prepared| seen.insert(prepared.batch.attempt.job));
        for (place, answer) in add(store, &now).await? {
            answers[place] = Some(answer);
        }
        left = later;
    }
    Ok(answers.into_iter().flatten().collect())
}

/// A batch as it goes into the store.
struct Prepared<'a> {
    place: usize,
    batch: &'a RecordBatch,
    fence: i64,
    columns: Vec<RecordColumns>,
}

impl<'a> Prepared<'a> {
    fn of(place: usize, batch: &'a RecordBatch) -> Result<Self, StoreError> {
        Ok(Self {
            place,
            batch,
            fence: rows::to_i64("fence", batch.attempt.fence)?,
            columns: batch
                .records
                .iter()
                .map(RecordColumns::of)
                .collect::<Result<_, _>>()?,
        })
    }
}

/// Stores batches of different attempts in one statement.
async fn add(
    store: &PostgresStore,
    batches: &[Prepared<'_>],
) -> Result<Vec<(usize, Result<Appended, StoreError>)>, StoreError> {
    let add = database("store records");
    let (runs, jobs, attempts) = attempt_columns(batches.iter().map(|it| it.batch.attempt));
    let fences: Vec<i64> = batches.iter().map(|it| it.fence).collect();
    let records = || {
        (1_i64..).zip(batches).flat_map(|(n, it)| {
            let records = it.batch.records.iter().zip(&it.columns);
            records.map(move |(record, columns)| (n, record, columns))
        })
    };
    let owners: Vec<i64> = records().map(|(n, ..)| n).collect();
    let sequences: Vec<i64> = records().map(|(.., it)| it.sequence).collect();
    let times: Vec<i64> = records().map(|(_, record, _)| record.at_unix_ns).collect();
    let kinds: Vec<&str> = records().map(|(.., it)| it.kind).collect();
    let metrics: Vec<Option<&str>> = records().map(|(.., it)| it.metric).collect();
    let items: Vec<Option<i64>> = records()
        .map(|(.., it)| it.item_index.map(i64::from))
        .collect();
    let payloads: Vec<&[u8]> = records().map(|(.., it)| &*it.payload).collect();
    let found = sqlx::query(ADD)
        // Planned anew each time: a plan that is kept was made while the tables were small, and reads
        // all attempts ever since.
        .persistent(false)
        .bind(&runs)
        .bind(&jobs)
        .bind(&attempts)
        .bind(&fences)
        .bind(&owners)
        .bind(&sequences)
        .bind(&times)
        .bind(&kinds)
        .bind(&metrics)
        .bind(&items)
        .bind(&payloads)
        .fetch_all(&store.records)
        .await
        .map_err(&add)?;
    let mut by_position: BTreeMap<i64, &PgRow> = BTreeMap::new();
    for row in &found {
        by_position.insert(row.number("n")?, row);
    }
    let mut answers = Vec::with_capacity(batches.len());
    for (n, it) in (1..).zip(batches) {
        let attempt = it.batch.attempt;
        let answer = match by_position.get(&n) {
            Some(row) => match standing_of(attempt, row) {
                Ok((appended, added)) => Ok(whole(store, it, appended, added).await?),
                Err(error @ StoreError::Stale { .. }) => Err(error),
                Err(error) => return Err(error),
            },
            None => Err(stale(attempt, "unknown")),
        };
        answers.push((it.place, answer));
    }
    Ok(answers)
}

/// Reads how an attempt stands, and the sequences that were added; `None` if it takes none any more.
fn standing_of(
    attempt: AttemptId,
    row: &PgRow,
) -> Result<(Appended, Option<Vec<i64>>), StoreError> {
    let standing = rows::standing(attempt, row)?;
    let appended = standing.appended(attempt)?;
    if standing.state != AttemptState::Running {
        return Ok((appended, None));
    }
    let added = row.try_get("added").map_err(database("store records"))?;
    Ok((appended, Some(added)))
}

/// Counts what was new of a batch.
async fn whole(
    store: &PostgresStore,
    batch: &Prepared<'_>,
    mut appended: Appended,
    added: Option<Vec<i64>>,
) -> Result<Appended, StoreError> {
    let Some(added) = added else {
        return Ok(appended);
    };
    appended.n_new = added.len() as u64;
    if added.len() < batch.columns.len() {
        let added: BTreeSet<i64> = added.into_iter().collect();
        let attempt = batch.batch.attempt;
        appended.n_conflicts = conflicts(store, attempt, &batch.columns, added).await?;
    }
    Ok(appended)
}

/// Counts leading items; see the trait.
pub(super) async fn items_done_of(
    store: &PostgresStore,
    jobs: &[JobId],
) -> Result<Vec<u64>, StoreError> {
    let (runs, positions) = columns(jobs.iter().copied());
    // Counts the distinct indexes that equal their own rank, i.e. the run without a gap.
    let found = sqlx::query(
        "SELECT n, (SELECT count(*) FROM (SELECT item_index, row_number() OVER (ORDER BY \
         item_index) - 1 AS rank FROM (SELECT DISTINCT item_index FROM records JOIN attempts \
         USING (run, job, attempt) WHERE run = asked.run AND job = asked.job \
         AND item_index IS NOT NULL AND NOT void) AS items) AS ranked WHERE item_index = rank) \
         AS done FROM UNNEST($1::uuid[], $2::bigint[]) WITH ORDINALITY AS asked(run, job, n) \
         ORDER BY n",
    )
    .bind(&runs)
    .bind(&positions)
    .fetch_all(&store.pool)
    .await
    .map_err(database("count items"))?;
    found
        .iter()
        .map(|row| Ok(row.number("done")?.cast_unsigned()))
        .collect()
}

/// Reads facts; see the trait.
pub(super) async fn facts_of(
    store: &PostgresStore,
    jobs: &[JobId],
) -> Result<Vec<Vec<(u32, ModelFacts)>>, StoreError> {
    let (runs, positions) = columns(jobs.iter().copied());
    let found = sqlx::query(
        "SELECT n, it.* FROM UNNEST($1::uuid[], $2::bigint[]) WITH ORDINALITY \
         AS asked(run, job, n) CROSS JOIN LATERAL (SELECT attempt, sequence, payload FROM records \
         WHERE run = asked.run AND job = asked.job AND kind = 'facts' OFFSET 0) AS it \
         ORDER BY n, attempt, sequence",
    )
    .bind(&runs)
    .bind(&positions)
    .fetch_all(&store.pool)
    .await
    .map_err(database("read records"))?;
    let mut rows = found.as_slice();
    let mut facts = Vec::with_capacity(jobs.len());
    for (n, job) in (1..).zip(jobs) {
        let mut end = 0;
        while end < rows.len() && rows[end].number("n")? == n {
            end += 1;
        }
        let (own, rest) = rows.split_at(end);
        facts.push(rows::facts(*job, own)?);
        rows = rest;
    }
    Ok(facts)
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
