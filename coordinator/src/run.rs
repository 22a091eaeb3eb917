//! The loop: the one task that owns who does what. Everything else sends it [`Command`]s.
//!
//! It decides through `schedule.rs`, writes each decision to the store before it acts on it, and
//! tells the watchers. Records do not pass through it: the link stores them itself.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{broadcast, mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use tritmark_proto::{
    bundle::Failure,
    job::{AttemptId, Job, JobId, RunId},
    wire,
};

use crate::{
    schedule::Policy,
    store::{Store, StoreError, StoredAgent, StoredRun},
};

mod agents;
mod attempts;
mod state;
#[cfg(test)]
mod tests;
mod watch;

pub(crate) use state::State;
pub(crate) use watch::{job_info, summary};

/// Commands that may wait for the loop.
const QUEUE: usize = 1024;

/// Events a watcher may be behind before it gets the run's state anew.
const WATCH_BACKLOG: usize = 1024;

/// Times and limits of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long an agent may be silent before its attempt is given to another.
    pub lease: Duration,
    /// How often agents say that they are there.
    pub heartbeat: Duration,
    /// How long an agent that came back without its attempt may take to hand in what it spooled.
    pub reclaim: Duration,
    /// Tries and pins.
    pub policy: Policy,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_mins(1),
            heartbeat: Duration::from_secs(5),
            reclaim: Duration::from_secs(2),
            policy: Policy::default(),
        }
    }
}

/// What an agent's link hears from the loop.
pub(crate) type ToAgent = mpsc::Sender<wire::CoordinatorMessage>;

/// What the loop is asked.
#[derive(Debug)]
pub(crate) enum Command {
    /// An agent has registered.
    Connect {
        agent: Box<StoredAgent>,
        running: Option<AttemptId>,
        to_agent: ToAgent,
        /// Cancelled when the connection is replaced or given up.
        link: CancellationToken,
        reply: oneshot::Sender<Result<Connected, StoreError>>,
    },
    /// A connection is over.
    Disconnect { agent_id: String, connection: u64 },
    /// An agent is there; `running` is what it works on.
    Heartbeat {
        agent_id: String,
        connection: u64,
        running: Option<AttemptId>,
    },
    /// An agent takes nothing more.
    Draining { agent_id: String, connection: u64 },
    /// An agent gives news of an attempt.
    Progress {
        attempt: AttemptId,
        progress: wire::JobProgress,
    },
    /// New records of an attempt were stored.
    Appended { attempt: AttemptId },
    /// An attempt is over, as its agent says.
    Finished {
        attempt: AttemptId,
        n_records: u64,
        failure: Option<Failure>,
        reply: oneshot::Sender<Result<Finished, StoreError>>,
    },
    /// A plan was submitted.
    Submit {
        run: Box<StoredRun>,
        jobs: Vec<Job>,
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
    /// Somebody wants to follow a run.
    Watch {
        run: RunId,
        reply: oneshot::Sender<Result<Option<Watch>, StoreError>>,
    },
    /// A person cancels a run. The reply is the number of cancelled jobs, or `None`.
    Cancel {
        run: RunId,
        reply: oneshot::Sender<Result<Option<u32>, StoreError>>,
    },
    /// Who is there?
    Agents {
        reply: oneshot::Sender<Vec<AgentView>>,
    },
}

/// An agent's connection is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connected {
    /// Its number; messages of replaced connections are ignored.
    pub(crate) connection: u64,
    /// The agent works on something nobody wants any more.
    pub(crate) abandon_running: bool,
}

/// What became of an attempt's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finished {
    /// It is stored.
    Stored {
        /// Every record with a lower sequence is stored.
        stored_below: u64,
    },
    /// Records are missing.
    Incomplete {
        /// Every record with a lower sequence is stored.
        stored_below: u64,
    },
}

/// A run as it stands, and what happens next.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Its summary and every job.
    pub(crate) snapshot: Vec<wire::RunEvent>,
    /// What happens next; `None` if the run has ended.
    pub(crate) events: Option<broadcast::Receiver<wire::RunEvent>>,
}

/// An agent as the loop sees it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AgentView {
    pub(crate) agent: StoredAgent,
    pub(crate) is_connected: bool,
    pub(crate) running: Option<AttemptId>,
}

/// Sends commands to the loop.
#[derive(Clone, Debug)]
pub(crate) struct LoopHandle {
    commands: mpsc::Sender<Command>,
}

/// The loop has ended.
#[derive(Debug, thiserror::Error)]
#[error("the coordinator is shutting down")]
pub(crate) struct Stopped;

impl LoopHandle {
    /// Sends a command.
    pub(crate) async fn tell(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).await.map_err(|_| Stopped)
    }

    /// Sends a command and waits for its reply.
    pub(crate) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.tell(command(reply)).await?;
        answer.await.map_err(|_| Stopped)
    }
}

/// Returns the time in nanoseconds since 1970.
pub(crate) fn now_unix_ns() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
        })
}

/// Wall time that never runs backwards, so that a corrected clock ends no lease.
#[derive(Clone, Copy, Debug)]
struct Clock {
    start: Instant,
    start_unix_ns: i64,
}

impl Clock {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            start_unix_ns: now_unix_ns(),
        }
    }

    fn now_unix_ns(&self) -> i64 {
        self.start_unix_ns
            .saturating_add(nanoseconds(self.start.elapsed()))
    }

    fn instant(&self, unix_ns: i64) -> Instant {
        let after = unix_ns.saturating_sub(self.start_unix_ns).max(0);
        self.start + Duration::from_nanos(after.cast_unsigned())
    }
}

/// Returns a duration as the store counts it.
fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Reads what is open from the store and starts the loop; it ends when `stop` is cancelled.
pub(crate) async fn start(
    store: Arc<dyn Store>,
    timing: Timing,
    stop: CancellationToken,
) -> Result<(LoopHandle, tokio::task::JoinHandle<()>), StoreError> {
    let clock = Clock::new();
    let mut state = State::load(store, timing, clock.now_unix_ns()).await?;
    let (commands, mut queue) = mpsc::channel(QUEUE);
    let task = tokio::spawn(async move {
        loop {
            let wake = state
                .next_deadline(clock.now_unix_ns())
                .map(|unix_ns| clock.instant(unix_ns));
            let command = tokio::select! {
                () = stop.cancelled() => break,
                command = queue.recv() => match command {
                    Some(command) => Some(command),
                    None => break,
                },
                () = sleep_until(wake) => None,
            };
            let now = clock.now_unix_ns();
            if let Some(command) = command {
                state.handle(command, now).await;
            }
            if let Err(failed) = state.advance(now).await {
                // What could not be written was not done; the next turn tries again.
                error!(
                    error = &failed as &dyn std::error::Error,
                    "cannot move the jobs on"
                );
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        info!("the loop has ended");
    });
    Ok((LoopHandle { commands }, task))
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

/// Names a job's place in a run's list.
fn position(job: JobId) -> usize {
    job.index as usize
}
