//! Rows to domain types; what makes no sense is [`StoreError::Damaged`].

use std::num::NonZeroU32;

use prost::Message as _;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Row as _, sqlite::SqliteRow};
use tritmark_proto::{
    bundle::JobState,
    job::{AttemptId, Job, JobId, RunId},
    machine::Machine,
    record::Record,
    wire,
};

use super::super::{AttemptState, StoreError, StoredAgent, StoredAttempt, StoredJob, StoredRun};

/// Every job state, to find one by its name.
const JOB_STATES: [JobState; 5] = [
    JobState::Queued,
    JobState::Running,
    JobState::Succeeded,
    JobState::Failed,
    JobState::Cancelled,
];

fn damaged(what: impl Into<String>, problem: &dyn ToString) -> StoreError {
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

fn to_u32(what: &'static str, value: i64) -> Result<u32, StoreError> {
    u32::try_from(value).map_err(|_| damaged(what, &value))
}

pub(super) fn run(row: &SqliteRow) -> Result<StoredRun, StoreError> {
    let id: &str = row.get("id");
    Ok(StoredRun {
        id: id
            .parse()
            .map_err(|error| damaged(format!("run `{id}`"), &error))?,
        name: row.get("name"),
        plan_toml: row.get("plan_toml"),
        plan_hash: row.get("plan_hash"),
        submitted_unix_ns: row.get("submitted_unix_ns"),
        ended_unix_ns: row.get("ended_unix_ns"),
        tritmark_version: row.get("tritmark_version"),
    })
}

pub(super) fn job_state(name: &str) -> Result<JobState, StoreError> {
    JOB_STATES
        .into_iter()
        .find(|known| known.name() == name)
        .ok_or_else(|| damaged("a job", &format!("unknown state `{name}`")))
}

pub(super) fn job(run: RunId, row: &SqliteRow) -> Result<StoredJob, StoreError> {
    let index = to_u32("a job's position", row.get("job"))?;
    let what = format!("job {run}/{index}");
    let job: Job = from_json(&what, row.get("spec"))?;
    if job.id != (JobId { run, index }) {
        return Err(damaged(what, &format!("it says it is {}", job.id)));
    }
    Ok(StoredJob {
        job,
        state: job_state(row.get("state"))?,
        attempts: Vec::new(),
    })
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

pub(super) fn attempt(run: RunId, row: &SqliteRow) -> Result<StoredAttempt, StoreError> {
    let job = JobId {
        run,
        index: to_u32("a job's position", row.get("job"))?,
    };
    let failure: Option<&str> = row.get("failure");
    Ok(StoredAttempt {
        id: attempt_id(job, row.get("attempt"), row.get("fence"))?,
        agent_id: row.get("agent"),
        machine_id: row.get("machine"),
        state: attempt_state(row.get("state"))?,
        started_unix_ns: row.get("started_unix_ns"),
        lease_until_unix_ns: row.get("lease_until_unix_ns"),
        ended_unix_ns: row.get("ended_unix_ns"),
        failure: failure
            .map(|text| from_json(&format!("failure of job {job}"), text))
            .transpose()?,
        counts: row.get("counts"),
        is_void: row.get("void"),
    })
}

pub(super) fn machine(row: &SqliteRow) -> Result<Machine, StoreError> {
    from_json("a machine", row.get("spec"))
}

pub(super) fn agent(row: &SqliteRow) -> Result<StoredAgent, StoreError> {
    Ok(StoredAgent {
        id: row.get("id"),
        version: row.get("version"),
        machine: machine(row)?,
        labels: from_json("an agent's labels", row.get("labels"))?,
        suites: from_json("an agent's suites", row.get("suites"))?,
        last_seen_unix_ns: row.get("last_seen_unix_ns"),
    })
}

pub(super) fn record(job: JobId, row: &SqliteRow) -> Result<(u32, Record), StoreError> {
    let attempt = to_u32("an attempt's count", row.get("attempt"))?;
    let sequence: i64 = row.get("sequence");
    let what = || format!("record {sequence} of attempt {attempt} of job {job}");
    let payload: &[u8] = row.get("payload");
    let record = wire::Record::decode(payload).map_err(|error| damaged(what(), &error))?;
    let record = Record::try_from(record).map_err(|error| damaged(what(), &error))?;
    Ok((attempt, record))
}
