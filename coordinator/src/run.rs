//! The loop: the one task that owns who does what. Everything else sends it [`Command`]s.
//!
//! It decides through `schedule.rs`, writes each decision to the store before it acts on it, and
//! tells the watchers. Records do not pass through it: the links store them, those of many at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::StreamExt as _;
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use tritmark_proto::{
    bundle::Failure,
    job::{AttemptId, Job, RunId},
    wire,
};

use crate::{
    pace::Pace,
    schedule::Policy,
    scoring::Scorer,
    store::{Change, Quarantine, Store, StoreError, StoredAgent, StoredRun},
};

mod agents;
mod assign;
mod attempts;
mod drain;
mod health;
mod leases;
mod lists;
mod order;
mod scoring;
mod shared;
mod state;
#[cfg(test)]
mod tests;
mod watch;

use lists::Run;
pub(crate) use scoring::Scoring;
pub(crate) use state::State;
pub(crate) use watch::{job_info, summary};

/// Commands that may wait for the loop.
const QUEUE: usize = 4096;

/// Commands that are handled together: what they ask of the store is asked at once.
const TOGETHER: usize = 1024;

/// How often a coordinator that shares its store compares what it knows with it, and says who is
/// linked to it.
const RECONCILE: Duration = Duration::from_secs(15);

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
    /// How often machines are calibrated besides when they join and after each of their starts; `None`:
    /// never at all, and nobody is quarantined.
    pub calibrate_every: Option<Duration>,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_mins(1),
            heartbeat: Duration::from_secs(5),
            reclaim: Duration::from_secs(2),
            policy: Policy::default(),
            calibrate_every: None,
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
        /// Which start of its machine this is, if it answers when asked what that can do.
        boot_id: Option<String>,
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
    /// An agent says what its machine can do.
    Calibrated {
        agent_id: String,
        connection: u64,
        calibration: Box<wire::Calibration>,
    },
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
        reply: FinishedReply,
    },
    /// The coordinator's own scoring of a job is over: the number of its records, or why not.
    Scored {
        attempt: AttemptId,
        outcome: Result<u64, Failure>,
    },
    /// A run was stored; see [`submit`].
    Open {
        run: Box<Run>,
        reply: oneshot::Sender<()>,
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
    /// A person pauses a run or lets it go on. The reply is the number of queued jobs, or `None`.
    Pause {
        run: RunId,
        is_paused: bool,
        reply: oneshot::Sender<Result<Option<u32>, StoreError>>,
    },
    /// A person tells an agent to leave. The reply is which and what it does first, or why not.
    DrainAgent {
        agent: String,
        reply: oneshot::Sender<Answer<(String, Option<AttemptId>)>>,
    },
    /// A person takes an agent out of quarantine. The reply is which and why it was in it, or why not.
    ReleaseAgent {
        agent: String,
        reply: oneshot::Sender<Answer<(String, Quarantine)>>,
    },
    /// Who is there?
    Agents {
        reply: oneshot::Sender<Vec<AgentView>>,
    },
    /// Another coordinator has changed something.
    Changed(Change),
}

/// What was done, or why it cannot be.
type Answer<T> = Result<Result<T, String>, StoreError>;

/// Takes the answer to [`Command::Finished`].
type FinishedReply = oneshot::Sender<Result<Finished, StoreError>>;

/// What an agent says of an attempt's end.
#[derive(Clone, Debug)]
struct Report {
    attempt: AttemptId,
    n_records: u64,
    failure: Option<Failure>,
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
    pub(crate) is_draining: bool,
    pub(crate) is_calibrating: bool,
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
    /// Returns a handle, and where its commands arrive.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Command>) {
        let (commands, queue) = mpsc::channel(QUEUE);
        (Self { commands }, queue)
    }

    /// Returns where commands go.
    pub(crate) fn commands(&self) -> &mpsc::Sender<Command> {
        &self.commands
    }

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

/// How far this process's wall time is off; see [`step_clock`].
static CLOCK_STEP_NS: AtomicI64 = AtomicI64::new(0);

/// Shifts what this process takes for wall time: a set clock, for tests that cannot set the
/// machine's.
pub fn step_clock(by_ns: i64) {
    CLOCK_STEP_NS.fetch_add(by_ns, Ordering::Relaxed);
}

/// Returns the time in nanoseconds since 1970.
pub(crate) fn now_unix_ns() -> i64 {
    let machine = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
        });
    machine.saturating_add(CLOCK_STEP_NS.load(Ordering::Relaxed))
}

/// Time as all who share the store have it. It never jumps, so that a corrected clock ends no lease.
#[derive(Clone, Copy, Debug)]
struct Clock {
    start: Instant,
    start_unix_ns: i64,
}

impl Clock {
    /// Most by which the clock is set at once.
    const MAX_STEP_NS: i64 = 1_000_000_000;

    fn new(now_unix_ns: i64) -> Self {
        Self {
            start: Instant::now(),
            start_unix_ns: now_unix_ns,
        }
    }

    fn now_unix_ns(&self) -> i64 {
        self.start_unix_ns
            .saturating_add(nanoseconds(self.start.elapsed()))
    }

    /// Goes towards the store's time.
    fn set(&mut self, now_unix_ns: i64) {
        let step = now_unix_ns
            .saturating_sub(self.now_unix_ns())
            .clamp(-Self::MAX_STEP_NS, Self::MAX_STEP_NS);
        self.start_unix_ns = self.start_unix_ns.saturating_add(step);
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

/// Stores a run and has the loop take it. Neither writing thousands of jobs nor sorting them keeps the
/// loop from anything; should this coordinator die between the two, the store has the run.
pub(crate) async fn submit(
    store: &dyn Store,
    run_loop: &LoopHandle,
    run: StoredRun,
    jobs: Vec<Job>,
) -> Result<Result<(), StoreError>, Stopped> {
    // A write may have been done although its answer was lost.
    if let Err(error) = store.add_run(&run, &jobs).await
        && !matches!(store.run(run.id).await, Ok(Some(_)))
    {
        return Ok(Err(error));
    }
    info!(run = %run.id, name = run.name, jobs = jobs.len(), "submitted");
    let run = Box::new(Run::submitted(run, jobs));
    run_loop.ask(|reply| Command::Open { run, reply }).await?;
    Ok(Ok(()))
}

/// Reads what is open from the store and starts the loop; it ends when `stop` is cancelled.
pub(crate) async fn start(
    store: Arc<dyn Store>,
    timing: Timing,
    scorer: Option<Arc<dyn Scorer>>,
    stop: CancellationToken,
) -> Result<(LoopHandle, tokio::task::JoinHandle<()>), StoreError> {
    let clock = Clock::new(store.now_unix_ns().await?);
    // Listened to first: what changes while the store is read is read again.
    let changes = store.changes().await?;
    let (handle, queue) = LoopHandle::new();
    let scoring = Scoring::new(scorer, handle.commands.downgrade());
    let state = State::load(Arc::clone(&store), timing, scoring, clock.now_unix_ns()).await?;
    let told = handle.commands.clone();
    let stopped = stop.clone();
    tokio::spawn(async move {
        let telling = changes.for_each(|change| async {
            // While shutting down there is no loop to tell.
            let _ = told.send(Command::Changed(change)).await;
        });
        tokio::select! {
            () = stopped.cancelled() => {}
            () = telling => {}
        }
    });
    let task = tokio::spawn(turn(store, state, clock, queue, stop));
    Ok((handle, task))
}

/// Turns the loop until it is stopped.
async fn turn(
    store: Arc<dyn Store>,
    mut state: State,
    mut clock: Clock,
    mut queue: mpsc::Receiver<Command>,
    stop: CancellationToken,
) {
    let mut reconcile = store.is_shared().then(|| Instant::now() + RECONCILE);
    let mut commands = Vec::with_capacity(TOGETHER);
    let mut pace = Pace::default();
    loop {
        let wake = state
            .next_deadline(clock.now_unix_ns())
            .map(|unix_ns| clock.instant(unix_ns));
        tokio::select! {
            () = stop.cancelled() => break,
            n = queue.recv_many(&mut commands, TOGETHER) => if n == 0 {
                break;
            },
            () = sleep_until(wake.into_iter().chain(reconcile).min()) => {}
        }
        if let Some(until) = pace.gather_until(state.n_connected(), Instant::now()) {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(until) => {}
            }
            while commands.len() < TOGETHER
                && let Ok(command) = queue.try_recv()
            {
                commands.push(command);
            }
        }
        pace.begin(Instant::now());
        let now = clock.now_unix_ns();
        state.handle_all(std::mem::take(&mut commands), now).await;
        // What was handled took its time.
        let mut done = state.advance(clock.now_unix_ns()).await;
        if reconcile.is_some_and(|at| at <= Instant::now()) {
            reconcile = Some(Instant::now() + RECONCILE);
            done = done.and(compare(&*store, &mut state, &mut clock).await);
        }
        if let Err(failed) = done {
            // What could not be written was not done; the next turn tries again.
            error!(
                error = &failed as &dyn std::error::Error,
                "cannot move the jobs on"
            );
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    }
    state.scoring.close().await;
    info!("the loop has ended");
}

/// Makes the copy and the clock agree with a store that others change too.
async fn compare(
    store: &dyn Store,
    state: &mut State,
    clock: &mut Clock,
) -> Result<(), StoreError> {
    clock.set(store.now_unix_ns().await?);
    let now = clock.now_unix_ns();
    state.reconcile(now).await?;
    state.advance(now).await
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
