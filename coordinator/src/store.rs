//! What is kept of runs, and the one trait every store implements.
//!
//! A store decides nothing. Each method is one transaction: it is done wholly or not at all, and
//! when it has returned, it survives a crash of the process and of the machine.
//!
//! A store is one coordinator's ([`SqliteStore`]) or shared by several ([`PostgresStore`]). Of a
//! shared one, each coordinator knows a copy that may be old: whatever depends on what others may have
//! changed is decided inside the transaction, and refused if the copy was old.

use std::collections::BTreeMap;

use futures::{StreamExt as _, stream::BoxStream};
use tritmark_proto::{
    bundle::{Failure, FailureClass, JobState},
    job::{AttemptId, Job, JobId, RunId},
    machine::Machine,
    record::{ModelFacts, Record},
};
use uuid::Uuid;

use crate::health::Calibration;

pub(crate) mod location;
pub(crate) mod migrations;
mod postgres;
pub(crate) mod rows;
mod sqlite;
#[cfg(test)]
mod tests;

pub use location::{BadLocation, Location, open};
pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;

/// Keeps runs, jobs, attempts, agents and records.
#[tonic::async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Adds a run with its jobs, all queued.
    async fn add_run(&self, run: &StoredRun, jobs: &[Job]) -> Result<(), StoreError>;

    /// Returns every run, the oldest first.
    async fn runs(&self) -> Result<Vec<StoredRun>, StoreError>;

    /// Returns the runs that have not ended, the oldest first.
    async fn open_runs(&self) -> Result<Vec<StoredRun>, StoreError>;

    /// Returns one run.
    async fn run(&self, id: RunId) -> Result<Option<StoredRun>, StoreError>;

    /// Returns the newest run of a plan, by [`plan_hash`].
    async fn newest_run_of(&self, plan_hash: &str) -> Result<Option<StoredRun>, StoreError>;

    /// Returns a run's jobs in order, each with its attempts from the first.
    async fn jobs(&self, run: RunId) -> Result<Vec<StoredJob>, StoreError>;

    /// Returns some jobs, in order; unknown ones are left out.
    async fn some_jobs(&self, jobs: &[JobId]) -> Result<Vec<StoredJob>, StoreError>;

    /// Adds or replaces an agent and its machine, and notes that it is linked to this coordinator.
    async fn put_agent(&self, agent: &StoredAgent) -> Result<(), StoreError>;

    /// Returns every agent ever seen.
    async fn agents(&self) -> Result<Vec<StoredAgent>, StoreError>;

    /// Returns some agents; unknown ones are left out.
    async fn some_agents(&self, ids: &[String]) -> Result<Vec<StoredAgent>, StoreError>;

    /// Returns machines by their ids; unknown ids are left out.
    async fn machines(&self, ids: &[String]) -> Result<Vec<Machine>, StoreError>;

    /// Begins the next attempts of queued jobs, each with a fence higher than any before.
    ///
    /// Each gets an answer of its own: a refused one keeps none of the others from beginning.
    ///
    /// # Errors
    /// Of one: [`StoreError::NotQueued`], or [`StoreError::Taken`] if another coordinator was first.
    async fn start_attempts(
        &self,
        starts: &[AttemptStart],
    ) -> Result<Vec<Result<StoredAttempt, StoreError>>, StoreError>;

    /// Begins one attempt; see [`Self::start_attempts`].
    async fn start_attempt(&self, start: &AttemptStart) -> Result<StoredAttempt, StoreError> {
        only(self.start_attempts(std::slice::from_ref(start)).await?)
    }

    /// Takes a lost attempt up again, whose job still waits for another.
    ///
    /// # Errors
    /// [`StoreError::NotQueued`] if it does not, [`StoreError::Stale`] if the attempt is not lost.
    async fn revive_attempt(
        &self,
        attempt: AttemptId,
        at_unix_ns: i64,
        lease_until_unix_ns: i64,
    ) -> Result<(), StoreError>;

    /// Moves the leases of running attempts. Returns those that do not run any more.
    async fn renew_leases(&self, leases: &[(AttemptId, i64)])
    -> Result<Vec<AttemptId>, StoreError>;

    /// Stores records of running attempts. What is stored already is left as it is.
    ///
    /// Many links' records go into one transaction: what a commit costs is shared. Each batch has an
    /// answer of its own, as in [`Self::start_attempts`].
    ///
    /// # Errors
    /// Of one: [`StoreError::Stale`] if the attempt is superseded, lost or cancelled,
    /// [`StoreError::OutOfRange`] if a record is not to be stored anywhere.
    async fn append(
        &self,
        batches: &[RecordBatch],
    ) -> Result<Vec<Result<Appended, StoreError>>, StoreError>;

    /// Stores records of one attempt; see [`Self::append`].
    async fn add_records(
        &self,
        attempt: AttemptId,
        records: &[Record],
    ) -> Result<Appended, StoreError> {
        let batch = RecordBatch {
            attempt,
            records: records.to_vec(),
        };
        only(self.append(&[batch]).await?)
    }

    /// Tells of attempts what [`Self::add_records`] of no records would.
    async fn standings(
        &self,
        attempts: &[AttemptId],
    ) -> Result<Vec<Result<Appended, StoreError>>, StoreError>;

    /// Ends running attempts and moves their jobs on; ends a run if that was its last job.
    ///
    /// Each gets an answer of its own, as in [`Self::start_attempts`].
    ///
    /// # Errors
    /// Of one: [`StoreError::Stale`] if the attempt does not run, or if its lease goes on although
    /// [`AttemptEnd::if_lease_over_by_unix_ns`] says otherwise.
    async fn end_attempts(
        &self,
        ends: &[(AttemptId, AttemptEnd)],
    ) -> Result<Vec<Result<(), StoreError>>, StoreError>;

    /// Ends one attempt; see [`Self::end_attempts`].
    async fn end_attempt(&self, attempt: AttemptId, end: &AttemptEnd) -> Result<(), StoreError> {
        only(self.end_attempts(&[(attempt, end.clone())]).await?)
    }

    /// Pauses a run from a time on, or lets it go on; an ended one is left as it is. Of a paused run
    /// no attempt begins.
    async fn pause_run(
        &self,
        run: RunId,
        since_unix_ns: Option<i64>,
        at_unix_ns: i64,
    ) -> Result<(), StoreError>;

    /// Gives up jobs of a run that are queued still and have had no more attempts than given, since it
    /// has expired; ends the run if those were its last. Returns the positions of those given up.
    async fn expire_jobs(
        &self,
        run: RunId,
        jobs: &[(u32, u32)],
        at_unix_ns: i64,
    ) -> Result<Vec<u32>, StoreError>;

    /// Notes that an agent was told to leave, or that it has heard.
    async fn ask_drain(&self, agent_id: &str, since_unix_ns: Option<i64>)
    -> Result<(), StoreError>;

    /// Keeps performance jobs from an agent. The first reason stays.
    async fn quarantine(&self, agent_id: &str, why: &Quarantine) -> Result<(), StoreError>;

    /// Takes an agent out of quarantine. Of its machine's calibrations only the latest counts from now
    /// on, as who does this says that the machine is as it shall be.
    async fn release_agent(&self, agent_id: &str) -> Result<(), StoreError>;

    /// Adds a calibration. The same one again is harmless.
    async fn add_calibration(&self, calibration: &StoredCalibration) -> Result<(), StoreError>;

    /// Returns a machine's latest calibrations, the newest first.
    async fn calibrations(
        &self,
        machine_id: &str,
        at_most: u32,
    ) -> Result<Vec<StoredCalibration>, StoreError>;

    /// Cancels every job of a run that is not final, and the attempts that run.
    async fn cancel_run(&self, run: RunId, at_unix_ns: i64) -> Result<(), StoreError>;

    /// Returns of accuracy jobs how many leading items are stored, over the attempts that are not
    /// void; one number for each job asked for.
    async fn items_done_of(&self, jobs: &[JobId]) -> Result<Vec<u64>, StoreError>;

    /// Returns how many leading items of one job are stored; see [`Self::items_done_of`].
    async fn items_done(&self, job: JobId) -> Result<u64, StoreError> {
        Ok(one(self.items_done_of(&[job]).await?))
    }

    /// Returns what each attempt of jobs says it ran, with the attempt's count; attempts that said
    /// nothing are left out. One list for each job asked for.
    async fn facts_of(&self, jobs: &[JobId]) -> Result<Vec<Vec<(u32, ModelFacts)>>, StoreError>;

    /// Returns what each attempt of one job says it ran; see [`Self::facts_of`].
    async fn facts(&self, job: JobId) -> Result<Vec<(u32, ModelFacts)>, StoreError> {
        Ok(one(self.facts_of(&[job]).await?))
    }

    /// Returns every record of a job with its attempt, by attempt and sequence.
    async fn records(&self, job: JobId) -> Result<Vec<(u32, Record)>, StoreError>;

    /// Returns the agent that an attempt was given to.
    async fn attempt_agent(&self, attempt: AttemptId) -> Result<Option<String>, StoreError>;

    /// Keeps an agent's signature over a running attempt's records, an encoded
    /// `tritmark.v1.SignedManifest`; a later one replaces it.
    ///
    /// # Errors
    /// [`StoreError::Stale`] if the attempt is superseded, lost or cancelled.
    async fn put_signature(&self, attempt: AttemptId, signed: &[u8]) -> Result<(), StoreError>;

    /// Returns the signatures of a run's attempts: job, attempt, signature.
    async fn signatures(&self, run: RunId) -> Result<Vec<(u32, u32, Vec<u8>)>, StoreError>;

    /// Returns how many jobs of a run are in each state.
    async fn job_counts(&self, run: RunId) -> Result<JobCounts, StoreError>;

    /// Returns how many jobs are queued or running of each run that has any: what can be asked often,
    /// as ended jobs are not looked at where the store can help it.
    async fn jobs_to_do(&self) -> Result<BTreeMap<RunId, u64>, StoreError> {
        let mut to_do = BTreeMap::new();
        for run in self.open_runs().await? {
            let n = self.job_counts(run.id).await?.to_do();
            if n > 0 {
                to_do.insert(run.id, n);
            }
        }
        Ok(to_do)
    }

    /// Tells whether other coordinators may have this store open too.
    fn is_shared(&self) -> bool {
        false
    }

    /// Returns the time that all who share this store go by.
    async fn now_unix_ns(&self) -> Result<i64, StoreError> {
        Ok(crate::run::now_unix_ns())
    }

    /// Returns every attempt that runs.
    async fn running_attempts(&self) -> Result<Vec<StoredAttempt>, StoreError>;

    /// Returns the jobs of which an agent has an attempt that runs.
    async fn running_on(&self, agent_id: &str) -> Result<Vec<JobId>, StoreError>;

    /// Returns where agents are linked and when they were last heard of; nobody's of a store that is
    /// not shared.
    async fn agent_links(&self) -> Result<Vec<AgentLink>, StoreError> {
        Ok(Vec::new())
    }

    /// Notes when agents that are linked to this coordinator were last heard of.
    async fn touch_agents(&self, _seen: &[(String, i64)]) -> Result<(), StoreError> {
        Ok(())
    }

    /// Notes that an agent has left this coordinator, if it has not gone to another meanwhile.
    async fn unlink_agent(&self, _id: &str, _last_seen_unix_ns: i64) -> Result<(), StoreError> {
        Ok(())
    }

    /// Returns what other coordinators change from now on. Some may be missed, most of all while the
    /// data base cannot be reached; [`Change::Missed`] tells of it where it is known.
    async fn changes(&self) -> Result<BoxStream<'static, Change>, StoreError> {
        Ok(futures::stream::pending().boxed())
    }
}

fn only<T>(answers: Vec<Result<T, StoreError>>) -> Result<T, StoreError> {
    one(answers)
}

fn one<T>(answers: Vec<T>) -> T {
    answers
        .into_iter()
        .next()
        .expect("a store answers each of its questions")
}

/// Records of one attempt that are stored together.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordBatch {
    /// Whose they are.
    pub attempt: AttemptId,
    /// The records, in any order.
    pub records: Vec<Record>,
}

/// What another coordinator has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It has added or cancelled a run.
    Run(RunId),
    /// It has begun, ended or revived attempts of these jobs.
    Jobs(Vec<JobId>),
    /// An agent has come to it or left it.
    Agent(String),
    /// Something, nobody knows what.
    Missed,
}

/// Where an agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentLink {
    /// Its id.
    pub agent_id: String,
    /// The coordinator it was last linked to, if it did not leave it; see
    /// [`PostgresStore::coordinator`].
    pub coordinator: Option<Uuid>,
    /// Whether that is the one that asks.
    pub is_here: bool,
    /// When it was last heard of.
    pub last_seen_unix_ns: i64,
    /// Since when it takes no performance jobs.
    pub quarantined_unix_ns: Option<i64>,
    /// When it was told to leave, if it has not heard yet.
    pub drain_unix_ns: Option<i64>,
}

impl AgentLink {
    /// Tells whether what people and calibrations said of the agent is what is known of it.
    pub(crate) fn is_as_known(&self, known: &StoredAgent) -> bool {
        let quarantined = known.quarantine.as_ref().map(|why| why.since_unix_ns);
        quarantined == self.quarantined_unix_ns && known.drain_unix_ns == self.drain_unix_ns
    }
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRun {
    /// Its id.
    pub id: RunId,
    /// The plan's name.
    pub name: String,
    /// The plan as submitted.
    pub plan_toml: String,
    /// [`plan_hash`] of the plan.
    pub plan_hash: String,
    /// When it was submitted.
    pub submitted_unix_ns: i64,
    /// When its last job ended.
    pub ended_unix_ns: Option<i64>,
    /// Version of the coordinator that took it.
    pub tritmark_version: String,
    /// Runs with a higher one go first.
    pub priority: i32,
    /// When its jobs that are queued still are given up.
    pub expires_unix_ns: Option<i64>,
    /// Since when none of its jobs begins.
    pub paused_unix_ns: Option<i64>,
}

/// A job.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredJob {
    /// The job.
    pub job: Job,
    /// Its state.
    pub state: JobState,
    /// Its attempts from the first.
    pub attempts: Vec<StoredAttempt>,
    /// Why it was given up, where no attempt tells.
    pub failure: Option<Failure>,
}

impl StoredJob {
    /// Returns a job that waits for its first attempt.
    pub fn queued(job: Job) -> Self {
        Self {
            job,
            state: JobState::Queued,
            attempts: Vec::new(),
            failure: None,
        }
    }

    /// Tells whether it was given up since its run had expired.
    pub fn is_expired(&self) -> bool {
        self.state == JobState::Failed && self.failure.is_some()
    }

    /// Returns why it failed, if it did, or why its latest attempt did.
    pub fn why_not(&self) -> Option<&Failure> {
        let latest = self.attempts.last();
        let of_attempt = latest.and_then(|attempt| attempt.failure.as_ref());
        self.failure.as_ref().or(of_attempt)
    }
}

/// Returns what is said of a job that nobody has begun in time.
pub fn expiry() -> Failure {
    Failure {
        class: FailureClass::Expired,
        message: "the run expired before the job was begun".to_owned(),
        stderr: String::new(),
    }
}

/// An attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAttempt {
    /// Its name.
    pub id: AttemptId,
    /// Who does it.
    pub agent_id: String,
    /// Where.
    pub machine_id: String,
    /// How it stands.
    pub state: AttemptState,
    /// When it was given out.
    pub started_unix_ns: i64,
    /// When its agent must have been heard of again.
    pub lease_until_unix_ns: i64,
    /// When it ended.
    pub ended_unix_ns: Option<i64>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Whether it uses up one of the job's tries.
    pub counts: bool,
    /// Whether its items must not be put together with those of later attempts.
    pub is_void: bool,
}

/// States of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptState {
    /// An agent has it, or had it when last heard of.
    Running,
    /// Every record is stored.
    Succeeded,
    /// Its agent said so.
    Failed,
    /// Its agent was not heard of in time.
    Lost,
    /// A person cancelled it.
    Cancelled,
}

impl AttemptState {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Lost,
        Self::Cancelled,
    ];

    /// Returns the name used in stores.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Lost => "lost",
            Self::Cancelled => "cancelled",
        }
    }
}

/// An agent as it last registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAgent {
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: String,
    /// Its machine.
    pub machine: Machine,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Suites it can run; any if empty.
    pub suites: Vec<String>,
    /// When it was last heard of.
    pub last_seen_unix_ns: i64,
    /// Why it takes no performance jobs; not [`Store::put_agent`]'s business.
    pub quarantine: Option<Quarantine>,
    /// When it was told to leave, if it has not heard yet; not [`Store::put_agent`]'s business either.
    pub drain_unix_ns: Option<i64>,
}

/// Why an agent takes no performance jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// Since when.
    pub since_unix_ns: i64,
    /// In a reader's words.
    pub reason: String,
}

/// A calibration as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredCalibration {
    /// Whose.
    pub machine_id: String,
    /// When the coordinator had it.
    pub at_unix_ns: i64,
    /// Who measured it.
    pub agent_id: String,
    /// Since which start of the machine.
    pub boot_id: String,
    /// Whether later ones are held to it.
    pub counts: bool,
    /// What was measured.
    pub calibration: Calibration,
}

/// What an attempt begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptStart {
    /// The job.
    pub job: JobId,
    /// Who does it.
    pub agent_id: String,
    /// Where.
    pub machine_id: String,
    /// Now.
    pub at_unix_ns: i64,
    /// When its agent must have been heard of again.
    pub lease_until_unix_ns: i64,
    /// What it needs for itself, if it does.
    pub exclusive: Option<Exclusive>,
}

/// What a performance job's attempt needs: its machine, and that all of one comparison is measured
/// there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exclusive {
    /// The comparison, by a name that is its own in the run.
    pub comparison: String,
    /// The machine on which it was measured so far, as this coordinator knows; it moves from there
    /// to the attempt's.
    pub pinned_to: Option<String>,
}

/// What an attempt ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptEnd {
    /// State of the attempt.
    pub state: AttemptState,
    /// State of its job from now on.
    pub job_state: JobState,
    /// When it ended.
    pub at_unix_ns: i64,
    /// Records it has; `None` if it was lost.
    pub n_records: Option<u64>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Whether it uses up one of the job's tries.
    pub counts: bool,
    /// Whether the items of the job's earlier attempts become void.
    pub voids_earlier: bool,
    /// It ends only if its lease was over by then: another coordinator may have renewed it.
    pub if_lease_over_by_unix_ns: Option<i64>,
}

/// How many jobs of a run are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// Waiting for an agent.
    pub queued: u32,
    /// With an agent.
    pub running: u32,
    /// Done.
    pub succeeded: u32,
    /// Given up.
    pub failed: u32,
    /// Cancelled by a person.
    pub cancelled: u32,
    /// Of those given up: nobody began them in time.
    pub expired: u32,
}

impl JobCounts {
    /// Returns how many are queued or running.
    pub fn to_do(&self) -> u64 {
        u64::from(self.queued) + u64::from(self.running)
    }

    /// Counts jobs by their states.
    pub fn of<'a>(jobs: impl IntoIterator<Item = &'a StoredJob>) -> Self {
        let mut counts = Self::default();
        for job in jobs {
            *counts.of_state(job.state) += 1;
            counts.expired += u32::from(job.is_expired());
        }
        counts
    }

    /// Returns the number of all jobs.
    pub fn total(self) -> u32 {
        let Self {
            queued,
            running,
            succeeded,
            failed,
            cancelled,
            expired: _,
        } = self;
        queued + running + succeeded + failed + cancelled
    }

    /// Moves one job from one state to another.
    pub(crate) fn move_one(&mut self, from: JobState, to: JobState) {
        *self.of_state(from) -= 1;
        *self.of_state(to) += 1;
    }

    /// Returns the number of jobs that have something to come.
    pub(crate) fn n_open(self) -> u32 {
        self.queued + self.running
    }

    fn of_state(&mut self, state: JobState) -> &mut u32 {
        match state {
            JobState::Queued => &mut self.queued,
            JobState::Running => &mut self.running,
            JobState::Succeeded => &mut self.succeeded,
            JobState::Failed => &mut self.failed,
            JobState::Cancelled => &mut self.cancelled,
        }
    }
}

/// What became of a batch of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Every record with a lower sequence is stored.
    pub stored_below: u64,
    /// Records that were not stored before.
    pub n_new: u64,
    /// Records that were stored before with other contents; the first ones are kept.
    pub n_conflicts: u64,
    /// Whether the attempt has ended: the agent has not seen the last acknowledgement.
    pub finished: bool,
}

/// What a store cannot do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data base failed.
    #[error("cannot {operation}")]
    Database {
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The store cannot be brought to this version's tables.
    #[error("cannot bring the store {path} to this version's tables")]
    Migrate {
        /// Its file.
        path: String,
        /// Why.
        #[source]
        source: sqlx::migrate::MigrateError,
    },
    /// The file cannot be opened or locked.
    #[error("cannot open the store {path}")]
    Open {
        /// Its file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process has the store.
    #[error("the store {path} is in use by another coordinator")]
    InUse {
        /// Its file.
        path: String,
    },
    /// What is stored says nothing sensible.
    #[error("the store is damaged: {what}: {problem}")]
    Damaged {
        /// Which row.
        what: String,
        /// What is wrong.
        problem: String,
    },
    /// A value is beyond what a store takes.
    #[error("{what} {value} is out of range")]
    OutOfRange {
        /// Which value.
        what: &'static str,
        /// The value.
        value: u64,
    },
    /// Whoever was doing it for several was stopped: it may be done or not.
    #[error("cannot {operation}: it was given up half-way")]
    GivenUp {
        /// What was tried.
        operation: &'static str,
    },
    /// The attempt is not the one that counts.
    #[error("attempt {attempt} of job {job} is {why}")]
    Stale {
        /// Its job.
        job: JobId,
        /// Its count.
        attempt: u32,
        /// Why.
        why: &'static str,
    },
    /// The job cannot be begun.
    #[error("job {job} is not queued")]
    NotQueued {
        /// The job.
        job: JobId,
    },
    /// The job cannot be begun there, as another coordinator has changed something.
    #[error("job {job} cannot be begun there: {why}")]
    Taken {
        /// The job.
        job: JobId,
        /// Why.
        why: &'static str,
    },
    /// There is no such place for a store.
    #[error(transparent)]
    Location(#[from] BadLocation),
}

/// Returns the name of a plan's contents: two submissions with equal ones are the same plan.
pub fn plan_hash(plan_toml: &str, base_dir: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(plan_toml.len() as u64).to_le_bytes());
    hasher.update(plan_toml.as_bytes());
    hasher.update(base_dir.as_bytes());
    hasher.finalize().to_hex().to_string()
}
