//! Attempts and runs end.

use std::collections::BTreeMap;

use sqlx::{Postgres, Transaction, postgres::PgRow};
use tritmark_proto::job::{AttemptId, RunId};
use uuid::Uuid;

use super::{PostgresStore, attempt_columns, changes::CHANNEL};
use crate::store::{
    AttemptEnd, AttemptState, Change, StoreError,
    rows::{self, Columns as _, database, stale},
};

/// Ends attempts; see the trait. The function is in `migrations/postgres/0006_at_once.sql`.
pub(super) async fn end_attempts(
    store: &PostgresStore,
    ends: &[(AttemptId, AttemptEnd)],
) -> Result<Vec<Result<(), StoreError>>, StoreError> {
    let finish = database("end attempts");
    let (runs, jobs, attempts) = attempt_columns(ends.iter().map(|(attempt, _)| *attempt));
    let mut fences = Vec::new();
    let mut unless_alive = Vec::new();
    let mut states = Vec::new();
    let mut job_states = Vec::new();
    let mut times = Vec::new();
    let mut n_records = Vec::new();
    let mut failures = Vec::new();
    let mut counts = Vec::new();
    let mut voids = Vec::new();
    let mut details = Vec::new();
    for (attempt, end) in ends {
        fences.push(rows::to_i64("fence", attempt.fence)?);
        unless_alive.push(end.if_lease_over_by_unix_ns);
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
        voids.push(end.voids_earlier);
        // A text of PostgreSQL has no zero byte.
        details.push(
            end.failure
                .as_ref()
                .map_or(String::new(), |failure| failure.message.replace('\0', "")),
        );
    }
    let told = store.words(&[Change::Jobs(
        ends.iter().map(|(attempt, _)| attempt.job).collect(),
    )]);
    let found = sqlx::query(
        "SELECT n, is_ended, state, stored_below, fence, lease_until_unix_ns FROM end_attempts(\
         $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
    )
    .bind(&runs)
    .bind(&jobs)
    .bind(&attempts)
    .bind(&fences)
    .bind(&unless_alive)
    .bind(&states)
    .bind(&job_states)
    .bind(&times)
    .bind(&n_records)
    .bind(&failures)
    .bind(&counts)
    .bind(&voids)
    .bind(&details)
    .bind(CHANNEL)
    .bind(&told)
    .fetch_all(&store.pool)
    .await
    .map_err(&finish)?;
    let mut by_position = BTreeMap::new();
    for row in &found {
        by_position.insert(row.number("n")?, row);
    }
    (1..)
        .zip(ends)
        .map(
            |(position, (attempt, _))| match by_position.get(&position) {
                Some(row) => answer(*attempt, row),
                None => Ok(Err(stale(*attempt, "unknown"))),
            },
        )
        .collect()
}

/// Reads what became of an end.
fn answer(attempt: AttemptId, row: &PgRow) -> Result<Result<(), StoreError>, StoreError> {
    if row.flag("is_ended")? {
        return Ok(Ok(()));
    }
    Ok(Err(match rows::standing(attempt, row) {
        Ok(standing) if standing.state == AttemptState::Running => stale(attempt, "alive"),
        Ok(_) => stale(attempt, "over"),
        Err(error @ StoreError::Stale { .. }) => error,
        Err(error) => return Err(error),
    }))
}

/// Marks runs as ended, at the times given, of whose jobs none has anything to come.
pub(super) async fn end_runs_if_done(
    tx: &mut Transaction<'static, Postgres>,
    runs: &BTreeMap<RunId, i64>,
) -> Result<(), StoreError> {
    if runs.is_empty() {
        return Ok(());
    }
    let (ids, times): (Vec<Uuid>, Vec<i64>) = runs.iter().map(|(run, at)| (run.0, *at)).unzip();
    sqlx::query("SELECT end_runs_if_done($1, $2)")
        .bind(&ids)
        .bind(&times)
        .execute(&mut **tx)
        .await
        .map_err(database("end runs"))?;
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
