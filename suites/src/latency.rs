//! Latency: load time, prefill and decode rates, time to first token, time per output token; and what
//! the machine could do at most.

use std::time::Duration;

use tritmark_proto::{
    job::{Job, LatencySpec},
    record::{Grade, Measurement, Metric, Outcome, Phase, Reading, RecordBody, TokenTimes},
    roofline::Bounds,
};

use crate::{
    Context, Sink, SuiteError, bounds,
    clock::SOURCE,
    harness::{Generation, Timed},
    model::{self, Opened},
};

const SUITE: &str = "latency";
/// Loading is repeated as often as the workload, but not beyond this.
const LOADING: Duration = Duration::from_secs(10);

/// Times loading and the workload.
pub(crate) fn run(
    job: &Job,
    spec: &LatencySpec,
    context: &Context<'_>,
    sink: &mut dyn Sink,
) -> Result<(), SuiteError> {
    // Before the model is there, so that neither takes memory or time from the other.
    let bounds = spec.probe.then(|| probe(job, context, sink)).transpose()?;
    let mut opened = Opened::open(job, context, sink)?;
    let facts = opened.facts(None)?;
    sink.record(RecordBody::Facts(facts))
        .map_err(SuiteError::Sink)?;
    for body in bounds.into_iter().flat_map(of_machine) {
        sink.record(body).map_err(SuiteError::Sink)?;
    }

    let repetitions = spec.repetitions.get();
    opened = load(job, repetitions, opened, context, sink)?;

    let bos = opened.bos();
    let engine = &mut opened.engine;
    let mut generation =
        Generation::new(engine, spec.workload, bos).map_err(SuiteError::Forward)?;
    for done in 0..spec.warm_ups {
        sink.progress("warm-up", done.into(), spec.warm_ups.into())
            .map_err(SuiteError::Sink)?;
        generation
            .timed(engine, context.clock)
            .map_err(SuiteError::Forward)?;
    }
    for repetition in 0..repetitions {
        sink.progress("repetition", repetition.into(), repetitions.into())
            .map_err(SuiteError::Sink)?;
        let timed = generation
            .timed(engine, context.clock)
            .map_err(SuiteError::Forward)?;
        for body in records(spec, repetition, timed) {
            sink.record(body).map_err(SuiteError::Sink)?;
        }
    }
    sink.progress("repetition", repetitions.into(), repetitions.into())
        .map_err(SuiteError::Sink)
}

/// Measures the machine's bounds with the job's kernel and threads.
fn probe(job: &Job, context: &Context<'_>, sink: &mut dyn Sink) -> Result<Bounds, SuiteError> {
    let options = model::options(job)?;
    sink.progress("measuring the machine", 0, 1)
        .map_err(SuiteError::Sink)?;
    bounds::measure(&options, &context.sysfs_root).map_err(SuiteError::Engine)
}

fn of_machine(bounds: Bounds) -> impl Iterator<Item = RecordBody> {
    let Bounds {
        memory_read_bytes_per_s,
        int8_ops_per_s,
        f32_ops_per_s,
    } = bounds;
    let values = [
        (Metric::MemoryReadBytesPerS, memory_read_bytes_per_s),
        (Metric::Int8OpsPerS, int8_ops_per_s),
        (Metric::F32OpsPerS, f32_ops_per_s),
    ];
    values.into_iter().map(|(metric, value)| {
        RecordBody::Measurement(Measurement {
            suite: SUITE.to_owned(),
            metric,
            workload: None,
            phase: None,
            repetition: None,
            outcome: counted(value),
        })
    })
}

/// Loads the model again and again. Its files were hashed just before, so that they come from the
/// page cache every time.
fn load(
    job: &Job,
    repetitions: u32,
    mut opened: Opened,
    context: &Context<'_>,
    sink: &mut dyn Sink,
) -> Result<Opened, SuiteError> {
    let start_ns = context.clock.now_ns();
    for repetition in 0..repetitions {
        drop(opened);
        opened = Opened::open(job, context, sink)?;
        sink.record(RecordBody::Measurement(Measurement {
            suite: SUITE.to_owned(),
            metric: Metric::LoadNs,
            workload: None,
            phase: None,
            repetition: Some(repetition),
            outcome: counted(opened.load_ns as f64),
        }))
        .map_err(SuiteError::Sink)?;
        if context.clock.now_ns() - start_ns > LOADING.as_nanos() as u64 {
            break;
        }
    }
    Ok(opened)
}

fn records(spec: &LatencySpec, repetition: u32, timed: Timed) -> Vec<RecordBody> {
    let workload = spec.workload;
    let no_prompt = "the workload has no prompt";
    let no_token = "the workload generates no token";
    let one_token = match workload.n_gen {
        0 => no_token,
        _ => "the workload generates one token only",
    };
    let values = [
        (
            Metric::PrefillTokPerS,
            Phase::Prefill,
            timed.prefill_tok_per_s(workload.n_prompt),
            no_prompt,
        ),
        (
            Metric::TtftNs,
            Phase::Prefill,
            timed.ttft_ns().map(|ns| ns as f64),
            no_token,
        ),
        (
            Metric::DecodeTokPerS,
            Phase::Decode,
            timed.decode_tok_per_s(),
            one_token,
        ),
        (Metric::TpotNs, Phase::Decode, timed.tpot_ns(), one_token),
    ];
    let mut records: Vec<RecordBody> = values
        .into_iter()
        .map(|(metric, phase, value, why_not)| {
            RecordBody::Measurement(Measurement {
                suite: SUITE.to_owned(),
                metric,
                workload: Some(workload),
                phase: Some(phase),
                repetition: Some(repetition),
                outcome: value.map_or_else(
                    || Outcome::Skipped {
                        reason: why_not.to_owned(),
                    },
                    counted,
                ),
            })
        })
        .collect();
    if !timed.token_ids.is_empty() {
        records.push(RecordBody::Tokens(TokenTimes {
            workload,
            repetition,
            token_ids: timed.token_ids,
            elapsed_ns: timed.elapsed_ns,
        }));
    }
    records
}

fn counted(value: f64) -> Outcome {
    Outcome::Reading(Reading {
        value,
        grade: Grade::Counted,
        source: SOURCE.to_owned(),
    })
}
