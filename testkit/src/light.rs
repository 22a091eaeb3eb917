//! An agent that is only its protocol: a thousand of them fit into one process.
//!
//! It speaks `tritmark.v1.AgentLink` over real gRPC from the generated stubs, and shares no code with
//! the agent. Its spool is in memory and outlives its connections; [`LightAgent::run`] ends when the
//! token says so and can be begun anew, as after a restart.

use std::{
    io,
    time::{Duration, Instant as Time},
};

use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};
use tritmark_proto::{
    bundle::{Failure, FailureClass},
    job::{AttemptId, Job},
    machine::Machine,
    wire::{
        self, agent_link_client::AgentLinkClient, agent_message::Kind as FromAgent,
        coordinator_message::Kind as ToAgent,
    },
};

use crate::{
    journal::{Entry, Journal},
    random::{Random, hash},
    work,
};

/// Messages that may wait for the stream.
const OUTGOING: usize = 16;
/// How long the coordinator may take to answer a registration.
const REGISTER_WITHIN: Duration = Duration::from_secs(30);

/// What a light agent does with its jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// How long a job takes, on average.
    pub work: Duration,
    /// Jobs take between half of that and half as much again, so that agents do not march in step.
    pub varies: bool,
    /// Every record by itself, as it is found out, or all at the end.
    pub one_by_one: bool,
    /// Jobs that fail and may be tried again, of 1000.
    pub fails_per_mille: u64,
    /// Messages sent twice, of 1000.
    pub doubles_per_mille: u64,
}

/// An agent.
#[derive(Debug)]
pub struct LightAgent {
    agent_id: String,
    machine: Machine,
    behaviour: Behaviour,
    random: Random,
    journal: Journal,
    held: Vec<Held>,
    /// What it works on, and what comes next.
    working: Option<(AttemptId, Instant)>,
    /// What it answers when asked what its machine can do; `None` if it cannot be asked.
    calibration: Option<wire::Calibration>,
    boot_id: String,
    /// It was told to leave.
    is_leaving: bool,
    free_since: Option<Time>,
    dispatches: Vec<Duration>,
}

/// An attempt that is not acknowledged.
#[derive(Debug)]
struct Held {
    attempt: AttemptId,
    records: Vec<wire::Record>,
    /// So many are found out.
    n_found: usize,
    n_sent: usize,
    n_stored: usize,
    end: Option<wire::JobFinished>,
    is_end_sent: bool,
}

/// Why a connection is over.
#[derive(Debug)]
enum Over {
    Stopped,
    Broken,
}

impl LightAgent {
    /// Returns agent `number` on a machine of its own.
    pub fn new(number: u32, behaviour: Behaviour, journal: Journal) -> Self {
        Self {
            agent_id: agent_id(number),
            machine: machine(&format!("machine-{number}")),
            behaviour,
            random: Random::new(hash(&[number.into(), 0x11_6874])),
            journal,
            held: Vec::new(),
            working: None,
            calibration: None,
            boot_id: "first".to_owned(),
            is_leaving: false,
            free_since: None,
            dispatches: Vec::new(),
        }
    }

    /// Returns how long the agent waited for each job but its first on a connection: from when the end
    /// of the one before was put on the stream, after all its records, to when the assignment was read
    /// from it. All the coordinator does for a job is in it, and both ways.
    pub fn dispatches(&self) -> &[Duration] {
        &self.dispatches
    }

    /// From its next connection on, it says of its machine what it is told here.
    pub fn on_machine(&mut self, change: impl FnOnce(&mut Machine)) {
        change(&mut self.machine);
    }

    /// From its next connection on, it can be asked what its machine can do, and answers this.
    pub fn calibrates_as(&mut self, calibration: wire::Calibration) {
        self.calibration = Some(calibration);
    }

    /// Forgets what only the process knew, and its machine was started anew.
    pub fn reboot(&mut self, boot_id: &str) {
        self.kill();
        boot_id.clone_into(&mut self.boot_id);
    }

    /// Forgets what only the process knew, as a kill does: the job in hand fails.
    pub fn kill(&mut self) {
        if let Some((attempt, _)) = self.working.take() {
            self.finish(attempt, Some("the agent was restarted while the job ran"));
        }
    }

    /// Works until stopped, or told by the coordinator to leave, over as many connections as it takes.
    pub async fn run(&mut self, endpoint: &Endpoint, stop: &CancellationToken) {
        self.is_leaving = false;
        loop {
            let over = tokio::select! {
                () = stop.cancelled() => Over::Stopped,
                over = self.connection(endpoint) => over,
            };
            match over {
                Over::Stopped => return,
                Over::Broken if self.is_leaving && self.held.is_empty() => return,
                Over::Broken => {
                    let wait = Duration::from_millis(10 + self.random.below(90));
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = sleep(wait) => {}
                    }
                }
            }
        }
    }

    async fn connection(&mut self, endpoint: &Endpoint) -> Over {
        self.free_since = None;
        match self.open(endpoint).await {
            Ok((outgoing, incoming)) => self.serve(outgoing, incoming).await,
            Err(error) => {
                tracing::debug!(%error, "not connected");
                Over::Broken
            }
        }
    }

    async fn open(
        &mut self,
        endpoint: &Endpoint,
    ) -> Result<
        (
            mpsc::Sender<wire::AgentMessage>,
            Streaming<wire::CoordinatorMessage>,
        ),
        Box<dyn std::error::Error + Send + Sync>,
    > {
        let channel: Channel = endpoint.connect().await?;
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        for held in &mut self.held {
            held.n_sent = held.n_stored;
            held.is_end_sent = false;
        }
        let announced = self.running();
        outgoing.try_send(message(FromAgent::Register(wire::Register {
            agent_id: self.agent_id.clone(),
            version: "light".to_owned(),
            machine: Some(self.machine.clone().into()),
            labels: [].into(),
            running: announced.map(Into::into),
            suites: Vec::new(),
            calibrates: self.calibration.is_some(),
            boot_id: self.boot_id.clone(),
        })))?;
        let answer = async {
            let mut incoming = AgentLinkClient::new(channel)
                .link(ReceiverStream::new(messages))
                .await?
                .into_inner();
            let first = incoming.message().await?;
            Ok::<_, tonic::Status>((incoming, first))
        };
        let (incoming, first) = timeout(REGISTER_WITHIN, answer).await??;
        let Some(ToAgent::Registered(registered)) = first.and_then(|message| message.kind) else {
            return Err(io::Error::other("the answer to the registration is none").into());
        };
        if let Some(attempt) = announced
            && registered.abandon_running
        {
            self.forget(attempt);
        }
        Ok((outgoing, incoming))
    }

    async fn serve(
        &mut self,
        outgoing: mpsc::Sender<wire::AgentMessage>,
        mut incoming: Streaming<wire::CoordinatorMessage>,
    ) -> Over {
        let mut heartbeat = interval(Duration::from_secs(1));
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.is_leaving && self.held.is_empty() {
                // The coordinator closes its side when it has read the last word.
                drop(outgoing);
                let close = async { while let Ok(Some(_)) = incoming.message().await {} };
                let _ = timeout(Duration::from_secs(5), close).await;
                return Over::Stopped;
            }
            while let Some(kind) = self.next_message() {
                if matches!(kind, FromAgent::Finished(_)) {
                    self.free_since = Some(Time::now());
                }
                if self.random.chance(self.behaviour.doubles_per_mille)
                    && outgoing.send(message(kind.clone())).await.is_err()
                {
                    return Over::Broken;
                }
                if outgoing.send(message(kind)).await.is_err() {
                    return Over::Broken;
                }
            }
            let due = self.working.map(|(_, due)| due);
            tokio::select! {
                received = incoming.message() => match received {
                    Ok(Some(wire::CoordinatorMessage { kind: Some(kind) })) => {
                        if let Some(reply) = self.take(kind)
                            && outgoing.send(message(reply)).await.is_err()
                        {
                            return Over::Broken;
                        }
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return Over::Broken,
                },
                () = at(due) => self.work(),
                _ = heartbeat.tick() => {
                    let running = self.running().map(Into::into);
                    let beat = FromAgent::Heartbeat(wire::Heartbeat { running });
                    // Where the way is full, what fills it says that the agent is alive.
                    let _ = outgoing.try_send(message(beat));
                }
            }
        }
    }

    fn running(&self) -> Option<AttemptId> {
        self.working
            .map(|(attempt, _)| attempt)
            .or_else(|| self.held.first().map(|held| held.attempt))
    }

    fn take(&mut self, kind: ToAgent) -> Option<FromAgent> {
        match kind {
            ToAgent::Registered(_) => None,
            ToAgent::Drain(wire::Drain {}) => {
                self.is_leaving = true;
                Some(FromAgent::Draining(wire::Draining {}))
            }
            ToAgent::Calibrate(wire::Calibrate { number }) => {
                self.calibration.clone().map(|calibration| {
                    FromAgent::Calibration(wire::Calibration {
                        number,
                        ..calibration
                    })
                })
            }
            ToAgent::Assign(assign) => self.assign(assign),
            ToAgent::Ack(wire::Ack {
                attempt,
                stored_below,
                finished,
            }) => {
                let attempt = AttemptId::try_from(attempt?).ok()?;
                let held = self.held_mut(attempt)?;
                held.n_stored = stored_below as usize;
                self.journal.note(Entry::Acknowledged {
                    attempt,
                    stored_below,
                    finished,
                });
                if finished {
                    self.forget(attempt);
                }
                None
            }
            ToAgent::Cancel(wire::CancelJob { attempt, reason }) => {
                let attempt = AttemptId::try_from(attempt?).ok()?;
                if self.working.take_if(|(own, _)| *own == attempt).is_some() {
                    self.finish(attempt, Some(&reason));
                }
                None
            }
        }
    }

    fn assign(&mut self, assign: wire::Assign) -> Option<FromAgent> {
        let attempt = AttemptId::try_from(assign.attempt?).ok()?;
        let job = Job::try_from(assign.job?).ok()?;
        if self
            .held
            .iter()
            .any(|held| held.attempt.job == attempt.job && held.attempt.fence >= attempt.fence)
        {
            return None;
        }
        if let Some(since) = self.free_since.take() {
            self.dispatches.push(since.elapsed());
        }
        // Whatever it had of this job is superseded; whatever it works on is given up, since the
        // coordinator thinks it is idle.
        let outdated: Vec<AttemptId> = self
            .held
            .iter()
            .map(|held| held.attempt)
            .filter(|held| held.job == attempt.job)
            .collect();
        for held in outdated {
            self.forget(held);
        }
        if let Some((other, _)) = self.working.take() {
            self.finish(other, Some("another job came"));
        }
        let nonce = hash(&[attempt.fence, self.random.next_u64()]);
        let records = work::records(&job, nonce, assign.items_done)
            .into_iter()
            .map(Into::into)
            .collect();
        self.held.push(Held {
            attempt,
            records,
            n_found: 0,
            n_sent: 0,
            n_stored: 0,
            end: None,
            is_end_sent: false,
        });
        self.journal.note(Entry::Started(attempt));
        self.working = Some((attempt, Instant::now()));
        self.plan(attempt);
        Some(FromAgent::Started(wire::JobStarted {
            attempt: Some(attempt.into()),
            at_unix_ns: 1,
        }))
    }

    /// Sets when the next record, or all of them, will be found out.
    fn plan(&mut self, attempt: AttemptId) {
        let Behaviour {
            mut work,
            varies,
            one_by_one,
            ..
        } = self.behaviour;
        if varies {
            let permille = 500 + self.random.below(1_000);
            work = work.mul_f64(permille as f64 / 1e3);
        }
        let n = match self.held_mut(attempt) {
            Some(held) if one_by_one => held.records.len() as u32 + 1,
            _ => 1,
        };
        self.working = Some((attempt, Instant::now() + work / n));
    }

    fn work(&mut self) {
        let Some((attempt, _)) = self.working else {
            return;
        };
        let one_by_one = self.behaviour.one_by_one;
        let fails = self.behaviour.fails_per_mille;
        let does_fail = self.random.chance(fails);
        let Some(held) = self.held_mut(attempt) else {
            self.working = None;
            return;
        };
        if one_by_one && held.n_found < held.records.len() {
            held.n_found += 1;
            self.plan(attempt);
            return;
        }
        held.n_found = held.records.len();
        self.working = None;
        self.finish(attempt, does_fail.then_some("asked to fail"));
    }

    fn finish(&mut self, attempt: AttemptId, failure: Option<&str>) {
        let failure = failure.map(|message| {
            let class = if message == "asked to fail" {
                FailureClass::Transient
            } else {
                FailureClass::Infrastructure
            };
            Failure {
                class,
                message: message.to_owned(),
                stderr: String::new(),
            }
        });
        if let Some(held) = self.held_mut(attempt) {
            held.end.get_or_insert(wire::JobFinished {
                attempt: Some(attempt.into()),
                n_records: held.n_found as u64,
                at_unix_ns: 1,
                failure: failure.map(Into::into),
                signed: None,
            });
        }
    }

    fn next_message(&mut self) -> Option<FromAgent> {
        for held in &mut self.held {
            let attempt = Some(held.attempt.into());
            if held.n_sent < held.n_found {
                let records = held.records[held.n_sent..held.n_found].to_vec();
                held.n_sent = held.n_found;
                return Some(FromAgent::Records(wire::RecordBatch { attempt, records }));
            }
            if let Some(end) = &held.end
                && !held.is_end_sent
            {
                held.is_end_sent = true;
                return Some(FromAgent::Finished(end.clone()));
            }
        }
        None
    }

    fn forget(&mut self, attempt: AttemptId) {
        self.held.retain(|held| held.attempt != attempt);
        self.working.take_if(|(own, _)| *own == attempt);
    }

    fn held_mut(&mut self, attempt: AttemptId) -> Option<&mut Held> {
        self.held.iter_mut().find(|held| held.attempt == attempt)
    }
}

/// Returns the id of agent `number`.
pub fn agent_id(number: u32) -> String {
    format!("00000000-0000-7000-8000-{number:012}")
}

/// Returns a machine with that id.
pub fn machine(id: &str) -> Machine {
    Machine {
        id: id.to_owned(),
        hostname: id.to_owned(),
        arch: "x86_64".to_owned(),
        cpu_model: "simulated".to_owned(),
        isa: Vec::new(),
        sockets: 1,
        physical_cores: 1,
        logical_cores: 1,
        caches: Vec::new(),
        memory_bytes: 1 << 30,
        os: "simulated".to_owned(),
        kernel: "simulated".to_owned(),
        governor: None,
        hypervisor: None,
        transparent_huge_pages: None,
        firmware: None,
        microcode: None,
    }
}

fn message(kind: FromAgent) -> wire::AgentMessage {
    wire::AgentMessage { kind: Some(kind) }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
