//! Speeds as shares of their rooflines: each by the bounds its own process measured before.

use std::collections::HashMap;

use tritmark_proto::{
    bundle::JobOutcome,
    job::{SuiteSpec, Workload},
    record::{Metric, Outcome, Phase},
    roofline::{Arithmetic, Bounds, Roofline},
};

use super::{
    DECODE_READ_SHARE, PREFILL_F32_SHARE, PREFILL_INT8_SHARE,
    build::{Entries, entry},
    context::Context,
    key::Key,
};
use crate::frame::MeasurementRow;

/// Adds the shares of all speeds whose process measured the machine's bounds. The others have none.
pub(super) fn add<'a>(
    context: &Context<'a>,
    jobs: &HashMap<u32, &'a JobOutcome>,
    entries: &mut Entries<'a>,
) {
    let bounds = bounds(&context.bundle.measurements);
    for row in &context.bundle.measurements {
        let (Some(outcome), Some(bounds)) = (jobs.get(&row.job_index), bounds.get(&row.job_index))
        else {
            continue;
        };
        let SuiteSpec::Latency(spec) = &outcome.job.suite else {
            continue;
        };
        let workload = row.workload.unwrap_or(spec.workload);
        let Outcome::Reading(reading) = &row.outcome else {
            continue;
        };
        let Some(roofline) = roofline_of(row, outcome, *bounds, workload) else {
            continue;
        };
        let metric = match roofline.arithmetic {
            None => DECODE_READ_SHARE,
            Some(Arithmetic::Int8) => PREFILL_INT8_SHARE,
            Some(Arithmetic::F32) => PREFILL_F32_SHARE,
        };
        let mut key = Key::of_metric(context, outcome, metric, "1");
        key.phase = row.phase;
        key.workload = Some(workload);
        let key = key.graded(reading.grade, &reading.source);
        entry(entries, context, key, outcome)
            .by_job
            .entry(row.job_index)
            .or_default()
            .push(reading.value / roofline.tok_per_s);
    }
}

/// Returns what bounds a speed; `None` of what is no speed, or of a model of which it is not known.
fn roofline_of(
    row: &MeasurementRow,
    outcome: &JobOutcome,
    bounds: Bounds,
    workload: Workload,
) -> Option<Roofline> {
    let demand = outcome.facts.as_ref()?.demand?;
    match row.phase? {
        Phase::Prefill if row.metric == Metric::PrefillTokPerS.name() => bounds.prefill(demand),
        Phase::Decode if row.metric == Metric::DecodeTokPerS.name() => {
            Some(bounds.decode(demand, workload))
        }
        _ => None,
    }
}

/// Returns the bounds of each job that has all three.
fn bounds(rows: &[MeasurementRow]) -> HashMap<u32, Bounds> {
    let mut found: HashMap<(u32, &str), f64> = HashMap::new();
    for row in rows {
        if let Outcome::Reading(reading) = &row.outcome {
            found.insert((row.job_index, &row.metric), reading.value);
        }
    }
    let jobs = rows.iter().map(|row| row.job_index);
    jobs.filter_map(|job| {
        let of = |metric: Metric| found.get(&(job, metric.name())).copied();
        let bounds = Bounds {
            memory_read_bytes_per_s: of(Metric::MemoryReadBytesPerS)?,
            int8_ops_per_s: of(Metric::Int8OpsPerS)?,
            f32_ops_per_s: of(Metric::F32OpsPerS)?,
        };
        Some((job, bounds))
    })
    .collect()
}
