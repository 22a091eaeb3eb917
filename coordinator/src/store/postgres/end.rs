//! Attempts and runs end.

use std::collections::BTreeMap;

use sqlx::{Postgres, Transaction};
use tritmark_proto::job::{AttemptId, RunId};
use uuid::Uuid;

use super::{PostgresStore, attempt_columns, job_of};
use crate::store::{
    AttemptEnd, AttemptState, Change, StoreError,
    rows::{self, Columns as _, Standing, database, stale},
};

/// Ends attempts; see the trait.
pub(super) async fn end_attempts(
    store: &PostgresStore,
    ends: &[(AttemptId, AttemptEnd)],
) -> Result<Vec<Result<(), StoreError>>, StoreError> {
    let finish = database("end attempts");
    let mut tx = store.begin().await?;
    let mut standings = hold(&mut tx, ends).await?;
    let mut answers = Vec::with_capacity(ends.len());
    let mut accepted = Vec::new();
    for (attempt, end) in ends {
        // Asked twice for one, the second comes too late.
        let answer = may_end(*attempt, end, standings.remove(attempt));
        if answer.is_ok() {
            accepted.push((*attempt, end));
        }
        answers.push(answer);
    }
    if accepted.is_empty() {
        return Ok(answers);
    }
    write(&mut tx, &accepted).await?;
    let mut last_ends: BTreeMap<RunId, i64> = BTreeMap::new();
    for (attempt, end) in &accepted {
        if end.job_state.is_final() {
            last_ends.insert(attempt.job.run, end.at_unix_ns);
        }
    }
    end_runs_if_done(&mut tx, &last_ends).await?;
    let jobs = accepted.iter().map(|(attempt, _)| attempt.job).collect();
    store.tell(&mut tx, &[Change::Jobs(jobs)]).await?;
    tx.commit().await.map_err(&finish)?;
    Ok(answers)
}

/// Holds attempts and their jobs until the end of the transaction and reads how they stand.
async fn hold(
    tx: &mut Transaction<'static, Postgres>,
    ends: &[(AttemptId, AttemptEnd)],
) -> Result<BTreeMap<AttemptId, Result<Standing, StoreError>>, StoreError> {
    let (runs, jobs, attempts) = attempt_columns(ends.iter().map(|(attempt, _)| *attempt));
    let found = sqlx::query(
        "SELECT run, job, attempt, attempts.state, stored_below, fence, lease_until_unix_ns \
         FROM attempts JOIN jobs USING (run, job) WHERE (run, job, attempt) IN \
         (SELECT * FROM UNNEST($1::uuid[], $2::bigint[], $3::bigint[])) \
         ORDER BY run, job, attempt FOR NO KEY UPDATE",
    )
    .bind(&runs)
    .bind(&jobs)
    .bind(&attempts)
    .fetch_all(&mut **tx)
    .await
    .map_err(database("look up attempts"))?;
    let mut by_name = BTreeMap::new();
    for row in &found {
        by_name.insert((job_of(row)?, row.number("attempt")?), row);
    }
    Ok(ends
        .iter()
        .filter_map(|(attempt, _)| {
            let row = by_name.get(&(attempt.job, i64::from(attempt.attempt.get())))?;
            Some((*attempt, rows::standing(*attempt, *row)))
        })
        .collect())
}

fn may_end(
    attempt: AttemptId,
    end: &AttemptEnd,
    standing: Option<Result<Standing, StoreError>>,
) -> Result<(), StoreError> {
    let standing = standing.ok_or_else(|| stale(attempt, "unknown"))??;
    if standing.state != AttemptState::Running {
        return Err(stale(attempt, "over"));
    }
    match end.if_lease_over_by_unix_ns {
        Some(by) if standing.lease_until_unix_ns > by => Err(stale(attempt, "alive")),
        _ => Ok(()),
    }
}

/// Writes the ends of attempts and what becomes of their jobs.
async fn write(
    tx: &mut Transaction<'static, Postgres>,
    ends: &[(AttemptId, &AttemptEnd)],
) -> Result<(), StoreError> {
    let write = database("end attempts");
    let (runs, jobs, attempts) = attempt_columns(ends.iter().map(|(attempt, _)| *attempt));
    let mut states = Vec::new();
    let mut job_states = Vec::new();
    let mut times = Vec::new();
    let mut n_records = Vec::new();
    let mut failures = Vec::new();
    let mut counts = Vec::new();
    let mut details = Vec::new();
    for (_, end) in ends {
        states.push(end.state.name());
        job_states.push(end.job_state.name());
        times.push(end.at_unix_ns);
        n_records.push(
            end.n_records
                .map(|n| rows::to_i64("number of records", n))
                .transpose()?,
        );
        failures.push(
            end.failure
                .as_ref()
                .map(|failure| rows::to_json("a failure", failure))
                .transpose()?,
        );
        counts.push(end.counts);
        // A text of PostgreSQL has no zero byte.
        details.push(
            end.failure
                .as_ref()
                .map_or(String::new(), |failure| failure.message.replace('\0', "")),
        );
    }
    sqlx::query(
        "WITH e AS (SELECT * FROM UNNEST($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], \
         $5::text[], $6::bigint[], $7::bigint[], $8::text[], $9::boolean[], $10::text[]) \
         AS e(run, job, attempt, state, job_state, at, n_records, failure, counts, detail)), \
         ended AS (UPDATE attempts SET state = e.state, ended_unix_ns = e.at, \
         n_records = e.n_records, failure = e.failure, counts = e.counts FROM e \
         WHERE attempts.run = e.run AND attempts.job = e.job AND attempts.attempt = e.attempt), \
         moved AS (UPDATE jobs SET state = e.job_state FROM e \
         WHERE jobs.run = e.run AND jobs.job = e.job) \
         INSERT INTO events (at_unix_ns, run, job, attempt, kind, detail) \
         SELECT at, run, job, attempt, state, detail FROM e",
    )
    .bind(&runs)
    .bind(&jobs)
    .bind(&attempts)
    .bind(&states)
    .bind(&job_states)
    .bind(&times)
    .bind(&n_records)
    .bind(&failures)
    .bind(&counts)
    .bind(&details)
    .execute(&mut **tx)
    .await
    .map_err(&write)?;
    for (attempt, _) in ends.iter().filter(|(_, end)| end.voids_earlier) {
        sqlx::query("UPDATE attempts SET void = TRUE WHERE run = $1 AND job = $2 AND attempt < $3")
            .bind(attempt.job.run.0)
            .bind(i64::from(attempt.job.index))
            .bind(i64::from(attempt.attempt.get()))
            .execute(&mut **tx)
            .await
            .map_err(&write)?;
    }
    Ok(())
}

/// Marks runs as ended, at the times given, of whose jobs none has anything to come.
pub(super) async fn end_runs_if_done(
    tx: &mut Transaction<'static, Postgres>,
    runs: &BTreeMap<RunId, i64>,
) -> Result<(), StoreError> {
    if runs.is_empty() {
        return Ok(());
    }
    let end = database("end runs");
    let (ids, times): (Vec<Uuid>, Vec<i64>) = runs.iter().map(|(run, at)| (run.0, *at)).unzip();
    // Two transactions that each end one of the last two jobs must not both see the other's as
    // running: the second waits here, and its next statement sees the first's.
    sqlx::query("SELECT id FROM runs WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE")
        .bind(&ids)
        .execute(&mut **tx)
        .await
        .map_err(&end)?;
    sqlx::query(
        "WITH ended AS (UPDATE runs SET ended_unix_ns = w.at \
         FROM UNNEST($1::uuid[], $2::bigint[]) AS w(id, at) WHERE runs.id = w.id \
         AND ended_unix_ns IS NULL AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.run = runs.id \
         AND state IN ('queued', 'running')) RETURNING runs.id, ended_unix_ns), \
         noted AS (INSERT INTO events (at_unix_ns, run, kind) \
         SELECT ended_unix_ns, id, 'ended' FROM ended) \
         DELETE FROM pins USING ended WHERE pins.run = ended.id",
    )
    .bind(&ids)
    .bind(&times)
    .execute(&mut **tx)
    .await
    .map_err(&end)?;
    Ok(())
}

/// Cancels a run; see the trait.
pub(super) async fn cancel_run(
    store: &PostgresStore,
    run: RunId,
    at_unix_ns: i64,
) -> Result<(), StoreError> {
    let cancel = database("cancel a run");
    let mut tx = store.begin().await?;
    sqlx::query(
        "SELECT job FROM jobs WHERE run = $1 AND state IN ('queued', 'running') ORDER BY job \
         FOR NO KEY UPDATE",
    )
    .bind(run.0)
    .execute(&mut *tx)
    .await
    .map_err(&cancel)?;
    // A new statement, as an attempt may have begun while the first waited for its job.
    sqlx::query(
        "WITH stopped AS (UPDATE attempts SET state = 'cancelled', ended_unix_ns = $2 \
         WHERE run = $1 AND state = 'running') UPDATE jobs SET state = 'cancelled' \
         WHERE run = $1 AND state IN ('queued', 'running')",
    )
    .bind(run.0)
    .bind(at_unix_ns)
    .execute(&mut *tx)
    .await
    .map_err(&cancel)?;
    sqlx::query("INSERT INTO events (at_unix_ns, run, kind) VALUES ($1, $2, 'cancelled')")
        .bind(at_unix_ns)
        .bind(run.0)
        .execute(&mut *tx)
        .await
        .map_err(&cancel)?;
    end_runs_if_done(&mut tx, &BTreeMap::from([(run, at_unix_ns)])).await?;
    store.tell(&mut tx, &[Change::Run(run)]).await?;
    tx.commit().await.map_err(&cancel)
}
