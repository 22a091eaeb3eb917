//! Energy: counted joules of prefill and decode apart, gross and less the idle draw; and the
//! papers' estimate, in metrics of its own.

use std::time::Duration;

use tritmark_proto::{
    job::{EnergySpec, Job},
    record::{Grade, Measurement, Metric, Outcome, Phase, Reading, RecordBody},
};

use crate::{
    Context, Sink, SuiteError, aoe,
    clock::Clock,
    harness::Generation,
    meter::{
        SystemTree, Tree, rapl,
        window::{Meter, Window},
    },
    model::Opened,
};

/// Measures what can be measured and estimates what the papers estimate.
pub(crate) fn run(
    job: &Job,
    spec: &EnergySpec,
    context: &Context<'_>,
    sink: &mut dyn Sink,
) -> Result<(), SuiteError> {
    let mut opened = Opened::open(job, context, sink)?;
    let facts = opened.facts(None)?;
    sink.record(RecordBody::Facts(facts))
        .map_err(SuiteError::Sink)?;
    estimate(&opened, sink)?;

    let tree = SystemTree {
        root: context.sysfs_root.clone(),
    };
    measure(spec, &mut opened, &tree, context.clock, sink)
}

/// Records the papers' arithmetic estimate for a sequence of 512 tokens and for each of them.
fn estimate(opened: &Opened, sink: &mut dyn Sink) -> Result<(), SuiteError> {
    let shape = aoe::Shape::of(opened.engine.config());
    let outcome = aoe::Arithmetic::of(opened.engine.weights())
        .map(|arithmetic| aoe::estimate(shape, arithmetic, aoe::SEQUENCE).total_j());
    let per_token = outcome
        .clone()
        .map(|joules| joules / f64::from(aoe::SEQUENCE));
    for (metric, value) in [
        (Metric::EnergyEstimateJ, outcome),
        (Metric::EnergyEstimatePerTokenJ, per_token),
    ] {
        let outcome = match value {
            Ok(value) => Outcome::Reading(Reading {
                value,
                grade: Grade::Estimated,
                source: aoe::SOURCE.to_owned(),
            }),
            Err(reason) => Outcome::Skipped { reason },
        };
        record(sink, spec_free(metric, outcome))?;
    }
    Ok(())
}

/// Records why the energy of both phases is not known.
fn unmeasurable(spec: &EnergySpec, reason: &str, sink: &mut dyn Sink) -> Result<(), SuiteError> {
    for phase in Phase::ALL {
        record(
            sink,
            of_phase(spec, Metric::EnergyJ, phase, None, skipped(reason)),
        )?;
    }
    Ok(())
}

/// A window and what it was spent on.
struct Spent {
    phase: Phase,
    repetition: u32,
    tokens: u64,
    window: Window,
}

fn measure(
    spec: &EnergySpec,
    opened: &mut Opened,
    tree: &dyn Tree,
    clock: &dyn Clock,
    sink: &mut dyn Sink,
) -> Result<(), SuiteError> {
    let domains = match rapl::discover(tree) {
        Ok(domains) => domains,
        Err(reason) => return unmeasurable(spec, &reason.to_string(), sink),
    };
    for (source, reason) in domains.unreadable {
        unmeasurable(spec, &format!("{source}: {reason}"), sink)?;
    }
    let (meter, still) = Meter::new(tree, clock, domains.readable);
    for (source, reason) in still {
        unmeasurable(spec, &format!("{source}: {reason}"), sink)?;
    }
    if meter.sources().is_empty() {
        return Ok(());
    }
    let bos = opened.bos();
    let engine = &mut opened.engine;
    let mut generation =
        Generation::new(engine, spec.workload, bos).map_err(SuiteError::Forward)?;
    // Warm caches and threads, then rest.
    generation.prefill(engine).map_err(SuiteError::Forward)?;
    let idle_time = seconds(spec.idle_seconds);
    sink.progress("idle", 0, 2).map_err(SuiteError::Sink)?;
    let mut draws = meter.idle_w(idle_time);

    let mut windows = Vec::new();
    let total = 2 * u64::from(spec.repetitions.get());
    for phase in Phase::ALL {
        let tokens_each = match phase {
            Phase::Prefill => spec.workload.n_prompt,
            Phase::Decode => spec.workload.n_gen,
        };
        if tokens_each == 0 {
            let reason = format!("the workload has no tokens to {}", phase.name());
            record(
                sink,
                of_phase(spec, Metric::EnergyJ, phase, None, skipped(&reason)),
            )?;
            continue;
        }
        for repetition in 0..spec.repetitions.get() {
            sink.progress("window", windows.len() as u64, total)
                .map_err(SuiteError::Sink)?;
            generation.prefill(engine).map_err(SuiteError::Forward)?;
            let mut tokens = 0;
            let window = meter
                .window(seconds(spec.window_seconds), || {
                    tokens += u64::from(tokens_each);
                    match phase {
                        Phase::Prefill => generation.prefill(engine),
                        Phase::Decode => generation.decode(engine),
                    }
                })
                .map_err(SuiteError::Forward)?;
            let spent = Spent {
                phase,
                repetition,
                tokens,
                window,
            };
            gross(spec, &spent, sink)?;
            windows.push(spent);
        }
    }
    sink.progress("idle", 1, 2).map_err(SuiteError::Sink)?;
    for (draws, after) in draws.iter_mut().zip(meter.idle_w(idle_time)) {
        draws.extend(after);
    }
    let idle: Vec<Option<f64>> = draws.into_iter().map(median).collect();
    for (source, idle_w) in meter.sources().iter().zip(&idle) {
        let outcome = idle_w.map_or_else(
            || skipped(&format!("{source}: no idle draw was read")),
            |idle_w| reading(idle_w, source),
        );
        record(sink, spec_free(Metric::IdleW, outcome))?;
    }
    for spent in &windows {
        net(spec, spent, &idle, sink)?;
    }
    Ok(())
}

/// Records the whole energy of a window.
fn gross(spec: &EnergySpec, spent: &Spent, sink: &mut dyn Sink) -> Result<(), SuiteError> {
    for (source, joules) in &spent.window.joules {
        let values = match joules {
            Ok(joules) => vec![
                (Metric::EnergyJ, reading(*joules, source)),
                (
                    Metric::EnergyPerTokenJ,
                    reading(joules / spent.tokens as f64, source),
                ),
            ],
            Err(reason) => vec![(Metric::EnergyJ, skipped(&format!("{source}: {reason}")))],
        };
        for (metric, outcome) in values {
            let repetition = Some(spent.repetition);
            record(
                sink,
                of_phase(spec, metric, spent.phase, repetition, outcome),
            )?;
        }
    }
    Ok(())
}

/// Records the energy of a window less the idle draw.
fn net(
    spec: &EnergySpec,
    spent: &Spent,
    idle: &[Option<f64>],
    sink: &mut dyn Sink,
) -> Result<(), SuiteError> {
    let elapsed_s = spent.window.elapsed_ns as f64 * 1e-9;
    for ((source, joules), idle_w) in spent.window.joules.iter().zip(idle) {
        let Ok(joules) = joules else { continue };
        let net = match idle_w {
            None => Err(format!("{source}: no idle draw was read")),
            Some(idle_w) if idle_w * elapsed_s > *joules => Err(format!(
                "{source}: the window drew less than the machine at rest ({idle_w:.3} W)"
            )),
            Some(idle_w) => Ok(joules - idle_w * elapsed_s),
        };
        let per_token = net.clone().map(|joules| joules / spent.tokens as f64);
        for (metric, value) in [
            (Metric::EnergyNetJ, net),
            (Metric::EnergyNetPerTokenJ, per_token),
        ] {
            let outcome = match value {
                Ok(value) => reading(value, source),
                Err(reason) => skipped(&reason),
            };
            let repetition = Some(spent.repetition);
            record(
                sink,
                of_phase(spec, metric, spent.phase, repetition, outcome),
            )?;
        }
    }
    Ok(())
}

fn record(sink: &mut dyn Sink, measurement: Measurement) -> Result<(), SuiteError> {
    sink.record(RecordBody::Measurement(measurement))
        .map_err(SuiteError::Sink)
}

/// A measurement that belongs to the whole job.
fn spec_free(metric: Metric, outcome: Outcome) -> Measurement {
    Measurement {
        suite: "energy".to_owned(),
        metric,
        workload: None,
        phase: None,
        repetition: None,
        outcome,
    }
}

fn of_phase(
    spec: &EnergySpec,
    metric: Metric,
    phase: Phase,
    repetition: Option<u32>,
    outcome: Outcome,
) -> Measurement {
    Measurement {
        workload: Some(spec.workload),
        phase: Some(phase),
        repetition,
        ..spec_free(metric, outcome)
    }
}

fn reading(value: f64, source: &str) -> Outcome {
    Outcome::Reading(Reading {
        value,
        grade: Grade::Counted,
        source: source.to_owned(),
    })
}

fn skipped(reason: &str) -> Outcome {
    Outcome::Skipped {
        reason: reason.to_owned(),
    }
}

/// Returns a duration; what is no length of time counts as none.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => None,
        _ => Some(f64::midpoint(values[(n - 1) / 2], values[n / 2])),
    }
}

#[cfg(test)]
mod tests {
    use std::{io, num::NonZeroU32, path::PathBuf};

    use tritmark_proto::job::{
        JobId, KvType, Model, ModelSource, Numerics, RunId, Selector, SuiteSpec, Workload,
    };

    use super::*;
    use crate::{
        clock::fake::FakeClock,
        meter::fake::{FakeFile, FakeTree},
    };

    #[derive(Default)]
    struct Records(Vec<Measurement>);

    impl Sink for Records {
        fn record(&mut self, body: RecordBody) -> io::Result<()> {
            if let RecordBody::Measurement(measurement) = body {
                self.0.push(measurement);
            }
            Ok(())
        }

        fn progress(&mut self, _: &str, done: u64, total: u64) -> io::Result<()> {
            assert!(done <= total);
            Ok(())
        }
    }

    impl Records {
        fn of(&self, metric: Metric) -> Vec<(Option<Phase>, &Outcome)> {
            let found = self.0.iter().filter(|found| found.metric == metric);
            found.map(|found| (found.phase, &found.outcome)).collect()
        }

        fn values(&self, metric: Metric) -> Vec<f64> {
            let outcomes = self.of(metric).into_iter();
            outcomes
                .filter_map(|(_, outcome)| match outcome {
                    Outcome::Reading(reading) => {
                        assert_eq!(reading.grade, Grade::Counted);
                        assert_eq!(reading.source, "powercap:package-0");
                        Some(reading.value)
                    }
                    Outcome::Skipped { .. } => None,
                })
                .collect()
        }
    }

    /// Measures on a machine whose package counter grows by `step` µJ at every look.
    fn measured(tree: &FakeTree, window_seconds: f64, idle_seconds: f64) -> Records {
        let spec = EnergySpec {
            workload: Workload {
                n_prompt: 4,
                n_gen: 2,
                n_depth: 0,
                n_batch: 4,
            },
            repetitions: NonZeroU32::MIN,
            idle_seconds,
            window_seconds,
        };
        let model = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../models/bitnet-tiny.i2_s.gguf"
        );
        let job = Job {
            id: JobId {
                run: RunId::generate(),
                index: 0,
            },
            model: Model {
                id: "bitnet-tiny".to_owned(),
                source: ModelSource::Path(model.into()),
                adapter: None,
                baseline: None,
            },
            kernel: "auto".to_owned(),
            numerics: Numerics::Exact,
            kv: KvType::F32,
            head: None,
            threads: NonZeroU32::MIN,
            suite: SuiteSpec::Energy(spec.clone()),
            selector: Selector::default(),
        };
        // Every look takes 1 ms.
        let clock = FakeClock::new(1_000_000);
        let context = Context {
            origin: None,
            machine_id: None,
            item_cache: None,
            cache_dir: PathBuf::new(),
            sysfs_root: PathBuf::new(),
            items_done: 0,
            sandbox: crate::sandbox::Options::default(),
            clock: &clock,
        };
        let mut records = Records::default();
        let mut opened = Opened::open(&job, &context, &mut records).unwrap();
        measure(&spec, &mut opened, tree, &clock, &mut records).unwrap();
        records
    }

    fn counting(step: u64) -> FakeTree {
        let counter = FakeFile::Counter {
            value: 999_000,
            step,
            range: 1_000_000,
        };
        FakeTree::default().zone("intel-rapl:0", "package-0", counter)
    }

    #[test]
    fn prefill_and_decode_have_windows_of_their_own_gross_and_net() {
        let tree = counting(5000).zone(
            "intel-rapl:0:0",
            "dram",
            FakeFile::Error(io::ErrorKind::PermissionDenied),
        );
        let records = measured(&tree, 0.2, 1.0);
        let gross = records.values(Metric::EnergyJ);
        assert_eq!(gross.len(), 2);
        let per_token = records.values(Metric::EnergyPerTokenJ);
        for (joules, per_token) in gross.iter().zip(&per_token) {
            // A whole number of prompts of four tokens, or of answers of two.
            let tokens = joules / per_token;
            assert!(
                (tokens - tokens.round()).abs() < 1e-6 && tokens >= 2.0,
                "{tokens}"
            );
        }
        // 5 mJ in each tenth of a second, and a look at the clock.
        let idle_w = records.values(Metric::IdleW);
        assert_eq!(idle_w.len(), 1);
        assert!((idle_w[0] - 0.005 / 0.101).abs() < 1e-9, "{idle_w:?}");
        let net = records.values(Metric::EnergyNetJ);
        assert_eq!(net.len(), 2);
        for (net, gross) in net.iter().zip(&gross) {
            assert!(*net > 0.0 && net < gross, "{net} {gross}");
        }
        assert_eq!(records.values(Metric::EnergyNetPerTokenJ).len(), 2);
        // What may not be read is told of once a phase.
        let denied: Vec<_> = records
            .of(Metric::EnergyJ)
            .into_iter()
            .filter_map(|(phase, outcome)| match outcome {
                Outcome::Skipped { reason } => Some((phase, reason.as_str())),
                Outcome::Reading(_) => None,
            })
            .collect();
        assert_eq!(denied.len(), 2);
        assert!(
            denied[0]
                .1
                .starts_with("powercap:dram-0: permission denied for /sys")
        );
    }

    #[test]
    fn without_rest_there_is_no_net() {
        let records = measured(&counting(5000), 0.2, 0.0);
        assert_eq!(records.values(Metric::EnergyJ).len(), 2);
        assert_eq!(records.values(Metric::EnergyNetJ), Vec::<f64>::new());
        let reason = "powercap:package-0: no idle draw was read".to_owned();
        let expected = Outcome::Skipped { reason };
        assert_eq!(records.of(Metric::IdleW), [(None, &expected)]);
        assert_eq!(
            records.of(Metric::EnergyNetJ)[0],
            (Some(Phase::Prefill), &expected)
        );
    }

    #[test]
    fn a_window_that_is_too_short_is_refused() {
        let records = measured(&counting(5000), 0.02, 0.5);
        for (_, outcome) in records.of(Metric::EnergyJ) {
            let Outcome::Skipped { reason } = outcome else {
                panic!("{outcome:?}");
            };
            assert!(
                reason.contains("updates of the counter, 100 are needed"),
                "{reason}"
            );
        }
        assert_eq!(records.values(Metric::EnergyPerTokenJ), Vec::<f64>::new());
    }

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0, 4.0]), Some(3.0));
    }
}
