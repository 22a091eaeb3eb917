//! One assignment from waiting for the machine to the end of its worker.

use std::path::PathBuf;

use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tritmark_proto::{
    bundle::{Failure, FailureClass},
    job::{AttemptId, Job},
    record::Record,
    wire,
};
use tritmark_suites::{
    accuracy::cache::ItemCache,
    chain,
    worker::{WorkerProgress, WorkerRequest},
};

use crate::{
    artefacts::{FETCHING, Fetcher, InUse},
    calibrate::calibrate,
    lock::{Hold, MachineGuard, MachineLock},
    worker::{self, Worker, WorkerCommand, infrastructure},
};

/// What the coordinator wants done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Assignment {
    pub(crate) attempt: AttemptId,
    pub(crate) job: Job,
    /// Leading items of an accuracy job that are stored already.
    pub(crate) items_done: u64,
}

/// Something about an attempt.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) attempt: AttemptId,
    pub(crate) news: News,
}

/// What can be said of a running attempt.
#[derive(Debug)]
pub(crate) enum News {
    /// Another job has the machine.
    Waiting,
    /// The worker's process runs.
    Started,
    Record(Box<Record>),
    Progress(WorkerProgress),
    /// The worker is gone; nothing follows.
    Ended(Result<(), Failure>),
}

/// What workers must know of the machine and of this agent's folders.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) cache_dir: PathBuf,
    pub(crate) sysfs_root: PathBuf,
    pub(crate) machine_id: String,
    pub(crate) memory_bytes: u64,
    pub(crate) item_cache: Option<ItemCache>,
    /// Gets jobs the files they name by their contents.
    pub(crate) fetcher: Fetcher,
}

/// Starts and stops workers, one at a time.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) lock: MachineLock,
    pub(crate) command: WorkerCommand,
    pub(crate) place: Place,
    pub(crate) said: mpsc::Sender<Said>,
    running: Option<(AttemptId, CancellationToken, AbortOnDropHandle<()>)>,
}

impl Runner {
    pub(crate) fn new(
        lock: MachineLock,
        command: WorkerCommand,
        place: Place,
        said: mpsc::Sender<Said>,
    ) -> Self {
        Self {
            lock,
            command,
            place,
            said,
            running: None,
        }
    }

    /// Begins an assignment. The one before has ended.
    pub(crate) fn start(&mut self, assignment: Assignment) {
        let Assignment {
            attempt,
            job,
            items_done,
        } = assignment;
        tracing::info!(job = %attempt.job, attempt = attempt.attempt, fence = attempt.fence, suite = job.suite.name(), model = job.model.id, "assigned");
        let Place {
            cache_dir,
            sysfs_root,
            machine_id,
            memory_bytes: _,
            item_cache,
            fetcher,
        } = self.place.clone();
        let stop = CancellationToken::new();
        let hold = if job.suite.is_exclusive() {
            Hold::Exclusive
        } else {
            Hold::Shared
        };
        let task: JoinHandle<()> = tokio::spawn(perform(
            attempt,
            self.lock.clone(),
            hold,
            fetcher,
            self.command.clone(),
            WorkerRequest {
                job,
                items_done,
                cache_dir,
                sysfs_root,
                origin: Some(attempt.into()),
                machine_id: Some(machine_id),
                item_cache,
                to_score: None,
            },
            self.said.clone(),
            stop.clone(),
        ));
        self.running = Some((attempt, stop, AbortOnDropHandle::new(task)));
    }

    /// Begins to measure what the machine can do. It waits for the worker there is.
    pub(crate) fn calibrate(&self, number: u64) -> impl Future<Output = wire::Calibration> + use<> {
        calibrate(
            number,
            self.command.clone(),
            self.lock.clone(),
            self.place.memory_bytes,
        )
    }

    /// Kills the worker of the attempt; its end will be said.
    pub(crate) fn stop(&self, attempt: AttemptId) {
        if let Some((running, stop, _)) = &self.running
            && *running == attempt
        {
            stop.cancel();
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "what one attempt consists of")]
async fn perform(
    attempt: AttemptId,
    lock: MachineLock,
    hold: Hold,
    fetcher: Fetcher,
    command: WorkerCommand,
    request: WorkerRequest,
    said: mpsc::Sender<Said>,
    stop: CancellationToken,
) {
    let getting_ready = ready(attempt, &lock, hold, &fetcher, request, &said);
    let outcome = tokio::select! {
        ready = getting_ready => match ready {
            Ok((request, keep)) => work(attempt, command, request, keep, &said, &stop).await,
            Err(failure) => Err(failure),
        },
        () = stop.cancelled() => Err(stopped()),
    };
    match &outcome {
        Ok(()) => tracing::info!(job = %attempt.job, "done"),
        Err(failure) => tracing::warn!(job = %attempt.job, reason = failure.message, "failed"),
    }
    let news = News::Ended(outcome);
    // Nobody listens: the agent is leaving.
    let _ = said.send(Said { attempt, news }).await;
}

/// Waits until a job has its files and the machine; returns what is let go when it has ended.
async fn ready(
    attempt: AttemptId,
    lock: &MachineLock,
    hold: Hold,
    fetcher: &Fetcher,
    mut request: WorkerRequest,
    said: &mpsc::Sender<Said>,
) -> Result<(WorkerRequest, (MachineGuard, Option<InUse>)), Failure> {
    // Only for show: a full channel may lose it.
    let show = |news| {
        let _ = said.try_send(Said { attempt, news });
    };
    let acquire = async |hold| {
        let guard = lock.acquire(hold, || show(News::Waiting)).await;
        guard.map_err(|error| infrastructure(chain(&error)))
    };
    // What comes over the network and goes to the disk would disturb who measures here.
    let shared = if fetcher.lacks_files(&request.job) {
        Some(acquire(Hold::Shared).await?)
    } else {
        None
    };
    let progress = |done, total| {
        show(News::Progress(WorkerProgress {
            stage: FETCHING.to_owned(),
            done,
            total,
        }));
    };
    let (job, in_use) = fetcher.prepare(attempt, request.job, progress).await?;
    request.job = job;
    drop(shared);
    let guard = acquire(hold).await?;
    Ok((request, (guard, in_use)))
}

async fn work(
    attempt: AttemptId,
    command: WorkerCommand,
    request: WorkerRequest,
    keep: impl Send + 'static,
    said: &mpsc::Sender<Said>,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let heard = said.clone();
    let mut worker = Worker::start(command, request, keep, move |news| {
        let news = match news {
            worker::News::Started => News::Started,
            worker::News::Record(record) => News::Record(record),
            worker::News::Progress(progress) => News::Progress(progress),
        };
        heard.blocking_send(Said { attempt, news }).is_ok()
    });
    tokio::select! {
        outcome = worker.outcome() => return outcome,
        () = stop.cancelled() => worker.kill(),
    }
    worker.outcome().await
}

/// What is said of a job that was stopped before it had a worker; the desk knows why.
fn stopped() -> Failure {
    Failure {
        class: FailureClass::Transient,
        message: "stopped before it began".to_owned(),
        stderr: String::new(),
    }
}
