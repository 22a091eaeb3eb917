//! Agreement as a suite: a record for each cell, so that a fleet's machines are compared.

use std::num::NonZeroU32;

use tritmark_proto::{
    job::{AgreementSpec, Job},
    record::{AgreementCell, RecordBody},
};

use super::{AgreementError, Cell, Outcome, Prompts};
use crate::{
    Context, Sink, SuiteError,
    model::{self, Opened},
};

/// Compares every cell with the reference. A cell that parts is a result and no failure.
pub(crate) fn run(
    job: &Job,
    spec: &AgreementSpec,
    context: &Context<'_>,
    sink: &mut dyn Sink,
) -> Result<(), SuiteError> {
    let mut opened = Opened::open(job, context, sink)?;
    let facts = opened.facts(None)?;
    sink.record(RecordBody::Facts(facts))
        .map_err(SuiteError::Sink)?;
    let model = opened.load_again()?;
    // Each cell has an engine of its own.
    drop(opened);

    let AgreementSpec {
        n_prompts,
        max_len,
        n_gen,
        seed,
        threads,
        n_batch,
    } = spec;
    let prompts = Prompts {
        n_prompts: n_prompts.get(),
        max_len: max_len.get(),
        n_gen: *n_gen,
        seed: *seed,
    };
    let [threads, n_batch] = [threads, n_batch].map(|numbers| {
        let numbers = numbers.iter().copied();
        numbers
            .filter_map(|number| number.try_into().ok())
            .collect::<Vec<_>>()
    });
    let cells = super::matrix(&threads, &n_batch);
    let how = (model::kv(job.kv), model::numerics(job.numerics));
    let found = super::run(&model, prompts, how, &cells, |done, total| {
        sink.progress("prompts", done, total)
    });
    let found = found.map_err(|error| match error {
        AgreementError::Progress(source) => SuiteError::Sink(source),
        error => SuiteError::Agreement(error),
    })?;
    for outcome in found.outcomes {
        let cell = record(outcome, &found.fingerprint);
        sink.record(RecordBody::Cell(cell))
            .map_err(SuiteError::Sink)?;
    }
    Ok(())
}

fn record(outcome: Outcome, reference: &str) -> AgreementCell {
    let Outcome {
        cell:
            Cell {
                kernel,
                threads,
                n_batch,
                reused_prefix,
            },
        equal,
        positions,
        fingerprint,
        parted,
    } = outcome;
    // The numbers came from 32 bits.
    let [threads, n_batch] =
        [threads, n_batch].map(|number| NonZeroU32::try_from(number).unwrap_or(NonZeroU32::MAX));
    AgreementCell {
        kernel: kernel.to_owned(),
        threads,
        n_batch,
        reused_prefix,
        equal,
        positions,
        fingerprint,
        reference: reference.to_owned(),
        parted,
    }
}
