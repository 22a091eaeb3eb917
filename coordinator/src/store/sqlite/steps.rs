//! Steps that several transactions have in common.

use sqlx::{Row as _, Sqlite, Transaction};
use tritmark_proto::job::{AttemptId, RunId};

use super::{
    super::{AttemptState, StoreError},
    rows,
};

/// Names the operation that failed.
pub(super) fn database(operation: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| StoreError::Database { operation, source }
}

/// Says why an attempt is not the one that counts.
pub(super) fn stale(attempt: AttemptId, why: &'static str) -> StoreError {
    StoreError::Stale {
        job: attempt.job,
        attempt: attempt.attempt.get(),
        why,
    }
}

/// How an attempt stands.
pub(super) struct Standing {
    pub(super) state: AttemptState,
    pub(super) stored_below: u64,
}

/// Reads how an attempt stands; refuses one that is unknown or has another fence.
pub(super) async fn standing(
    tx: &mut Transaction<'static, Sqlite>,
    attempt: AttemptId,
) -> Result<Standing, StoreError> {
    let row = sqlx::query(
        "SELECT state, stored_below, fence FROM attempts WHERE run = ? AND job = ? AND attempt = ?",
    )
    .bind(attempt.job.run.to_string())
    .bind(attempt.job.index)
    .bind(attempt.attempt.get())
    .fetch_optional(&mut **tx)
    .await
    .map_err(database("look up an attempt"))?
    .ok_or_else(|| stale(attempt, "unknown"))?;
    let fence: i64 = row.get("fence");
    if fence.cast_unsigned() != attempt.fence {
        return Err(stale(attempt, "of another fence"));
    }
    let stored_below: i64 = row.get("stored_below");
    Ok(Standing {
        state: rows::attempt_state(row.get("state"))?,
        stored_below: stored_below.cast_unsigned(),
    })
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
