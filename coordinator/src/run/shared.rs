//! What other coordinators do to the store that this one knows a copy of.
//!
//! They tell of it ([`Change`]); what is not heard is found by [`State::reconcile`]. Either way the
//! store is read again and the copy made equal. Where the copy was old when something was decided by
//! it, the store has refused.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{info, warn};
use tritmark_proto::{
    bundle::JobState,
    job::{AttemptId, JobId, RunId},
};

use super::{
    RECONCILE, Timing,
    attempts::CANCELLED,
    lists::Run,
    nanoseconds,
    state::{Agent, State},
};
use crate::{
    schedule,
    scoring::is_scorer,
    store::{AgentLink, AttemptState, Change, StoreError, StoredAttempt, StoredJob, StoredRun},
};

impl Timing {
    /// Returns how much longer than its lease an attempt of another coordinator's agent goes on, so
    /// that the other, which knows best, ends it first.
    pub(super) fn grace(&self) -> std::time::Duration {
        self.lease / 4
    }
}

impl State {
    /// Returns until when an attempt runs whose agent is not linked to this coordinator. Agents that
    /// were linked to an earlier life of it have a whole lease's time to come back.
    pub(super) fn foreign_until(&self, stored_until_unix_ns: i64) -> i64 {
        let lease = nanoseconds(self.timing.lease);
        stored_until_unix_ns
            .saturating_add(nanoseconds(self.timing.grace()))
            .max(self.since_unix_ns.saturating_add(lease))
    }

    /// Reads again what others say they have changed.
    pub(super) async fn take_changes(
        &mut self,
        changes: Vec<Change>,
        now: i64,
    ) -> Result<(), StoreError> {
        let mut runs = BTreeSet::new();
        let mut jobs = BTreeSet::new();
        let mut agents = BTreeSet::new();
        let mut has_missed = false;
        for change in changes {
            match change {
                Change::Run(run) => {
                    runs.insert(run);
                }
                Change::Jobs(some) => jobs.extend(some),
                Change::Agent(agent) => {
                    agents.insert(agent);
                }
                Change::Missed => has_missed = true,
            }
        }
        if has_missed {
            return self.reconcile(now).await;
        }
        for run in runs {
            self.refresh_run(run, now).await?;
        }
        let jobs: Vec<JobId> = jobs.into_iter().collect();
        self.refresh(&jobs, now).await?;
        if !agents.is_empty() {
            let ids: Vec<String> = agents.into_iter().collect();
            for stored in self.store.some_agents(&ids).await? {
                if is_scorer(&stored.id) {
                    continue;
                }
                if self
                    .agents
                    .get(&stored.id)
                    .is_none_or(|known| known.connection.is_none())
                {
                    self.may_assign = true;
                    self.know(stored);
                } else {
                    self.adopt_word(&stored);
                }
            }
            for link in self.store.agent_links().await? {
                if ids.contains(&link.agent_id) {
                    self.linked(&link);
                }
            }
        }
        Ok(())
    }

    /// Compares everything with the store, and says who is there.
    pub(crate) async fn reconcile(&mut self, now: i64) -> Result<(), StoreError> {
        let seen: Vec<(String, i64)> = self
            .agents
            .iter()
            .filter(|(_, agent)| agent.connection.is_some())
            .map(|(id, agent)| (id.clone(), agent.stored.last_seen_unix_ns))
            .collect();
        self.store.touch_agents(&seen).await?;
        let links = self.store.agent_links().await?;
        let unknown: Vec<String> = links
            .iter()
            .filter(|link| !is_scorer(&link.agent_id))
            .filter(|link| {
                self.agents
                    .get(&link.agent_id)
                    .is_none_or(|known| !link.is_as_known(&known.stored))
            })
            .map(|link| link.agent_id.clone())
            .collect();
        if !unknown.is_empty() {
            self.may_assign = true;
            for stored in self.store.some_agents(&unknown).await? {
                if self.agents.contains_key(&stored.id) {
                    self.adopt_word(&stored);
                } else {
                    self.know(stored);
                }
            }
        }
        for link in &links {
            self.linked(link);
        }
        let mut known: BTreeSet<RunId> = self.runs.keys().copied().collect();
        // A job that others have begun or lost unheard is found below, by its attempt.
        let to_do = self.store.jobs_to_do().await?;
        for run in self.store.open_runs().await? {
            if known.remove(&run.id) {
                let n = to_do.get(&run.id).copied().unwrap_or(0);
                let id = run.id;
                self.adopt_run(run, now);
                if self
                    .runs
                    .get(&id)
                    .is_some_and(|own| own.counts.to_do() != n)
                {
                    info!(run = %id, "jobs have changed unheard");
                    self.refresh_run(id, now).await?;
                }
            } else {
                self.refresh_run(run.id, now).await?;
            }
        }
        for ended in known {
            self.refresh_run(ended, now).await?;
        }
        let running: BTreeSet<AttemptId> = self
            .store
            .running_attempts()
            .await?
            .into_iter()
            .map(|attempt| attempt.id)
            .collect();
        let own: BTreeSet<AttemptId> = self.leases.iter().map(|(attempt, _)| *attempt).collect();
        let differ: Vec<JobId> = running
            .symmetric_difference(&own)
            .map(|attempt| attempt.job)
            .collect();
        self.refresh(&differ, now).await
    }

    /// Takes in where an agent is.
    pub(super) fn linked(&mut self, link: &AgentLink) {
        let Some(agent) = self.agents.get_mut(&link.agent_id) else {
            return;
        };
        if link.is_here {
            return;
        }
        agent.is_elsewhere = link.coordinator.is_some();
        let last_seen = agent.stored.last_seen_unix_ns;
        agent.stored.last_seen_unix_ns = last_seen.max(link.last_seen_unix_ns);
        let Some(connection) = agent.connection.take() else {
            return;
        };
        info!(
            agent = link.agent_id,
            "the agent has gone to another coordinator"
        );
        connection.link.cancel();
        self.may_assign = true;
        if let Some(attempt) = agent.running
            && let Some(lease) = self.leases.get(&attempt)
        {
            let until = self.foreign_until(lease.stored_until_unix_ns);
            self.leases.change(&attempt, |lease| {
                lease.is_foreign = true;
                lease.is_reclaim = false;
                lease.until_unix_ns = until;
            });
        }
    }

    /// Takes a run into the lists that is open and not in them. Returns it as it is stored.
    pub(super) async fn open_if_new(&mut self, id: RunId) -> Result<Option<StoredRun>, StoreError> {
        let stored = self.store.run(id).await?;
        if let Some(run) = &stored
            && run.ended_unix_ns.is_none()
            && self.store.is_shared()
            && !self.runs.contains_key(&id)
        {
            let jobs = self.store.jobs(id).await?;
            info!(run = %id, jobs = jobs.len(), "found");
            self.open(Run::new(run.clone(), jobs));
        }
        Ok(stored)
    }

    /// Reads a whole run again.
    async fn refresh_run(&mut self, id: RunId, now: i64) -> Result<(), StoreError> {
        if !self.runs.contains_key(&id) {
            self.open_if_new(id).await?;
            return Ok(());
        }
        if let Some(stored) = self.store.run(id).await? {
            self.adopt_run(stored, now);
        }
        for job in self.store.jobs(id).await? {
            self.adopt(job, now);
        }
        self.close_if_ended(id, now);
        Ok(())
    }

    /// Reads jobs again.
    pub(super) async fn refresh(&mut self, jobs: &[JobId], now: i64) -> Result<(), StoreError> {
        if jobs.is_empty() {
            return Ok(());
        }
        let runs: BTreeSet<RunId> = jobs.iter().map(|job| job.run).collect();
        let mut opened = BTreeSet::new();
        for run in &runs {
            if !self.runs.contains_key(run) {
                self.open_if_new(*run).await?;
                opened.insert(*run);
            }
        }
        let rest: Vec<JobId> = jobs
            .iter()
            .copied()
            .filter(|job| !opened.contains(&job.run))
            .collect();
        if rest.is_empty() {
            return Ok(());
        }
        for job in self.store.some_jobs(&rest).await? {
            self.adopt(job, now);
        }
        for run in runs {
            self.close_if_ended(run, now);
        }
        Ok(())
    }

    /// Makes the copy of a job equal to what is stored.
    fn adopt(&mut self, fresh: StoredJob, now: i64) {
        let id = fresh.job.id;
        let Some(entry) = self.job(id) else {
            return;
        };
        let is_exclusive = entry.stored.job.suite.is_exclusive();
        let is_same = is_same(&entry.stored, &fresh);
        let definition = entry.stored.job.clone();
        let comparison = entry.comparison.clone();
        let before: BTreeMap<AttemptId, String> = entry
            .stored
            .attempts
            .iter()
            .filter(|attempt| attempt.state == AttemptState::Running)
            .map(|attempt| (attempt.id, attempt.agent_id.clone()))
            .collect();
        for attempt in &fresh.attempts {
            match attempt.state {
                AttemptState::Running => self.lease_of_store(attempt, is_exclusive),
                state => {
                    if self.leases.get(&attempt.id).is_some() || before.contains_key(&attempt.id) {
                        let why = match state {
                            AttemptState::Cancelled => Some(CANCELLED),
                            AttemptState::Lost => Some("the attempt is superseded"),
                            _ => None,
                        };
                        if let Some(why) = why {
                            warn!(job = %id, agent = attempt.agent_id, why, "ended elsewhere");
                            self.cancel_at_agent(&attempt.agent_id, attempt.id, why);
                        }
                        self.let_go(attempt.id, &attempt.agent_id);
                    }
                }
            }
        }
        if is_same {
            return;
        }
        if let Some(last) = fresh.attempts.last() {
            self.note_pin(&definition, &comparison, &last.machine_id);
        }
        let not_before = self.not_before(&fresh);
        self.may_assign = true;
        self.change_job(id, not_before, |job| *job = fresh);
        self.tell_watchers(id, now);
    }

    /// Returns when a job may be tried again whose attempts others have ended.
    fn not_before(&self, job: &StoredJob) -> i64 {
        let n_counted = job.attempts.iter().filter(|attempt| attempt.counts).count();
        let n_counted = u32::try_from(n_counted).unwrap_or(u32::MAX);
        match job.attempts.last().and_then(|last| last.ended_unix_ns) {
            Some(ended) if job.state == JobState::Queued => {
                let delay = schedule::retry_delay(n_counted, &self.timing.policy);
                ended.saturating_add(nanoseconds(delay))
            }
            _ => 0,
        }
    }
}

/// Tells whether another coordinator has an agent and says so.
pub(super) fn is_heard_elsewhere(agent: &Agent, now: i64) -> bool {
    let silent = now.saturating_sub(agent.stored.last_seen_unix_ns);
    agent.is_elsewhere && silent < 4 * nanoseconds(RECONCILE)
}

/// Tells whether two states of a job are the same, whatever their leases.
fn is_same(one: &StoredJob, other: &StoredJob) -> bool {
    one.state == other.state
        && one.failure == other.failure
        && one.attempts.len() == other.attempts.len()
        && one
            .attempts
            .iter()
            .zip(&other.attempts)
            .all(|(one, other)| {
                let one = StoredAttempt {
                    lease_until_unix_ns: other.lease_until_unix_ns,
                    ..one.clone()
                };
                one == *other
            })
}
