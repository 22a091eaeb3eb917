//! An agent without network, clock and processes, for simulations of the protocol.
//!
//! It is the agent's own desk and spool. Whoever drives it brings and takes the messages, plays the
//! worker, and says when a flush is done and what time it is. Dropping it is a killed agent;
//! [`SimulatedAgent::cut_power`] is a machine that lost its page cache too.

use std::{
    collections::{BTreeMap, HashMap},
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
};

use tritmark_proto::{
    bundle::Failure,
    job::{AttemptId, Job},
    record::Record,
    wire,
};

use crate::{
    desk::{Action, Desk, Identity},
    runner::{Assignment, News, Said},
    spool::{Spool, SpoolError},
};

/// A worker that does what the simulation says.
#[derive(Clone, Debug)]
pub struct SimulatedWorker {
    /// What it works on.
    pub attempt: AttemptId,
    /// The job.
    pub job: Job,
    /// Leading items that are stored already.
    pub items_done: u64,
    /// It shall end, in vain unless it has just ended by itself.
    pub is_stopped: bool,
}

/// An agent at work.
#[derive(Debug)]
pub struct SimulatedAgent {
    desk: Desk,
    worker: Option<SimulatedWorker>,
    /// Lengths up to which spool files are on the disk for certain.
    durable: BTreeMap<AttemptId, (PathBuf, u64)>,
}

impl SimulatedAgent {
    /// Starts an agent on its state folder, as after a crash or for the first time.
    pub fn open(
        agent_id: &str,
        machine: wire::Machine,
        state_dir: &Path,
        spool_max_bytes: u64,
        now_unix_ns: i64,
    ) -> Result<Self, SpoolError> {
        let identity = Identity {
            agent_id: agent_id.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine,
            labels: HashMap::new(),
            suites: Vec::new(),
            signer: None,
            boot_id: None,
        };
        let spool = Spool::open(state_dir, spool_max_bytes)?;
        let mut agent = Self {
            desk: Desk::new(identity, spool, now_unix_ns),
            worker: None,
            durable: BTreeMap::new(),
        };
        agent.note_lengths();
        Ok(agent)
    }

    /// Begins a connection.
    pub fn register(&mut self) -> wire::AgentMessage {
        self.desk.register()
    }

    /// Takes a message of the coordinator, the answer to [`Self::register`] included.
    pub fn take(&mut self, message: wire::CoordinatorMessage, now_unix_ns: i64) {
        let actions = match &message.kind {
            Some(wire::coordinator_message::Kind::Registered(registered)) => {
                self.desk.registered(registered)
            }
            _ => self.desk.on_message(message, now_unix_ns),
        };
        self.act(actions);
    }

    /// Returns the sign of life.
    pub fn heartbeat(&self) -> wire::AgentMessage {
        self.desk.heartbeat()
    }

    /// Returns the next message that must arrive, if one is due.
    pub fn next_message(&mut self) -> Option<wire::AgentMessage> {
        while self.desk.has_message() {
            if let Some(message) = self.desk.next_message() {
                return Some(message);
            }
        }
        None
    }

    /// Returns the worker there is.
    pub fn worker(&self) -> Option<&SimulatedWorker> {
        self.worker.as_ref()
    }

    /// The worker's process runs.
    pub fn started(&mut self, now_unix_ns: i64) {
        self.say(News::Started, now_unix_ns);
    }

    /// The worker has found something out.
    pub fn record(&mut self, record: Record, now_unix_ns: i64) {
        self.say(News::Record(Box::new(record)), now_unix_ns);
    }

    /// The worker's process has ended.
    pub fn ended(&mut self, outcome: Result<(), Failure>, now_unix_ns: i64) {
        if let Some(worker) = self.worker.take() {
            let said = Said {
                attempt: worker.attempt,
                news: News::Ended(outcome),
            };
            let actions = self.desk.on_worker(said, now_unix_ns);
            self.act(actions);
        }
    }

    fn say(&mut self, news: News, now_unix_ns: i64) {
        if let Some(worker) = &self.worker {
            let attempt = worker.attempt;
            let actions = self.desk.on_worker(Said { attempt, news }, now_unix_ns);
            self.act(actions);
        }
    }

    /// Tells whether something waits for the disk.
    pub fn needs_flush(&self) -> bool {
        self.desk.undurable() != (0, false)
    }

    /// Makes the oldest of what waits durable.
    pub fn flush(&mut self) {
        if let Some((attempt, flush)) = self.desk.flush() {
            let flushed = flush.run();
            let actions = self.desk.on_flushed(attempt, &flushed);
            self.note_lengths();
            self.act(actions);
        }
    }

    /// Has the disk refuse to make the oldest of what waits durable.
    pub fn fail_flush(&mut self) {
        if let Some((attempt, flush)) = self.desk.flush() {
            drop(flush);
            let error = SpoolError::Io {
                action: "write",
                path: PathBuf::from("simulated"),
                source: io::Error::other("the disk fails"),
            };
            let actions = self.desk.on_flushed(attempt, &Err(error));
            self.act(actions);
        }
    }

    /// Takes no further job.
    pub fn drain(&mut self) {
        self.desk.drain();
    }

    /// Tells whether the coordinator has everything.
    pub fn is_clear(&self) -> bool {
        self.desk.is_clear()
    }

    /// Kills the agent with its machine: of what was not flushed, `kept` bytes of each file are left,
    /// at most all.
    pub fn cut_power(self, mut kept: impl FnMut(u64) -> u64) -> io::Result<()> {
        let Self {
            desk,
            worker: _,
            durable,
        } = self;
        drop(desk);
        for (path, durable_length) in durable.into_values() {
            let file = match OpenOptions::new().write(true).open(&path) {
                Ok(file) => file,
                // Acknowledged and forgotten.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let length = file.metadata()?.len();
            if length > durable_length {
                let tail = length - durable_length;
                file.set_len(durable_length + kept(tail).min(tail))?;
            }
        }
        Ok(())
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Start(assignment) => {
                    let Assignment {
                        attempt,
                        job,
                        items_done,
                    } = *assignment;
                    self.worker = Some(SimulatedWorker {
                        attempt,
                        job,
                        items_done,
                        is_stopped: false,
                    });
                }
                Action::Stop(attempt) => {
                    if let Some(worker) = &mut self.worker
                        && worker.attempt == attempt
                    {
                        worker.is_stopped = true;
                    }
                }
                Action::Leave => self.desk.drain(),
                // It does not offer to.
                Action::Calibrate(_) => {}
            }
        }
        self.note_lengths();
    }

    /// Files that are new are durable as they were made; the others as their last flush left them.
    fn note_lengths(&mut self) {
        self.durable = self.desk.flushed_lengths().collect();
    }
}
