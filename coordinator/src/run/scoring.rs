//! When the loop scores: a job whose programs are all written gets one more attempt, the
//! coordinator's own. One at a time, as each may take the whole machine.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tracing::info;
use tritmark_proto::{
    bundle::{Failure, FailureClass, JobState},
    job::{AttemptId, JobId},
};

use super::{Command, leases::Lease, lists::Run, nanoseconds, state::State};
use crate::{
    schedule,
    scoring::{self, Scorer, Task, is_scoring},
    store::{AttemptEnd, AttemptStart, AttemptState, StoreError, StoredAgent, StoredJob},
};

/// What the loop knows of scoring.
#[derive(Debug)]
pub(crate) struct Scoring {
    scorer: Option<Arc<dyn Scorer>>,
    /// To the loop itself.
    commands: mpsc::WeakSender<Command>,
    /// The attempt that goes on, and its task.
    current: Option<(AttemptId, AbortOnDropHandle<()>)>,
    /// An end that is not stored yet.
    ended: Option<(AttemptId, Result<u64, Failure>)>,
}

impl Scoring {
    pub(crate) fn new(
        scorer: Option<Arc<dyn Scorer>>,
        commands: mpsc::WeakSender<Command>,
    ) -> Self {
        Self {
            scorer,
            commands,
            current: None,
            ended: None,
        }
    }

    /// Tells whether this very attempt goes on here.
    pub(super) fn is_current(&self, attempt: AttemptId) -> bool {
        self.current
            .as_ref()
            .is_some_and(|(current, _)| *current == attempt)
    }

    /// Ends what goes on for an attempt that no longer runs.
    pub(super) fn let_go(&mut self, attempt: AttemptId) {
        self.current.take_if(|(current, _)| *current == attempt);
        self.ended.take_if(|(ended, _)| *ended == attempt);
    }

    /// Ends what goes on and waits until nothing of it holds the store.
    pub(super) async fn close(&mut self) {
        if let Some((_, task)) = self.current.take() {
            task.abort();
            // Whether it had just ended is all the same.
            let _ = task.await;
        }
    }

    /// Takes note of an end.
    pub(super) fn ended(&mut self, attempt: AttemptId, outcome: Result<u64, Failure>) {
        if self.is_current(attempt) {
            self.current = None;
            self.ended = Some((attempt, outcome));
        }
    }
}

/// Tells whether a job waits for the coordinator and not for an agent.
pub(super) fn awaits_scores(job: &StoredJob) -> bool {
    let mut written = job.attempts.iter().rev();
    job.state == JobState::Queued
        && job.job.suite.is_scored_by_coordinator()
        && written
            .find(|attempt| !is_scoring(attempt))
            .is_some_and(|attempt| attempt.state == AttemptState::Succeeded)
}

impl State {
    /// Returns what becomes of a job whose attempt has succeeded.
    pub(super) fn after_success(&self, job: JobId) -> JobState {
        let is_written = self
            .job(job)
            .is_some_and(|job| job.stored.job.suite.is_scored_by_coordinator());
        if is_written {
            JobState::Queued
        } else {
            JobState::Succeeded
        }
    }

    /// Ends what an earlier life of this coordinator was scoring; what it has stored counts.
    pub(super) async fn end_lost_scorings(&mut self, now: i64) -> Result<(), StoreError> {
        let lost: Vec<AttemptId> = self
            .leases
            .iter()
            .map(|(attempt, _)| *attempt)
            .filter(|attempt| self.attempt(*attempt).is_some_and(is_scoring))
            .collect();
        for attempt in lost {
            let message = "the coordinator was stopped while it scored";
            let end = AttemptEnd {
                state: AttemptState::Lost,
                job_state: JobState::Queued,
                at_unix_ns: now,
                n_records: None,
                failure: Some(Failure {
                    class: FailureClass::Infrastructure,
                    message: message.to_owned(),
                    stderr: String::new(),
                }),
                counts: false,
                voids_earlier: false,
                if_lease_over_by_unix_ns: None,
            };
            self.store.end_attempt(attempt, &end).await?;
            self.ended(attempt, &end, 0);
        }
        Ok(())
    }

    /// Returns when scoring has something to do even if nobody asks for anything: the next may begin,
    /// or the lease of the current one must be moved.
    pub(super) fn next_scoring(&self, now: i64) -> Option<i64> {
        if let Some((attempt, _)) = &self.scoring.current {
            let lease = self.leases.get(attempt)?;
            return Some(self.renewal_at(lease.until_unix_ns));
        }
        let next = self.begun_from().filter_map(Run::next_unscored);
        let next = next.map(|(from, _)| from).min();
        // What may begin already is begun by each turn, or waits for another coordinator.
        next.filter(|from| *from > now)
    }

    fn renewal_at(&self, until_unix_ns: i64) -> i64 {
        until_unix_ns.saturating_sub(nanoseconds(self.timing.lease) / 2)
    }

    /// Stores how the last scoring ended, and begins the next.
    pub(super) async fn advance_scoring(&mut self, now: i64) -> Result<(), StoreError> {
        if let Some((attempt, outcome)) = self.scoring.ended.clone() {
            self.end_scoring(attempt, outcome, now).await?;
            self.scoring.ended = None;
        }
        if let Some((attempt, _)) = &self.scoring.current {
            let attempt = *attempt;
            let until = self.leases.get(&attempt).map(|lease| lease.until_unix_ns);
            if until.is_some_and(|until| self.renewal_at(until) <= now) {
                self.renew(attempt, now);
            }
            return Ok(());
        }
        // Of several coordinators one that can.
        if self.scoring.scorer.is_none() && self.store.is_shared() {
            return Ok(());
        }
        let next = self
            .begun_from()
            .filter_map(Run::next_unscored)
            .find(|(from, _)| *from <= now)
            .map(|(_, job)| job.stored.job.id);
        match next {
            Some(job) => self.begin_scoring(job, now).await,
            None => Ok(()),
        }
    }

    async fn begin_scoring(&mut self, job: JobId, now: i64) -> Result<(), StoreError> {
        let entry = self.job(job).expect("the job was found in a run");
        let written_on = entry
            .stored
            .attempts
            .last()
            .map(|attempt| attempt.machine_id.clone());
        let machine = if let Some(scorer) = &self.scoring.scorer {
            scorer.machine()
        } else {
            // Its failure has to stand somewhere.
            let ids: Vec<String> = written_on.into_iter().collect();
            let mut machines = self.store.machines(&ids).await?;
            machines.pop().ok_or(StoreError::NotQueued { job })?
        };
        let scorer = StoredAgent {
            id: scoring::scorer_id(&machine),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            labels: std::collections::BTreeMap::new(),
            suites: Vec::new(),
            last_seen_unix_ns: now,
            quarantine: None,
            drain_unix_ns: None,
            machine,
        };
        self.store.put_agent(&scorer).await?;
        let until = now.saturating_add(nanoseconds(self.timing.lease));
        let start = AttemptStart {
            job,
            agent_id: scorer.id,
            machine_id: scorer.machine.id,
            at_unix_ns: now,
            lease_until_unix_ns: until,
            exclusive: None,
        };
        let attempt = match self.store.start_attempt(&start).await {
            Ok(attempt) => attempt,
            // Another coordinator scores it.
            Err(StoreError::NotQueued { .. } | StoreError::Taken { .. }) => {
                return self.refresh(&[job], now).await;
            }
            Err(error) => return Err(error),
        };
        let id = attempt.id;
        info!(job = %job, attempt = id.attempt, "scoring");
        self.change_job(job, 0, |job| {
            job.state = JobState::Running;
            job.attempts.push(attempt);
        });
        self.leases
            .insert(id, Lease::begun(until, start.machine_id, false));
        let entry = self.job(job).expect("the job was found in a run");
        let task = Task {
            job: entry.stored.clone(),
            attempt: id,
            store: Arc::clone(&self.store),
            scorer: self.scoring.scorer.clone(),
            commands: self.scoring.commands.clone(),
        };
        let task = AbortOnDropHandle::new(tokio::spawn(task.run()));
        self.scoring.current = Some((id, task));
        self.tell_watchers(job, now);
        Ok(())
    }

    async fn end_scoring(
        &mut self,
        attempt: AttemptId,
        outcome: Result<u64, Failure>,
        now: i64,
    ) -> Result<(), StoreError> {
        let n_failed = self.job(attempt.job).map_or(0, |job| {
            let attempts = job.stored.attempts.iter();
            let failed = attempts.filter(|stored| {
                is_scoring(stored) && stored.state == AttemptState::Failed && stored.counts
            });
            u32::try_from(failed.count()).unwrap_or(u32::MAX)
        });
        let (n_records, failure) = match outcome {
            Ok(n_records) => (Some(n_records), None),
            Err(failure) => (None, Some(failure)),
        };
        let n_counted = n_failed.saturating_add(1);
        let (state, job_state) = match &failure {
            None => (AttemptState::Succeeded, JobState::Succeeded),
            Some(failure) => (
                AttemptState::Failed,
                schedule::after_failure(failure.class, n_counted, &self.timing.policy),
            ),
        };
        let end = AttemptEnd {
            state,
            job_state,
            at_unix_ns: now,
            n_records,
            failure,
            counts: true,
            voids_earlier: false,
            if_lease_over_by_unix_ns: None,
        };
        match self.store.end_attempt(attempt, &end).await {
            Ok(()) => {
                self.ended(attempt, &end, n_counted);
                Ok(())
            }
            // Cancelled meanwhile, or lost to another coordinator.
            Err(StoreError::Stale { .. }) => self.refresh(&[attempt.job], now).await,
            Err(error) => Err(error),
        }
    }
}
