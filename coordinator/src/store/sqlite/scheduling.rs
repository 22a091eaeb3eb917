//! What goes before what, until when, and what waits for a person's word.

use tritmark_proto::job::RunId;

use super::{
    SqliteStore,
    steps::{end_run_if_done, event},
};
use crate::store::{
    Quarantine, StoreError, StoredCalibration, expiry,
    rows::{self, database},
};

/// Pauses a run or lets it go on; see the trait.
pub(super) async fn pause_run(
    store: &SqliteStore,
    run: RunId,
    since_unix_ns: Option<i64>,
    at_unix_ns: i64,
) -> Result<(), StoreError> {
    let pause = database("pause a run");
    let mut tx = store.begin().await?;
    let n_changed = sqlx::query(
        "UPDATE runs SET paused_unix_ns = ?1 WHERE id = ?2 AND ended_unix_ns IS NULL \
         AND (paused_unix_ns IS NULL) <> (?1 IS NULL)",
    )
    .bind(since_unix_ns)
    .bind(run.to_string())
    .execute(&mut *tx)
    .await
    .map_err(&pause)?
    .rows_affected();
    if n_changed == 1 {
        let kind = if since_unix_ns.is_some() {
            "paused"
        } else {
            "resumed"
        };
        event(&mut tx, at_unix_ns, run, None, kind, "").await?;
    }
    tx.commit().await.map_err(&pause)
}

/// Gives up jobs that nobody has begun in time; see the trait.
pub(super) async fn expire_jobs(
    store: &SqliteStore,
    run: RunId,
    jobs: &[(u32, u32)],
    at_unix_ns: i64,
) -> Result<Vec<u32>, StoreError> {
    let expire = database("let jobs expire");
    let failure = rows::to_json("a failure", &expiry())?;
    let mut tx = store.begin().await?;
    let mut expired = Vec::new();
    for (job, n_attempts) in jobs {
        let n_expired = sqlx::query(
            "UPDATE jobs SET state = 'failed', failure = ?3 WHERE run = ?1 AND job = ?2 \
             AND state = 'queued' AND ?4 = (SELECT count(*) FROM attempts \
             WHERE run = ?1 AND job = ?2)",
        )
        .bind(run.to_string())
        .bind(job)
        .bind(&failure)
        .bind(n_attempts)
        .execute(&mut *tx)
        .await
        .map_err(&expire)?
        .rows_affected();
        if n_expired == 1 {
            expired.push(*job);
        }
    }
    if !expired.is_empty() {
        let detail = format!("{} jobs", expired.len());
        event(&mut tx, at_unix_ns, run, None, "expired", &detail).await?;
        end_run_if_done(&mut tx, run, at_unix_ns).await?;
    }
    tx.commit().await.map_err(&expire)?;
    Ok(expired)
}

/// Notes that an agent was told to leave, or has heard; see the trait.
pub(super) async fn ask_drain(
    store: &SqliteStore,
    agent_id: &str,
    since_unix_ns: Option<i64>,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE agents SET drain_unix_ns = ? WHERE id = ?")
        .bind(since_unix_ns)
        .bind(agent_id)
        .execute(&store.writer)
        .await
        .map_err(database("tell an agent to leave"))?;
    Ok(())
}

/// Keeps performance jobs from an agent; see the trait.
pub(super) async fn quarantine(
    store: &SqliteStore,
    agent_id: &str,
    why: &Quarantine,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE agents SET quarantined_unix_ns = ?, quarantine_reason = ? \
         WHERE id = ? AND quarantined_unix_ns IS NULL",
    )
    .bind(why.since_unix_ns)
    .bind(&why.reason)
    .bind(agent_id)
    .execute(&store.writer)
    .await
    .map_err(database("quarantine an agent"))?;
    Ok(())
}

/// Takes an agent out of quarantine; see the trait.
pub(super) async fn release_agent(store: &SqliteStore, agent_id: &str) -> Result<(), StoreError> {
    let release = database("release an agent");
    let mut tx = store.begin().await?;
    sqlx::query(
        "UPDATE calibrations SET counts = at_unix_ns = (SELECT max(at_unix_ns) \
         FROM calibrations AS c WHERE c.machine = calibrations.machine) \
         WHERE machine = (SELECT machine FROM agents WHERE id = ? \
         AND quarantined_unix_ns IS NOT NULL)",
    )
    .bind(agent_id)
    .execute(&mut *tx)
    .await
    .map_err(&release)?;
    sqlx::query(
        "UPDATE agents SET quarantined_unix_ns = NULL, quarantine_reason = NULL WHERE id = ?",
    )
    .bind(agent_id)
    .execute(&mut *tx)
    .await
    .map_err(&release)?;
    tx.commit().await.map_err(&release)
}

/// Adds a calibration; see the trait.
pub(super) async fn add_calibration(
    store: &SqliteStore,
    calibration: &StoredCalibration,
) -> Result<(), StoreError> {
    let StoredCalibration {
        machine_id,
        at_unix_ns,
        agent_id,
        boot_id,
        counts,
        calibration,
    } = calibration;
    sqlx::query(
        "INSERT OR IGNORE INTO calibrations (machine, at_unix_ns, agent, boot_id, counts, spec) \
         VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(machine_id)
    .bind(at_unix_ns)
    .bind(agent_id)
    .bind(boot_id)
    .bind(counts)
    .bind(rows::to_json("a calibration", calibration)?)
    .execute(&store.writer)
    .await
    .map_err(database("store a calibration"))?;
    Ok(())
}

/// Returns a machine's latest calibrations; see the trait.
pub(super) async fn calibrations(
    store: &SqliteStore,
    machine_id: &str,
    at_most: u32,
) -> Result<Vec<StoredCalibration>, StoreError> {
    sqlx::query(
        "SELECT * FROM calibrations WHERE machine = ? ORDER BY at_unix_ns DESC, agent LIMIT ?",
    )
    .bind(machine_id)
    .bind(at_most)
    .fetch_all(&store.readers)
    .await
    .map_err(database("read calibrations"))?
    .iter()
    .map(rows::calibration)
    .collect()
}
