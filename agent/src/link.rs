//! The stream to the coordinator, and the one task that owns the agent's state.
//!
//! The agent dials out, registers, and from then on both sides send. When the stream breaks, the
//! worker goes on, its records gather in the spool, and the agent dials again, for ever. Spool
//! files are written by this task itself (a few microseconds into the page cache); only `fdatasync`
//! is done elsewhere.

use std::{
    pin::pin,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};
use tritmark_proto::{
    job::AttemptId,
    wire::{
        self, AgentMessage, CoordinatorMessage, Registered, agent_link_client::AgentLinkClient,
        coordinator_message::Kind,
    },
};
use tritmark_suites::chain;

use crate::{
    backoff::{self, Backoff},
    desk::{Action, Desk},
    endpoint::Dialer,
    runner::{Runner, Said},
    spool::{Flushed, SpoolError},
};

/// Records wait at most this long for others to be made durable with them.
const FLUSH_DELAY: Duration = Duration::from_millis(50);
/// So many records wait for no others.
const FLUSH_RECORDS: u64 = 256;
/// Progress is sent no more often.
const PROGRESS_PERIOD: Duration = Duration::from_millis(250);
/// Messages on their way to the stream.
const OUTGOING: usize = 16;
/// How long the coordinator may take to answer the registration.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a leaving agent waits for what it has sent to be acknowledged; it stays in the spool.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a leaving agent waits for its last word to be read.
const FAREWELL: Duration = Duration::from_secs(1);
/// A stream that lasted so long was a good one.
const GOOD_STREAM: Duration = Duration::from_secs(5);

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("cannot reach the coordinator")]
    Connect(#[source] tonic::transport::Error),
    #[error("the coordinator refuses the agent")]
    Refused(#[source] Box<Status>),
    #[error("the coordinator does not answer the registration within {} s", REGISTRATION_TIMEOUT.as_secs())]
    Silent,
    #[error("the coordinator answers the registration with something else")]
    NotRegistered,
}

/// An open stream of a registered agent.
struct Stream {
    outgoing: mpsc::Sender<AgentMessage>,
    incoming: Streaming<CoordinatorMessage>,
    registered: Registered,
}

/// How a stream ended.
struct Ended {
    /// Whether it had lasted, so that the next dial need not wait long.
    was_good: bool,
    reason: Option<Status>,
}

/// What happens on the agent's own side.
enum Local {
    Said(Said),
    FlushDue,
    Flushed(AttemptId, Result<Flushed, SpoolError>),
    Calibrated(wire::Calibration),
    Drain,
    Abort,
    SettleTimeout,
}

/// The agent at work.
pub(crate) struct Agent {
    desk: Desk,
    runner: Runner,
    said: mpsc::Receiver<Said>,
    flush_at: Option<Instant>,
    flushing: Option<(AttemptId, JoinHandle<Result<Flushed, SpoolError>>)>,
    calibrating: Option<AbortOnDropHandle<wire::Calibration>>,
    drain: CancellationToken,
    abort: CancellationToken,
    is_draining: bool,
    is_aborting: bool,
    settle_until: Option<Instant>,
    is_settled: bool,
}

impl Agent {
    pub(crate) fn new(
        desk: Desk,
        runner: Runner,
        said: mpsc::Receiver<Said>,
        drain: CancellationToken,
        abort: CancellationToken,
    ) -> Self {
        let mut agent = Self {
            desk,
            runner,
            said,
            flush_at: None,
            flushing: None,
            calibrating: None,
            drain,
            abort,
            is_draining: false,
            is_aborting: false,
            settle_until: None,
            is_settled: false,
        };
        agent.plan_flush();
        agent
    }

    /// Works until told to leave.
    pub(crate) async fn run(mut self, dialer: &Dialer) {
        let mut backoff = Backoff::default();
        let mut wait = Duration::ZERO;
        loop {
            match self.connect(&dialer.endpoint(), wait).await {
                None => return,
                Some(Ok(stream)) => {
                    let Some(Ended { was_good, reason }) = self.serve(stream).await else {
                        return;
                    };
                    if was_good {
                        backoff = Backoff::default();
                    }
                    let reason = reason.map(|status| chain(&status));
                    wait = backoff.wait(backoff::random());
                    tracing::warn!(?reason, ?wait, "the stream to the coordinator ended");
                }
                Some(Err(error)) => {
                    wait = backoff.wait(backoff::random());
                    tracing::warn!(error = chain(&error), ?wait, "not connected");
                }
            }
        }
    }

    /// Dials and registers; `None` where the agent leaves instead.
    async fn connect(
        &mut self,
        endpoint: &Endpoint,
        wait: Duration,
    ) -> Option<Result<Stream, LinkError>> {
        let dial = async {
            sleep(wait).await;
            endpoint.connect().await.map_err(LinkError::Connect)
        };
        let channel = match self.meanwhile(dial).await? {
            Ok(channel) => channel,
            Err(error) => return Some(Err(error)),
        };
        let register = self.desk.register();
        self.meanwhile(open(channel, register)).await
    }

    /// Awaits the future while the agent's own side goes on; `None` once the agent may leave.
    async fn meanwhile<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        loop {
            // Nobody is there to take what the spool holds; it stays for the next start.
            if self.is_draining && self.desk.is_idle() && !self.needs_flush() {
                return None;
            }
            tokio::select! {
                output = &mut future => return Some(output),
                local = self.local() => self.on_local(local),
            }
        }
    }

    /// Sends and receives until the stream ends; `None` where the agent leaves.
    async fn serve(&mut self, stream: Stream) -> Option<Ended> {
        let Stream {
            outgoing,
            mut incoming,
            registered,
        } = stream;
        tracing::info!(coordinator = registered.coordinator_version, "registered");
        let since = Instant::now();
        let ended = |reason| {
            Some(Ended {
                was_good: since.elapsed() >= GOOD_STREAM,
                reason,
            })
        };
        let period = heartbeat_period(&registered);
        let mut heartbeat = interval_at(since + period, period);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut progress_at = since;
        let actions = self.desk.registered(&registered);
        self.act(actions);
        loop {
            let has_message = self.desk.has_message();
            if self.is_draining && (self.is_settled || (self.desk.is_clear() && !has_message)) {
                drop(outgoing);
                farewell(incoming).await;
                return None;
            }
            let has_progress = self.desk.has_progress();
            tokio::select! {
                local = self.local() => self.on_local(local),
                message = incoming.message() => match message {
                    Ok(Some(message)) => {
                        let actions = self.desk.on_message(message, now_unix_ns());
                        self.act(actions);
                    }
                    Ok(None) => return ended(None),
                    Err(status) => return ended(Some(status)),
                },
                permit = outgoing.reserve(), if has_message => match permit {
                    Ok(permit) => {
                        if let Some(message) = self.desk.next_message() {
                            permit.send(message);
                        }
                    }
                    Err(_) => return ended(None),
                },
                () = sleep_until(progress_at), if has_progress => {
                    progress_at = Instant::now() + PROGRESS_PERIOD;
                    if let Some(progress) = self.desk.take_progress() {
                        // Where the way is full, the next progress will do.
                        let _ = outgoing.try_send(progress);
                    }
                }
                _ = heartbeat.tick() => {
                    // Where the way is full, what fills it says that the agent is alive.
                    let _ = outgoing.try_send(self.desk.heartbeat());
                }
            }
        }
    }

    /// Waits for the agent's own side. Cancel-safe.
    async fn local(&mut self) -> Local {
        tokio::select! {
            Some(said) = self.said.recv() => Local::Said(said),
            () = at(self.flush_at), if self.flushing.is_none() => Local::FlushDue,
            (attempt, flushed) = flushed(&mut self.flushing) => {
                self.flushing = None;
                Local::Flushed(attempt, flushed)
            }
            calibration = calibrated(&mut self.calibrating) => {
                self.calibrating = None;
                Local::Calibrated(calibration)
            }
            () = self.drain.cancelled(), if !self.is_draining => Local::Drain,
            () = self.abort.cancelled(), if !self.is_aborting => Local::Abort,
            () = at(self.settle_until), if !self.is_settled => Local::SettleTimeout,
        }
    }

    fn on_local(&mut self, local: Local) {
        match local {
            Local::Said(said) => {
                let actions = self.desk.on_worker(said, now_unix_ns());
                self.act(actions);
            }
            Local::FlushDue => {
                self.flush_at = None;
                self.flushing = self.desk.flush().map(|(attempt, flush)| {
                    (attempt, tokio::task::spawn_blocking(move || flush.run()))
                });
            }
            Local::Flushed(attempt, flushed) => {
                let actions = self.desk.on_flushed(attempt, &flushed);
                self.act(actions);
            }
            Local::Calibrated(calibration) => self.desk.calibrated(calibration),
            Local::Drain => {
                self.is_draining = true;
                self.desk.drain();
                tracing::info!("leaving when the job in hand is done");
            }
            Local::Abort => {
                self.is_draining = true;
                self.is_aborting = true;
                let actions = self.desk.abort(now_unix_ns());
                self.act(actions);
                tracing::info!("leaving");
            }
            Local::SettleTimeout => self.is_settled = true,
        }
        self.plan_flush();
        if self.is_draining && self.desk.is_idle() && self.settle_until.is_none() {
            self.settle_until = Some(Instant::now() + SETTLE_TIMEOUT);
        }
    }

    fn needs_flush(&self) -> bool {
        self.desk.undurable() != (0, false)
    }

    /// Sets the time of the next flush: at once for the end of a job or many records, else soon.
    fn plan_flush(&mut self) {
        let now = Instant::now();
        match self.desk.undurable() {
            (0, false) => {}
            (_, true) | (FLUSH_RECORDS.., _) => self.flush_at = Some(now),
            _ => {
                self.flush_at.get_or_insert(now + FLUSH_DELAY);
            }
        }
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Start(assignment) => self.runner.start(*assignment),
                Action::Stop(attempt) => self.runner.stop(attempt),
                Action::Leave => self.drain.cancel(),
                Action::Calibrate(number) => {
                    let task = tokio::spawn(self.runner.calibrate(number));
                    self.calibrating = Some(AbortOnDropHandle::new(task));
                }
            }
        }
        self.plan_flush();
    }
}

/// Opens the stream: the registration is its first message, the answer the first one back.
async fn open(channel: Channel, register: AgentMessage) -> Result<Stream, LinkError> {
    let (outgoing, messages) = mpsc::channel(OUTGOING);
    outgoing
        .try_send(register)
        .expect("a new channel takes a message");
    let answer = async {
        let refused = |status| LinkError::Refused(Box::new(status));
        let mut incoming = AgentLinkClient::new(channel)
            .link(ReceiverStream::new(messages))
            .await
            .map_err(refused)?
            .into_inner();
        let first = incoming.message().await.map_err(refused)?;
        Ok((incoming, first))
    };
    let (incoming, first) = timeout(REGISTRATION_TIMEOUT, answer)
        .await
        .map_err(|_| LinkError::Silent)??;
    match first.and_then(|message| message.kind) {
        Some(Kind::Registered(registered)) => Ok(Stream {
            outgoing,
            incoming,
            registered,
        }),
        _ => Err(LinkError::NotRegistered),
    }
}

/// Lets the coordinator read the last word: it closes its side then.
async fn farewell(mut incoming: Streaming<CoordinatorMessage>) {
    let close = async { while let Ok(Some(_)) = incoming.message().await {} };
    // Nobody is waited for: whatever matters has been acknowledged.
    let _ = timeout(FAREWELL, close).await;
}

fn heartbeat_period(registered: &Registered) -> Duration {
    let seconds = match registered.heartbeat_seconds {
        0 => 10,
        seconds => seconds.min(300),
    };
    Duration::from_secs(seconds.into())
}

/// Waits until the time, or for ever where there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Waits for the flush in hand, or for ever where there is none. Cancel-safe.
async fn flushed(
    flushing: &mut Option<(AttemptId, JoinHandle<Result<Flushed, SpoolError>>)>,
) -> (AttemptId, Result<Flushed, SpoolError>) {
    match flushing {
        Some((attempt, task)) => (*attempt, task.await.expect("a flush does not panic")),
        None => std::future::pending().await,
    }
}

/// Waits for the calibration in hand, or for ever where there is none. Cancel-safe.
async fn calibrated(
    calibrating: &mut Option<AbortOnDropHandle<wire::Calibration>>,
) -> wire::Calibration {
    match calibrating {
        Some(task) => task.await.expect("a calibration does not panic"),
        None => std::future::pending().await,
    }
}

pub(crate) fn now_unix_ns() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as i64)
}

#[cfg(test)]
mod tests;
