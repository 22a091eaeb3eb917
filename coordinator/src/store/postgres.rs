//! The store on a PostgreSQL server, for several coordinators over one data base.
//!
//! Whatever one coordinator decides that another may have decided meanwhile is one conditional
//! statement under row locks, taken in the order machines, jobs, pins, attempts, runs, each in the order
//! of its key, so that no two transactions wait for each other. Every commit is on disk when it is
//! acknowledged (`synchronous_commit`), as whoever hears of it forgets what it has.

use std::{collections::BTreeMap, time::Duration};

use futures::stream::BoxStream;
use sqlx::{
    Connection as _, PgPool, Postgres, Row as _, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
};
use tritmark_proto::{
    job::{AttemptId, Job, JobId, RunId},
    machine::Machine,
    record::{ModelFacts, Record},
};
use uuid::Uuid;

use super::{
    AgentLink, Appended, AttemptEnd, AttemptStart, Change, JobCounts, Quarantine, RecordBatch,
    Store, StoreError, StoredAgent, StoredAttempt, StoredCalibration, StoredJob, StoredRun,
    location::without_secrets,
    migrations,
    rows::{self, Columns as _, database},
};

mod append;
mod begin;
mod changes;
mod end;
mod scheduling;

/// Connections for decisions and questions. One of them listens.
const CONNECTIONS: u32 = 6;

/// Connections for records, apart so that no decision waits for a thousand agents' records. Links
/// write theirs together, so that few are enough; see `link/together.rs`.
const RECORD_CONNECTIONS: u32 = 4;

/// How long a call waits for a free connection, and for a server that is starting again.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);

/// How long a connection may have been idle that is used without asking whether it is still there.
const ASK_AFTER: Duration = Duration::from_secs(1);

/// Rows in one statement that adds jobs.
const JOBS_AT_ONCE: usize = 5_000;

/// A store in one PostgreSQL data base.
#[derive(Debug)]
pub struct PostgresStore {
    pool: PgPool,
    /// For [`Store::append`] alone.
    records: PgPool,
    /// Names this coordinator to the others.
    coordinator: Uuid,
}

impl PostgresStore {
    /// Connects to the data base and brings it to this version's tables.
    ///
    /// # Errors
    /// [`StoreError::Database`] if it cannot be reached, [`StoreError::Migrate`] if its tables are
    /// those of a newer version.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let open = database("open the store");
        // The error names what is wrong with the URL, not the URL.
        let options: PgConnectOptions = url.parse().map_err(&open)?;
        let options = options
            .application_name("tritmark-coordinator")
            // Whatever the sizes of the lists, rows are looked up by their keys.
            .options([
                ("synchronous_commit", "on"),
                ("plan_cache_mode", "force_generic_plan"),
                ("random_page_cost", "1.1"),
                ("enable_seqscan", "off"),
                ("enable_bitmapscan", "off"),
                ("jit", "off"),
            ]);
        let pool = PgPoolOptions::new()
            .acquire_timeout(CONNECT_WITHIN)
            // One more question for each is dear; what was used just now is there.
            .test_before_acquire(false)
            .before_acquire(|connection, used| {
                Box::pin(async move {
                    if used.idle_for >= ASK_AFTER {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            });
        let records = pool
            .clone()
            .max_connections(RECORD_CONNECTIONS)
            .connect_lazy_with(options.clone());
        let pool = pool
            .max_connections(CONNECTIONS)
            .connect_with(options)
            .await
            .map_err(&open)?;
        migrations::postgres()
            .run(&pool)
            .await
            .map_err(|source| StoreError::Migrate {
                path: without_secrets(url),
                source,
            })?;
        Ok(Self {
            pool,
            records,
            coordinator: Uuid::now_v7(),
        })
    }

    /// Returns what names this coordinator to the others of the data base: another one each time a
    /// store is opened.
    pub fn coordinator(&self) -> Uuid {
        self.coordinator
    }

    async fn begin(&self) -> Result<Transaction<'static, Postgres>, StoreError> {
        self.pool
            .begin()
            .await
            .map_err(database("begin a transaction"))
    }
}

/// Jobs as two columns of equal length, as a statement takes them.
fn columns(jobs: impl IntoIterator<Item = JobId>) -> (Vec<Uuid>, Vec<i64>) {
    jobs.into_iter()
        .map(|job| (job.run.0, i64::from(job.index)))
        .unzip()
}

/// Attempts as three columns.
fn attempt_columns(
    attempts: impl IntoIterator<Item = AttemptId>,
) -> (Vec<Uuid>, Vec<i64>, Vec<i64>) {
    let mut columns = (Vec::new(), Vec::new(), Vec::new());
    for attempt in attempts {
        columns.0.push(attempt.job.run.0);
        columns.1.push(i64::from(attempt.job.index));
        columns.2.push(i64::from(attempt.attempt.get()));
    }
    columns
}

/// Reads the job of a row.
fn job_of(row: &PgRow) -> Result<JobId, StoreError> {
    rows::job_id(row.run("run")?, row)
}

fn attempts(rows: &[PgRow]) -> Result<Vec<StoredAttempt>, StoreError> {
    rows.iter()
        .map(|row| rows::attempt(row.run("run")?, row))
        .collect()
}

#[tonic::async_trait]
impl Store for PostgresStore {
    async fn add_run(&self, run: &StoredRun, jobs: &[Job]) -> Result<(), StoreError> {
        let add = database("add a run");
        let mut tx = self.begin().await?;
        sqlx::query(
            "INSERT INTO runs (id, name, plan_toml, plan_hash, submitted_unix_ns, ended_unix_ns, \
             tritmark_version, priority, expires_unix_ns, paused_unix_ns) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(run.id.0)
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
        for some in jobs.chunks(JOBS_AT_ONCE) {
            let positions: Vec<i64> = some.iter().map(|job| i64::from(job.id.index)).collect();
            let specs: Vec<String> = some
                .iter()
                .map(|job| rows::to_json("a job", job))
                .collect::<Result<_, _>>()?;
            sqlx::query(
                "INSERT INTO jobs (run, job, spec, state) \
                 SELECT $1, job, spec, 'queued' FROM UNNEST($2::bigint[], $3::text[]) AS j(job, spec)",
            )
            .bind(run.id.0)
            .bind(&positions)
            .bind(&specs)
            .execute(&mut *tx)
            .await
            .map_err(&add)?;
        }
        sqlx::query(
            "INSERT INTO events (at_unix_ns, run, kind, detail) VALUES ($1, $2, 'submitted', $3)",
        )
        .bind(run.submitted_unix_ns)
        .bind(run.id.0)
        .bind(&run.name)
        .execute(&mut *tx)
        .await
        .map_err(&add)?;
        self.tell(&mut tx, &[Change::Run(run.id)]).await?;
        tx.commit().await.map_err(&add)
    }

    async fn runs(&self) -> Result<Vec<StoredRun>, StoreError> {
        sqlx::query("SELECT * FROM runs ORDER BY submitted_unix_ns, id")
            .fetch_all(&self.pool)
            .await
            .map_err(database("read runs"))?
            .iter()
            .map(rows::run)
            .collect()
    }

    async fn open_runs(&self) -> Result<Vec<StoredRun>, StoreError> {
        sqlx::query("SELECT * FROM runs WHERE ended_unix_ns IS NULL ORDER BY submitted_unix_ns, id")
            .fetch_all(&self.pool)
            .await
            .map_err(database("read runs"))?
            .iter()
            .map(rows::run)
            .collect()
    }

    async fn run(&self, id: RunId) -> Result<Option<StoredRun>, StoreError> {
        sqlx::query("SELECT * FROM runs WHERE id = $1")
            .bind(id.0)
            .fetch_optional(&self.pool)
            .await
            .map_err(database("look for a run"))?
            .as_ref()
            .map(rows::run)
            .transpose()
    }

    async fn newest_run_of(&self, plan_hash: &str) -> Result<Option<StoredRun>, StoreError> {
        sqlx::query(
            "SELECT * FROM runs WHERE plan_hash = $1 \
             ORDER BY submitted_unix_ns DESC, id DESC LIMIT 1",
        )
        .bind(plan_hash)
        .fetch_optional(&self.pool)
        .await
        .map_err(database("look for a run"))?
        .as_ref()
        .map(rows::run)
        .transpose()
    }

    async fn jobs(&self, run: RunId) -> Result<Vec<StoredJob>, StoreError> {
        // Two statements see one state of things only in a transaction that says so.
        let mut tx = self
            .pool
            .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await
            .map_err(database("begin a transaction"))?;
        let mut jobs: Vec<StoredJob> =
            sqlx::query("SELECT job, spec, state, failure FROM jobs WHERE run = $1 ORDER BY job")
                .bind(run.0)
                .fetch_all(&mut *tx)
                .await
                .map_err(database("read jobs"))?
                .iter()
                .map(|row| rows::job(run, row))
                .collect::<Result<_, _>>()?;
        let found = sqlx::query("SELECT * FROM attempts WHERE run = $1 ORDER BY job, attempt")
            .bind(run.0)
            .fetch_all(&mut *tx)
            .await
            .map_err(database("read attempts"))?;
        rows::attach(&mut jobs, attempts(&found)?)?;
        Ok(jobs)
    }

    async fn some_jobs(&self, jobs: &[JobId]) -> Result<Vec<StoredJob>, StoreError> {
        let (runs, positions) = columns(jobs.iter().copied());
        let mut tx = self
            .pool
            .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await
            .map_err(database("begin a transaction"))?;
        let mut jobs: Vec<StoredJob> = sqlx::query(
            "SELECT run, job, spec, state, failure FROM jobs WHERE (run, job) IN \
             (SELECT * FROM UNNEST($1::uuid[], $2::bigint[])) ORDER BY run, job",
        )
        .bind(&runs)
        .bind(&positions)
        .fetch_all(&mut *tx)
        .await
        .map_err(database("read jobs"))?
        .iter()
        .map(|row| rows::job(row.run("run")?, row))
        .collect::<Result<_, _>>()?;
        let found = sqlx::query(
            "SELECT * FROM attempts WHERE (run, job) IN \
             (SELECT * FROM UNNEST($1::uuid[], $2::bigint[])) ORDER BY run, job, attempt",
        )
        .bind(&runs)
        .bind(&positions)
        .fetch_all(&mut *tx)
        .await
        .map_err(database("read attempts"))?;
        rows::attach(&mut jobs, attempts(&found)?)?;
        Ok(jobs)
    }

    async fn put_agent(&self, agent: &StoredAgent) -> Result<(), StoreError> {
        let put = database("store an agent");
        let mut tx = self.begin().await?;
        sqlx::query(
            "INSERT INTO machines (id, spec) VALUES ($1, $2) \
             ON CONFLICT (id) DO UPDATE SET spec = excluded.spec",
        )
        .bind(&agent.machine.id)
        .bind(rows::to_json("a machine", &agent.machine)?)
        .execute(&mut *tx)
        .await
        .map_err(&put)?;
        sqlx::query(
            "INSERT INTO agents (id, version, machine, labels, suites, last_seen_unix_ns, \
             coordinator) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (id) DO UPDATE SET \
             version = excluded.version, machine = excluded.machine, labels = excluded.labels, \
             suites = excluded.suites, last_seen_unix_ns = excluded.last_seen_unix_ns, \
             coordinator = excluded.coordinator",
        )
        .bind(&agent.id)
        .bind(&agent.version)
        .bind(&agent.machine.id)
        .bind(rows::to_json("labels", &agent.labels)?)
        .bind(rows::to_json("suites", &agent.suites)?)
        .bind(agent.last_seen_unix_ns)
        .bind(self.coordinator)
        .execute(&mut *tx)
        .await
        .map_err(&put)?;
        self.tell(&mut tx, &[Change::Agent(agent.id.clone())])
            .await?;
        tx.commit().await.map_err(&put)
    }

    async fn agents(&self) -> Result<Vec<StoredAgent>, StoreError> {
        sqlx::query(
            "SELECT agents.*, machines.spec FROM agents JOIN machines \
             ON machines.id = agents.machine ORDER BY agents.id",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(database("read agents"))?
        .iter()
        .map(rows::agent)
        .collect()
    }

    async fn some_agents(&self, ids: &[String]) -> Result<Vec<StoredAgent>, StoreError> {
        sqlx::query(
            "SELECT agents.*, machines.spec FROM agents JOIN machines \
             ON machines.id = agents.machine WHERE agents.id = ANY($1) ORDER BY agents.id",
        )
        .bind(ids)
        .fetch_all(&self.pool)
        .await
        .map_err(database("read agents"))?
        .iter()
        .map(rows::agent)
        .collect()
    }

    async fn machines(&self, ids: &[String]) -> Result<Vec<Machine>, StoreError> {
        let found = sqlx::query("SELECT id, spec FROM machines WHERE id = ANY($1)")
            .bind(ids)
            .fetch_all(&self.pool)
            .await
            .map_err(database("read machines"))?;
        let mut by_id = BTreeMap::new();
        for row in &found {
            by_id.insert(row.text("id")?, rows::machine(row)?);
        }
        Ok(ids
            .iter()
            .filter_map(|id| by_id.get(id.as_str()).cloned())
            .collect())
    }

    async fn start_attempts(
        &self,
        starts: &[AttemptStart],
    ) -> Result<Vec<Result<StoredAttempt, StoreError>>, StoreError> {
        begin::start_attempts(self, starts).await
    }

    async fn revive_attempt(
        &self,
        attempt: AttemptId,
        at_unix_ns: i64,
        lease_until_unix_ns: i64,
    ) -> Result<(), StoreError> {
        begin::revive_attempt(self, attempt, at_unix_ns, lease_until_unix_ns).await
    }

    async fn renew_leases(
        &self,
        leases: &[(AttemptId, i64)],
    ) -> Result<Vec<AttemptId>, StoreError> {
        begin::renew_leases(self, leases).await
    }

    async fn running_on(&self, agent_id: &str) -> Result<Vec<JobId>, StoreError> {
        sqlx::query("SELECT run, job FROM attempts WHERE state = 'running' AND agent = $1")
            .bind(agent_id)
            .fetch_all(&self.pool)
            .await
            .map_err(database("read attempts"))?
            .iter()
            .map(job_of)
            .collect()
    }

    async fn running_attempts(&self) -> Result<Vec<StoredAttempt>, StoreError> {
        let found = sqlx::query("SELECT * FROM attempts WHERE state = 'running'")
            .fetch_all(&self.pool)
            .await
            .map_err(database("read attempts"))?;
        attempts(&found)
    }

    async fn append(
        &self,
        batches: &[RecordBatch],
    ) -> Result<Vec<Result<Appended, StoreError>>, StoreError> {
        append::append(self, batches).await
    }

    async fn attempt_agent(&self, attempt: AttemptId) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar(
            "SELECT agent FROM attempts WHERE run = $1 AND job = $2 AND attempt = $3",
        )
        .bind(attempt.job.run.0)
        .bind(i64::from(attempt.job.index))
        .bind(i64::from(attempt.attempt.get()))
        .fetch_optional(&self.pool)
        .await
        .map_err(database("look up an attempt"))
    }

    async fn put_signature(&self, attempt: AttemptId, signed: &[u8]) -> Result<(), StoreError> {
        append::put_signature(self, attempt, signed).await
    }

    async fn signatures(&self, run: RunId) -> Result<Vec<(u32, u32, Vec<u8>)>, StoreError> {
        let read = database("read signatures");
        sqlx::query(
            "SELECT job, attempt, signed FROM signatures WHERE run = $1 ORDER BY job, attempt",
        )
        .bind(run.0)
        .fetch_all(&self.pool)
        .await
        .map_err(&read)?
        .iter()
        .map(|row| {
            let signed = row.try_get("signed").map_err(&read)?;
            let job = rows::to_u32("a job's position", row.number("job")?)?;
            let attempt = rows::to_u32("an attempt's count", row.number("attempt")?)?;
            Ok((job, attempt, signed))
        })
        .collect()
    }

    async fn standings(
        &self,
        attempts: &[AttemptId],
    ) -> Result<Vec<Result<Appended, StoreError>>, StoreError> {
        append::standings(self, attempts).await
    }

    async fn end_attempts(
        &self,
        ends: &[(AttemptId, AttemptEnd)],
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        end::end_attempts(self, ends).await
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
        end::cancel_run(self, run, at_unix_ns).await
    }

    async fn items_done_of(&self, jobs: &[JobId]) -> Result<Vec<u64>, StoreError> {
        append::items_done_of(self, jobs).await
    }

    async fn facts_of(&self, jobs: &[JobId]) -> Result<Vec<Vec<(u32, ModelFacts)>>, StoreError> {
        append::facts_of(self, jobs).await
    }

    async fn records(&self, job: JobId) -> Result<Vec<(u32, Record)>, StoreError> {
        sqlx::query(
            "SELECT attempt, sequence, payload FROM records WHERE run = $1 AND job = $2 \
             ORDER BY attempt, sequence",
        )
        .bind(job.run.0)
        .bind(i64::from(job.index))
        .fetch_all(&self.pool)
        .await
        .map_err(database("read records"))?
        .iter()
        .map(|row| rows::record(job, row))
        .collect()
    }

    async fn job_counts(&self, run: RunId) -> Result<JobCounts, StoreError> {
        let found = sqlx::query(
            "SELECT state, count(*) AS n, count(failure) AS expired FROM jobs \
                 WHERE run = $1 GROUP BY state",
        )
        .bind(run.0)
        .fetch_all(&self.pool)
        .await
        .map_err(database("count jobs"))?;
        let mut counts = JobCounts::default();
        for row in &found {
            let n = u32::try_from(row.number("n")?).unwrap_or(u32::MAX);
            *counts.of_state(rows::job_state(row.text("state")?)?) = n;
            counts.expired += u32::try_from(row.number("expired")?).unwrap_or(u32::MAX);
        }
        Ok(counts)
    }

    async fn jobs_to_do(&self) -> Result<BTreeMap<RunId, u64>, StoreError> {
        let found = sqlx::query(
            "SELECT run, count(*) AS n FROM jobs WHERE state IN ('queued', 'running') GROUP BY run",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(database("count jobs"))?;
        found
            .iter()
            .map(|row| Ok((row.run("run")?, row.number("n")?.cast_unsigned())))
            .collect()
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn now_unix_ns(&self) -> Result<i64, StoreError> {
        sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint")
            .fetch_one(&self.pool)
            .await
            .map_err(database("ask for the time"))
    }

    async fn agent_links(&self) -> Result<Vec<AgentLink>, StoreError> {
        sqlx::query(
            "SELECT id, coordinator, last_seen_unix_ns, quarantined_unix_ns, drain_unix_ns \
             FROM agents ORDER BY id",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(database("read agents"))?
        .iter()
        .map(|row| {
            let coordinator: Option<Uuid> = row
                .try_get("coordinator")
                .map_err(|error| rows::damaged("an agent", &error))?;
            Ok(AgentLink {
                agent_id: row.text("id")?.to_owned(),
                coordinator,
                is_here: coordinator == Some(self.coordinator),
                last_seen_unix_ns: row.number("last_seen_unix_ns")?,
                quarantined_unix_ns: row.number_if_any("quarantined_unix_ns")?,
                drain_unix_ns: row.number_if_any("drain_unix_ns")?,
            })
        })
        .collect()
    }

    async fn touch_agents(&self, seen: &[(String, i64)]) -> Result<(), StoreError> {
        let (ids, times): (Vec<&str>, Vec<i64>) =
            seen.iter().map(|(id, at)| (id.as_str(), *at)).unzip();
        sqlx::query(
            "UPDATE agents SET last_seen_unix_ns = seen.at \
             FROM UNNEST($1::text[], $2::bigint[]) AS seen(id, at) \
             WHERE agents.id = seen.id AND coordinator = $3 AND last_seen_unix_ns < seen.at",
        )
        .bind(&ids)
        .bind(&times)
        .bind(self.coordinator)
        .execute(&self.pool)
        .await
        .map_err(database("note who is there"))?;
        Ok(())
    }

    async fn unlink_agent(&self, id: &str, last_seen_unix_ns: i64) -> Result<(), StoreError> {
        let unlink = database("note that an agent has left");
        let mut tx = self.begin().await?;
        let n_left = sqlx::query(
            "UPDATE agents SET coordinator = NULL, last_seen_unix_ns = $3 \
             WHERE id = $1 AND coordinator = $2",
        )
        .bind(id)
        .bind(self.coordinator)
        .bind(last_seen_unix_ns)
        .execute(&mut *tx)
        .await
        .map_err(&unlink)?
        .rows_affected();
        if n_left == 1 {
            self.tell(&mut tx, &[Change::Agent(id.to_owned())]).await?;
        }
        tx.commit().await.map_err(&unlink)
    }

    async fn changes(&self) -> Result<BoxStream<'static, Change>, StoreError> {
        changes::listen(self).await
    }
}
