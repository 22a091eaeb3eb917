//! Records are added, and attempts asked how far they are.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{Row as _, postgres::PgRow};
use tracing::warn;
use tritmark_proto::{
    job::{AttemptId, JobId},
    record::{ModelFacts, Record},
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
/// `$1` to `$4` are the attempts with their fences, `$5` and `$6` the first sequence of each batch and the
/// one behind its last: a batch has no gap. `$7` tells by position in them whose a record is. What is
/// below `$6` is stored once the statement is done if all below `$5` was, whoever added it, so that the
/// rows it adds need not be counted; what there was behind them is, if there was anything.
///
/// Each row is looked up by its key, and no two parts that grow with the batches are joined by anything
/// but a hash: the planner, who expects few rows, would compare each with each.
const ADD: &str = "\
WITH standing AS MATERIALIZED (
    SELECT n, run, job, attempt, state, attempts.fence, stored_below, lease_until_unix_ns,
        state = 'running' AND attempts.fence = asked.fence AS takes,
        CASE WHEN stored_below >= first THEN greatest(stored_below, next) ELSE stored_below END AS base
    FROM UNNEST($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
        WITH ORDINALITY AS asked(run, job, attempt, fence, first, next, n)
    JOIN attempts USING (run, job, attempt)
    ORDER BY run, job, attempt FOR NO KEY UPDATE OF attempts
), counted AS MATERIALIZED (
    SELECT *, CASE WHEN NOT takes THEN stored_below WHEN NOT EXISTS (
        SELECT FROM records WHERE run = standing.run AND job = standing.job
        AND attempt = standing.attempt AND sequence = base
    ) THEN base ELSE base + (
        SELECT count(*) FROM (
            SELECT sequence, row_number() OVER (ORDER BY sequence) - 1 AS rank FROM records
            WHERE run = standing.run AND job = standing.job AND attempt = standing.attempt
            AND sequence >= base
        ) AS ranked WHERE sequence = rank + base
    ) END AS below
    FROM standing
), added AS (
    INSERT INTO records (run, job, attempt, sequence, at_unix_ns, kind, metric, item_index, payload)
    SELECT run, job, attempt, sequence, at, kind, metric, item_index, payload
    FROM UNNEST($7::bigint[], $8::bigint[], $9::bigint[], $10::text[], $11::text[], $12::bigint[],
        $13::bytea[]) AS r(n, sequence, at, kind, metric, item_index, payload)
    JOIN standing USING (n) WHERE takes
    ON CONFLICT DO NOTHING RETURNING run, job, attempt, sequence
), moved AS (
    UPDATE attempts SET stored_below = counted.below FROM counted
    WHERE attempts.run = counted.run AND attempts.job = counted.job
    AND attempts.attempt = counted.attempt AND takes AND counted.stored_below < counted.below
)
SELECT run, job, attempt, state, fence, lease_until_unix_ns, below AS stored_below, NULL AS added
FROM counted
UNION ALL
SELECT run, job, attempt, NULL, NULL, NULL, NULL, array_agg(sequence)
FROM added GROUP BY run, job, attempt";

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
            Ok(prepared) => left.extend(prepared),
            Err(error) => answers[place] = Some(Err(error)),
        }
    }
    while !left.is_empty() {
        let mut seen = BTreeSet::new();
        let (now, later): (Vec<_>, Vec<_>) = left
            .into_iter()
            .partition(|prepared| seen.insert(prepared.attempt.job));
        for (place, answer) in add(store, &now).await? {
            answers[place] = Some(match (answers[place].take(), answer) {
                (Some(Ok(before)), Ok(now)) => Ok(Appended {
                    n_new: before.n_new + now.n_new,
                    n_conflicts: before.n_conflicts + now.n_conflicts,
                    ..now
                }),
                (Some(Err(error)), _) | (_, Err(error)) => Err(error),
                (None, answer) => answer,
            });
        }
        left = later;
    }
    Ok(answers.into_iter().flatten().collect())
}

/// Records of an attempt that go into the store together: their sequences have no gap.
struct Prepared<'a> {
    place: usize,
    attempt: AttemptId,
    fence: i64,
    /// In the order of their sequences; of several with one, the first is stored.
    records: Vec<(&'a Record, RecordColumns)>,
}

impl<'a> Prepared<'a> {
    /// Prepares a batch: as one, unless there are gaps in it.
    fn of(place: usize, batch: &'a RecordBatch) -> Result<Vec<Self>, StoreError> {
        let fence = rows::to_i64("fence", batch.attempt.fence)?;
        let mut records = batch
            .records
            .iter()
            .map(|record| Ok((record, RecordColumns::of(record)?)))
            .collect::<Result<Vec<_>, StoreError>>()?;
        records.sort_by_key(|(_, columns)| columns.sequence);
        let mut prepared = vec![Self {
            place,
            attempt: batch.attempt,
            fence,
            records: Vec::new(),
        }];
        for it in records {
            let last = prepared.len() - 1;
            let is_next = prepared[last]
                .next()
                .is_none_or(|next| it.1.sequence <= next);
            if is_next {
                prepared[last].records.push(it);
            } else {
                prepared.push(Self {
                    place,
                    attempt: batch.attempt,
                    fence,
                    records: vec![it],
                });
            }
        }
        Ok(prepared)
    }

    /// The first sequence.
    fn first(&self) -> Option<i64> {
        self.records.first().map(|(_, columns)| columns.sequence)
    }

    /// The sequence behind the last.
    fn next(&self) -> Option<i64> {
        let last = self.records.last();
        last.map(|(_, columns)| columns.sequence.saturating_add(1))
    }
}

/// Stores records of different attempts in one statement.
async fn add(
    store: &PostgresStore,
    batches: &[Prepared<'_>],
) -> Result<Vec<(usize, Result<Appended, StoreError>)>, StoreError> {
    let add = database("store records");
    let (runs, jobs, attempts) = attempt_columns(batches.iter().map(|it| it.attempt));
    let fences: Vec<i64> = batches.iter().map(|it| it.fence).collect();
    let firsts: Vec<i64> = batches.iter().map(|it| it.first().unwrap_or(0)).collect();
    let nexts: Vec<i64> = batches.iter().map(|it| it.next().unwrap_or(0)).collect();
    let records = || {
        (1_i64..).zip(batches).flat_map(|(n, it)| {
            let records = it.records.iter();
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
        .bind(&runs)
        .bind(&jobs)
        .bind(&attempts)
        .bind(&fences)
        .bind(&firsts)
        .bind(&nexts)
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
    let mut standings: BTreeMap<JobId, &PgRow> = BTreeMap::new();
    let mut added: BTreeMap<JobId, Vec<i64>> = BTreeMap::new();
    for row in &found {
        let sequences: Option<Vec<i64>> = row.try_get("added").map_err(&add)?;
        match sequences {
            None => drop(standings.insert(job_of(row)?, row)),
            Some(sequences) => drop(added.insert(job_of(row)?, sequences)),
        }
    }
    let mut answers = Vec::with_capacity(batches.len());
    for it in batches {
        let job = it.attempt.job;
        let answer = match standings.get(&job) {
            Some(row) => match standing_of(it.attempt, row) {
                Ok((appended, false)) => Ok(appended),
                Ok((appended, true)) => {
                    let added = added.remove(&job).unwrap_or_default();
                    Ok(whole(store, it, appended, added).await?)
                }
                Err(error @ StoreError::Stale { .. }) => Err(error),
                Err(error) => return Err(error),
            },
            None => Err(stale(it.attempt, "unknown")),
        };
        answers.push((it.place, answer));
    }
    Ok(answers)
}

/// Reads how an attempt stands, and whether it takes records.
fn standing_of(attempt: AttemptId, row: &PgRow) -> Result<(Appended, bool), StoreError> {
    let standing = rows::standing(attempt, row)?;
    let appended = standing.appended(attempt)?;
    Ok((appended, standing.state == AttemptState::Running))
}

/// Counts what was new of a batch.
async fn whole(
    store: &PostgresStore,
    batch: &Prepared<'_>,
    mut appended: Appended,
    added: Vec<i64>,
) -> Result<Appended, StoreError> {
    appended.n_new = added.len() as u64;
    if added.len() < batch.records.len() {
        let added: BTreeSet<i64> = added.into_iter().collect();
        let records = batch.records.iter().map(|(_, columns)| columns);
        appended.n_conflicts = conflicts(store, batch.attempt, records, added).await?;
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
async fn conflicts<'a>(
    store: &PostgresStore,
    attempt: AttemptId,
    records: impl Iterator<Item = &'a RecordColumns>,
    mut added: BTreeSet<i64>,
) -> Result<u64, StoreError> {
    let look = database("compare records");
    // The first of several with one sequence was added; the others are compared with it.
    let there: Vec<&RecordColumns> = records
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
