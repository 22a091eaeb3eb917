//! Attempts begin, are taken up again, and go on.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::postgres::PgRow;
use tritmark_proto::job::AttemptId;

use super::{PostgresStore, attempt_columns, changes::CHANNEL, columns};
use crate::store::{
    AttemptStart, AttemptState, Change, StoreError, StoredAttempt,
    rows::{self, Columns as _, database, stale},
};

/// Begins attempts; see the trait. The function is in `migrations/postgres/0006_at_once.sql`.
pub(super) async fn start_attempts(
    store: &PostgresStore,
    starts: &[AttemptStart],
) -> Result<Vec<Result<StoredAttempt, StoreError>>, StoreError> {
    let begin = database("start attempts");
    let (runs, jobs) = columns(starts.iter().map(|start| start.job));
    let agents: Vec<&str> = starts.iter().map(|start| &*start.agent_id).collect();
    let machines: Vec<&str> = starts.iter().map(|start| &*start.machine_id).collect();
    let started: Vec<i64> = starts.iter().map(|start| start.at_unix_ns).collect();
    let leases: Vec<i64> = starts
        .iter()
        .map(|start| start.lease_until_unix_ns)
        .collect();
    let exclusive = || starts.iter().map(|start| start.exclusive.as_ref());
    let comparisons: Vec<Option<&str>> = exclusive()
        .map(|exclusive| exclusive.map(|it| &*it.comparison))
        .collect();
    let believed: Vec<Option<&str>> = exclusive()
        .map(|exclusive| exclusive.and_then(|it| it.pinned_to.as_deref()))
        .collect();
    // Of one that is refused the others hear too: they look, and nothing has changed.
    let told = store.words(&[Change::Jobs(starts.iter().map(|start| start.job).collect())]);
    let found = sqlx::query(
        "SELECT n, refused, attempt, fence, began \
         FROM begin_attempts($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(store.coordinator)
    .bind(&runs)
    .bind(&jobs)
    .bind(&agents)
    .bind(&machines)
    .bind(&started)
    .bind(&leases)
    .bind(&comparisons)
    .bind(&believed)
    .bind(CHANNEL)
    .bind(&told)
    .fetch_all(&store.pool)
    .await
    .map_err(&begin)?;
    let mut by_position = BTreeMap::new();
    for row in &found {
        by_position.insert(row.number("n")?, row);
    }
    (1..)
        .zip(starts)
        .map(|(position, start)| match by_position.get(&position) {
            Some(row) => answer(start, row),
            None => Err(damaged(start, &"there is no answer")),
        })
        .collect()
}

fn damaged(start: &AttemptStart, problem: &dyn ToString) -> StoreError {
    rows::damaged(
        format!("the start of an attempt of job {}", start.job),
        problem,
    )
}

/// Reads what became of a start.
fn answer(
    start: &AttemptStart,
    row: &PgRow,
) -> Result<Result<StoredAttempt, StoreError>, StoreError> {
    let taken = |why| StoreError::Taken {
        job: start.job,
        why,
    };
    Ok(Err(match row.text_if_any("refused")? {
        None => {
            let id = rows::attempt_id(start.job, row.number("attempt")?, row.number("fence")?)?;
            return Ok(Ok(StoredAttempt {
                started_unix_ns: row.number("began")?,
                ..start.begun(id)
            }));
        }
        Some("queued") => StoreError::NotQueued { job: start.job },
        Some("elsewhere") => taken("its agent is not linked to this coordinator"),
        Some("busy") => taken("its machine is busy"),
        Some("pinned") => taken("its comparison is measured on another machine"),
        Some(other) => return Err(damaged(start, &other)),
    }))
}

/// Takes a lost attempt up again; see the trait.
pub(super) async fn revive_attempt(
    store: &PostgresStore,
    attempt: AttemptId,
    at_unix_ns: i64,
    lease_until_unix_ns: i64,
) -> Result<(), StoreError> {
    let revive = database("take an attempt up again");
    let mut tx = store.begin().await?;
    let (run, job) = (attempt.job.run.0, i64::from(attempt.job.index));
    let row = sqlx::query(
        "SELECT attempts.state, stored_below, fence, lease_until_unix_ns FROM attempts \
         JOIN jobs USING (run, job) WHERE run = $1 AND job = $2 AND attempt = $3 \
         FOR NO KEY UPDATE",
    )
    .bind(run)
    .bind(job)
    .bind(i64::from(attempt.attempt.get()))
    .fetch_optional(&mut *tx)
    .await
    .map_err(&revive)?
    .ok_or_else(|| stale(attempt, "unknown"))?;
    if rows::standing(attempt, &row)?.state != AttemptState::Lost {
        return Err(stale(attempt, "not lost"));
    }
    let n_revived = sqlx::query(
        "UPDATE jobs SET state = 'running' WHERE run = $1 AND job = $2 AND state = 'queued' \
         AND $3 = (SELECT max(attempt) FROM attempts WHERE run = $1 AND job = $2)",
    )
    .bind(run)
    .bind(job)
    .bind(i64::from(attempt.attempt.get()))
    .execute(&mut *tx)
    .await
    .map_err(&revive)?
    .rows_affected();
    if n_revived == 0 {
        return Err(StoreError::NotQueued { job: attempt.job });
    }
    sqlx::query(
        "WITH revived AS (UPDATE attempts SET state = 'running', ended_unix_ns = NULL, \
         failure = NULL, counts = TRUE, lease_until_unix_ns = $4 \
         WHERE run = $1 AND job = $2 AND attempt = $3 RETURNING run, job, attempt) \
         INSERT INTO events (at_unix_ns, run, job, attempt, kind) \
         SELECT $5, run, job, attempt, 'revived' FROM revived",
    )
    .bind(run)
    .bind(job)
    .bind(i64::from(attempt.attempt.get()))
    .bind(lease_until_unix_ns)
    .bind(at_unix_ns)
    .execute(&mut *tx)
    .await
    .map_err(&revive)?;
    store
        .tell(&mut tx, &[Change::Jobs(vec![attempt.job])])
        .await?;
    tx.commit().await.map_err(&revive)
}

/// Moves leases; see the trait.
pub(super) async fn renew_leases(
    store: &PostgresStore,
    leases: &[(AttemptId, i64)],
) -> Result<Vec<AttemptId>, StoreError> {
    if leases.is_empty() {
        return Ok(Vec::new());
    }
    let renew = database("renew leases");
    let mut leases = leases.to_vec();
    leases.sort_unstable();
    let (runs, jobs, attempts) = attempt_columns(leases.iter().map(|(attempt, _)| *attempt));
    let fences: Vec<i64> = leases
        .iter()
        .map(|(attempt, _)| rows::to_i64("fence", attempt.fence))
        .collect::<Result<_, _>>()?;
    let until: Vec<i64> = leases.iter().map(|(_, until)| *until).collect();
    let renewed = sqlx::query(
        "UPDATE attempts SET lease_until_unix_ns = l.until FROM UNNEST($1::uuid[], $2::bigint[], \
         $3::bigint[], $4::bigint[], $5::bigint[]) AS l(run, job, attempt, fence, until) \
         WHERE attempts.run = l.run AND attempts.job = l.job AND attempts.attempt = l.attempt \
         AND attempts.fence = l.fence AND state = 'running' RETURNING attempts.fence",
    )
    .bind(&runs)
    .bind(&jobs)
    .bind(&attempts)
    .bind(&fences)
    .bind(&until)
    .fetch_all(&store.pool)
    .await
    .map_err(&renew)?;
    let renewed: BTreeSet<i64> = renewed
        .iter()
        .map(|row| row.number("fence"))
        .collect::<Result<_, _>>()?;
    Ok(leases
        .iter()
        .map(|(attempt, _)| *attempt)
        .filter(|attempt| !renewed.contains(&attempt.fence.cast_signed()))
        .collect())
}
