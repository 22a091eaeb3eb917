//! Runs one job on an engine and yields records.
//!
//! [`run`] does a job in this process; [`worker`] is the border of the fresh process a job is given.
//! A suite is one module: latency, memory, energy, [`accuracy`], [`agreement`]. The first record of
//! every job is what the worker really ran ([`ModelFacts`](tritmark_proto::record::ModelFacts)).

pub mod accuracy;
pub mod agreement;
pub mod aoe;
pub mod bounds;
pub mod calibration;
pub mod clock;
mod energy;
mod error;
pub mod evalplus;
mod harness;
pub mod humaneval;
mod latency;
mod memory;
pub mod meter;
mod model;
pub mod sandbox;
pub mod worker;

use std::{io, path::PathBuf};

use tritmark_proto::{
    job::{Job, SuiteSpec},
    record::{ItemOrigin, RecordBody},
};

pub use error::SuiteError;
pub use tritmark_engine::errors::chain;

use clock::Clock;

/// What a job is done with.
pub struct Context<'a> {
    /// Folder of models made on this machine.
    pub cache_dir: PathBuf,
    /// Root of the `sys` and `proc` trees, `/` outside tests.
    pub sysfs_root: PathBuf,
    /// Leading items of an accuracy job that earlier attempts have stored.
    pub items_done: u64,
    /// The attempt that the job is done for, which items that are kept come from.
    pub origin: Option<ItemOrigin>,
    /// The machine's id, for records that say where something was done.
    pub machine_id: Option<String>,
    /// Where items are kept between runs; `None` for nowhere.
    pub item_cache: Option<accuracy::cache::ItemCache>,
    /// What model-written programs are run in.
    pub sandbox: sandbox::Options,
    /// Where time comes from.
    pub clock: &'a dyn Clock,
}

/// Where records go as they are made.
pub trait Sink {
    /// Takes a record.
    fn record(&mut self, body: RecordBody) -> io::Result<()>;

    /// Takes note that something goes on: `done` of `total` steps of a stage; a total of 0 is not
    /// known.
    fn progress(&mut self, stage: &str, done: u64, total: u64) -> io::Result<()>;

    /// Takes note of something that people should know and that changes no result.
    fn warn(&mut self, text: &str) -> io::Result<()> {
        let _ = text;
        Ok(())
    }
}

/// Does a job.
pub fn run(job: &Job, context: &Context<'_>, sink: &mut dyn Sink) -> Result<(), SuiteError> {
    match &job.suite {
        SuiteSpec::Latency(spec) => latency::run(job, spec, context, sink),
        SuiteSpec::Memory(spec) => memory::run(job, spec, context, sink),
        SuiteSpec::Energy(spec) => energy::run(job, spec, context, sink),
        SuiteSpec::Accuracy(spec) => accuracy::run(job, spec, context, sink),
        SuiteSpec::Agreement(spec) => agreement::job::run(job, spec, context, sink),
    }
}
