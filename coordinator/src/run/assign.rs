//! Jobs are given to agents: in the store first, then on the wire.

use std::collections::HashMap;

use tokio::sync::mpsc::OwnedPermit;
use tracing::{info, warn};
use tritmark_proto::{
    bundle::JobState,
    job::{JobId, SuiteSpec},
    wire::{self, coordinator_message::Kind as ToAgentKind},
};

use super::{
    leases::Lease,
    lists::Run,
    nanoseconds,
    state::{Agent, State},
};
use crate::{
    schedule::{self, Idle, Load},
    store::{AttemptStart, Exclusive, StoreError, StoredAttempt},
};

/// Attempts begun in one transaction.
const AT_ONCE: usize = 500;

/// Wait before a job is tried again that another coordinator is about to begin.
const TRY_AGAIN_NS: i64 = 50_000_000;

/// A job and the agent that shall have it.
struct Choice {
    start: AttemptStart,
    /// Room for the message.
    place: OwnedPermit<wire::CoordinatorMessage>,
}

impl State {
    /// Gives free agents jobs, as far as there are any: those that have become free, or all of them if
    /// something has changed by which anybody may begin what could not before.
    pub(super) async fn assign(&mut self, now: i64) -> Result<(), StoreError> {
        // Whatever comes in the way sets it again.
        let is_for_all = std::mem::take(&mut self.may_assign);
        let freed = std::mem::take(&mut self.freed);
        if !self.begun_from().any(Run::has_ready) {
            self.forgotten_due_unix_ns = None;
            return Ok(());
        }
        let mut idle: Vec<String> = if is_for_all {
            self.look_for_away(now);
            let all = self.agents.iter();
            all.filter(|(_, agent)| is_idle(agent))
                .map(|(id, _)| id.clone())
                .collect()
        } else {
            let is_idle = |id: &String| self.agents.get(id).is_some_and(is_idle);
            freed.into_iter().filter(is_idle).collect()
        };
        while !idle.is_empty() {
            let rest = idle.split_off(idle.len().min(AT_ONCE));
            let choices = self.choose(&idle, now).await;
            if !choices.is_empty() {
                let begun = self.begin(choices, now).await;
                self.may_assign |= begun.is_err();
                begun?;
            }
            idle = rest;
        }
        Ok(())
    }

    /// Finds the machines nobody has heard of for so long that their jobs are anybody's, and those in
    /// quarantine, and when there will be another.
    fn look_for_away(&mut self, now: i64) {
        self.away.clear();
        self.forgotten_due_unix_ns = None;
        for agent in self.agents.values() {
            if agent.stored.quarantine.is_some() {
                if self.is_away(&agent.stored.machine.id, now) {
                    self.away.insert(agent.stored.machine.id.clone());
                }
                continue;
            }
            if agent.connection.is_some() {
                continue;
            }
            let at = self.forgotten_at(agent);
            if at > now {
                let due = self.forgotten_due_unix_ns;
                self.forgotten_due_unix_ns = due.into_iter().chain([at]).min();
            } else if self.is_away(&agent.stored.machine.id, now) {
                self.away.insert(agent.stored.machine.id.clone());
            }
        }
    }

    fn is_away(&self, machine_id: &str, now: i64) -> bool {
        self.machines
            .get(machine_id)
            .into_iter()
            .flatten()
            .filter_map(|agent| self.agents.get(agent))
            .all(|agent| {
                let is_gone = agent.connection.is_none() && self.forgotten_at(agent) <= now;
                is_gone || agent.stored.quarantine.is_some()
            })
    }

    /// Finds jobs for agents. What is chosen is out of the lists and pinned, until it is begun or put
    /// back.
    async fn choose(&mut self, idle: &[String], now: i64) -> Vec<Choice> {
        let until = now.saturating_add(nanoseconds(self.timing.lease));
        let mut chosen_loads: HashMap<String, Load> = HashMap::new();
        let mut choices = Vec::new();
        for agent_id in idle {
            let Some(job) = self.next_job(agent_id, &chosen_loads, now) else {
                continue;
            };
            let Some(place) = self.room_for(agent_id, now).await else {
                continue;
            };
            let (Some(entry), Some(agent)) = (self.job(job), self.agents.get(agent_id)) else {
                continue;
            };
            let machine_id = agent.stored.machine.id.clone();
            let definition = &entry.stored.job;
            let exclusive = definition.suite.is_exclusive().then(|| Exclusive {
                comparison: entry.comparison.name(),
                pinned_to: self.pins.machine(&entry.comparison).map(Into::into),
            });
            let load = chosen_loads.entry(machine_id.clone()).or_default();
            load.n_running += 1;
            load.is_exclusive |= exclusive.is_some();
            let (definition, comparison) = (definition.clone(), entry.comparison.clone());
            self.note_pin(&definition, &comparison, &machine_id);
            if let Some(run) = self.runs.get_mut(&job.run) {
                run.take(job.index);
            }
            choices.push(Choice {
                start: AttemptStart {
                    job,
                    agent_id: agent_id.clone(),
                    machine_id,
                    at_unix_ns: now,
                    lease_until_unix_ns: until,
                    exclusive,
                },
                place,
            });
        }
        choices
    }

    fn next_job(&self, agent_id: &str, chosen: &HashMap<String, Load>, now: i64) -> Option<JobId> {
        let agent = self.agents.get(agent_id)?;
        let machine_id = &agent.stored.machine.id;
        let mut load = self.leases.load(machine_id);
        if let Some(chosen) = chosen.get(machine_id) {
            load.n_running += chosen.n_running;
            load.is_exclusive |= chosen.is_exclusive;
        }
        load.is_exclusive |= self.calibrations.has_machine(machine_id);
        let idle = Idle {
            machine: &agent.stored.machine,
            labels: &agent.stored.labels,
            suites: &agent.stored.suites,
            is_quarantined: agent.stored.quarantine.is_some(),
            load,
        };
        let waiting = self.begun_from();
        let waiting = waiting.flat_map(|run| run.heads(machine_id, &self.away));
        let is_away = |machine: &str| self.is_away(machine, now);
        schedule::next(waiting, &idle, &self.pins, is_away, now)
    }

    /// Reserves room for a message to an agent; one that does not read its messages is cut off.
    async fn room_for(
        &mut self,
        agent_id: &str,
        now: i64,
    ) -> Option<OwnedPermit<wire::CoordinatorMessage>> {
        let connection = self.agents.get(agent_id)?.connection.as_ref()?;
        if let Ok(place) = connection.to_agent.clone().try_reserve_owned() {
            return Some(place);
        }
        warn!(
            agent = agent_id,
            "the agent does not read its messages; its link is cut"
        );
        connection.link.cancel();
        let number = connection.number;
        self.disconnect(agent_id, number, now).await;
        None
    }

    /// Begins what was chosen.
    async fn begin(&mut self, choices: Vec<Choice>, now: i64) -> Result<(), StoreError> {
        let starts: Vec<AttemptStart> = choices.iter().map(|choice| choice.start.clone()).collect();
        let (begun, items_done) = match self.begin_in_store(&starts).await {
            Ok(begun) => begun,
            Err(error) => {
                for start in &starts {
                    self.put_back(start);
                }
                return Err(error);
            }
        };
        let mut old = Vec::new();
        for (choice, begun) in choices.into_iter().zip(begun) {
            match begun {
                Ok(attempt) => {
                    let items_done = items_done.get(&attempt.id.job).copied().unwrap_or(0);
                    self.begun(choice, attempt, items_done, now);
                }
                Err(error @ (StoreError::NotQueued { .. } | StoreError::Taken { .. })) => {
                    info!(agent = choice.start.agent_id, reason = %error, "not begun");
                    self.put_back(&choice.start);
                    old.push(choice.start.job);
                }
                Err(error) => {
                    self.put_back(&choice.start);
                    return Err(error);
                }
            }
        }
        if !old.is_empty() {
            self.try_again_unix_ns = Some(now.saturating_add(TRY_AGAIN_NS));
            self.refresh(&old, now).await?;
        }
        Ok(())
    }

    /// Begins attempts in the store. Returns also how many items those have that go on.
    async fn begin_in_store(
        &self,
        starts: &[AttemptStart],
    ) -> Result<(Vec<Result<StoredAttempt, StoreError>>, HashMap<JobId, u64>), StoreError> {
        let go_on: Vec<JobId> = starts
            .iter()
            .map(|start| start.job)
            .filter(|job| {
                self.job(*job).is_some_and(|job| {
                    matches!(job.stored.job.suite, SuiteSpec::Accuracy(_))
                        && !job.stored.attempts.is_empty()
                })
            })
            .collect();
        let mut items_done = HashMap::new();
        if !go_on.is_empty() {
            let done = self.store.items_done_of(&go_on).await?;
            items_done.extend(go_on.into_iter().zip(done));
        }
        Ok((self.store.start_attempts(starts).await?, items_done))
    }

    /// Puts a job that was chosen back into the lists.
    fn put_back(&mut self, start: &AttemptStart) {
        if let Some(entry) = self.job(start.job)
            && let Some(exclusive) = &start.exclusive
        {
            let comparison = entry.comparison.clone();
            self.restore_pin(start.job.run, &comparison, exclusive.pinned_to.as_deref());
        }
        let not_before = start.at_unix_ns.saturating_add(TRY_AGAIN_NS);
        self.change_job(start.job, not_before, |_| {});
    }

    /// Takes a begun attempt into the lists and tells its agent and the watchers.
    fn begun(&mut self, choice: Choice, attempt: StoredAttempt, items_done: u64, now: i64) {
        let id = attempt.id;
        let until = attempt.lease_until_unix_ns;
        let AttemptStart {
            agent_id,
            machine_id,
            exclusive,
            ..
        } = choice.start;
        self.change_job(id.job, 0, |job| {
            job.state = JobState::Running;
            job.attempts.push(attempt);
        });
        if let Some(agent) = self.agents.get_mut(&agent_id) {
            agent.running = Some(id);
        }
        self.leases
            .insert(id, Lease::begun(until, machine_id, exclusive.is_some()));
        info!(job = %id.job, attempt = id.attempt, agent = agent_id, items_done, "assigned");
        let definition = self.job(id.job).map(|job| job.stored.job.clone());
        choice.place.send(wire::CoordinatorMessage {
            kind: Some(ToAgentKind::Assign(wire::Assign {
                attempt: Some(id.into()),
                job: definition.map(Into::into),
                items_done,
            })),
        });
        self.tell_watchers(id.job, now);
    }
}

/// Tells whether an agent can be given something.
pub(super) fn is_idle(agent: &Agent) -> bool {
    agent.connection.is_some()
        && agent.running.is_none()
        && !agent.is_draining
        && !agent.is_calibrating
}
