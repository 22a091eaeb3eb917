//! What the loop knows: the open runs, the agents, and who does what.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tritmark_proto::{
    bundle::JobState,
    job::{AttemptId, JobId, RunId, SuiteSpec},
    wire::{self, coordinator_message::Kind as ToAgentKind},
};

use super::{
    AgentView, Command, Timing, ToAgent, WATCH_BACKLOG, Watch, nanoseconds, position, watch,
};
use crate::{
    schedule::{self, Comparison, Idle, Load, Pins, Waiting},
    store::{
        AttemptStart, AttemptState, Store, StoreError, StoredAgent, StoredAttempt, StoredJob,
        StoredRun,
    },
};

/// What the loop knows.
#[derive(Debug)]
pub(crate) struct State {
    pub(super) store: Arc<dyn Store>,
    pub(super) timing: Timing,
    /// When this coordinator took over; attempts begun before may be lost without their fault.
    pub(super) since_unix_ns: i64,
    pub(super) agents: BTreeMap<String, Agent>,
    pub(super) runs: BTreeMap<RunId, Run>,
    pub(super) leases: HashMap<AttemptId, Lease>,
    pub(super) pins: Pins,
    pub(super) last_connection: u64,
}

/// An agent.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) stored: StoredAgent,
    pub(super) connection: Option<Connection>,
    pub(super) is_draining: bool,
    pub(super) running: Option<AttemptId>,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) number: u64,
    pub(super) to_agent: ToAgent,
    pub(super) link: CancellationToken,
}

/// A run that has not ended.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) stored: StoredRun,
    pub(super) jobs: Vec<RunJob>,
    pub(super) events: broadcast::Sender<wire::RunEvent>,
}

#[derive(Debug)]
pub(super) struct RunJob {
    pub(super) stored: StoredJob,
    pub(super) comparison: Comparison,
    pub(super) not_before_unix_ns: i64,
}

/// How long an attempt may go on unheard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) until_unix_ns: i64,
    /// As the store has it; it is moved seldom, since a restart renews all leases anyway.
    pub(super) stored_until_unix_ns: i64,
    /// Its agent came back without it: it only has to hand in what it spooled.
    pub(super) is_reclaim: bool,
}

impl Lease {
    /// A lease that the store has already.
    pub(super) fn until(unix_ns: i64) -> Self {
        Self {
            until_unix_ns: unix_ns,
            stored_until_unix_ns: unix_ns,
            is_reclaim: false,
        }
    }
}

impl State {
    /// Reads what is open. Attempts that run get a new lease, so that their agents may come back.
    pub(crate) async fn load(
        store: Arc<dyn Store>,
        timing: Timing,
        now: i64,
    ) -> Result<Self, StoreError> {
        let mut state = Self {
            agents: BTreeMap::new(),
            runs: BTreeMap::new(),
            leases: HashMap::new(),
            pins: Pins::default(),
            last_connection: 0,
            since_unix_ns: now,
            timing,
            store,
        };
        for stored in state.store.agents().await? {
            let agent = Agent {
                stored,
                connection: None,
                is_draining: false,
                running: None,
            };
            state.agents.insert(agent.stored.id.clone(), agent);
        }
        for run in state.store.runs().await? {
            if run.ended_unix_ns.is_none() {
                let jobs = state.store.jobs(run.id).await?;
                state.open(run, jobs);
            }
        }
        let until = now.saturating_add(nanoseconds(timing.lease));
        let running: Vec<AttemptId> = state
            .runs
            .values()
            .flat_map(|run| &run.jobs)
            .filter_map(|job| job.stored.attempts.last())
            .filter(|attempt| attempt.state == AttemptState::Running)
            .map(|attempt| attempt.id)
            .collect();
        let renewed: Vec<_> = running.iter().map(|attempt| (*attempt, until)).collect();
        state.store.renew_leases(&renewed).await?;
        for attempt in running {
            state.leases.insert(attempt, Lease::until(until));
            let agent_id = state
                .attempt(attempt)
                .map(|attempt| attempt.agent_id.clone())
                .expect("the attempt was found in a run");
            if let Some(agent) = state.agents.get_mut(&agent_id) {
                agent.running = Some(attempt);
            }
        }
        Ok(state)
    }

    /// Takes an open run into the lists.
    fn open(&mut self, run: StoredRun, jobs: Vec<StoredJob>) {
        let jobs: Vec<RunJob> = jobs
            .into_iter()
            .map(|stored| RunJob {
                comparison: Comparison::of(&stored.job),
                stored,
                not_before_unix_ns: 0,
            })
            .collect();
        let mut begun: Vec<(i64, &RunJob, &StoredAttempt)> = jobs
            .iter()
            .flat_map(|job| {
                let attempts = job.stored.attempts.iter();
                attempts.map(move |attempt| (attempt.started_unix_ns, job, attempt))
            })
            .collect();
        begun.sort_by_key(|(started, ..)| *started);
        for (_, job, attempt) in begun {
            self.pins
                .note(&job.stored.job, &job.comparison, &attempt.machine_id);
        }
        let (events, _) = broadcast::channel(WATCH_BACKLOG);
        self.runs.insert(
            run.id,
            Run {
                stored: run,
                jobs,
                events,
            },
        );
    }

    /// Does what it is asked.
    pub(crate) async fn handle(&mut self, command: Command, now: i64) {
        // A reply nobody waits for any more is no fault.
        match command {
            Command::Connect {
                agent,
                running,
                to_agent,
                link,
                reply,
            } => {
                let connected = self.connect(*agent, running, to_agent, link, now).await;
                let _ = reply.send(connected);
            }
            Command::Disconnect {
                agent_id,
                connection,
            } => self.disconnect(&agent_id, connection, now),
            Command::Heartbeat {
                agent_id,
                connection,
                running,
            } => self.heartbeat(&agent_id, connection, running, now),
            Command::Draining {
                agent_id,
                connection,
            } => {
                if let Some(agent) = self.connected(&agent_id, connection) {
                    info!(agent = agent_id, "the agent takes no further job");
                    agent.is_draining = true;
                }
            }
            Command::Progress { attempt, progress } => self.progress(attempt, progress, now),
            Command::Appended { attempt } => self.appended(attempt, now),
            Command::Finished {
                attempt,
                n_records,
                failure,
                reply,
            } => {
                let finished = self.finish(attempt, n_records, failure, now).await;
                let _ = reply.send(finished);
            }
            Command::Submit { run, jobs, reply } => {
                let submitted = self.submit(*run, jobs).await;
                let _ = reply.send(submitted);
            }
            Command::Watch { run, reply } => {
                let watch = self.watch(run, now).await;
                let _ = reply.send(watch);
            }
            Command::Cancel { run, reply } => {
                let cancelled = self.cancel(run, now).await;
                let _ = reply.send(cancelled);
            }
            Command::Agents { reply } => {
                let _ = reply.send(self.agent_views());
            }
        }
    }

    /// Does what time and free agents ask for: ends leases, gives out jobs.
    pub(crate) async fn advance(&mut self, now: i64) -> Result<(), StoreError> {
        self.end_leases(now).await?;
        self.store_leases(now).await?;
        if self.waiting().next().is_none() {
            return Ok(());
        }
        let idle: Vec<String> = self
            .agents
            .iter()
            .filter(|(_, agent)| {
                agent.connection.is_some() && agent.running.is_none() && !agent.is_draining
            })
            .map(|(id, _)| id.clone())
            .collect();
        for agent_id in idle {
            if let Some(job) = self.next_job(&agent_id, now) {
                self.assign(&agent_id, job, now).await?;
            }
        }
        Ok(())
    }

    /// Returns when [`Self::advance`] has something to do even if nobody asks for anything.
    pub(crate) fn next_deadline(&self, now: i64) -> Option<i64> {
        let leases = self.leases.values().map(|lease| lease.until_unix_ns);
        let retries = self.waiting().map(|waiting| waiting.not_before_unix_ns);
        let has_waiting = self.waiting().next().is_some();
        let forgotten = self
            .agents
            .values()
            .filter(|agent| has_waiting && agent.connection.is_none())
            .map(|agent| self.forgotten_at(agent));
        leases
            .chain(retries.chain(forgotten).filter(|at| *at > now))
            .min()
    }

    /// Returns when an absent agent's machine no longer holds comparisons.
    fn forgotten_at(&self, agent: &Agent) -> i64 {
        // An agent of an earlier life of this coordinator had no chance to be heard.
        let last_seen = agent.stored.last_seen_unix_ns.max(self.since_unix_ns);
        last_seen.saturating_add(nanoseconds(self.timing.policy.forget_machine_after))
    }

    /// Returns the jobs that wait, the oldest run's first.
    fn waiting(&self) -> impl Iterator<Item = Waiting<'_>> {
        self.runs
            .values()
            .flat_map(|run| &run.jobs)
            .filter(|job| job.stored.state == JobState::Queued)
            .map(|job| Waiting {
                job: &job.stored.job,
                comparison: &job.comparison,
                not_before_unix_ns: job.not_before_unix_ns,
            })
    }

    fn next_job(&self, agent_id: &str, now: i64) -> Option<JobId> {
        let agent = self.agents.get(agent_id)?;
        let idle = Idle {
            machine: &agent.stored.machine,
            labels: &agent.stored.labels,
            suites: &agent.stored.suites,
            load: self.load_of(&agent.stored.machine.id),
        };
        let is_away = |machine: &str| {
            self.agents
                .values()
                .filter(|agent| agent.stored.machine.id == machine)
                .all(|agent| agent.connection.is_none() && self.forgotten_at(agent) <= now)
        };
        schedule::next(self.waiting(), &idle, &self.pins, is_away, now)
    }

    /// Returns what runs on a machine.
    fn load_of(&self, machine_id: &str) -> Load {
        let mut load = Load::default();
        for attempt in self.leases.keys() {
            let Some(job) = self.job(attempt.job) else {
                continue;
            };
            let runs_here = job
                .stored
                .attempts
                .last()
                .is_some_and(|last| last.id == *attempt && last.machine_id == machine_id);
            if runs_here {
                load.n_running += 1;
                load.is_exclusive |= job.stored.job.suite.is_exclusive();
            }
        }
        load
    }

    /// Gives a job to an agent: in the store first, then on the wire.
    async fn assign(&mut self, agent_id: &str, job: JobId, now: i64) -> Result<(), StoreError> {
        let Some(agent) = self.agents.get(agent_id) else {
            return Ok(());
        };
        let Some(connection) = &agent.connection else {
            return Ok(());
        };
        let Ok(place) = connection.to_agent.clone().try_reserve_owned() else {
            warn!(
                agent = agent_id,
                "the agent does not read its messages; its link is cut"
            );
            connection.link.cancel();
            let number = connection.number;
            self.disconnect(agent_id, number, now);
            return Ok(());
        };
        let until = now.saturating_add(nanoseconds(self.timing.lease));
        let items_done = match self.job(job).map(|job| &job.stored.job.suite) {
            Some(SuiteSpec::Accuracy(_)) => self.store.items_done(job).await?,
            _ => 0,
        };
        let attempt = self
            .store
            .start_attempt(&AttemptStart {
                job,
                agent_id: agent_id.to_owned(),
                machine_id: agent.stored.machine.id.clone(),
                at_unix_ns: now,
                lease_until_unix_ns: until,
            })
            .await?;
        let id = attempt.id;
        let entry = self.job_mut(job).expect("the job was found in a run");
        entry.stored.state = JobState::Running;
        entry.stored.attempts.push(attempt);
        let (definition, comparison) = (entry.stored.job.clone(), entry.comparison.clone());
        let agent = self.agents.get_mut(agent_id).expect("it was found above");
        agent.running = Some(id);
        self.pins
            .note(&definition, &comparison, &agent.stored.machine.id);
        self.leases.insert(id, Lease::until(until));
        info!(job = %job, attempt = id.attempt, agent = agent_id, items_done, "assigned");
        place.send(wire::CoordinatorMessage {
            kind: Some(ToAgentKind::Assign(wire::Assign {
                attempt: Some(id.into()),
                job: Some(definition.into()),
                items_done,
            })),
        });
        self.tell_watchers(job, now);
        Ok(())
    }

    async fn submit(
        &mut self,
        run: StoredRun,
        jobs: Vec<tritmark_proto::job::Job>,
    ) -> Result<(), StoreError> {
        self.store.add_run(&run, &jobs).await?;
        info!(run = %run.id, name = run.name, jobs = jobs.len(), "submitted");
        let jobs = jobs
            .into_iter()
            .map(|job| StoredJob {
                job,
                state: JobState::Queued,
                attempts: Vec::new(),
            })
            .collect();
        self.open(run, jobs);
        Ok(())
    }

    async fn watch(&self, run: RunId, now: i64) -> Result<Option<Watch>, StoreError> {
        if let Some(run) = self.runs.get(&run) {
            // Subscribing and reading the state are one step, as nothing else runs meanwhile.
            let events = run.events.subscribe();
            let jobs = run.jobs.iter().map(|job| &job.stored);
            return Ok(Some(Watch {
                snapshot: watch::snapshot(&run.stored, jobs, now),
                events: Some(events),
            }));
        }
        let Some(stored) = self.store.run(run).await? else {
            return Ok(None);
        };
        let jobs = self.store.jobs(run).await?;
        Ok(Some(Watch {
            snapshot: watch::snapshot(&stored, &jobs, now),
            events: None,
        }))
    }

    fn agent_views(&self) -> Vec<AgentView> {
        self.agents
            .values()
            .map(|agent| AgentView {
                agent: agent.stored.clone(),
                is_connected: agent.connection.is_some(),
                running: agent.running,
            })
            .collect()
    }

    pub(super) fn job(&self, job: JobId) -> Option<&RunJob> {
        self.runs.get(&job.run)?.jobs.get(position(job))
    }

    pub(super) fn job_mut(&mut self, job: JobId) -> Option<&mut RunJob> {
        self.runs.get_mut(&job.run)?.jobs.get_mut(position(job))
    }

    /// Returns an attempt of an open run, by its whole name.
    pub(super) fn attempt(&self, attempt: AttemptId) -> Option<&StoredAttempt> {
        self.job(attempt.job)?
            .stored
            .attempts
            .iter()
            .find(|stored| stored.id == attempt)
    }

    /// Tells the watchers of a run how one of its jobs stands.
    pub(super) fn tell_watchers(&self, job: JobId, now: i64) {
        if let (Some(run), Some(entry)) = (self.runs.get(&job.run), self.job(job)) {
            // Nobody watching is no fault.
            let _ = run.events.send(watch::job_event(&entry.stored, now));
        }
    }
}
