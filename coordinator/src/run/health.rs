//! Agents are asked what their machines can do: when they join, after a start of the machine, and
//! every few hours, whenever nothing else runs there. Who fails, or is on another machine than before,
//! takes no performance jobs until a person releases it.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{info, warn};
use tritmark_proto::wire::{self, coordinator_message::Kind as ToAgentKind};

use super::{assign::is_idle, nanoseconds, state::State};
use crate::{
    health::{self, Calibration, Limits},
    store::{Quarantine, StoreError, StoredAgent, StoredCalibration},
};

/// Calibrations that are read of a machine.
const READ: u32 = 50;

/// Wait before an agent is asked again whose calibration could not be kept.
const AGAIN_NS: i64 = 60_000_000_000;

/// Who is to be asked, and who was.
#[derive(Debug, Default)]
pub(super) struct Calibrations {
    /// When agents are due that are linked to this coordinator.
    due: BTreeSet<(i64, String)>,
    asked: BTreeMap<String, Asked>,
    last_number: u64,
}

/// A calibration that is not answered yet.
#[derive(Debug)]
struct Asked {
    number: u64,
    machine_id: String,
}

impl Calibrations {
    /// Tells whether a machine is being calibrated.
    pub(super) fn has_machine(&self, machine_id: &str) -> bool {
        // Nearly always empty, never long.
        self.asked.values().any(|it| it.machine_id == machine_id)
    }

    /// Returns when the next agent is due that is not yet.
    pub(super) fn next(&self, now: i64) -> Option<i64> {
        let later = (now.saturating_add(1), String::new());
        self.due.range(later..).next().map(|(at, _)| *at)
    }

    /// Forgets an agent that has left.
    pub(super) fn forget(&mut self, agent_id: &str) {
        self.due.retain(|(_, id)| id != agent_id);
        self.asked.remove(agent_id);
    }
}

impl State {
    /// Holds what an agent says of itself against what it was, before that is forgotten: what people
    /// and calibrations said of it stays, and on another machine it is quarantined.
    pub(super) async fn hold_against(
        &mut self,
        stored: &mut StoredAgent,
        before: StoredAgent,
        now: i64,
    ) -> Result<(), StoreError> {
        stored.quarantine = before.quarantine;
        stored.drain_unix_ns = before.drain_unix_ns;
        if self.timing.calibrate_every.is_none() || stored.quarantine.is_some() {
            return Ok(());
        }
        let changes = health::changes(&before.machine, &stored.machine);
        if !changes.is_empty() {
            let reason = format!("the machine has changed: {}", changes.join("; "));
            stored.quarantine = Some(self.quarantine(&stored.id, reason, now).await?);
        }
        Ok(())
    }

    /// Finds when an agent that has come is to be calibrated. `boot_id` is given if it can be.
    pub(super) async fn plan_calibration(
        &mut self,
        agent_id: &str,
        boot_id: Option<String>,
        now: i64,
    ) -> Result<(), StoreError> {
        self.calibrations.forget(agent_id);
        let (Some(every), Some(agent)) =
            (self.timing.calibrate_every, self.agents.get_mut(agent_id))
        else {
            return Ok(());
        };
        agent.boot_id.clone_from(&boot_id);
        let machine_id = agent.stored.machine.id.clone();
        let Some(boot_id) = boot_id else {
            return Ok(());
        };
        let known = self.store.calibrations(&machine_id, READ).await?;
        let last = known.iter().find(|it| it.agent_id == agent_id);
        let due = match last {
            Some(last) if last.boot_id == boot_id => {
                last.at_unix_ns.saturating_add(nanoseconds(every)).max(now)
            }
            _ => now,
        };
        self.calibrations.due.insert((due, agent_id.to_owned()));
        Ok(())
    }

    /// Asks those that are due and whose machines do nothing.
    pub(super) fn calibrate(&mut self, now: i64) {
        let due: Vec<(i64, String)> = self
            .calibrations
            .due
            .iter()
            .take_while(|(at, _)| *at <= now)
            .filter(|(_, id)| self.agents.get(id).is_some_and(is_idle))
            .cloned()
            .collect();
        for entry in due {
            let agent_id = &entry.1;
            let Some(agent) = self.agents.get(agent_id) else {
                continue;
            };
            let machine_id = &agent.stored.machine.id;
            let is_free = self.leases.load(machine_id).n_running == 0
                && !self.calibrations.has_machine(machine_id);
            let Some(connection) = agent.connection.as_ref().filter(|_| is_free) else {
                continue;
            };
            let number = self.calibrations.last_number + 1;
            let message = wire::CoordinatorMessage {
                kind: Some(ToAgentKind::Calibrate(wire::Calibrate { number })),
            };
            if connection.to_agent.try_send(message).is_err() {
                continue;
            }
            info!(agent = agent_id, "calibrating");
            let asked = Asked {
                number,
                machine_id: machine_id.clone(),
            };
            self.calibrations.last_number = number;
            self.calibrations.due.remove(&entry);
            self.calibrations.asked.insert(agent_id.clone(), asked);
            if let Some(agent) = self.agents.get_mut(&entry.1) {
                agent.is_calibrating = true;
            }
        }
    }

    /// Takes an agent's answer.
    pub(super) async fn calibrated(
        &mut self,
        agent_id: &str,
        connection: u64,
        said: wire::Calibration,
        now: i64,
    ) -> Result<(), StoreError> {
        let is_asked = self
            .calibrations
            .asked
            .get(agent_id)
            .is_some_and(|asked| asked.number == said.number);
        let Some(agent) = self.connected(agent_id, connection).filter(|_| is_asked) else {
            warn!(agent = agent_id, "a calibration that nobody asked for");
            return Ok(());
        };
        agent.is_calibrating = false;
        let machine_id = agent.stored.machine.id.clone();
        let boot_id = agent.boot_id.clone().unwrap_or_default();
        self.calibrations.asked.remove(agent_id);
        self.may_assign = true;
        let wait = self.timing.calibrate_every.map_or(AGAIN_NS, nanoseconds);
        let next = (now.saturating_add(wait), agent_id.to_owned());
        let again = (now.saturating_add(AGAIN_NS), agent_id.to_owned());
        // Until it is kept.
        self.calibrations.due.insert(again.clone());
        let verdict = match Calibration::read(said) {
            Err(reason) => Err(format!("the calibration failed: {reason}")),
            Ok(calibration) => {
                let earlier = self.store.calibrations(&machine_id, READ).await?;
                let earlier: Vec<Calibration> = earlier
                    .into_iter()
                    .filter(|it| it.counts)
                    .map(|it| it.calibration)
                    .collect();
                let verdict = health::judge(&calibration, &earlier, &Limits::default());
                self.store
                    .add_calibration(&StoredCalibration {
                        machine_id,
                        at_unix_ns: now,
                        agent_id: agent_id.to_owned(),
                        boot_id,
                        counts: verdict.is_ok(),
                        calibration,
                    })
                    .await?;
                verdict
            }
        };
        match verdict {
            Ok(()) => info!(agent = agent_id, "as usual"),
            Err(reason) => {
                self.quarantine(agent_id, reason, now).await?;
            }
        }
        self.calibrations.due.remove(&again);
        self.calibrations.due.insert(next);
        Ok(())
    }

    /// Keeps performance jobs from an agent.
    async fn quarantine(
        &mut self,
        agent_id: &str,
        reason: String,
        now: i64,
    ) -> Result<Quarantine, StoreError> {
        warn!(agent = agent_id, reason, "quarantined");
        let why = Quarantine {
            since_unix_ns: now,
            reason,
        };
        self.store.quarantine(agent_id, &why).await?;
        if let Some(agent) = self.agents.get_mut(agent_id) {
            agent.stored.quarantine.get_or_insert_with(|| why.clone());
        }
        self.may_assign = true;
        Ok(why)
    }

    /// Takes an agent out of quarantine. Returns which and why it was in it, or why it cannot be.
    pub(super) async fn release_agent(
        &mut self,
        name: &str,
    ) -> Result<Result<(String, Quarantine), String>, StoreError> {
        let id = match self.agent_named(name) {
            Ok(id) => id,
            Err(problem) => return Ok(Err(problem)),
        };
        let Some(agent) = self.agents.get_mut(&id) else {
            return Ok(Err(format!("there is no agent `{name}`")));
        };
        let Some(was) = agent.stored.quarantine.clone() else {
            return Ok(Err(format!("agent {id} is in no quarantine")));
        };
        self.store.release_agent(&id).await?;
        agent.stored.quarantine = None;
        info!(agent = id, "released");
        self.may_assign = true;
        Ok(Ok((id, was)))
    }

    /// Finds an agent by its id, or by its machine's host name if no other has it.
    pub(super) fn agent_named(&self, name: &str) -> Result<String, String> {
        if self.agents.contains_key(name) {
            return Ok(name.to_owned());
        }
        let mut of_host = self
            .agents
            .values()
            .map(|agent| &agent.stored)
            .filter(|stored| stored.machine.hostname == name)
            .map(|stored| stored.id.clone());
        match (of_host.next(), of_host.next()) {
            (Some(id), None) => Ok(id),
            (None, _) => Err(format!("there is no agent `{name}`")),
            (Some(one), Some(other)) => Err(format!(
                "several agents are on `{name}`, name one by its id: {one}, {other}{}",
                if of_host.next().is_some() {
                    ", …"
                } else {
                    ""
                }
            )),
        }
    }
}
