//! How attempts go on and end: finished, lost, cancelled.

use tracing::{info, warn};
use tritmark_proto::{
    bundle::{Failure, FailureClass, JobState},
    job::{AttemptId, RunId, SuiteSpec},
    record::ModelFacts,
    wire,
};

use super::{Finished, nanoseconds, state::State, watch};
use crate::{
    schedule,
    store::{AttemptEnd, AttemptState, JobCounts, StoreError},
};

impl State {
    pub(super) fn progress(&mut self, attempt: AttemptId, progress: wire::JobProgress, now: i64) {
        if !self.leases.contains_key(&attempt) {
            return;
        }
        self.renew(attempt, now);
        if let Some(run) = self.runs.get(&attempt.job.run) {
            // Nobody watching is no fault.
            let _ = run.events.send(wire::RunEvent {
                at_unix_ns: now,
                kind: Some(wire::run_event::Kind::Progress(progress)),
            });
        }
    }

    /// New records are a sign of life.
    pub(super) fn appended(&mut self, attempt: AttemptId, now: i64) {
        match self.leases.get(&attempt) {
            Some(lease) if lease.is_reclaim => self.reclaim(attempt, now),
            Some(_) => self.renew(attempt, now),
            None => {}
        }
    }

    /// Ends an attempt as its agent says it ended.
    pub(super) async fn finish(
        &mut self,
        attempt: AttemptId,
        n_records: u64,
        failure: Option<Failure>,
        now: i64,
    ) -> Result<Finished, StoreError> {
        let standing = self.store.add_records(attempt, &[]).await?;
        let stored_below = standing.stored_below;
        if standing.finished {
            return Ok(Finished::Stored { stored_below });
        }
        if stored_below < n_records {
            return Ok(Finished::Incomplete { stored_below });
        }
        let (failure, voids_earlier) = match failure {
            Some(failure) => (Some(failure), false),
            None => self.second_look(attempt).await?,
        };
        let counts = failure
            .as_ref()
            .is_none_or(|failure| self.counts(attempt, failure.class));
        let n_counted = self.n_counted(attempt) + u32::from(counts);
        let (state, job_state) = match &failure {
            None => (AttemptState::Succeeded, JobState::Succeeded),
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
            n_records: Some(n_records),
            failure,
            counts,
            voids_earlier,
        };
        self.end(attempt, end, n_counted).await?;
        Ok(Finished::Stored { stored_below })
    }

    /// Looks for what an agent cannot know when it says that an accuracy job succeeded: items that
    /// are missing, and earlier items of other weights or data.
    async fn second_look(&self, attempt: AttemptId) -> Result<(Option<Failure>, bool), StoreError> {
        let job = self.job(attempt.job);
        let is_accuracy =
            job.is_some_and(|job| matches!(job.stored.job.suite, SuiteSpec::Accuracy(_)));
        if !is_accuracy {
            return Ok((None, false));
        }
        let transient = |message: String| Failure {
            class: FailureClass::Transient,
            message,
            stderr: String::new(),
        };
        let facts = self.store.facts(attempt.job).await?;
        let Some((_, own)) = facts
            .iter()
            .find(|(count, _)| *count == attempt.attempt.get())
        else {
            let message = "the attempt does not say what it ran".to_owned();
            return Ok((Some(transient(message)), false));
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
            return Ok((Some(transient(message)), true));
        }
        let n_stored = self.store.items_done(attempt.job).await?;
        let shard = job.and_then(|job| match &job.stored.job.suite {
            SuiteSpec::Accuracy(spec) => spec.shard,
            _ => None,
        });
        let n_items = own
            .n_items
            .map(|n_items| shard.map_or(n_items, |shard| shard.share_of(n_items)));
        match n_items {
            Some(n_items) if n_stored < n_items => {
                let message = format!(
                    "the attempt says it has succeeded, but {n_stored} of {n_items} items are stored"
                );
                Ok((Some(transient(message)), false))
            }
            _ => Ok((None, false)),
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
        let is_of_earlier_life = stored.started_unix_ns < self.since_unix_ns;
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
        let over: Vec<(AttemptId, bool)> = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.until_unix_ns <= now)
            .map(|(attempt, lease)| (*attempt, lease.is_reclaim))
            .collect();
        for (attempt, is_reclaim) in over {
            let Some(stored) = self.attempt(attempt) else {
                self.leases.remove(&attempt);
                continue;
            };
            let agent_id = stored.agent_id.clone();
            let class = FailureClass::Infrastructure;
            let counts = self.counts(attempt, class);
            let n_counted = self.n_counted(attempt) + u32::from(counts);
            let message = if is_reclaim {
                "the agent came back without the attempt"
            } else {
                "the agent was not heard of in time"
            };
            let job_state = if counts {
                schedule::after_failure(class, n_counted, &self.timing.policy)
            } else {
                JobState::Queued
            };
            warn!(job = %attempt.job, attempt = attempt.attempt, agent = agent_id, "{message}");
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
            };
            self.end(attempt, end, n_counted).await?;
            self.cancel_at_agent(&agent_id, attempt, message);
        }
        Ok(())
    }

    /// Writes leases down that have moved by more than half their length.
    pub(super) async fn store_leases(&mut self, now: i64) -> Result<(), StoreError> {
        let half = nanoseconds(self.timing.lease) / 2;
        let moved: Vec<(AttemptId, i64)> = self
            .leases
            .iter()
            .filter(|(_, lease)| {
                lease.until_unix_ns > lease.stored_until_unix_ns
                    && lease.stored_until_unix_ns.saturating_sub(now) < half
            })
            .map(|(attempt, lease)| (*attempt, lease.until_unix_ns))
            .collect();
        if moved.is_empty() {
            return Ok(());
        }
        self.store.renew_leases(&moved).await?;
        for (attempt, until) in moved {
            if let Some(lease) = self.leases.get_mut(&attempt) {
                lease.stored_until_unix_ns = until;
            }
        }
        Ok(())
    }

    /// Ends an attempt in the store, then in the lists, then for the watchers.
    async fn end(
        &mut self,
        attempt: AttemptId,
        end: AttemptEnd,
        n_counted: u32,
    ) -> Result<(), StoreError> {
        self.store.end_attempt(attempt, &end).await?;
        let now = end.at_unix_ns;
        self.leases.remove(&attempt);
        for agent in self.agents.values_mut() {
            if agent.running == Some(attempt) {
                agent.running = None;
            }
        }
        let delay = nanoseconds(schedule::retry_delay(n_counted, &self.timing.policy));
        info!(job = %attempt.job, attempt = attempt.attempt, state = end.state.name(),
            job_state = end.job_state.name(), "ended");
        if let Some(job) = self.job_mut(attempt.job) {
            job.stored.state = end.job_state;
            if end.job_state == JobState::Queued {
                job.not_before_unix_ns = now.saturating_add(delay);
            }
            for stored in &mut job.stored.attempts {
                if stored.id == attempt {
                    stored.state = end.state;
                    stored.ended_unix_ns = Some(now);
                    stored.failure.clone_from(&end.failure);
                    stored.counts = end.counts;
                } else if end.voids_earlier && stored.id.attempt < attempt.attempt {
                    stored.is_void = true;
                }
            }
        }
        self.tell_watchers(attempt.job, now);
        self.close_if_ended(attempt.job.run, now);
        Ok(())
    }

    /// Cancels what a run has left to do. Returns how many jobs that were, `None` of no such run.
    pub(super) async fn cancel(&mut self, run: RunId, now: i64) -> Result<Option<u32>, StoreError> {
        if !self.runs.contains_key(&run) {
            let is_known = self.store.run(run).await?.is_some();
            return Ok(is_known.then_some(0));
        }
        self.store.cancel_run(run, now).await?;
        let Some(open) = self.runs.get_mut(&run) else {
            return Ok(None);
        };
        let mut cancelled = Vec::new();
        for job in &mut open.jobs {
            if job.stored.state.is_final() {
                continue;
            }
            job.stored.state = JobState::Cancelled;
            if let Some(last) = job.stored.attempts.last_mut()
                && last.state == AttemptState::Running
            {
                last.state = AttemptState::Cancelled;
                last.ended_unix_ns = Some(now);
            }
            cancelled.push(job.stored.job.id);
        }
        info!(run = %run, jobs = cancelled.len(), "cancelled");
        let running: Vec<(String, AttemptId)> = self
            .agents
            .iter()
            .filter_map(|(id, agent)| Some((id.clone(), agent.running?)))
            .filter(|(_, attempt)| attempt.job.run == run)
            .collect();
        for (agent_id, attempt) in running {
            self.cancel_at_agent(&agent_id, attempt, "the run was cancelled");
            if let Some(agent) = self.agents.get_mut(&agent_id) {
                agent.running = None;
            }
        }
        self.leases.retain(|attempt, _| attempt.job.run != run);
        for job in &cancelled {
            self.tell_watchers(*job, now);
        }
        self.close_if_ended(run, now);
        Ok(Some(u32::try_from(cancelled.len()).unwrap_or(u32::MAX)))
    }

    /// Takes a run from the lists once all its jobs are final; the last event says so.
    fn close_if_ended(&mut self, id: RunId, now: i64) {
        let has_ended = self
            .runs
            .get(&id)
            .is_some_and(|run| run.jobs.iter().all(|job| job.stored.state.is_final()));
        if !has_ended {
            return;
        }
        if let Some(mut run) = self.runs.remove(&id) {
            run.stored.ended_unix_ns = Some(now);
            let counts = JobCounts::of(run.jobs.iter().map(|job| job.stored.state));
            let summary = watch::summary(&run.stored, counts);
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
}
