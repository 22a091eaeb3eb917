//! Steps that several transactions have in common.

use sqlx::{Sqlite, SqliteConnection, Transaction};
use tritmark_proto::job::{AttemptId, RunId};

use super::{
    super::StoreError,
    rows::{self, Standing, database, stale},
};

/// Reads how an attempt stands; refuses one that is unknown or has another fence.
pub(super) async fn standing(
    connection: &mut SqliteConnection,
    attempt: AttemptId,
) -> Result<Standing, StoreError> {
    let row = sqlx::query(
        "SELECT state, stored_below, fence, lease_until_unix_ns FROM attempts \
         WHERE run = ? AND job = ? AND attempt = ?",
    )
    .bind(attempt.job.run.to_string())
    .bind(attempt.job.index)
    .bind(attempt.attempt.get())
    .fetch_optional(connection)
    .await
    .map_err(database("look up an attempt"))?
    .ok_or_else(|| stale(attempt, "unknown"))?;
    rows::standing(attempt, &row)
}

/// Moves `stored_below` over what is stored without a gap.
pub(super) async fn advance(
    tx: &mut Transaction<'static, Sqlite>,
    attempt: AttemptId,
    stored_below: u64,
) -> Result<u64, StoreError> {
    let advance = database("count records");
    let run = attempt.job.run.to_string();
    let from = stored_below.cast_signed();
    let n: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT sequence, row_number() OVER (ORDER BY sequence) - 1 AS rank \
         FROM records WHERE run = ?1 AND job = ?2 AND attempt = ?3 AND sequence >= ?4) \
         WHERE sequence = rank + ?4",
    )
    .bind(&run)
    .bind(attempt.job.index)
    .bind(attempt.attempt.get())
    .bind(from)
    .fetch_one(&mut **tx)
    .await
    .map_err(&advance)?;
    sqlx::query("UPDATE attempts SET stored_below = ? WHERE run = ? AND job = ? AND attempt = ?")
        .bind(from + n)
        .bind(&run)
        .bind(attempt.job.index)
        .bind(attempt.attempt.get())
        .execute(&mut **tx)
        .await
        .map_err(&advance)?;
    Ok((from + n).cast_unsigned())
}

/// Marks a run as ended if none of its jobs has anything to come.
pub(super) async fn end_run_if_done(
    tx: &mut Transaction<'static, Sqlite>,
    run: RunId,
    at_unix_ns: i64,
) -> Result<(), StoreError> {
    let n_ended = sqlx::query(
        "UPDATE runs SET ended_unix_ns = ?1 WHERE id = ?2 AND ended_unix_ns IS NULL AND NOT EXISTS \
         (SELECT 1 FROM jobs WHERE run = ?2 AND state IN ('queued', 'running'))",
    )
    .bind(at_unix_ns)
    .bind(run.to_string())
    .execute(&mut **tx)
    .await
    .map_err(database("end a run"))?
    .rows_affected();
    if n_ended == 1 {
        event(tx, at_unix_ns, run, None, "ended", "").await?;
    }
    Ok(())
}

/// Notes down what happened.
pub(super) async fn event(
    tx: &mut Transaction<'static, Sqlite>,
    at_unix_ns: i64,
    run: RunId,
    attempt: Option<AttemptId>,
    kind: &str,
    detail: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO events (at_unix_ns, run, job, attempt, kind, detail) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(at_unix_ns)
    .bind(run.to_string())
    .bind(attempt.map(|attempt| attempt.job.index))
    .bind(attempt.map(|attempt| attempt.attempt.get()))
    .bind(kind)
    .bind(detail)
    .execute(&mut **tx)
    .await
    .map_err(database("note an event"))?;
    Ok(())
}
