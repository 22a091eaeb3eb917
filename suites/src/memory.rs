//! Memory: bytes of the weights, the files and the cache, and the peak of this process.

use tritmark_proto::{
    job::{Job, MemorySpec},
    record::{Grade, Measurement, Metric, Outcome, Reading, RecordBody},
};

use crate::{
    Context, Sink, SuiteError,
    harness::Generation,
    meter::{SystemTree, rss},
    model::Opened,
};

/// Names where the computed byte counts come from.
const ENGINE: &str = "engine";

/// Runs the workload once and reads the peak after it.
pub(crate) fn run(
    job: &Job,
    spec: &MemorySpec,
    context: &Context<'_>,
    sink: &mut dyn Sink,
) -> Result<(), SuiteError> {
    let mut opened = Opened::open(job, context, sink)?;
    let facts = opened.facts(None)?;
    let computed = [
        (Metric::WeightBytes, facts.weight_bytes),
        (Metric::LinearWeightBytes, facts.linear_weight_bytes),
        (Metric::FileBytes, facts.file_bytes),
    ];
    sink.record(RecordBody::Facts(facts))
        .map_err(SuiteError::Sink)?;

    sink.progress("repetition", 0, 1)
        .map_err(SuiteError::Sink)?;
    let bos = opened.bos();
    let engine = &mut opened.engine;
    let mut generation =
        Generation::new(engine, spec.workload, bos).map_err(SuiteError::Forward)?;
    generation
        .timed(engine, context.clock)
        .map_err(SuiteError::Forward)?;
    sink.progress("repetition", 1, 1)
        .map_err(SuiteError::Sink)?;

    let tree = SystemTree {
        root: context.sysfs_root.clone(),
    };
    let peak = match rss::peak_rss_bytes(&tree) {
        Ok(bytes) => reading(bytes, Grade::Counted, rss::SOURCE),
        Err(reason) => Outcome::Skipped { reason },
    };
    let kv_bytes = (Metric::KvBytes, generation.kv_bytes());
    for (metric, bytes) in computed.into_iter().chain([kv_bytes]) {
        record(sink, spec, metric, reading(bytes, Grade::Computed, ENGINE))?;
    }
    record(sink, spec, Metric::PeakRssBytes, peak)
}

fn record(
    sink: &mut dyn Sink,
    spec: &MemorySpec,
    metric: Metric,
    outcome: Outcome,
) -> Result<(), SuiteError> {
    // What lies in the files does not depend on the workload.
    let workload = match metric {
        Metric::KvBytes | Metric::PeakRssBytes => Some(spec.workload),
        _ => None,
    };
    sink.record(RecordBody::Measurement(Measurement {
        suite: "memory".to_owned(),
        metric,
        workload,
        phase: None,
        repetition: None,
        outcome,
    }))
    .map_err(SuiteError::Sink)
}

fn reading(bytes: u64, grade: Grade, source: &str) -> Outcome {
    Outcome::Reading(Reading {
        value: bytes as f64,
        grade,
        source: source.to_owned(),
    })
}
