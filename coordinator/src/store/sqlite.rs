//! The store in one SQLite file, for `tritmark run` and small fleets.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    Row as _, Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tracing::warn;
use tritmark_proto::{
    job::{AttemptId, Job, JobId, RunId},
    machine::Machine,
    record::{ModelFacts, Record},
};

use super::{
    Appended, AttemptEnd, AttemptStart, AttemptState, JobCounts, Quarantine, RecordBatch, Store,
    StoreError, StoredAgent, StoredAttempt, StoredCalibration, StoredJob, StoredRun, migrations,
    rows::{self, Columns as _, RecordColumns, database, stale},
};

mod scheduling;
mod steps;

use steps::{advance, end_run_if_done, event, standing};

/// Readers beside the one writer.
const MAX_READERS: u32 = 4;

/// How long one connection waits for another's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// A store in one SQLite file and its write-ahead log.
#[derive(Debug)]
pub struct SqliteStore {
    /// One connection, so that writers queue here and not in SQLite.
    writer: SqlitePool,
    readers: SqlitePool,
    /// Held as long as the store is open.
    _lock: File,
}

impl SqliteStore {
    /// Opens the store at `path` and makes it where there is none.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while another coordinator has it open.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let open_error = |source| StoreError::Open {
            path: path.display().to_string(),
            source,
        };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(open_error)?;
        }
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock = File::create(PathBuf::from(lock_path)).map_err(open_error)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse {
                    path: path.display().to_string(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(open_error(source)),
        }
        // An acknowledgement lets the agent forget its records, so they must survive a power
        // failure: FULL syncs the log at every commit. Agents send batches, so commits are few.
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options.clone())
            .await
            .map_err(database("open the store"))?;
        migrations::sqlite()
            .run(&writer)
            .await
            .map_err(|source| StoreError::Migrate {
                path: path.display().to_string(),
                source,
            })?;
        let readers = SqlitePoolOptions::new()
            .max_connections(MAX_READERS)
            .connect_with(options.read_only(true))
            .await
            .map_err(database("open the store"))?;
        Ok(Self {
            writer,
            readers,
            _lock: lock,
        })
    }

    /// Begins a transaction that will write.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.writer
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(database("begin a transaction"))
    }

    /// Returns the attempts of a run by job and count.
    async fn attempts(&self, run: RunId) -> Result<Vec<StoredAttempt>, StoreError> {
        sqlx::query(
            "SELECT job, attempt, fence, agent, machine, state, started_unix_ns, \
             lease_until_unix_ns, ended_unix_ns, failure, counts, void \
             FROM attempts WHERE run = ? ORDER BY job, attempt",
        )
        .bind(run.to_string())
        .fetch_all(&self.readers)
        .await
        .map_err(database("read attempts"))?
        .iter()
        .map(|row| rows::attempt(run, row))
        .collect()
    }
}

#[tonic::async_trait]
impl Store for SqliteStore {
    async fn add_run(&self, run: &StoredRun, jobs: &[Job]) -> Result<(), StoreError> {
        let add = database("add a run");
        let mut tx = self.begin().await?;
        let id = run.id.to_string();
        sqlx::query(
            "INSERT INTO runs (id, name, plan_toml, plan_hash, submitted_unix_ns, ended_unix_ns, \
             tritmark_version, priority, expires_unix_ns, paused_unix_ns) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&id)
        .bind(&run.name)
        .bind(&run.plan_toml)
        .bind(&run.plan_hash)
        .bind(run.submitted_unix_ns)
        .bind(run.ended_unix_ns)
        .bind(&run.tritmark_version)
        .bind(i64::from(run.priority))
        .bind(run.expires_unix_ns)
        .bind(run.paused_unix_ns)
        .execute(&mut *tx)
        .await
        .map_err(&add)?;
        for job in jobs {
            sqlx::query("INSERT INTO jobs (run, job, spec, state) VALUES (?, ?, ?, 'queued')")
                .bind(&id)
                .bind(job.id.index)
                .bind(rows::to_json("a job", job)?)
                .execute(&mut *tx)
                .await
                .map_err(&add)?;
        }
        event(
            &mut tx,
            run.submitted_unix_ns,
            run.id,
            None,
            "submitted",
            &run.name,
        )
        .await?;
        tx.commit().await.map_err(&add)
    }

    async fn runs(&self) -> Result<Vec<StoredRun>, StoreError> {
        sqlx::query("SELECT * FROM runs ORDER BY submitted_unix_ns, id")
            .fetch_all(&self.readers)
            .await
            .map_err(database("read runs"))?
            .iter()
            .map(rows::run)
            .collect()
    }

    async fn open_runs(&self) -> Result<Vec<StoredRun>, StoreError> {
        sqlx::query("SELECT * FROM runs WHERE ended_unix_ns IS NULL ORDER BY submitted_unix_ns, id")
            .fetch_all(&self.readers)
            .await
            .map_err(database("read runs"))?
            .iter()
            .map(rows::run)
            .collect()
    }

    async fn run(&self, id: RunId) -> Result<Option<StoredRun>, StoreError> {
        sqlx::query("SELECT * FROM runs WHERE id = ?")
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await
            .map_err(database("look for a run"))?
            .as_ref()
            .map(rows::run)
            .transpose()
    }

    async fn newest_run_of(&self, plan_hash: &str) -> Result<Option<StoredRun>, StoreError> {
        sqlx::query(
            "SELECT * FROM runs WHERE plan_hash = ? ORDER BY submitted_unix_ns DESC, id DESC LIMIT 1",
        )
        .bind(plan_hash)
        .fetch_optional(&self.readers)
        .await
        .map_err(database("look for a run"))?
        .as_ref()
        .map(rows::run)
        .transpose()
    }

    async fn jobs(&self, run: RunId) -> Result<Vec<StoredJob>, StoreError> {
        let mut jobs: Vec<StoredJob> =
            sqlx::query("SELECT job, spec, state, failure FROM jobs WHERE run = ? ORDER BY job")
                .bind(run.to_string())
                .fetch_all(&self.readers)
                .await
                .map_err(database("read jobs"))?
                .iter()
                .map(|row| rows::job(run, row))
                .collect::<Result<_, _>>()?;
        rows::attach(&mut jobs, self.attempts(run).await?)?;
        Ok(jobs)
    }

    async fn some_jobs(&self, jobs: &[JobId]) -> Result<Vec<StoredJob>, StoreError> {
        let mut found = Vec::new();
        let wanted: std::collections::BTreeSet<JobId> = jobs.iter().copied().collect();
        for job in wanted {
            let row =
                sqlx::query("SELECT job, spec, state, failure FROM jobs WHERE run = ? AND job = ?")
                    .bind(job.run.to_string())
                    .bind(job.index)
                    .fetch_optional(&self.readers)
                    .await
                    .map_err(database("read jobs"))?;
            let Some(row) = row else { continue };
            let mut stored = [rows::job(job.run, &row)?];
            let attempts =
                sqlx::query("SELECT * FROM attempts WHERE run = ? AND job = ? ORDER BY attempt")
                    .bind(job.run.to_string())
                    .bind(job.index)
                    .fetch_all(&self.readers)
                    .await
                    .map_err(database("read attempts"))?
                    .iter()
                    .map(|row| rows::attempt(job.run, row))
                    .collect::<Result<_, _>>()?;
            rows::attach(&mut stored, attempts)?;
            found.extend(stored);
        }
        Ok(found)
    }

    async fn running_on(&self, agent_id: &str) -> Result<Vec<JobId>, StoreError> {
        sqlx::query("SELECT run, job FROM attempts WHERE state = 'running' AND agent = ?")
            .bind(agent_id)
            .fetch_all(&self.readers)
            .await
            .map_err(database("read attempts"))?
            .iter()
            .map(|row| rows::job_id(row.run("run")?, row))
            .collect()
    }

    async fn running_attempts(&self) -> Result<Vec<StoredAttempt>, StoreError> {
        sqlx::query("SELECT * FROM attempts WHERE state = 'running'")
            .fetch_all(&self.readers)
            .await
            .map_err(database("read attempts"))?
            .iter()
            .map(|row| rows::attempt(row.run("run")?, row))
            .collect()
    }

    async fn put_agent(&self, agent: &StoredAgent) -> Result<(), StoreError> {
        let put = database("store an agent");
        let mut tx = self.begin().await?;
        sqlx::query(
            "INSERT INTO machines (id, spec) VALUES (?, ?) \
             ON CONFLICT (id) DO UPDATE SET spec = excluded.spec",
        )
        .bind(&agent.machine.id)
        .bind(rows::to_json("a machine", &agent.machine)?)
        .execute(&mut *tx)
        .await
        .map_err(&put)?;
        sqlx::query(
            "INSERT INTO agents (id, version, machine, labels, suites, last_seen_unix_ns) \
             VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET version = excluded.version, \
             machine = excluded.machine, labels = excluded.labels, suites = excluded.suites, \
             last_seen_unix_ns = excluded.last_seen_unix_ns",
        )
        .bind(&agent.id)
        .bind(&agent.version)
        .bind(&agent.machine.id)
        .bind(rows::to_json("labels", &agent.labels)?)
        .bind(rows::to_json("suites", &agent.suites)?)
        .bind(agent.last_seen_unix_ns)
        .execute(&mut *tx)
        .await
        .map_err(&put)?;
        tx.commit().await.map_err(&put)
    }

    async fn agents(&self) -> Result<Vec<StoredAgent>, StoreError> {
        sqlx::query(
            "SELECT agents.*, machines.spec FROM agents JOIN machines \
             ON machines.id = agents.machine ORDER BY agents.id",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(database("read agents"))?
        .iter()
        .map(rows::agent)
        .collect()
    }

    async fn some_agents(&self, ids: &[String]) -> Result<Vec<StoredAgent>, StoreError> {
        let agents = self.agents().await?;
        Ok(agents
            .into_iter()
            .filter(|agent| ids.contains(&agent.id))
            .collect())
    }

    async fn machines(&self, ids: &[String]) -> Result<Vec<Machine>, StoreError> {
        let mut machines = Vec::new();
        for id in ids {
            let row = sqlx::query("SELECT id, spec FROM machines WHERE id = ?")
                .bind(id)
                .fetch_optional(&self.readers)
                .await
                .map_err(database("read machines"))?;
            if let Some(row) = row {
                machines.push(rows::machine(&row)?);
            }
        }
        Ok(machines)
    }

    async fn start_attempts(
        &self,
        starts: &[AttemptStart],
    ) -> Result<Vec<Result<StoredAttempt, StoreError>>, StoreError> {
        let mut tx = self.begin().await?;
        let mut answers = Vec::with_capacity(starts.len());
        for start in starts {
            answers.push(match begin_one(&mut tx, start).await {
                Err(error @ StoreError::NotQueued { .. }) => Err(error),
                begun => Ok(begun?),
            });
        }
        tx.commit().await.map_err(database("start attempts"))?;
        Ok(answers)
    }

    async fn revive_attempt(
        &self,
        attempt: AttemptId,
        at_unix_ns: i64,
        lease_until_unix_ns: i64,
    ) -> Result<(), StoreError> {
        let revive = database("take an attempt up again");
        let run = attempt.job.run.to_string();
        let mut tx = self.begin().await?;
        if standing(&mut tx, attempt).await?.state != AttemptState::Lost {
            return Err(stale(attempt, "not lost"));
        }
        let n_revived = sqlx::query(
            "UPDATE jobs SET state = 'running' WHERE run = ?1 AND job = ?2 AND state = 'queued' \
             AND ?3 = (SELECT max(attempt) FROM attempts WHERE run = ?1 AND job = ?2)",
        )
        .bind(&run)
        .bind(attempt.job.index)
        .bind(attempt.attempt.get())
        .execute(&mut *tx)
        .await
        .map_err(&revive)?
        .rows_affected();
        if n_revived == 0 {
            return Err(StoreError::NotQueued { job: attempt.job });
        }
        sqlx::query(
            "UPDATE attempts SET state = 'running', ended_unix_ns = NULL, failure = NULL, \
             counts = 1, lease_until_unix_ns = ? WHERE run = ? AND job = ? AND attempt = ?",
        )
        .bind(lease_until_unix_ns)
        .bind(&run)
        .bind(attempt.job.index)
        .bind(attempt.attempt.get())
        .execute(&mut *tx)
        .await
        .map_err(&revive)?;
        event(
            &mut tx,
            at_unix_ns,
            attempt.job.run,
            Some(attempt),
            "revived",
            "",
        )
        .await?;
        tx.commit().await.map_err(&revive)
    }

    async fn renew_leases(
        &self,
        leases: &[(AttemptId, i64)],
    ) -> Result<Vec<AttemptId>, StoreError> {
        let renew = database("renew leases");
        let mut over = Vec::new();
        let mut tx = self.begin().await?;
        for (attempt, until) in leases {
            let n_renewed = sqlx::query(
                "UPDATE attempts SET lease_until_unix_ns = ? WHERE run = ? AND job = ? \
                 AND attempt = ? AND fence = ? AND state = 'running'",
            )
            .bind(until)
            .bind(attempt.job.run.to_string())
            .bind(attempt.job.index)
            .bind(attempt.attempt.get())
            .bind(rows::to_i64("fence", attempt.fence)?)
            .execute(&mut *tx)
            .await
            .map_err(&renew)?
            .rows_affected();
            if n_renewed == 0 {
                over.push(*attempt);
            }
        }
        tx.commit().await.map_err(&renew)?;
        Ok(over)
    }

    async fn append(
        &self,
        batches: &[RecordBatch],
    ) -> Result<Vec<Result<Appended, StoreError>>, StoreError> {
        let mut tx = self.begin().await?;
        let mut answers = Vec::with_capacity(batches.len());
        for batch in batches {
            answers.push(match append_one(&mut tx, batch).await {
                Err(error @ (StoreError::Stale { .. } | StoreError::OutOfRange { .. })) => {
                    Err(error)
                }
                appended => Ok(appended?),
            });
        }
        tx.commit().await.map_err(database("store records"))?;
        Ok(answers)
    }

    async fn standings(
        &self,
        attempts: &[AttemptId],
    ) -> Result<Vec<Result<Appended, StoreError>>, StoreError> {
        let mut connection = self
            .readers
            .acquire()
            .await
            .map_err(database("look up an attempt"))?;
        let mut answers = Vec::with_capacity(attempts.len());
        for attempt in attempts {
            answers.push(match standing(&mut connection, *attempt).await {
                Err(error @ StoreError::Stale { .. }) => Err(error),
                standing => standing?.appended(*attempt),
            });
        }
        Ok(answers)
    }

    async fn end_attempts(
        &self,
        ends: &[(AttemptId, AttemptEnd)],
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let mut tx = self.begin().await?;
        let mut answers = Vec::with_capacity(ends.len());
        for (attempt, end) in ends {
            answers.push(match end_one(&mut tx, *attempt, end).await {
                Err(error @ StoreError::Stale { .. }) => Err(error),
                ended => {
                    ended?;
                    Ok(())
                }
            });
        }
        tx.commit().await.map_err(database("end attempts"))?;
        Ok(answers)
    }

    async fn pause_run(
        &self,
        run: RunId,
        since_unix_ns: Option<i64>,
        at_unix_ns: i64,
    ) -> Result<(), StoreError> {
        scheduling::pause_run(self, run, since_unix_ns, at_unix_ns).await
    }

    async fn expire_jobs(
        &self,
        run: RunId,
        jobs: &[(u32, u32)],
        at_unix_ns: i64,
    ) -> Result<Vec<u32>, StoreError> {
        scheduling::expire_jobs(self, run, jobs, at_unix_ns).await
    }

    async fn ask_drain(
        &self,
        agent_id: &str,
        since_unix_ns: Option<i64>,
    ) -> Result<(), StoreError> {
        scheduling::ask_drain(self, agent_id, since_unix_ns).await
    }

    async fn quarantine(&self, agent_id: &str, why: &Quarantine) -> Result<(), StoreError> {
        scheduling::quarantine(self, agent_id, why).await
    }

    async fn release_agent(&self, agent_id: &str) -> Result<(), StoreError> {
        scheduling::release_agent(self, agent_id).await
    }

    async fn add_calibration(&self, calibration: &StoredCalibration) -> Result<(), StoreError> {
        scheduling::add_calibration(self, calibration).await
    }

    async fn calibrations(
        &self,
        machine_id: &str,
        at_most: u32,
    ) -> Result<Vec<StoredCalibration>, StoreError> {
        scheduling::calibrations(self, machine_id, at_most).await
    }

    async fn cancel_run(&self, run: RunId, at_unix_ns: i64) -> Result<(), StoreError> {
        let cancel = database("cancel a run");
        let id = run.to_string();
        let mut tx = self.begin().await?;
        sqlx::query(
            "UPDATE attempts SET state = 'cancelled', ended_unix_ns = ? \
             WHERE run = ? AND state = 'running'",
        )
        .bind(at_unix_ns)
        .bind(&id)
        .execute(&mut *tx)
        .await
        .map_err(&cancel)?;
        sqlx::query(
            "UPDATE jobs SET state = 'cancelled' WHERE run = ? AND state IN ('queued', 'running')",
        )
        .bind(&id)
        .execute(&mut *tx)
        .await
        .map_err(&cancel)?;
        event(&mut tx, at_unix_ns, run, None, "cancelled", "").await?;
        end_run_if_done(&mut tx, run, at_unix_ns).await?;
        tx.commit().await.map_err(&cancel)
    }

    async fn items_done_of(&self, jobs: &[JobId]) -> Result<Vec<u64>, StoreError> {
        let mut done = Vec::with_capacity(jobs.len());
        for job in jobs {
            // Counts the distinct indexes that equal their own rank, i.e. the run without a gap.
            let n: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM (SELECT item_index, row_number() OVER (ORDER BY item_index) \
                 - 1 AS rank FROM (SELECT DISTINCT item_index FROM records JOIN attempts \
                 USING (run, job, attempt) WHERE run = ? AND job = ? AND item_index IS NOT NULL \
                 AND NOT void)) WHERE item_index = rank",
            )
            .bind(job.run.to_string())
            .bind(job.index)
            .fetch_one(&self.readers)
            .await
            .map_err(database("count items"))?;
            done.push(n.cast_unsigned());
        }
        Ok(done)
    }

    async fn facts_of(&self, jobs: &[JobId]) -> Result<Vec<Vec<(u32, ModelFacts)>>, StoreError> {
        let mut facts = Vec::with_capacity(jobs.len());
        for job in jobs {
            let rows = sqlx::query(
                "SELECT attempt, sequence, payload FROM records WHERE run = ? AND job = ? \
                 AND kind = 'facts' ORDER BY attempt, sequence",
            )
            .bind(job.run.to_string())
            .bind(job.index)
            .fetch_all(&self.readers)
            .await
            .map_err(database("read records"))?;
            facts.push(rows::facts(*job, &rows)?);
        }
        Ok(facts)
    }

    async fn records(&self, job: JobId) -> Result<Vec<(u32, Record)>, StoreError> {
        sqlx::query(
            "SELECT attempt, sequence, payload FROM records WHERE run = ? AND job = ? \
             ORDER BY attempt, sequence",
        )
        .bind(job.run.to_string())
        .bind(job.index)
        .fetch_all(&self.readers)
        .await
        .map_err(database("read records"))?
        .iter()
        .map(|row| rows::record(job, row))
        .collect()
    }

    async fn attempt_agent(&self, attempt: AttemptId) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar("SELECT agent FROM attempts WHERE run = ? AND job = ? AND attempt = ?")
            .bind(attempt.job.run.to_string())
            .bind(attempt.job.index)
            .bind(attempt.attempt.get())
            .fetch_optional(&self.readers)
            .await
            .map_err(database("look up an attempt"))
    }

    async fn put_signature(&self, attempt: AttemptId, signed: &[u8]) -> Result<(), StoreError> {
        let put = database("keep a signature");
        let mut tx = self.begin().await?;
        match standing(&mut tx, attempt).await?.state {
            AttemptState::Running => {}
            // Said again, since the agent has not seen that it is over; the first word counts.
            AttemptState::Succeeded | AttemptState::Failed => return Ok(()),
            AttemptState::Lost => return Err(stale(attempt, "lost")),
            AttemptState::Cancelled => return Err(stale(attempt, "cancelled")),
        }
        sqlx::query(
            "INSERT OR REPLACE INTO signatures (run, job, attempt, signed) VALUES (?, ?, ?, ?)",
        )
        .bind(attempt.job.run.to_string())
        .bind(attempt.job.index)
        .bind(attempt.attempt.get())
        .bind(signed)
        .execute(&mut *tx)
        .await
        .map_err(&put)?;
        tx.commit().await.map_err(&put)
    }

    async fn signatures(&self, run: RunId) -> Result<Vec<(u32, u32, Vec<u8>)>, StoreError> {
        let rows = sqlx::query(
            "SELECT job, attempt, signed FROM signatures WHERE run = ? ORDER BY job, attempt",
        )
        .bind(run.to_string())
        .fetch_all(&self.readers)
        .await
        .map_err(database("read signatures"))?;
        Ok(rows
            .iter()
            .map(|row| (row.get("job"), row.get("attempt"), row.get("signed")))
            .collect())
    }

    async fn job_counts(&self, run: RunId) -> Result<JobCounts, StoreError> {
        let rows = sqlx::query(
            "SELECT state, count(*) AS n, count(failure) AS expired FROM jobs \
                 WHERE run = ? GROUP BY state",
        )
        .bind(run.to_string())
        .fetch_all(&self.readers)
        .await
        .map_err(database("count jobs"))?;
        let mut counts = JobCounts::default();
        for row in &rows {
            *counts.of_state(rows::job_state(row.text("state")?)?) = row.get("n");
            counts.expired += row.get::<u32, _>("expired");
        }
        Ok(counts)
    }
}

/// Begins the next attempt of a queued job.
async fn begin_one(
    tx: &mut Transaction<'static, Sqlite>,
    start: &AttemptStart,
) -> Result<StoredAttempt, StoreError> {
    let begin = database("start an attempt");
    let run = start.job.run.to_string();
    let n_started = sqlx::query(
        "UPDATE jobs SET state = 'running' WHERE run = ? AND job = ? AND state = 'queued' \
         AND NOT EXISTS (SELECT 1 FROM runs WHERE id = run AND paused_unix_ns IS NOT NULL)",
    )
    .bind(&run)
    .bind(start.job.index)
    .execute(&mut **tx)
    .await
    .map_err(&begin)?
    .rows_affected();
    if n_started == 0 {
        return Err(StoreError::NotQueued { job: start.job });
    }
    let fence: i64 = sqlx::query_scalar("UPDATE fence SET value = value + 1 RETURNING value")
        .fetch_one(&mut **tx)
        .await
        .map_err(&begin)?;
    let attempt: i64 = sqlx::query_scalar(
        "INSERT INTO attempts (run, job, attempt, fence, agent, machine, state, \
         started_unix_ns, lease_until_unix_ns) VALUES (?1, ?2, (SELECT \
         coalesce(max(attempt), 0) + 1 FROM attempts WHERE run = ?1 AND job = ?2), \
         ?3, ?4, ?5, 'running', ?6, ?7) RETURNING attempt",
    )
    .bind(&run)
    .bind(start.job.index)
    .bind(fence)
    .bind(&start.agent_id)
    .bind(&start.machine_id)
    .bind(start.at_unix_ns)
    .bind(start.lease_until_unix_ns)
    .fetch_one(&mut **tx)
    .await
    .map_err(&begin)?;
    let id = rows::attempt_id(start.job, attempt, fence)?;
    event(
        tx,
        start.at_unix_ns,
        start.job.run,
        Some(id),
        "started",
        &start.agent_id,
    )
    .await?;
    Ok(start.begun(id))
}

/// Stores records of a running attempt, all or none of them.
async fn append_one(
    tx: &mut Transaction<'static, Sqlite>,
    RecordBatch { attempt, records }: &RecordBatch,
) -> Result<Appended, StoreError> {
    let add = database("store records");
    let run = attempt.job.run.to_string();
    let standing = standing(tx, *attempt).await?;
    let mut appended = standing.appended(*attempt)?;
    if appended.finished {
        return Ok(appended);
    }
    // Before the first is written, as one that cannot be must not leave half of them.
    let columns: Vec<RecordColumns> = records
        .iter()
        .map(RecordColumns::of)
        .collect::<Result<_, _>>()?;
    for (record, columns) in records.iter().zip(columns) {
        let RecordColumns {
            sequence,
            kind,
            metric,
            item_index,
            payload,
        } = columns;
        let n_added = sqlx::query(
            "INSERT OR IGNORE INTO records (run, job, attempt, sequence, at_unix_ns, kind, \
             metric, item_index, payload) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&run)
        .bind(attempt.job.index)
        .bind(attempt.attempt.get())
        .bind(sequence)
        .bind(record.at_unix_ns)
        .bind(kind)
        .bind(metric)
        .bind(item_index)
        .bind(&payload)
        .execute(&mut **tx)
        .await
        .map_err(&add)?
        .rows_affected();
        if n_added == 1 {
            appended.n_new += 1;
            continue;
        }
        let stored: Vec<u8> = sqlx::query_scalar(
            "SELECT payload FROM records WHERE run = ? AND job = ? AND attempt = ? \
             AND sequence = ?",
        )
        .bind(&run)
        .bind(attempt.job.index)
        .bind(attempt.attempt.get())
        .bind(sequence)
        .fetch_one(&mut **tx)
        .await
        .map_err(&add)?;
        if stored != payload {
            appended.n_conflicts += 1;
            warn!(job = %attempt.job, attempt = attempt.attempt, sequence,
                "a record came again with other contents; the first one is kept");
        }
    }
    appended.stored_below = advance(tx, *attempt, standing.stored_below).await?;
    Ok(appended)
}

/// Ends a running attempt.
async fn end_one(
    tx: &mut Transaction<'static, Sqlite>,
    attempt: AttemptId,
    end: &AttemptEnd,
) -> Result<(), StoreError> {
    let finish = database("end an attempt");
    let AttemptEnd {
        state,
        job_state,
        at_unix_ns,
        n_records,
        failure,
        counts,
        voids_earlier,
        if_lease_over_by_unix_ns,
    } = end;
    let run = attempt.job.run.to_string();
    let standing = standing(tx, attempt).await?;
    if standing.state != AttemptState::Running {
        return Err(stale(attempt, "over"));
    }
    if if_lease_over_by_unix_ns.is_some_and(|by| standing.lease_until_unix_ns > by) {
        return Err(stale(attempt, "alive"));
    }
    let n_records = n_records
        .map(|n| rows::to_i64("number of records", n))
        .transpose()?;
    let failure_json = failure
        .as_ref()
        .map(|failure| rows::to_json("a failure", failure))
        .transpose()?;
    sqlx::query(
        "UPDATE attempts SET state = ?, ended_unix_ns = ?, n_records = ?, failure = ?, \
         counts = ? WHERE run = ? AND job = ? AND attempt = ?",
    )
    .bind(state.name())
    .bind(at_unix_ns)
    .bind(n_records)
    .bind(failure_json)
    .bind(counts)
    .bind(&run)
    .bind(attempt.job.index)
    .bind(attempt.attempt.get())
    .execute(&mut **tx)
    .await
    .map_err(&finish)?;
    if *voids_earlier {
        sqlx::query("UPDATE attempts SET void = 1 WHERE run = ? AND job = ? AND attempt < ?")
            .bind(&run)
            .bind(attempt.job.index)
            .bind(attempt.attempt.get())
            .execute(&mut **tx)
            .await
            .map_err(&finish)?;
    }
    sqlx::query("UPDATE jobs SET state = ? WHERE run = ? AND job = ?")
        .bind(job_state.name())
        .bind(&run)
        .bind(attempt.job.index)
        .execute(&mut **tx)
        .await
        .map_err(&finish)?;
    let detail = failure.as_ref().map_or("", |failure| &failure.message);
    event(
        tx,
        *at_unix_ns,
        attempt.job.run,
        Some(attempt),
        state.name(),
        detail,
    )
    .await?;
    end_run_if_done(tx, attempt.job.run, *at_unix_ns).await
}
