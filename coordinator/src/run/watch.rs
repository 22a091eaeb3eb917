//! Runs and jobs as people see them.

use tritmark_proto::wire::{self, run_event::Kind};

use crate::store::{JobCounts, StoredJob, StoredRun};

/// Returns a run's summary.
pub(crate) fn summary(run: &StoredRun, counts: JobCounts) -> wire::RunSummary {
    let JobCounts {
        queued,
        running,
        succeeded,
        failed,
        cancelled,
        expired,
    } = counts;
    wire::RunSummary {
        run_id: run.id.to_string(),
        name: run.name.clone(),
        submitted_unix_ns: run.submitted_unix_ns,
        ended_unix_ns: run.ended_unix_ns,
        n_jobs: counts.total(),
        n_queued: queued,
        n_running: running,
        n_succeeded: succeeded,
        n_failed: failed,
        n_cancelled: cancelled,
        n_expired: expired,
        priority: run.priority,
        expires_unix_ns: run.expires_unix_ns,
        paused_unix_ns: run.paused_unix_ns,
    }
}

/// Returns how a job stands, with its latest attempt.
pub(crate) fn job_info(stored: &StoredJob) -> wire::JobInfo {
    let last = stored.attempts.last();
    wire::JobInfo {
        run_id: stored.job.id.run.to_string(),
        job: Some(stored.job.clone().into()),
        state: wire::JobState::from(stored.state).into(),
        attempt: last.map_or(0, |attempt| attempt.id.attempt.get()),
        agent_id: last.map(|attempt| attempt.agent_id.clone()),
        machine_id: last.map(|attempt| attempt.machine_id.clone()),
        failure: stored.why_not().cloned().map(Into::into),
        started_unix_ns: last.map(|attempt| attempt.started_unix_ns),
        ended_unix_ns: last.and_then(|attempt| attempt.ended_unix_ns),
    }
}

pub(super) fn summary_event(summary: wire::RunSummary, now: i64) -> wire::RunEvent {
    wire::RunEvent {
        at_unix_ns: now,
        kind: Some(Kind::Summary(summary)),
    }
}

pub(super) fn job_event(job: &StoredJob, now: i64) -> wire::RunEvent {
    wire::RunEvent {
        at_unix_ns: now,
        kind: Some(Kind::Job(job_info(job))),
    }
}

/// Returns a run's summary and all its jobs.
pub(super) fn snapshot<'a>(
    run: &StoredRun,
    jobs: impl IntoIterator<Item = &'a StoredJob>,
    now: i64,
) -> Vec<wire::RunEvent> {
    let jobs: Vec<&StoredJob> = jobs.into_iter().collect();
    let counts = JobCounts::of(jobs.iter().copied());
    std::iter::once(summary_event(summary(run, counts), now))
        .chain(jobs.into_iter().map(|job| job_event(job, now)))
        .collect()
}
