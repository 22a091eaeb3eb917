//! Energy: counted joules of prefill and decode apart, gross and less the idle draw; and the
//! papers' estimate, in metrics of its own.

use std::time::Duration;

use tritmark_proto::{
    job::{EnergySpec, Job},
    record::{Grade, Measurement, Metric, Outcome, Phase, Reading, RecordBody},
};

use crate::{
    Context, Sink, SuiteError, aoe,
    harness::Generation,
    meter::{
        SystemTree,
        rapl::{self, Domain},
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
    let domains = match rapl::discover(&tree) {
        Ok(domains) => domains,
        Err(reason) => return unmeasurable(spec, &reason.to_string(), sink),
    };
    for (source, reason) in domains.unreadable {
        unmeasurable(spec, &format!("{source}: {reason}"), sink)?;
    }
    counted(spec, &mut opened, &tree, domains.readable, context, sink)
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

fn counted(
    spec: &EnergySpec,
    opened: &mut Opened,
    tree: &SystemTree,
    domains: Vec<Domain>,
    context: &Context<'_>,
    sink: &mut dyn Sink,
) -> Result<(), SuiteError> {
    let (meter, still) = Meter::new(tree, context.clock, domains);
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
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0, 4.0]), Some(3.0));
    }
}
