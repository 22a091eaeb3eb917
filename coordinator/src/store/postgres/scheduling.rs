//! What goes before what, until when, and what waits for a person's word.

use std::collections::BTreeMap;

use tritmark_proto::job::RunId;

use super::{PostgresStore, end::end_runs_if_done};
use crate::store::{
    Change, Quarantine, StoreError, StoredCalibration, expiry,
    rows::{self, Columns as _, database},
};

/// Pauses a run or lets it go on; see the trait.
pub(super) async fn pause_run(
    store: &PostgresStore,
    run: RunId,
    since_unix_ns: Option<i64>,
    at_unix_ns: i64,
) -> Result<(), StoreError> {
    let pause = database("pause a run");
    let mut tx = store.begin().await?;
    let n_changed = sqlx::query(
        "UPDATE runs SET paused_unix_ns = $1 WHERE id = $2 AND ended_unix_ns IS NULL \
         AND (paused_unix_ns IS NULL) <> ($1 IS NULL)",
    )
    .bind(since_unix_ns)
    .bind(run.0)
    .execute(&mut *tx)
    .await
    .map_err(&pause)?
    .rows_affected();
    if n_changed == 1 {
        sqlx::query("INSERT INTO events (at_unix_ns, run, kind) VALUES ($1, $2, $3)")
            .bind(at_unix_ns)
            .bind(run.0)
            .bind(if since_unix_ns.is_some() {
                "paused"
            } else {
                "resumed"
            })
            .execute(&mut *tx)
            .await
            .map_err(&pause)?;
        store.tell(&mut tx, &[Change::Run(run)]).await?;
    }
    tx.commit().await.map_err(&pause)
}

/// Gives up jobs that nobody has begun in time; see the trait.
pub(super) async fn expire_jobs(
    store: &PostgresStore,
    run: RunId,
    jobs: &[(u32, u32)],
    at_unix_ns: i64,
) -> Result<Vec<u32>, StoreError> {
    let expire = database("let jobs expire");
    let (positions, n_attempts): (Vec<i64>, Vec<i64>) = jobs
        .iter()
        .map(|(job, n_attempts)| (i64::from(*job), i64::from(*n_attempts)))
        .unzip();
    let mut tx = store.begin().await?;
    // Held first: the next statement sees the attempts as they are then.
    sqlx::query(
        "SELECT job FROM jobs WHERE run = $1 AND job = ANY($2) ORDER BY job FOR NO KEY UPDATE",
    )
    .bind(run.0)
    .bind(&positions)
    .execute(&mut *tx)
    .await
    .map_err(&expire)?;
    let expired = sqlx::query(
        "UPDATE jobs SET state = 'failed', failure = $4 \
         FROM UNNEST($2::bigint[], $3::bigint[]) AS known(job, n_attempts) \
         WHERE jobs.run = $1 AND jobs.job = known.job AND state = 'queued' \
         AND n_attempts = (SELECT count(*) FROM attempts \
         WHERE attempts.run = $1 AND attempts.job = known.job) RETURNING jobs.job",
    )
    .bind(run.0)
    .bind(&positions)
    .bind(&n_attempts)
    .bind(rows::to_json("a failure", &expiry())?)
    .fetch_all(&mut *tx)
    .await
    .map_err(&expire)?;
    let mut expired: Vec<u32> = expired
        .iter()
        .map(|row| rows::to_u32("a job's position", row.number("job")?))
        .collect::<Result<_, _>>()?;
    expired.sort_unstable();
    if !expired.is_empty() {
        sqlx::query(
            "INSERT INTO events (at_unix_ns, run, kind, detail) VALUES ($1, $2, 'expired', $3)",
        )
        .bind(at_unix_ns)
        .bind(run.0)
        .bind(format!("{} jobs", expired.len()))
        .execute(&mut *tx)
        .await
        .map_err(&expire)?;
        end_runs_if_done(&mut tx, &BTreeMap::from([(run, at_unix_ns)])).await?;
        store.tell(&mut tx, &[Change::Run(run)]).await?;
    }
    tx.commit().await.map_err(&expire)?;
    Ok(expired)
}

/// Notes that an agent was told to leave, or has heard; see the trait.
pub(super) async fn ask_drain(
    store: &PostgresStore,
    agent_id: &str,
    since_unix_ns: Option<i64>,
) -> Result<(), StoreError> {
    let ask = database("tell an agent to leave");
    let mut tx = store.begin().await?;
    sqlx::query("UPDATE agents SET drain_unix_ns = $1 WHERE id = $2")
        .bind(since_unix_ns)
        .bind(agent_id)
        .execute(&mut *tx)
        .await
        .map_err(&ask)?;
    store
        .tell(&mut tx, &[Change::Agent(agent_id.to_owned())])
        .await?;
    tx.commit().await.map_err(&ask)
}

/// Keeps performance jobs from an agent; see the trait.
pub(super) async fn quarantine(
    store: &PostgresStore,
    agent_id: &str,
    why: &Quarantine,
) -> Result<(), StoreError> {
    let quarantine = database("quarantine an agent");
    let mut tx = store.begin().await?;
    sqlx::query(
        "UPDATE agents SET quarantined_unix_ns = $1, quarantine_reason = $2 \
         WHERE id = $3 AND quarantined_unix_ns IS NULL",
    )
    .bind(why.since_unix_ns)
    // A text of PostgreSQL has no zero byte.
    .bind(why.reason.replace('\0', ""))
    .bind(agent_id)
    .execute(&mut *tx)
    .await
    .map_err(&quarantine)?;
    store
        .tell(&mut tx, &[Change::Agent(agent_id.to_owned())])
        .await?;
    tx.commit().await.map_err(&quarantine)
}

/// Takes an agent out of quarantine; see the trait.
pub(super) async fn release_agent(store: &PostgresStore, agent_id: &str) -> Result<(), StoreError> {
    let release = database("release an agent");
    let mut tx = store.begin().await?;
    sqlx::query(
        "UPDATE calibrations SET counts = (at_unix_ns = (SELECT max(at_unix_ns) \
         FROM calibrations AS c WHERE c.machine = calibrations.machine)) \
         WHERE machine = (SELECT machine FROM agents WHERE id = $1 \
         AND quarantined_unix_ns IS NOT NULL)",
    )
    .bind(agent_id)
    .execute(&mut *tx)
    .await
    .map_err(&release)?;
    sqlx::query(
        "UPDATE agents SET quarantined_unix_ns = NULL, quarantine_reason = NULL WHERE id = $1",
    )
    .bind(agent_id)
    .execute(&mut *tx)
    .await
    .map_err(&release)?;
    store
        .tell(&mut tx, &[Change::Agent(agent_id.to_owned())])
        .await?;
    tx.commit().await.map_err(&release)
}

/// Adds a calibration; see the trait.
pub(super) async fn add_calibration(
    store: &PostgresStore,
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
        "INSERT INTO calibrations (machine, at_unix_ns, agent, boot_id, counts, spec) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(machine_id)
    .bind(at_unix_ns)
    .bind(agent_id)
    .bind(boot_id)
    .bind(counts)
    .bind(rows::to_json("a calibration", calibration)?)
    .execute(&store.pool)
    .await
    .map_err(database("store a calibration"))?;
    Ok(())
}

/// Returns a machine's latest calibrations; see the trait.
pub(super) async fn calibrations(
    store: &PostgresStore,
    machine_id: &str,
    at_most: u32,
) -> Result<Vec<StoredCalibration>, StoreError> {
    sqlx::query(
        "SELECT * FROM calibrations WHERE machine = $1 ORDER BY at_unix_ns DESC, agent LIMIT $2",
    )
    .bind(machine_id)
    .bind(i64::from(at_most))
    .fetch_all(&store.pool)
    .await
    .map_err(database("read calibrations"))?
    .iter()
    .map(rows::calibration)
    .collect()
}
