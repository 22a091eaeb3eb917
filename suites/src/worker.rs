//! The border of the fresh process a job runs in: one JSON request on stdin, one JSON event a line
//! on stdout.
//!
//! Both sides speak these types. The last event of a process that ended by its own will is
//! [`WorkerEvent::Finished`] or [`WorkerEvent::Failed`]; a stream that ends without one belongs to
//! a process that crashed or was killed.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::ExitCode,
};

use serde::{Deserialize, Serialize};

use tritmark_engine::errors::chain;
use tritmark_proto::{
    bundle::FailureClass,
    job::Job,
    record::{Item, ItemOrigin, Record, RecordBody},
};

use crate::{
    Context, Sink,
    accuracy::{self, cache::ItemCache},
    clock::{Clock as _, SystemClock},
};

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
    /// The attempt that the job is done for.
    #[serde(default)]
    pub origin: Option<ItemOrigin>,
    /// The machine's id.
    #[serde(default)]
    pub machine_id: Option<String>,
    /// Where items are kept between runs; `None` for nowhere.
    #[serde(default)]
    pub item_cache: Option<ItemCache>,
    /// Programs to score, which the job's model has written elsewhere; with them the model is not
    /// asked, and the records are these items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_score: Option<Vec<Item>>,
}

impl WorkerRequest {
    /// Returns a request to do a job from its beginning, without anything that is kept.
    pub fn new(job: Job, cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            job,
            items_done: 0,
            cache_dir: cache_dir.into(),
            sysfs_root: PathBuf::from("/"),
            origin: None,
            machine_id: None,
            item_cache: None,
            to_score: None,
        }
    }
}

/// What a worker process says: one line on its stdout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "nearly every event is a record")]
pub enum WorkerEvent {
    /// Something was found out. Sequences start at 0 and have no gaps.
    Record(Record),
    /// Something went on.
    Progress(WorkerProgress),
    /// Something that people should know and that changes no result.
    Warning(String),
    /// The job is done; nothing follows.
    Finished(WorkerFinished),
    /// The job failed; nothing follows.
    Failed(WorkerFailed),
}

/// How far a worker is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerProgress {
    /// `loading`, `warm-up`, `repetition`, `idle`, `window`, `items` or
    /// `prompts`.
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

/// Does the one job that `input` asks for and tells `output` of it.
///
/// The first line of `input` is a [`WorkerRequest`]. Every line of `output` is a [`WorkerEvent`],
/// handed on as soon as it is made. The exit code repeats the last event: success only after
/// [`WorkerEvent::Finished`].
pub fn worker_main(input: impl Read, output: impl Write) -> ExitCode {
    let mut events = Events {
        output,
        clock: SystemClock::default(),
        n_records: 0,
    };
    let outcome = match request(input) {
        Ok(request) => do_job(request, &mut events),
        Err(failed) => Err(failed),
    };
    let (event, code) = match outcome {
        Ok(()) => {
            let n_records = events.n_records;
            (
                WorkerEvent::Finished(WorkerFinished { n_records }),
                ExitCode::SUCCESS,
            )
        }
        Err(failed) => (WorkerEvent::Failed(failed), ExitCode::FAILURE),
    };
    // Without a reader there is nobody to tell; the exit code says it.
    match events.say(&event) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn request(input: impl Read) -> Result<WorkerRequest, WorkerFailed> {
    /// Longest request that is read. A plan's job has some hundred bytes; programs to score have some
    /// kilobytes each.
    const MAX_REQUEST_BYTES: u64 = 256 << 20;

    let mut line = String::new();
    let read = BufReader::new(input.take(MAX_REQUEST_BYTES)).read_line(&mut line);
    read.map_err(|error| error.to_string())
        .and_then(|_| serde_json::from_str(&line).map_err(|error| error.to_string()))
        .map_err(|message| WorkerFailed {
            class: FailureClass::Infrastructure,
            message: format!("the worker cannot read its request: {message}"),
        })
}

fn do_job<W: Write>(request: WorkerRequest, events: &mut Events<W>) -> Result<(), WorkerFailed> {
    let WorkerRequest {
        job,
        items_done,
        cache_dir,
        sysfs_root,
        origin,
        machine_id,
        item_cache,
        to_score,
    } = request;
    let clock = events.clock;
    let context = Context {
        cache_dir,
        sysfs_root,
        items_done,
        origin,
        machine_id,
        item_cache,
        sandbox: crate::sandbox::Options::default(),
        clock: &clock,
    };
    let done = match to_score {
        Some(items) => accuracy::score(&job, items, &context, events),
        None => crate::run(&job, &context, events),
    };
    done.map_err(|error| WorkerFailed {
        class: error.class(),
        message: chain(&error),
    })
}

/// Writes events, numbers records and says when they were made.
struct Events<W> {
    output: W,
    clock: SystemClock,
    n_records: u64,
}

impl<W: Write> Events<W> {
    fn say(&mut self, event: &WorkerEvent) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.output.write_all(&line)?;
        self.output.flush()
    }
}

impl<W: Write> Sink for Events<W> {
    fn record(&mut self, body: RecordBody) -> io::Result<()> {
        let record = Record {
            sequence: self.n_records,
            at_unix_ns: self.clock.unix_ns(),
            body,
        };
        self.say(&WorkerEvent::Record(record))?;
        self.n_records += 1;
        Ok(())
    }

    fn progress(&mut self, stage: &str, done: u64, total: u64) -> io::Result<()> {
        self.say(&WorkerEvent::Progress(WorkerProgress {
            stage: stage.to_owned(),
            done,
            total,
        }))
    }

    fn warn(&mut self, text: &str) -> io::Result<()> {
        self.say(&WorkerEvent::Warning(text.to_owned()))
    }
}
