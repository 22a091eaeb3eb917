//! How attempts go on and end: finished, lost, cancelled.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{info, warn};
use tritmark_proto::{
    bundle::{Failure, FailureClass, JobState},
    job::{AttemptId, JobId, RunId, SuiteSpec},
    record::ModelFacts,
    wire,
};

use super::{Finished, Report, nanoseconds, state::State, watch};
use crate::{
    schedule,
    store::{Appended, AttemptEnd, AttemptState, StoreError},
};

/// What the store knows of an accuracy job that its agent does not.
struct SecondLook {
    /// What each attempt ran, by its count.
    facts: Vec<(u32, ModelFacts)>,
    items_done: u64,
}

/// What an agent hears of an attempt whose run a person cancelled.
pub(super) const CANCELLED: &str = "the run was cancelled";

impl State {
    pub(super) fn progress(&mut self, attempt: AttemptId, progress: wire::JobProgress, now: i64) {
        if self.leases.get(&attempt).is_none() {
            return;
        }
        self.renew(attempt, now);
        self.tell_progress(attempt.job.run, progress, now);
    }

    /// New records are a sign of life.
    pub(super) fn appended(&mut self, attempt: AttemptId, now: i64) {
        match self.leases.get(&attempt) {
            Some(lease) if lease.is_reclaim => self.reclaim(attempt, now),
            Some(_) => self.renew(attempt, now),
            None => {}
        }
    }

    /// Ends attempts as their agents say they ended. Each has its own answer.
    pub(super) async fn finish(
        &mut self,
        reports: Vec<Report>,
        now: i64,
    ) -> Vec<Result<Finished, StoreError>> {
        let mut answers = Vec::with_capacity(reports.len());
        match self.finish_together(&reports, now).await {
            Ok(together) => answers.extend(together),
            Err(failed) if reports.len() == 1 => answers.push(Err(failed)),
            // Each hears what is wrong with its own.
            Err(_) => {
                for report in reports {
                    let one = self.finish_together(&[report], now).await;
                    answers.push(one.and_then(|mut one| one.swap_remove(0)));
                }
            }
        }
        answers
    }

    async fn finish_together(
        &mut self,
        reports: &[Report],
        now: i64,
    ) -> Result<Vec<Result<Finished, StoreError>>, StoreError> {
        let unknown: Vec<JobId> = reports
            .iter()
            .map(|report| report.attempt)
            .filter(|attempt| self.leases.get(attempt).is_none())
            .map(|attempt| attempt.job)
            .collect();
        if self.store.is_shared() {
            // Begun by another coordinator, perhaps.
            self.refresh(&unknown, now).await?;
        }
        let attempts: Vec<AttemptId> = reports.iter().map(|report| report.attempt).collect();
        let standings = self.store.standings(&attempts).await?;
        let looks = self.second_looks(reports, &standings).await?;
        let mut answers: Vec<Result<Finished, StoreError>> = Vec::with_capacity(reports.len());
        let mut ends = Vec::new();
        let mut ended_unheard = Vec::new();
        for (position, (report, standing)) in reports.iter().zip(standings).enumerate() {
            let stored_below = match &standing {
                Ok(standing) => standing.stored_below,
                Err(_) => 0,
            };
            answers.push(match standing {
                Err(error) => Err(error),
                Ok(standing) if !standing.finished && stored_below < report.n_records => {
                    Ok(Finished::Incomplete { stored_below })
                }
                Ok(standing) => {
                    if standing.finished && self.leases.get(&report.attempt).is_some() {
                        // It was done, and the answer was lost.
                        ended_unheard.push(report.attempt.job);
                    }
                    if !standing.finished {
                        let look = looks.get(&report.attempt.job);
                        ends.push((position, self.end_of(report, look, now)));
                    }
                    Ok(Finished::Stored { stored_below })
                }
            });
        }
        self.refresh(&ended_unheard, now).await?;
        if ends.is_empty() {
            return Ok(answers);
        }
        let asked: Vec<(AttemptId, AttemptEnd)> = ends
            .iter()
            .map(|(position, (end, _))| (reports[*position].attempt, end.clone()))
            .collect();
        let ended = self.store.end_attempts(&asked).await?;
        for ((position, (end, n_counted)), ended) in ends.into_iter().zip(ended) {
            match ended {
                Ok(()) => self.ended(reports[position].attempt, &end, n_counted),
                Err(error) => answers[position] = Err(error),
            }
        }
        Ok(answers)
    }

    /// Reads what there is to know of accuracy jobs whose attempts, of which everything is stored, are
    /// said to have succeeded: all of them at once.
    async fn second_looks(
        &self,
        reports: &[Report],
        standings: &[Result<Appended, StoreError>],
    ) -> Result<BTreeMap<JobId, SecondLook>, StoreError> {
        let is_accuracy = |job: JobId| {
            self.job(job)
                .is_some_and(|job| matches!(job.stored.job.suite, SuiteSpec::Accuracy(_)))
        };
        let jobs: BTreeSet<JobId> = reports
            .iter()
            .zip(standings)
            .filter(|(report, standing)| {
                let is_to_end = standing.as_ref().is_ok_and(|standing| {
                    !standing.finished && standing.stored_below >= report.n_records
                });
                is_to_end && report.failure.is_none() && is_accuracy(report.attempt.job)
            })
            .map(|(report, _)| report.attempt.job)
            .collect();
        if jobs.is_empty() {
            return Ok(BTreeMap::new());
        }
        let jobs: Vec<JobId> = jobs.into_iter().collect();
        let facts = self.store.facts_of(&jobs).await?;
        let items_done = self.store.items_done_of(&jobs).await?;
        let looks = facts.into_iter().zip(items_done);
        let looks = looks.map(|(facts, items_done)| SecondLook { facts, items_done });
        Ok(jobs.into_iter().zip(looks).collect())
    }

    /// Returns how an attempt ends of which everything is stored, and how many tries are used up then.
    fn end_of(&self, report: &Report, look: Option<&SecondLook>, now: i64) -> (AttemptEnd, u32) {
        let Report {
            attempt,
            n_records,
            failure,
        } = report;
        let (failure, voids_earlier) = match (failure, look) {
            (Some(failure), _) => (Some(failure.clone()), false),
            (None, Some(look)) => self.doubts(*attempt, look),
            (None, None) => (None, false),
        };
        let counts = failure
            .as_ref()
            .is_none_or(|failure| self.counts(*attempt, failure.class));
        let n_counted = self.n_counted(*attempt) + u32::from(counts);
        let (state, job_state) = match &failure {
            None => (AttemptState::Succeeded, self.after_success(attempt.job)),
            Some(_) if !counts => (AttemptState::Failed, JobState::Queued),
            Some(failure) => (
                AttemptState::Failed,
                schedule::after_failure(failure.class, n_counted, &self.timing.policy),
            ),
        };
        let end = AttemptEnd {
            state,
            job_state,
            at_unix_ns: now,
            n_records: Some(*n_records),
            failure,
            counts,
            voids_earlier,
            if_lease_over_by_unix_ns: None,
        };
        (end, n_counted)
    }

    /// Finds what an agent cannot know when it says that an accuracy job succeeded: items that are
    /// missing, and earlier items of other weights or data.
    fn doubts(&self, attempt: AttemptId, look: &SecondLook) -> (Option<Failure>, bool) {
        let SecondLook { facts, items_done } = look;
        let job = self.job(attempt.job);
        let transient = |message: String| Failure {
            class: FailureClass::Transient,
            message,
            stderr: String::new(),
        };
        let Some((_, own)) = facts
            .iter()
            .find(|(count, _)| *count == attempt.attempt.get())
        else {
            let message = "the attempt does not say what it ran".to_owned();
            return (Some(transient(message)), false);
        };
        let is_void = |count: u32| {
            job.into_iter()
                .flat_map(|job| &job.stored.attempts)
                .any(|stored| stored.id.attempt.get() == count && stored.is_void)
        };
        let other = facts
            .iter()
            .filter(|(count, _)| *count < attempt.attempt.get() && !is_void(*count))
            .find(|(_, earlier)| !is_same_measurement(earlier, own));
        if let Some((count, _)) = other {
            let message =
                format!("attempt {count} ran other weights or data; all items start anew");
            return (Some(transient(message)), true);
        }
        let shard = job.and_then(|job| match &job.stored.job.suite {
            SuiteSpec::Accuracy(spec) => spec.shard,
            _ => None,
        });
        let n_items = own
            .n_items
            .map(|n_items| shard.map_or(n_items, |shard| shard.share_of(n_items)));
        match n_items {
            Some(n_items) if *items_done < n_items => {
                let message = format!(
                    "the attempt says it has succeeded, but {items_done} of {n_items} items are stored"
                );
                (Some(transient(message)), false)
            }
            _ => (None, false),
        }
    }

    /// Tells whether a failed attempt uses up a try. It does not where somebody stopped the agent or
    /// the coordinator, most likely both: that says nothing of the job, however often it happens.
    fn counts(&self, attempt: AttemptId, class: FailureClass) -> bool {
        let Some(stored) = self.attempt(attempt) else {
            return true;
        };
        let is_leaving = self
            .agents
            .get(&stored.agent_id)
            .is_some_and(|agent| agent.is_draining);
        let is_of_earlier_life = stored.id.fence <= self.since_fence;
        class != FailureClass::Infrastructure || !(is_leaving || is_of_earlier_life)
    }

    /// Returns how many attempts before this one used up a try.
    fn n_counted(&self, attempt: AttemptId) -> u32 {
        self.job(attempt.job).map_or(0, |job| {
            let counted = job
                .stored
                .attempts
                .iter()
                .filter(|stored| stored.id.attempt < attempt.attempt && stored.counts);
            u32::try_from(counted.count()).unwrap_or(u32::MAX)
        })
    }

    /// Loses the attempts whose leases are over.
    pub(super) async fn end_leases(&mut self, now: i64) -> Result<(), StoreError> {
        let mut ends = Vec::new();
        for attempt in self.leases.over(now) {
            let (Some(stored), Some(lease)) = (self.attempt(attempt), self.leases.get(&attempt))
            else {
                self.leases.remove(&attempt);
                self.may_assign = true;
                continue;
            };
            let agent_id = stored.agent_id.clone();
            // Another coordinator may have renewed it: the store has the last word. What an agent has
            // not brought back here is lost although the lease goes on.
            let if_lease_over_by_unix_ns = match (self.store.is_shared(), lease.is_reclaim) {
                (false, _) | (true, true) => None,
                (true, false) if lease.is_foreign => {
                    Some(now.saturating_sub(nanoseconds(self.timing.grace())))
                }
                (true, false) => Some(now),
            };
            let class = FailureClass::Infrastructure;
            let counts = self.counts(attempt, class);
            let n_counted = self.n_counted(attempt) + u32::from(counts);
            let message = if lease.is_reclaim {
                "the agent came back without the attempt"
            } else {
                "the agent was not heard of in time"
            };
            let job_state = if counts {
                schedule::after_failure(class, n_counted, &self.timing.policy)
            } else {
                JobState::Queued
            };
            let end = AttemptEnd {
                state: AttemptState::Lost,
                job_state,
                at_unix_ns: now,
                n_records: None,
                failure: Some(Failure {
                    class,
                    message: message.to_owned(),
                    stderr: String::new(),
                }),
                counts,
                voids_earlier: false,
                if_lease_over_by_unix_ns,
            };
            ends.push((attempt, end, n_counted, agent_id, message));
        }
        if ends.is_empty() {
            return Ok(());
        }
        let asked: Vec<(AttemptId, AttemptEnd)> = ends
            .iter()
            .map(|(attempt, end, ..)| (*attempt, end.clone()))
            .collect();
        let answers = self.store.end_attempts(&asked).await?;
        let mut old = Vec::new();
        for ((attempt, end, n_counted, agent_id, message), answer) in ends.into_iter().zip(answers)
        {
            match answer {
                Ok(()) => {
                    warn!(job = %attempt.job, attempt = attempt.attempt, agent = agent_id,
                        "{message}");
                    self.ended(attempt, &end, n_counted);
                    self.cancel_at_agent(&agent_id, attempt, message);
                }
                Err(StoreError::Stale { .. }) => old.push(attempt.job),
                Err(error) => return Err(error),
            }
        }
        self.refresh(&old, now).await
    }

    /// Writes leases down that have moved by more than half their length.
    pub(super) async fn store_leases(&mut self, now: i64) -> Result<(), StoreError> {
        if now < self.leases_due_unix_ns {
            return Ok(());
        }
        let lease = nanoseconds(self.timing.lease);
        let moved: Vec<(AttemptId, i64)> = self
            .leases
            .iter()
            .filter(|(_, it)| {
                !it.is_foreign
                    && it.until_unix_ns > it.stored_until_unix_ns
                    && it.stored_until_unix_ns.saturating_sub(now) < lease / 2
            })
            .map(|(attempt, it)| (*attempt, it.until_unix_ns))
            .collect();
        if !moved.is_empty() {
            let over = self.store.renew_leases(&moved).await?;
            for (attempt, until) in moved {
                self.leases
                    .change(&attempt, |it| it.stored_until_unix_ns = until);
            }
            let over: Vec<JobId> = over.into_iter().map(|attempt| attempt.job).collect();
            self.refresh(&over, now).await?;
        }
        self.leases_due_unix_ns = now.saturating_add(lease / 16);
        Ok(())
    }

    /// Takes an attempt's end, which is stored, into the lists and tells the watchers.
    pub(super) fn ended(&mut self, attempt: AttemptId, end: &AttemptEnd, n_counted: u32) {
        let now = end.at_unix_ns;
        if let Some(agent_id) = self.attempt(attempt).map(|stored| stored.agent_id.clone()) {
            self.let_go(attempt, &agent_id);
        }
        // Without a failure it goes on, with scoring.
        let delay = end.failure.as_ref().map_or(0, |_| {
            nanoseconds(schedule::retry_delay(n_counted, &self.timing.policy))
        });
        info!(job = %attempt.job, attempt = attempt.attempt, state = end.state.name(),
            job_state = end.job_state.name(), "ended");
        self.change_job(attempt.job, now.saturating_add(delay), |job| {
            job.state = end.job_state;
            for stored in &mut job.attempts {
                if stored.id == attempt {
                    stored.state = end.state;
                    stored.ended_unix_ns = Some(now);
                    stored.failure.clone_from(&end.failure);
                    stored.counts = end.counts;
                } else if end.voids_earlier && stored.id.attempt < attempt.attempt {
                    stored.is_void = true;
                }
            }
        });
        self.tell_watchers(attempt.job, now);
        self.close_if_ended(attempt.job.run, now);
    }

    /// Cancels what a run has left to do. Returns how many jobs that were, `None` of no such run.
    pub(super) async fn cancel(&mut self, run: RunId, now: i64) -> Result<Option<u32>, StoreError> {
        if !self.runs.contains_key(&run) {
            let stored = self.open_if_new(run).await?;
            if !self.runs.contains_key(&run) {
                return Ok(stored.map(|_| 0));
            }
        }
        self.store.cancel_run(run, now).await?;
        let Some(open) = self.runs.get_mut(&run) else {
            return Ok(None);
        };
        let cancelled: Vec<u32> = open
            .jobs()
            .iter()
            .filter(|job| !job.stored.state.is_final())
            .map(|job| job.stored.job.id.index)
            .collect();
        let mut running = Vec::new();
        for index in &cancelled {
            open.change(*index, 0, |job| {
                job.state = JobState::Cancelled;
                if let Some(last) = job.attempts.last_mut()
                    && last.state == AttemptState::Running
                {
                    last.state = AttemptState::Cancelled;
                    last.ended_unix_ns = Some(now);
                    running.push((last.id, last.agent_id.clone()));
                }
            });
        }
        info!(run = %run, jobs = cancelled.len(), "cancelled");
        for (attempt, agent_id) in running {
            self.cancel_at_agent(&agent_id, attempt, CANCELLED);
            self.let_go(attempt, &agent_id);
        }
        for index in &cancelled {
            self.tell_watchers(JobId { run, index: *index }, now);
        }
        self.close_if_ended(run, now);
        Ok(Some(u32::try_from(cancelled.len()).unwrap_or(u32::MAX)))
    }

    /// Takes a run from the lists once all its jobs are final; the last event says so.
    pub(super) fn close_if_ended(&mut self, id: RunId, now: i64) {
        let is_open = self.runs.get(&id).is_none_or(|run| run.counts.n_open() > 0);
        if is_open {
            return;
        }
        if let Some(mut run) = self.runs.remove(&id) {
            self.order.forget(&run.stored);
            run.stored.ended_unix_ns = Some(now);
            let summary = watch::summary(&run.stored, run.counts);
            // Nobody watching is no fault.
            let _ = run.events.send(watch::summary_event(summary, now));
            self.pins.forget(id);
            info!(run = %id, "the run has ended");
        }
    }
}

/// Tells whether the items of two attempts may stand in one result.
fn is_same_measurement(one: &ModelFacts, other: &ModelFacts) -> bool {
    one.weights_hash == other.weights_hash
        && one.data_hash == other.data_hash
        && one.numerics_version == other.numerics_version
        && one.numerics == other.numerics
        && one.kv == other.kv
}
