//! What the loop knows: the open runs, the agents, and who does what.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio_util::sync::CancellationToken;
use tracing::error;
use tritmark_proto::{
    job::{AttemptId, Job, JobId, RunId},
    wire,
};

use super::{
    AgentView, Command, FinishedReply, Report, Scoring, Timing, ToAgent, Watch,
    health::Calibrations,
    leases::{Lease, Leases},
    lists::{Run, RunJob},
    nanoseconds,
    order::Order,
    shared::is_heard_elsewhere,
    watch,
};
use crate::{
    schedule::{Comparison, Pins},
    scoring::is_scorer,
    store::{AttemptState, Change, Store, StoreError, StoredAgent, StoredAttempt, StoredJob},
};

/// What the loop knows.
#[derive(Debug)]
pub(crate) struct State {
    pub(super) store: Arc<dyn Store>,
    pub(super) timing: Timing,
    pub(super) scoring: Scoring,
    /// When this coordinator took over.
    pub(super) since_unix_ns: i64,
    /// The highest fence then; attempts up to it may be lost without their fault. Not a time, since
    /// the clock may have been set.
    pub(super) since_fence: u64,
    pub(super) agents: BTreeMap<String, Agent>,
    /// The agents of each machine.
    pub(super) machines: BTreeMap<String, BTreeSet<String>>,
    pub(super) runs: BTreeMap<RunId, Run>,
    pub(super) order: Order,
    pub(super) calibrations: Calibrations,
    pub(super) leases: Leases,
    pub(super) pins: Pins,
    pub(super) last_connection: u64,
    /// Something has changed by which any agent may begin a job that could not before.
    pub(super) may_assign: bool,
    /// Agents for which alone something has changed.
    pub(super) freed: BTreeSet<String>,
    /// Machines that were away when all agents were last looked at.
    pub(super) away: BTreeSet<String>,
    /// When another try is due of what another coordinator was in the way of.
    pub(super) try_again_unix_ns: Option<i64>,
    /// When the next machine is forgotten for which jobs may wait.
    pub(super) forgotten_due_unix_ns: Option<i64>,
    /// When leases are next looked through for those that must be written down.
    pub(super) leases_due_unix_ns: i64,
}

/// An agent.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) stored: StoredAgent,
    pub(super) connection: Option<Connection>,
    /// Another coordinator has it.
    pub(super) is_elsewhere: bool,
    pub(super) is_draining: bool,
    /// It was asked what its machine can do.
    pub(super) is_calibrating: bool,
    /// Which start of its machine this is, if it answers when asked what that can do.
    pub(super) boot_id: Option<String>,
    pub(super) running: Option<AttemptId>,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) number: u64,
    pub(super) to_agent: ToAgent,
    pub(super) link: CancellationToken,
}

impl State {
    /// Returns how many agents are linked.
    pub(super) fn n_connected(&self) -> usize {
        let agents = self.agents.values();
        agents.filter(|agent| agent.connection.is_some()).count()
    }

    /// Reads what is open. Attempts that run get a new lease, so that their agents may come back; of a
    /// store that is shared their agents may be with other coordinators, which then say so.
    pub(crate) async fn load(
        store: Arc<dyn Store>,
        timing: Timing,
        scoring: Scoring,
        now: i64,
    ) -> Result<Self, StoreError> {
        let mut state = Self {
            agents: BTreeMap::new(),
            machines: BTreeMap::new(),
            runs: BTreeMap::new(),
            order: Order::default(),
            calibrations: Calibrations::default(),
            leases: Leases::default(),
            pins: Pins::default(),
            last_connection: 0,
            since_unix_ns: now,
            since_fence: 0,
            may_assign: false,
            freed: BTreeSet::new(),
            away: BTreeSet::new(),
            try_again_unix_ns: None,
            forgotten_due_unix_ns: None,
            leases_due_unix_ns: 0,
            timing,
            scoring,
            store,
        };
        for mut stored in state.store.agents().await? {
            if is_scorer(&stored.id) {
                continue;
            }
            // By a clock that was ahead.
            stored.last_seen_unix_ns = stored.last_seen_unix_ns.min(now);
            state.know(stored);
        }
        for link in state.store.agent_links().await? {
            state.linked(&link);
        }
        for run in state.store.open_runs().await? {
            let jobs = state.store.jobs(run.id).await?;
            state.open(Run::new(run, jobs));
        }
        let fences = state.leases.iter().map(|(attempt, _)| attempt.fence);
        state.since_fence = fences.max().unwrap_or(0);
        if !state.store.is_shared() {
            state.end_lost_scorings(now).await?;
            let until = now.saturating_add(nanoseconds(timing.lease));
            let renewed: Vec<_> = state
                .leases
                .iter()
                .map(|(attempt, _)| (*attempt, until))
                .collect();
            state.store.renew_leases(&renewed).await?;
            for (attempt, until) in renewed {
                state.leases.change(&attempt, |lease| {
                    lease.until_unix_ns = until;
                    lease.stored_until_unix_ns = until;
                    lease.is_foreign = false;
                });
            }
        }
        Ok(state)
    }

    /// Adds or replaces what an agent says of itself.
    pub(super) fn know(&mut self, stored: StoredAgent) -> &mut Agent {
        let id = stored.id.clone();
        let agent = self.agents.entry(id.clone()).or_insert_with(|| Agent {
            stored: stored.clone(),
            connection: None,
            is_elsewhere: false,
            is_draining: false,
            is_calibrating: false,
            boot_id: None,
            running: None,
        });
        let before = std::mem::replace(&mut agent.stored, stored);
        if let Some(others) = self.machines.get_mut(&before.machine.id) {
            others.remove(&id);
        }
        self.machines
            .entry(agent.stored.machine.id.clone())
            .or_default()
            .insert(id);
        agent
    }

    /// Takes an open run into the lists.
    pub(super) fn open(&mut self, run: Run) {
        let id = run.stored.id;
        let mut begun: Vec<(&RunJob, &StoredAttempt)> = run
            .jobs()
            .iter()
            .flat_map(|job| {
                let attempts = job.stored.attempts.iter();
                attempts.map(move |attempt| (job, attempt))
            })
            .collect();
        begun.sort_by_key(|(_, attempt)| attempt.id.fence);
        let machines: Vec<(Job, Arc<Comparison>, String)> = begun
            .iter()
            .filter(|(job, _)| job.stored.job.suite.is_exclusive())
            .map(|(job, attempt)| {
                let (definition, comparison) = (job.stored.job.clone(), &job.comparison);
                (
                    definition,
                    Arc::clone(comparison),
                    attempt.machine_id.clone(),
                )
            })
            .collect();
        let running: Vec<(StoredAttempt, bool)> = begun
            .into_iter()
            .filter(|(_, attempt)| attempt.state == AttemptState::Running)
            .map(|(job, attempt)| (attempt.clone(), job.stored.job.suite.is_exclusive()))
            .collect();
        self.order.note(&run.stored);
        self.runs.insert(id, run);
        for (job, comparison, machine_id) in machines {
            self.note_pin(&job, &comparison, &machine_id);
        }
        for (attempt, is_exclusive) in running {
            self.lease_of_store(&attempt, is_exclusive);
        }
        self.may_assign = true;
    }

    /// Takes the lease of an attempt as it is stored.
    pub(super) fn lease_of_store(&mut self, attempt: &StoredAttempt, is_exclusive: bool) {
        let is_with_agent = self.agents.get(&attempt.agent_id).is_some_and(|agent| {
            agent.connection.is_some() && agent.running.is_none_or(|running| running == attempt.id)
        });
        let is_here = is_with_agent || self.scoring.is_current(attempt.id);
        let stored_until_unix_ns = attempt.lease_until_unix_ns;
        let known = self.leases.get(&attempt.id);
        let until_unix_ns = if is_here {
            known.map_or(stored_until_unix_ns, |lease| {
                lease.until_unix_ns.max(stored_until_unix_ns)
            })
        } else {
            self.foreign_until(stored_until_unix_ns)
        };
        let lease = Lease {
            until_unix_ns,
            stored_until_unix_ns,
            is_reclaim: known.is_some_and(|lease| lease.is_reclaim && is_here),
            is_foreign: !is_here,
            machine_id: attempt.machine_id.clone(),
            is_exclusive,
        };
        self.leases.insert(attempt.id, lease);
        if let Some(agent) = self.agents.get_mut(&attempt.agent_id) {
            agent.running = Some(attempt.id);
        }
    }

    /// Does what it is asked, in order.
    pub(crate) async fn handle_all(&mut self, commands: Vec<Command>, now: i64) {
        let mut finished = Vec::new();
        let mut changes = Vec::new();
        for command in commands {
            match command {
                Command::Finished {
                    attempt,
                    n_records,
                    failure,
                    reply,
                } => finished.push((
                    Report {
                        attempt,
                        n_records,
                        failure,
                    },
                    reply,
                )),
                Command::Changed(change) => changes.push(change),
                // Signs of life say nothing of how things stand.
                Command::Heartbeat { .. } | Command::Progress { .. } | Command::Appended { .. } => {
                    self.handle(command, now).await;
                }
                other => {
                    self.learn(std::mem::take(&mut changes), now).await;
                    self.finish_all(std::mem::take(&mut finished), now).await;
                    self.handle(other, now).await;
                }
            }
        }
        self.learn(changes, now).await;
        self.finish_all(finished, now).await;
    }

    /// Does what it is asked.
    async fn handle(&mut self, command: Command, now: i64) {
        // A reply nobody waits for any more is no fault.
        match command {
            Command::Connect {
                agent,
                running,
                boot_id,
                to_agent,
                link,
                reply,
            } => {
                let connected = self
                    .register(*agent, running, boot_id, to_agent, link, now)
                    .await;
                let _ = reply.send(connected);
            }
            Command::Disconnect {
                agent_id,
                connection,
            } => self.disconnect(&agent_id, connection, now).await,
            Command::Heartbeat {
                agent_id,
                connection,
                running,
            } => self.heartbeat(&agent_id, connection, running, now),
            Command::Draining {
                agent_id,
                connection,
            } => self.draining(&agent_id, connection).await,
            Command::Calibrated {
                agent_id,
                connection,
                calibration,
            } => {
                let taken = self.calibrated(&agent_id, connection, *calibration, now);
                if let Err(failed) = taken.await {
                    // It is asked again soon.
                    error!(
                        error = &failed as &dyn std::error::Error,
                        agent = agent_id,
                        "a calibration cannot be kept"
                    );
                }
            }
            Command::Progress { attempt, progress } => self.progress(attempt, progress, now),
            Command::Appended { attempt } => self.appended(attempt, now),
            Command::Scored { attempt, outcome } => self.scoring.ended(attempt, outcome),
            Command::Open { run, reply } => {
                // Comparing with the store may have found it first.
                if !self.runs.contains_key(&run.stored.id) {
                    self.open(*run);
                }
                let _ = reply.send(());
            }
            Command::Watch { run, reply } => {
                let watch = self.watch(run, now).await;
                let _ = reply.send(watch);
            }
            Command::Cancel { run, reply } => {
                let cancelled = self.cancel(run, now).await;
                let _ = reply.send(cancelled);
            }
            Command::Pause {
                run,
                is_paused,
                reply,
            } => {
                let _ = reply.send(self.pause(run, is_paused, now).await);
            }
            Command::DrainAgent { agent, reply } => {
                let _ = reply.send(self.drain_agent(&agent, now).await);
            }
            Command::ReleaseAgent { agent, reply } => {
                let _ = reply.send(self.release_agent(&agent).await);
            }
            Command::Agents { reply } => {
                let _ = reply.send(self.agent_views(now));
            }
            Command::Finished { .. } | Command::Changed(_) => {
                unreachable!("handle_all keeps these together")
            }
        }
    }

    /// Learns what other coordinators have changed.
    async fn learn(&mut self, changes: Vec<Change>, now: i64) {
        if changes.is_empty() {
            return;
        }
        if let Err(failed) = self.take_changes(changes, now).await {
            // The next reconciliation makes up for it.
            error!(
                error = &failed as &dyn std::error::Error,
                "what another coordinator has changed cannot be read"
            );
        }
    }

    /// Finishes attempts and answers.
    async fn finish_all(&mut self, finished: Vec<(Report, FinishedReply)>, now: i64) {
        if finished.is_empty() {
            return;
        }
        let (reports, replies): (Vec<_>, Vec<_>) = finished.into_iter().unzip();
        let answers = self.finish(reports, now).await;
        for (reply, answer) in replies.into_iter().zip(answers) {
            // A reply nobody waits for any more is no fault.
            let _ = reply.send(answer);
        }
    }

    /// Does what time and free agents ask for: ends leases, gives out jobs.
    pub(crate) async fn advance(&mut self, now: i64) -> Result<(), StoreError> {
        self.end_leases(now).await?;
        self.store_leases(now).await?;
        for run in self.runs.values_mut() {
            self.may_assign |= run.release(now);
        }
        for due in [&mut self.try_again_unix_ns, &mut self.forgotten_due_unix_ns] {
            if due.is_some_and(|at| at <= now) {
                *due = None;
                self.may_assign = true;
            }
        }
        self.expire(now).await?;
        self.advance_scoring(now).await?;
        self.calibrate(now);
        if self.may_assign || !self.freed.is_empty() {
            self.assign(now).await?;
        }
        Ok(())
    }

    /// Returns when [`Self::advance`] has something to do even if nobody asks for anything.
    pub(crate) fn next_deadline(&self, now: i64) -> Option<i64> {
        let releases = self.runs.values().filter_map(Run::next_release);
        self.leases
            .next()
            .into_iter()
            .chain(self.try_again_unix_ns)
            .chain(self.forgotten_due_unix_ns)
            .chain(releases.filter(|at| *at > now))
            .chain(self.next_scoring(now))
            .chain(self.next_expiry())
            .chain(self.calibrations.next(now))
            .min()
    }

    /// Returns when an absent agent's machine no longer holds comparisons.
    pub(super) fn forgotten_at(&self, agent: &Agent) -> i64 {
        // An agent of an earlier life of this coordinator had no chance to be heard.
        let last_seen = agent.stored.last_seen_unix_ns.max(self.since_unix_ns);
        last_seen.saturating_add(nanoseconds(self.timing.policy.forget_machine_after))
    }

    async fn watch(&mut self, run: RunId, now: i64) -> Result<Option<Watch>, StoreError> {
        // Another coordinator may have taken it just now.
        let stored = if self.runs.contains_key(&run) {
            None
        } else {
            self.open_if_new(run).await?
        };
        if let Some(run) = self.runs.get(&run) {
            // Subscribing and reading the state are one step, as nothing else runs meanwhile.
            let events = run.events.subscribe();
            let jobs = run.jobs().iter().map(|job| &job.stored);
            return Ok(Some(Watch {
                snapshot: watch::snapshot(&run.stored, jobs, now),
                events: Some(events),
            }));
        }
        let Some(stored) = stored else {
            return Ok(None);
        };
        let jobs = self.store.jobs(run).await?;
        Ok(Some(Watch {
            snapshot: watch::snapshot(&stored, &jobs, now),
            events: None,
        }))
    }

    fn agent_views(&self, now: i64) -> Vec<AgentView> {
        self.agents
            .values()
            .map(|agent| AgentView {
                agent: agent.stored.clone(),
                is_connected: agent.connection.is_some() || is_heard_elsewhere(agent, now),
                is_draining: agent.is_draining || agent.stored.drain_unix_ns.is_some(),
                is_calibrating: agent.is_calibrating,
                running: agent.running,
            })
            .collect()
    }

    pub(super) fn job(&self, job: JobId) -> Option<&RunJob> {
        self.runs.get(&job.run)?.job(job.index)
    }

    /// Changes what is known of a job; see [`Run::change`].
    pub(super) fn change_job(
        &mut self,
        job: JobId,
        not_before_unix_ns: i64,
        change: impl FnOnce(&mut StoredJob),
    ) {
        if let Some(run) = self.runs.get_mut(&job.run) {
            self.may_assign |= run.change(job.index, not_before_unix_ns, change);
        }
    }

    /// Notes that a job was begun on a machine.
    pub(super) fn note_pin(&mut self, job: &Job, comparison: &Comparison, machine_id: &str) {
        self.pins.note(job, comparison, machine_id);
        if let Some(run) = self.runs.get_mut(&job.id.run) {
            run.pin(comparison, self.pins.machine(comparison));
        }
    }

    /// Notes that a comparison is where it was before [`Self::note_pin`].
    pub(super) fn restore_pin(
        &mut self,
        run: RunId,
        comparison: &Comparison,
        machine_id: Option<&str>,
    ) {
        self.pins.restore(comparison, machine_id.map(Into::into));
        if let Some(run) = self.runs.get_mut(&run) {
            run.pin(comparison, machine_id);
        }
    }

    /// Returns an attempt of an open run, by its whole name.
    pub(super) fn attempt(&self, attempt: AttemptId) -> Option<&StoredAttempt> {
        self.job(attempt.job)?
            .stored
            .attempts
            .iter()
            .find(|stored| stored.id == attempt)
    }

    /// Lets go of an attempt that no longer runs.
    pub(super) fn let_go(&mut self, attempt: AttemptId, agent_id: &str) {
        let lease = self.leases.remove(&attempt);
        self.scoring.let_go(attempt);
        if let Some(agent) = self.agents.get_mut(agent_id)
            && agent.running == Some(attempt)
        {
            agent.running = None;
        }
        self.freed.insert(agent_id.to_owned());
        // Others of its machine may have waited for it.
        let others = lease.and_then(|lease| self.machines.get(&lease.machine_id));
        self.freed.extend(others.into_iter().flatten().cloned());
    }

    /// Tells the watchers of a run how one of its jobs stands.
    pub(super) fn tell_watchers(&self, job: JobId, now: i64) {
        let Some(run) = self.runs.get(&job.run) else {
            return;
        };
        // Nobody watching is no fault.
        if run.events.receiver_count() > 0
            && let Some(entry) = run.job(job.index)
        {
            let _: Result<usize, _> = run.events.send(watch::job_event(&entry.stored, now));
        }
    }

    /// Tells the watchers of a run how far one of its jobs is.
    pub(super) fn tell_progress(&self, run: RunId, progress: wire::JobProgress, now: i64) {
        if let Some(run) = self.runs.get(&run) {
            // Nobody watching is no fault.
            let _ = run.events.send(wire::RunEvent {
                at_unix_ns: now,
                kind: Some(wire::run_event::Kind::Progress(progress)),
            });
        }
    }
}
