//! What the tests of this crate share.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    num::NonZeroU32,
    path::{Path, PathBuf},
    str::FromStr as _,
};

use tritmark_proto::{
    job::{
        AccuracySpec, AttemptId, Job, JobId, KvType, LatencySpec, Model, ModelSource, Numerics,
        RunId, Selector, SuiteSpec, Workload,
    },
    record::{Grade, Measurement, Metric, Outcome, Reading, Record, RecordBody},
};

use crate::worker::WorkerCommand;

/// Starts programs of this architecture: through `TRITMARK_LAUNCHER` where the tests themselves run
/// in an emulator, which the system does not know to start programs with.
pub(crate) fn launched(program: PathBuf, args: Vec<OsString>) -> WorkerCommand {
    let launcher = std::env::var("TRITMARK_LAUNCHER").unwrap_or_default();
    WorkerCommand { program, args }.through(&launcher)
}

/// Returns the worker of `examples/fake_worker.rs`, which `cargo test` builds beside the tests.
pub(crate) fn fake_worker() -> WorkerCommand {
    let tests = std::env::current_exe().unwrap();
    let profile = tests.parent().and_then(Path::parent).unwrap();
    let program: PathBuf = profile.join("examples/fake_worker");
    assert!(
        program.exists(),
        "{} is missing: run `cargo build --examples -p tritmark-agent`",
        program.display()
    );
    launched(program, vec!["worker".into()])
}

/// Returns what a worker said itself: an emulator adds a line of its own where a signal ends it.
pub(crate) fn own_lines(stderr: &str) -> Vec<&str> {
    let lines = stderr.lines();
    lines.filter(|line| !line.starts_with("qemu: ")).collect()
}

/// An attempt at the job `index` of one and the same run.
pub(crate) fn attempt(index: u32, attempt: u32, fence: u64) -> AttemptId {
    let run = RunId::from_str("018f6b1e-0000-7000-8000-000000000001").unwrap();
    AttemptId {
        job: JobId { run, index },
        attempt: NonZeroU32::new(attempt).unwrap(),
        fence,
    }
}

fn job(id: JobId, script: &str, suite: SuiteSpec) -> Job {
    Job {
        id,
        model: Model {
            id: script.to_owned(),
            source: ModelSource::Path("model.gguf".into()),
            adapter: None,
            baseline: None,
        },
        kernel: "auto".to_owned(),
        numerics: Numerics::Exact,
        kv: KvType::F32,
        head: None,
        threads: NonZeroU32::MIN,
        suite,
        selector: Selector {
            labels: BTreeMap::new(),
            ..Selector::default()
        },
    }
}

/// A performance job for the fake worker.
pub(crate) fn latency_job(id: JobId, script: &str) -> Job {
    let workload = Workload {
        n_prompt: 4,
        n_gen: 4,
        n_depth: 0,
        n_batch: 4,
    };
    let spec = LatencySpec {
        workload,
        warm_ups: 0,
        repetitions: NonZeroU32::MIN,
        probe: false,
    };
    job(id, script, SuiteSpec::Latency(spec))
}

/// An accuracy job for the fake worker.
pub(crate) fn accuracy_job(id: JobId, script: &str) -> Job {
    let spec = AccuracySpec::new("arc_easy", "data");
    job(id, script, SuiteSpec::Accuracy(spec))
}

/// A record as a worker makes them.
pub(crate) fn record(sequence: u64) -> Record {
    Record {
        sequence,
        at_unix_ns: 1_700_000_000_000_000_000 + sequence.cast_signed(),
        body: RecordBody::Measurement(Measurement {
            suite: "latency".to_owned(),
            metric: Metric::DecodeTokPerS,
            workload: None,
            phase: None,
            repetition: Some(sequence as u32),
            outcome: Outcome::Reading(Reading {
                value: 10.0 + sequence as f64,
                grade: Grade::Counted,
                source: "clock:monotonic".to_owned(),
            }),
        }),
    }
}
