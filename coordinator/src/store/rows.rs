//! Rows to domain types and back, the same for every data base; what makes no sense is
//! [`StoreError::Damaged`].

use std::num::NonZeroU32;

use prost::Message as _;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Row as _, postgres::PgRow, sqlite::SqliteRow};
use tritmark_proto::{
    bundle::JobState,
    job::{AttemptId, Job, JobId, RunId},
    machine::Machine,
    record::{ModelFacts, Record, RecordBody},
    wire,
};

use super::{
    Appended, AttemptStart, AttemptState, Quarantine, StoreError, StoredAgent, StoredAttempt,
    StoredCalibration, StoredJob, StoredRun,
};

/// Every job state, to find one by its name.
const JOB_STATES: [JobState; 5] = [
    JobState::Queued,
    JobState::Running,
    JobState::Succeeded,
    JobState::Failed,
    JobState::Cancelled,
];

/// A row of any data base, by its columns.
pub(crate) trait Columns {
    fn text(&self, column: &str) -> Result<&str, StoreError>;
    fn text_if_any(&self, column: &str) -> Result<Option<&str>, StoreError>;
    fn number(&self, column: &str) -> Result<i64, StoreError>;
    fn number_if_any(&self, column: &str) -> Result<Option<i64>, StoreError>;
    fn flag(&self, column: &str) -> Result<bool, StoreError>;
    fn bytes(&self, column: &str) -> Result<&[u8], StoreError>;
    fn bytes_if_any(&self, column: &str) -> Result<Option<&[u8]>, StoreError>;
    fn run(&self, column: &str) -> Result<RunId, StoreError>;
}

macro_rules! columns_of {
    ($row:ty, $run:expr) => {
        impl Columns for $row {
            fn text(&self, column: &str) -> Result<&str, StoreError> {
                self.try_get(column)
                    .map_err(|error| damaged(column, &error))
            }

            fn text_if_any(&self, column: &str) -> Result<Option<&str>, StoreError> {
                self.try_get(column)
                    .map_err(|error| damaged(column, &error))
            }

            fn number(&self, column: &str) -> Result<i64, StoreError> {
                self.try_get(column)
                    .map_err(|error| damaged(column, &error))
            }

            fn number_if_any(&self, column: &str) -> Result<Option<i64>, StoreError> {
                self.try_get(column)
                    .map_err(|error| damaged(column, &error))
            }

            fn flag(&self, column: &str) -> Result<bool, StoreError> {
                self.try_get(column)
                    .map_err(|error| damaged(column, &error))
            }

            fn bytes(&self, column: &str) -> Result<&[u8], StoreError> {
                self.try_get(column)
                    .map_err(|error| damaged(column, &error))
            }

            fn bytes_if_any(&self, column: &str) -> Result<Option<&[u8]>, StoreError> {
                self.try_get(column)
                    .map_err(|error| damaged(column, &error))
            }

            fn run(&self, column: &str) -> Result<RunId, StoreError> {
                let read: fn(&Self, &str) -> Result<RunId, StoreError> = $run;
                read(self, column)
            }
        }
    };
}

columns_of!(SqliteRow, |row, column| {
    let id = row.text(column)?;
    id.parse()
        .map_err(|error| damaged(format!("run `{id}`"), &error))
});
columns_of!(PgRow, |row, column| {
    row.try_get(column)
        .map(RunId)
        .map_err(|error| damaged(column, &error))
});

pub(super) fn damaged(what: impl Into<String>, problem: &dyn ToString) -> StoreError {
    StoreError::Damaged {
        what: what.into(),
        problem: problem.to_string(),
    }
}

pub(super) fn to_json<T: Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| damaged(what, &error))
}

fn from_json<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| damaged(what, &error))
}

pub(super) fn to_i64(what: &'static str, value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::OutOfRange { what, value })
}

pub(super) fn to_u32(what: &'static str, value: i64) -> Result<u32, StoreError> {
    u32::try_from(value).map_err(|_| damaged(what, &value))
}

pub(super) fn run(row: &impl Columns) -> Result<StoredRun, StoreError> {
    Ok(StoredRun {
        id: row.run("id")?,
        name: row.text("name")?.to_owned(),
        plan_toml: row.text("plan_toml")?.to_owned(),
        plan_hash: row.text("plan_hash")?.to_owned(),
        submitted_unix_ns: row.number("submitted_unix_ns")?,
        ended_unix_ns: row.number_if_any("ended_unix_ns")?,
        tritmark_version: row.text("tritmark_version")?.to_owned(),
        priority: i32::try_from(row.number("priority")?)
            .map_err(|error| damaged("a run's priority", &error))?,
        expires_unix_ns: row.number_if_any("expires_unix_ns")?,
        paused_unix_ns: row.number_if_any("paused_unix_ns")?,
    })
}

pub(super) fn job_state(name: &str) -> Result<JobState, StoreError> {
    JOB_STATES
        .into_iter()
        .find(|known| known.name() == name)
        .ok_or_else(|| damaged("a job", &format!("unknown state `{name}`")))
}

pub(super) fn job(run: RunId, row: &impl Columns) -> Result<StoredJob, StoreError> {
    let index = to_u32("a job's position", row.number("job")?)?;
    let what = format!("job {run}/{index}");
    let job: Job = from_json(&what, row.text("spec")?)?;
    if job.id != (JobId { run, index }) {
        return Err(damaged(what, &format!("it says it is {}", job.id)));
    }
    let failure = row.text_if_any("failure")?;
    Ok(StoredJob {
        job,
        state: job_state(row.text("state")?)?,
        attempts: Vec::new(),
        failure: failure.map(|text| from_json(&what, text)).transpose()?,
    })
}

/// Reads a job's position in its run.
pub(super) fn job_id(run: RunId, row: &impl Columns) -> Result<JobId, StoreError> {
    let index = to_u32("a job's position", row.number("job")?)?;
    Ok(JobId { run, index })
}

pub(super) fn attempt_id(job: JobId, attempt: i64, fence: i64) -> Result<AttemptId, StoreError> {
    let count = to_u32("an attempt's count", attempt)?;
    Ok(AttemptId {
        job,
        attempt: NonZeroU32::new(count).ok_or_else(|| damaged("an attempt's count", &count))?,
        fence: u64::try_from(fence).map_err(|_| damaged("a fence", &fence))?,
    })
}

pub(super) fn attempt_state(name: &str) -> Result<AttemptState, StoreError> {
    AttemptState::ALL
        .into_iter()
        .find(|state| state.name() == name)
        .ok_or_else(|| damaged("an attempt", &format!("unknown state `{name}`")))
}

pub(super) fn attempt(run: RunId, row: &impl Columns) -> Result<StoredAttempt, StoreError> {
    let job = JobId {
        run,
        index: to_u32("a job's position", row.number("job")?)?,
    };
    let failure = row.text_if_any("failure")?;
    Ok(StoredAttempt {
        id: attempt_id(job, row.number("attempt")?, row.number("fence")?)?,
        agent_id: row.text("agent")?.to_owned(),
        machine_id: row.text("machine")?.to_owned(),
        state: attempt_state(row.text("state")?)?,
        started_unix_ns: row.number("started_unix_ns")?,
        lease_until_unix_ns: row.number("lease_until_unix_ns")?,
        ended_unix_ns: row.number_if_any("ended_unix_ns")?,
        failure: failure
            .map(|text| from_json(&format!("failure of job {job}"), text))
            .transpose()?,
        counts: row.flag("counts")?,
        is_void: row.flag("void")?,
    })
}

pub(super) fn machine(row: &impl Columns) -> Result<Machine, StoreError> {
    from_json("a machine", row.text("spec")?)
}

pub(super) fn agent(row: &impl Columns) -> Result<StoredAgent, StoreError> {
    Ok(StoredAgent {
        id: row.text("id")?.to_owned(),
        version: row.text("version")?.to_owned(),
        machine: machine(row)?,
        labels: from_json("an agent's labels", row.text("labels")?)?,
        suites: from_json("an agent's suites", row.text("suites")?)?,
        last_seen_unix_ns: row.number("last_seen_unix_ns")?,
        quarantine: match row.number_if_any("quarantined_unix_ns")? {
            Some(since_unix_ns) => Some(Quarantine {
                since_unix_ns,
                reason: row
                    .text_if_any("quarantine_reason")?
                    .unwrap_or_default()
                    .to_owned(),
            }),
            None => None,
        },
        drain_unix_ns: row.number_if_any("drain_unix_ns")?,
    })
}

pub(super) fn calibration(row: &impl Columns) -> Result<StoredCalibration, StoreError> {
    Ok(StoredCalibration {
        machine_id: row.text("machine")?.to_owned(),
        at_unix_ns: row.number("at_unix_ns")?,
        agent_id: row.text("agent")?.to_owned(),
        boot_id: row.text("boot_id")?.to_owned(),
        counts: row.flag("counts")?,
        calibration: from_json("a calibration", row.text("spec")?)?,
    })
}

pub(super) fn record(job: JobId, row: &impl Columns) -> Result<(u32, Record), StoreError> {
    let attempt = to_u32("an attempt's count", row.number("attempt")?)?;
    let sequence = row.number("sequence")?;
    let what = || format!("record {sequence} of attempt {attempt} of job {job}");
    let payload = row.bytes("payload")?;
    let record = wire::Record::decode(payload).map_err(|error| damaged(what(), &error))?;
    let record = Record::try_from(record).map_err(|error| damaged(what(), &error))?;
    Ok((attempt, record))
}

/// What is asked for by itself of a record, and the record as it goes into the store.
pub(super) struct RecordColumns {
    pub(super) sequence: i64,
    pub(super) kind: &'static str,
    pub(super) metric: Option<&'static str>,
    pub(super) item_index: Option<u32>,
    pub(super) payload: Vec<u8>,
}

impl RecordColumns {
    pub(super) fn of(record: &Record) -> Result<Self, StoreError> {
        let (kind, metric, item_index) = match &record.body {
            RecordBody::Measurement(measurement) => {
                ("measurement", Some(measurement.metric.name()), None)
            }
            RecordBody::Tokens(_) => ("tokens", None, None),
            RecordBody::Item(item) => ("item", None, Some(item.index)),
            RecordBody::Facts(_) => ("facts", None, None),
            RecordBody::Cell(_) => ("cell", None, None),
        };
        Ok(Self {
            sequence: to_i64("sequence", record.sequence)?,
            kind,
            metric,
            item_index,
            payload: wire::Record::from(record.clone()).encode_to_vec(),
        })
    }
}

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
    pub(super) lease_until_unix_ns: i64,
}

impl Standing {
    /// Returns what an agent hears that sends records of the attempt.
    pub(super) fn appended(&self, attempt: AttemptId) -> Result<Appended, StoreError> {
        let finished = match self.state {
            AttemptState::Running => false,
            // The agent has not seen that it is over; it has nothing new to say.
            AttemptState::Succeeded | AttemptState::Failed => true,
            AttemptState::Lost => return Err(stale(attempt, "lost")),
            AttemptState::Cancelled => return Err(stale(attempt, "cancelled")),
        };
        Ok(Appended {
            stored_below: self.stored_below,
            finished,
            ..Appended::default()
        })
    }
}

/// Reads how an attempt stands; refuses one of another fence.
pub(super) fn standing(attempt: AttemptId, row: &impl Columns) -> Result<Standing, StoreError> {
    if row.number("fence")?.cast_unsigned() != attempt.fence {
        return Err(stale(attempt, "of another fence"));
    }
    Ok(Standing {
        state: attempt_state(row.text("state")?)?,
        stored_below: row.number("stored_below")?.cast_unsigned(),
        lease_until_unix_ns: row.number("lease_until_unix_ns")?,
    })
}

/// Gives jobs, which are in order, their attempts, which are too.
pub(super) fn attach(
    jobs: &mut [StoredJob],
    attempts: Vec<StoredAttempt>,
) -> Result<(), StoreError> {
    for attempt in attempts {
        let id = attempt.id.job;
        let job = jobs
            .binary_search_by_key(&id, |job| job.job.id)
            .map_err(|_| damaged(format!("an attempt of job {id}"), &"the job is missing"))?;
        jobs[job].attempts.push(attempt);
    }
    Ok(())
}

/// Returns the first facts of each attempt, of records by attempt and sequence.
pub(super) fn facts(
    job: JobId,
    rows: &[impl Columns],
) -> Result<Vec<(u32, ModelFacts)>, StoreError> {
    let mut facts: Vec<(u32, ModelFacts)> = Vec::new();
    for row in rows {
        let (attempt, record) = record(job, row)?;
        if let RecordBody::Facts(said) = record.body
            && facts.last().is_none_or(|(last, _)| *last != attempt)
        {
            facts.push((attempt, said));
        }
    }
    Ok(facts)
}

impl AttemptStart {
    /// Returns the attempt that this has begun.
    pub(super) fn begun(&self, id: AttemptId) -> StoredAttempt {
        StoredAttempt {
            id,
            agent_id: self.agent_id.clone(),
            machine_id: self.machine_id.clone(),
            state: AttemptState::Running,
            started_unix_ns: self.at_unix_ns,
            lease_until_unix_ns: self.lease_until_unix_ns,
            ended_unix_ns: None,
            failure: None,
            counts: true,
            is_void: false,
        }
    }
}
