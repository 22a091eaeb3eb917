//! The agents' end: `tritmark.v1.AgentLink`.
//!
//! One task a connection reads the agent's messages in order. It stores records itself and
//! acknowledges them; everything that decides anything goes through the loop.

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{error, info, warn};
use tritmark_proto::{
    bundle::{Failure, FailureClass},
    job::AttemptId,
    record::Record,
    wire::{
        self, agent_link_server::AgentLink, agent_message::Kind as FromAgent,
        coordinator_message::Kind as ToAgentKind,
    },
};

use crate::{
    identity::{Identity, IdentityStore},
    run::{Command, Finished, LoopHandle, Timing, now_unix_ns},
    server::Peer,
    store::{Store, StoreError, StoredAgent},
};

#[cfg(test)]
mod tests;
mod together;

use together::{Present, Together};

/// Messages to an agent that may wait; one that lets them pile up is cut.
pub(crate) const TO_AGENT: usize = 64;

/// How long a new connection may take to register.
const REGISTER_WITHIN: Duration = Duration::from_secs(30);

/// Longest text an agent may give as its id, version or a label.
const MAX_TEXT: usize = 1024;

/// Largest signed manifest with its certificate.
const MAX_SIGNATURE: usize = 64 << 10;

/// Serves agents.
#[derive(Clone, Debug)]
pub(crate) struct LinkService {
    store: Arc<dyn Store>,
    records: Arc<Together>,
    run_loop: LoopHandle,
    stop: CancellationToken,
    /// How long an agent may say nothing: beyond its lease, its attempt is another's already.
    silence: Duration,
    /// Where agents must be who their certificates say.
    identities: Option<Arc<dyn IdentityStore>>,
}

type Messages = Pin<Box<dyn Stream<Item = Result<wire::CoordinatorMessage, Status>> + Send>>;

impl LinkService {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        run_loop: LoopHandle,
        stop: CancellationToken,
        timing: &Timing,
        identities: Option<Arc<dyn IdentityStore>>,
    ) -> Self {
        Self {
            records: Arc::new(Together::new(Arc::clone(&store))),
            store,
            run_loop,
            stop,
            silence: timing.lease.max(timing.heartbeat) * 2,
            identities,
        }
    }
}

#[tonic::async_trait]
impl AgentLink for LinkService {
    type LinkStream = Messages;

    async fn link(
        &self,
        request: Request<Streaming<wire::AgentMessage>>,
    ) -> Result<Response<Messages>, Status> {
        let identity = request
            .extensions()
            .get::<Peer>()
            .and_then(Peer::identity)
            .cloned();
        let messages = request.into_inner();
        let (to_agent, out) = mpsc::channel(TO_AGENT);
        let (fault, mut faults) = mpsc::channel(1);
        let service = self.clone();
        tokio::spawn(async move {
            if let Err(status) = service.serve(messages, to_agent, identity).await {
                // The agent may have gone already.
                let _ = fault.send(status).await;
            }
        });
        // What the loop and the task say, then why the task ended, if it was a fault.
        let fault = futures::stream::poll_fn(move |context| faults.poll_recv(context)).map(Err);
        let out = ReceiverStream::new(out).map(Ok).chain(fault);
        Ok(Response::new(Box::pin(out)))
    }
}

impl LinkService {
    /// Refuses an attempt that was given to another agent. Fences are small numbers: knowing one
    /// proves nothing.
    async fn owns(&self, agent_id: &str, attempt: AttemptId) -> Result<(), Status> {
        if self.identities.is_none() {
            return Ok(());
        }
        match self.store.attempt_agent(attempt).await {
            Ok(Some(owner)) if owner != agent_id => Err(Status::permission_denied(format!(
                "attempt {} of job {} is another agent's",
                attempt.attempt, attempt.job
            ))),
            // What nobody has is refused where it is looked for.
            Ok(_) => Ok(()),
            Err(error) => Err(internal(&error)),
        }
    }

    /// Serves one agent until it leaves.
    async fn serve(
        &self,
        mut messages: Streaming<wire::AgentMessage>,
        to_agent: mpsc::Sender<wire::CoordinatorMessage>,
        identity: Option<Identity>,
    ) -> Result<(), Status> {
        let first = tokio::select! {
            () = self.stop.cancelled() => return Err(shutting_down()),
            first = tokio::time::timeout(REGISTER_WITHIN, messages.next()) => first,
        };
        let register = match first {
            Err(_) => return Err(Status::deadline_exceeded("the agent did not register")),
            Ok(None) => return Ok(()),
            Ok(Some(message)) => match message?.kind {
                Some(FromAgent::Register(register)) => register,
                _ => {
                    return Err(Status::failed_precondition(
                        "the first message must be Register",
                    ));
                }
            },
        };
        let mut link = self.register(register, to_agent, identity).await?;
        let served = link.serve(&mut messages).await;
        // While shutting down there is no loop to tell.
        let _ = self.run_loop.tell(link.gone()).await;
        served
    }

    /// Takes an agent in. The loop has answered it before this returns.
    pub(crate) async fn register(
        &self,
        register: wire::Register,
        to_agent: mpsc::Sender<wire::CoordinatorMessage>,
        identity: Option<Identity>,
    ) -> Result<Link<'_>, Status> {
        let boot_id = register
            .calibrates
            .then(|| register.boot_id.chars().take(MAX_TEXT).collect());
        let (mut agent, running) = registered(register)?;
        if let Some(identities) = &self.identities {
            enrolled(&mut agent, identity.as_ref(), &**identities).await?;
        }
        let agent_id = agent.id.clone();
        if let Some(running) = running {
            self.owns(&agent_id, running).await?;
        }
        let cut = self.stop.child_token();
        let connected = self
            .run_loop
            .ask(|reply| Command::Connect {
                agent: Box::new(agent),
                running,
                boot_id,
                to_agent: to_agent.clone(),
                link: cut.clone(),
                reply,
            })
            .await
            .map_err(|_| shutting_down())?
            .map_err(|error| internal(&error))?;
        Ok(Link {
            service: self,
            _present: self.records.join(),
            own: None,
            store: &*self.store,
            run_loop: &self.run_loop,
            agent_id,
            connection: connected.connection,
            to_agent,
            cut,
        })
    }
}

/// One agent's connection.
#[derive(Debug)]
pub(crate) struct Link<'a> {
    service: &'a LinkService,
    _present: Present,
    /// The attempt last spoken of, which was found to be this agent's.
    own: Option<AttemptId>,
    store: &'a dyn Store,
    run_loop: &'a LoopHandle,
    agent_id: String,
    connection: u64,
    to_agent: mpsc::Sender<wire::CoordinatorMessage>,
    cut: CancellationToken,
}

impl Link<'_> {
    /// What the loop hears once the connection is over.
    pub(crate) fn gone(&self) -> Command {
        Command::Disconnect {
            agent_id: self.agent_id.clone(),
            connection: self.connection,
        }
    }

    /// Tells whether the connection was replaced or given up.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }

    async fn serve(&mut self, messages: &mut Streaming<wire::AgentMessage>) -> Result<(), Status> {
        let silence = self.service.silence;
        loop {
            let message = tokio::select! {
                () = self.cut.cancelled() => {
                    return Err(Status::unavailable("the connection was replaced or is closing"));
                }
                message = tokio::time::timeout(silence, messages.next()) => match message {
                    Ok(message) => message,
                    // Half a message may be on its way, and for ever.
                    Err(_) => return Err(Status::deadline_exceeded("the agent fell silent")),
                },
            };
            match message {
                None => return Ok(()),
                Some(Err(status)) => {
                    info!(agent = self.agent_id, %status, "the link broke");
                    return Ok(());
                }
                Some(Ok(message)) => {
                    if let Some(kind) = message.kind {
                        self.take(kind).await?;
                    }
                }
            }
        }
    }

    /// Refuses an attempt that is not this agent's.
    async fn check(&mut self, attempt: AttemptId) -> Result<AttemptId, Status> {
        if self.own != Some(attempt) {
            self.service.owns(&self.agent_id, attempt).await?;
            self.own = Some(attempt);
        }
        Ok(attempt)
    }

    pub(crate) async fn take(&mut self, message: FromAgent) -> Result<(), Status> {
        let agent_id = self.agent_id.clone();
        let connection = self.connection;
        match message {
            FromAgent::Register(_) => Err(Status::failed_precondition(
                "the agent is registered already",
            )),
            FromAgent::Heartbeat(wire::Heartbeat { running }) => {
                let running = match running {
                    Some(running) => Some(self.check(attempt_id(running)?).await?),
                    None => None,
                };
                self.tell(Command::Heartbeat {
                    agent_id,
                    connection,
                    running,
                })
                .await
            }
            FromAgent::Started(wire::JobStarted {
                attempt,
                at_unix_ns: _,
            }) => {
                let running = Some(self.check(required_attempt(attempt)?).await?);
                self.tell(Command::Heartbeat {
                    agent_id,
                    connection,
                    running,
                })
                .await
            }
            FromAgent::Progress(wire::Progress {
                attempt,
                done,
                total,
                stage,
            }) => {
                let attempt = self.check(required_attempt(attempt)?).await?;
                self.tell(Command::Progress {
                    attempt,
                    progress: wire::JobProgress {
                        job_index: attempt.job.index,
                        done,
                        total,
                        stage,
                    },
                })
                .await
            }
            FromAgent::Records(wire::RecordBatch { attempt, records }) => {
                let attempt = self.check(required_attempt(attempt)?).await?;
                self.records(attempt, records).await
            }
            FromAgent::Finished(wire::JobFinished {
                attempt,
                n_records,
                at_unix_ns: _,
                failure,
                signed,
            }) => {
                let attempt = self.check(required_attempt(attempt)?).await?;
                let failure = failure
                    .map(Failure::try_from)
                    .transpose()
                    .unwrap_or_else(|error| Some(senseless("failure", &error)));
                if let Some(signed) = signed {
                    self.keep_signature(attempt, &signed).await?;
                }
                self.finished(attempt, n_records, failure).await
            }
            FromAgent::Calibration(calibration) => {
                self.tell(Command::Calibrated {
                    agent_id,
                    connection,
                    calibration: Box::new(calibration),
                })
                .await
            }
            FromAgent::Draining(wire::Draining {}) => {
                self.tell(Command::Draining {
                    agent_id,
                    connection,
                })
                .await
            }
        }
    }

    /// Stores records and acknowledges them.
    async fn records(&self, attempt: AttemptId, records: Vec<wire::Record>) -> Result<(), Status> {
        let records: Vec<Record> = match records.into_iter().map(Record::try_from).collect() {
            Ok(records) => records,
            // Sending it again would not mend it, so the attempt ends here.
            Err(error) => return self.refuse(attempt, senseless("record", &error)).await,
        };
        let appended = match self.service.records.append(attempt, records).await {
            Ok(appended) => appended,
            Err(error) => {
                return match &*error {
                    StoreError::Stale { .. } => self.drop_stale(attempt, &error).await,
                    StoreError::OutOfRange { .. } => {
                        self.refuse(attempt, senseless("record", &*error)).await
                    }
                    _ => Err(internal(&error)),
                };
            }
        };
        if appended.n_new > 0 {
            self.tell(Command::Appended { attempt }).await?;
        }
        self.acknowledge(attempt, appended.stored_below, appended.finished)
            .await
    }

    /// Keeps the agent's word for its records; it is checked by whoever reads it.
    async fn keep_signature(
        &self,
        attempt: AttemptId,
        signed: &wire::SignedManifest,
    ) -> Result<(), Status> {
        let bytes = signed.encode_to_vec();
        if bytes.len() > MAX_SIGNATURE {
            warn!(job = %attempt.job, agent = self.agent_id, bytes = bytes.len(), "a signature is too large to be one");
            return Ok(());
        }
        match self.store.put_signature(attempt, &bytes).await {
            // Whatever else is said of such an attempt is refused too, and the agent told.
            Ok(()) | Err(StoreError::Stale { .. }) => Ok(()),
            Err(error) => Err(internal(&error)),
        }
    }

    async fn finished(
        &self,
        attempt: AttemptId,
        n_records: u64,
        failure: Option<Failure>,
    ) -> Result<(), Status> {
        let finished = self
            .run_loop
            .ask(|reply| Command::Finished {
                attempt,
                n_records,
                failure,
                reply,
            })
            .await
            .map_err(|_| shutting_down())?;
        match finished {
            Ok(Finished::Stored { stored_below }) => {
                self.acknowledge(attempt, stored_below, true).await
            }
            Ok(Finished::Incomplete { stored_below }) => {
                self.acknowledge(attempt, stored_below, false).await?;
                // A new connection makes the agent send again what is not acknowledged.
                Err(Status::aborted(format!(
                    "the attempt has {n_records} records, but only {stored_below} came"
                )))
            }
            Err(error @ StoreError::Stale { .. }) => self.drop_stale(attempt, &error).await,
            Err(error) => Err(internal(&error)),
        }
    }

    /// Fails an attempt whose messages make no sense.
    async fn refuse(&self, attempt: AttemptId, failure: Failure) -> Result<(), Status> {
        error!(job = %attempt.job, agent = self.agent_id, problem = failure.message, "refused");
        self.cancel(attempt, &failure.message).await?;
        self.finished(attempt, 0, Some(failure)).await
    }

    /// Tells the agent to drop an attempt, and to forget what it spooled of it.
    async fn drop_stale(&self, attempt: AttemptId, error: &StoreError) -> Result<(), Status> {
        warn!(job = %attempt.job, agent = self.agent_id, reason = %error, "refused");
        self.cancel(attempt, &error.to_string()).await?;
        self.acknowledge(attempt, 0, true).await
    }

    async fn cancel(&self, attempt: AttemptId, reason: &str) -> Result<(), Status> {
        self.send(ToAgentKind::Cancel(wire::CancelJob {
            attempt: Some(attempt.into()),
            reason: reason.to_owned(),
        }))
        .await
    }

    async fn acknowledge(
        &self,
        attempt: AttemptId,
        stored_below: u64,
        finished: bool,
    ) -> Result<(), Status> {
        self.send(ToAgentKind::Ack(wire::Ack {
            attempt: Some(attempt.into()),
            stored_below,
            finished,
        }))
        .await
    }

    async fn send(&self, kind: ToAgentKind) -> Result<(), Status> {
        let message = wire::CoordinatorMessage { kind: Some(kind) };
        tokio::select! {
            biased;
            () = self.cut.cancelled() => {
                Err(Status::unavailable("the connection was replaced or is closing"))
            }
            sent = self.to_agent.send(message) => {
                sent.map_err(|_| Status::cancelled("the agent has left"))
            }
        }
    }

    async fn tell(&self, command: Command) -> Result<(), Status> {
        self.run_loop
            .tell(command)
            .await
            .map_err(|_| shutting_down())
    }
}

/// Holds what an agent says of itself to what its certificate says: its id is its own, and a label
/// it was enrolled with cannot be another's.
async fn enrolled(
    agent: &mut StoredAgent,
    identity: Option<&Identity>,
    identities: &dyn IdentityStore,
) -> Result<(), Status> {
    let identity =
        identity.ok_or_else(|| Status::unauthenticated("an agent needs a certificate"))?;
    let is_own = identity
        .agent_id
        .is_some_and(|id| id.to_string() == agent.id);
    if !is_own {
        return Err(Status::permission_denied(format!(
            "the certificate of {} is not for agent {}",
            identity.name, agent.id
        )));
    }
    let stored = identities
        .identity(&identity.serial)
        .await
        .map_err(|error| {
            error!(
                error = &error as &dyn std::error::Error,
                "identities cannot be read"
            );
            Status::internal(error.to_string())
        })?
        .ok_or_else(|| Status::permission_denied("the certificate is not known here"))?;
    agent.labels.extend(stored.labels);
    Ok(())
}

/// Reads what an agent says of itself.
fn registered(register: wire::Register) -> Result<(StoredAgent, Option<AttemptId>), Status> {
    let wire::Register {
        agent_id,
        version,
        machine,
        labels,
        running,
        suites,
        calibrates: _,
        boot_id: _,
    } = register;
    let invalid = |problem: String| Status::invalid_argument(format!("Register: {problem}"));
    let agent_id: uuid::Uuid = agent_id
        .parse()
        .map_err(|error| invalid(format!("field `agent_id` is no UUID: {error}")))?;
    let machine = machine.ok_or_else(|| invalid("field `machine` is missing".to_owned()))?;
    let machine = tritmark_proto::machine::Machine::try_from(machine)
        .map_err(|error| invalid(error.to_string()))?;
    let labels: BTreeMap<String, String> = labels.into_iter().collect();
    let texts = labels
        .iter()
        .flat_map(|(key, value)| [key, value])
        .chain([&version, &machine.id])
        .chain(&suites);
    if texts.into_iter().any(|text| text.len() > MAX_TEXT) {
        return Err(invalid(format!("a text is longer than {MAX_TEXT} bytes")));
    }
    if machine.id.is_empty() {
        return Err(invalid("field `machine.id` is empty".to_owned()));
    }
    let agent = StoredAgent {
        id: agent_id.to_string(),
        version,
        machine,
        labels,
        suites,
        last_seen_unix_ns: now_unix_ns(),
        quarantine: None,
        drain_unix_ns: None,
    };
    Ok((agent, running.map(attempt_id).transpose()?))
}

fn attempt_id(attempt: wire::AttemptRef) -> Result<AttemptId, Status> {
    AttemptId::try_from(attempt).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn required_attempt(attempt: Option<wire::AttemptRef>) -> Result<AttemptId, Status> {
    attempt_id(attempt.ok_or_else(|| Status::invalid_argument("field `attempt` is missing"))?)
}

/// An agent says something that makes no sense: a fault of its build, not of the job's run.
fn senseless(what: &str, error: &dyn std::error::Error) -> Failure {
    Failure {
        class: FailureClass::Permanent,
        message: format!("the agent sent a {what} that makes no sense: {error}"),
        stderr: String::new(),
    }
}

pub(crate) fn shutting_down() -> Status {
    Status::unavailable("the coordinator is shutting down")
}

/// Logs an error of the store; the other end only hears that there was one.
pub(crate) fn internal(error: &StoreError) -> Status {
    error!(
        error = error as &dyn std::error::Error,
        "the store cannot do what it must"
    );
    Status::internal(error.to_string())
}
