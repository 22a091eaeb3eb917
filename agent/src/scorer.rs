//! Scores programs that models wrote on any machine: here, in a fresh process, beside other accuracy
//! jobs and never beside a performance job.

use std::{io, path::PathBuf};

use tokio::{sync::mpsc, task};
use tritmark_proto::{
    bundle::Failure,
    job::Job,
    machine::Machine,
    record::{Item, RecordBody},
};
use tritmark_suites::{
    chain,
    sandbox::{Options, Sandbox},
    worker::WorkerRequest,
};

use crate::{
    inventory,
    lock::{self, Hold, MachineLock},
    worker::{self, Worker, WorkerCommand, infrastructure},
};

/// Runs programs against their tests on this machine.
#[derive(Clone, Debug)]
pub struct Scorer {
    worker: WorkerCommand,
    lock: MachineLock,
    cache_dir: PathBuf,
    machine: Machine,
}

impl Scorer {
    /// Makes a scorer whose workers are this very program; `cache_dir` keeps the outputs of canonical
    /// solutions.
    pub fn new(cache_dir: PathBuf) -> io::Result<Self> {
        Ok(Self {
            worker: WorkerCommand::this_program()?,
            lock: MachineLock::new(lock::default_path()),
            cache_dir,
            machine: inventory::inventory("/".as_ref()).machine,
        })
    }

    /// Returns the machine this is.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Tries the sandbox, as each worker will again.
    ///
    /// # Errors
    /// Says why no program can be run here.
    pub async fn check(&self) -> Result<(), String> {
        let tried = task::spawn_blocking(|| Sandbox::detect(&Options::default()));
        match tried.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(chain(&error)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Scores the items, which are programs a job's model wrote; each is sent on as soon as it is
    /// scored, in order. Dropping the future ends the process.
    pub async fn score(
        &self,
        job: &Job,
        items: Vec<Item>,
        scored: mpsc::Sender<Item>,
    ) -> Result<(), Failure> {
        let guard = self
            .lock
            .acquire(
                Hold::Shared,
                || tracing::info!(job = %job.id, "waiting for the machine"),
            )
            .await
            .map_err(|error| infrastructure(chain(&error)))?;
        let request = WorkerRequest {
            machine_id: Some(self.machine.id.clone()),
            to_score: Some(items),
            ..WorkerRequest::new(job.clone(), &self.cache_dir)
        };
        let mut worker = Worker::start(
            self.worker.clone(),
            request,
            guard,
            move |news| match news {
                worker::News::Record(record) => match record.body {
                    RecordBody::Item(item) => scored.blocking_send(item).is_ok(),
                    _ => true,
                },
                worker::News::Started | worker::News::Progress(_) => true,
            },
        );
        worker.outcome().await
    }
}
