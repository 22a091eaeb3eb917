//! An agent of the simulation, its worker and its disk.

use std::path::{Path, PathBuf};

use tritmark_agent::simulation::SimulatedAgent;
use tritmark_proto::{
    bundle::{Failure, FailureClass},
    job::AttemptId,
    machine::Machine,
    record::Record,
};

use crate::{
    journal::{Entry, Journal},
    light::{agent_id, machine},
    random::{Random, hash},
    work,
};

/// An agent and what is around it.
pub(super) struct Actor {
    pub(super) number: u32,
    pub(super) agent_id: String,
    pub(super) machine: Machine,
    pub(super) folder: PathBuf,
    pub(super) spool_max_bytes: u64,
    /// `None` while it is dead.
    pub(super) agent: Option<SimulatedAgent>,
    pub(super) journal: Journal,
    pub(super) random: Random,
    working: Option<Working>,
}

/// What the worker will find out.
struct Working {
    attempt: AttemptId,
    records: Vec<Record>,
    next: usize,
    has_started: bool,
    fails: bool,
}

impl Actor {
    pub(super) fn new(
        number: u32,
        on_machine: u32,
        folder: &Path,
        journal: Journal,
        mut random: Random,
    ) -> Self {
        Self {
            number,
            agent_id: agent_id(number),
            machine: machine(&format!("machine-{on_machine}")),
            folder: folder.join(format!("agent-{number}")),
            // Some disks are so small that a job's records do not fit while others wait.
            spool_max_bytes: if random.chance(100) { 2000 } else { 1 << 20 },
            agent: None,
            journal,
            random,
            working: None,
        }
    }

    /// The worker goes on by one step.
    pub(super) fn work(&mut self, may_fail: bool, now: i64) {
        let Some(agent) = &mut self.agent else { return };
        let Some(worker) = agent.worker().cloned() else {
            self.working = None;
            return;
        };
        if self.working.as_ref().map(|working| working.attempt) != Some(worker.attempt) {
            self.journal.note(Entry::Started(worker.attempt));
            let nonce = hash(&[worker.attempt.fence, self.random.next_u64()]);
            self.working = Some(Working {
                attempt: worker.attempt,
                records: work::records(&worker.job, nonce, worker.items_done),
                next: 0,
                has_started: false,
                fails: may_fail && self.random.chance(50),
            });
        }
        let Some(working) = &mut self.working else {
            return;
        };
        let failed = |message: &str| {
            Err(Failure {
                class: FailureClass::Transient,
                message: message.to_owned(),
                stderr: String::new(),
            })
        };
        if worker.is_stopped {
            // It may have ended by itself just before.
            let is_done = working.next == working.records.len() && self.random.chance(500);
            let outcome = if is_done { Ok(()) } else { failed("stopped") };
            agent.ended(outcome, now);
        } else if !working.has_started {
            working.has_started = true;
            agent.started(now);
        } else if working.fails && self.random.chance(300) {
            agent.ended(failed("asked to fail"), now);
        } else if let Some(record) = working.records.get(working.next) {
            working.next += 1;
            agent.record(record.clone(), now);
        } else {
            agent.ended(Ok(()), now);
        }
    }

    /// The process is killed.
    pub(super) fn kill(&mut self) {
        self.agent = None;
        self.working = None;
    }

    /// The machine loses power.
    pub(super) fn cut_power(&mut self) {
        self.working = None;
        if let Some(agent) = self.agent.take() {
            let random = &mut self.random;
            agent
                .cut_power(|tail| random.below(tail + 1))
                .expect("the folder is there");
        }
    }
}
