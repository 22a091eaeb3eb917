//! The border of the fresh process a job runs in: one JSON request on stdin, one JSON event a line
//! on stdout.
//!
//! Both sides speak these types. The last event of a process that ended by its own will is
//! [`WorkerEvent::Finished`] or [`WorkerEvent::Failed`]; a stream that ends without one belongs to
//! a process that crashed or was killed.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use tritmark_proto::{bundle::FailureClass, job::Job, record::Record};

/// What a worker process is asked to do: one line on its stdin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerRequest {
    /// The job.
    pub job: Job,
    /// Leading items of an accuracy job that earlier attempts have already stored.
    pub items_done: u64,
    /// Folder of models made on this machine; created where it is missing.
    pub cache_dir: PathBuf,
    /// Root of the `sys` and `proc` trees, `/` outside tests.
    pub sysfs_root: PathBuf,
}

/// What a worker process says: one line on its stdout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerEvent {
    /// Something was found out. Sequences start at 0 and have no gaps.
    Record(Record),
    /// Something went on.
    Progress(WorkerProgress),
    /// The job is done; nothing follows.
    Finished(WorkerFinished),
    /// The job failed; nothing follows.
    Failed(WorkerFailed),
}

/// How far a worker is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerProgress {
    /// `loading`, `warm-up`, `repetition`, `idle`, `window` or `items`.
    pub stage: String,
    /// Steps done.
    pub done: u64,
    /// Steps in all; 0 where that is not known.
    pub total: u64,
}

/// The end of a job that succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerFinished {
    /// The attempt has the records 0 .. `n_records`.
    pub n_records: u64,
}

/// The end of a job that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerFailed {
    /// Whether another attempt may succeed.
    pub class: FailureClass,
    /// The error and its causes, in one line.
    pub message: String,
}
