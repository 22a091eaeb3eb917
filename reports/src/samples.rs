//! `samples.parquet`: every token and every item of a run in one long table.
//!
//! `kind` is `token` or `item`; columns of the other kind are null. Whatever the summary leaves out,
//! such as what a failed job had recorded before it failed, is here.

use polars::prelude::*;
use tritmark_proto::{
    bundle::JobOutcome,
    record::{Choice, Item},
};

use crate::{
    bundle::Bundle,
    compare::Score,
    error::ReportError,
    frame::{ItemRow, TokenRow},
    summary::context::Context,
};

/// The file's name.
pub const NAME: &str = "samples.parquet";

/// Returns the table as a Parquet file.
pub fn render(bundle: &Bundle) -> Result<Vec<u8>, ReportError> {
    build(bundle).map_err(|source| ReportError::BuildTable {
        name: NAME,
        source: Box::new(source),
    })
}

fn build(bundle: &Bundle) -> PolarsResult<Vec<u8>> {
    let mut frame = table(bundle)?;
    let mut bytes = Vec::new();
    ParquetWriter::new(&mut bytes)
        .with_compression(ParquetCompression::Zstd(None))
        .finish(&mut frame)?;
    Ok(bytes)
}

/// A row of either kind.
#[derive(Clone, Copy)]
enum Sample<'a> {
    Token(&'a TokenRow),
    Item(&'a ItemRow),
}

impl<'a> Sample<'a> {
    fn job_index(self) -> u32 {
        match self {
            Self::Token(row) => row.job_index,
            Self::Item(row) => row.job_index,
        }
    }

    fn token(self) -> Option<&'a TokenRow> {
        match self {
            Self::Token(row) => Some(row),
            Self::Item(_) => None,
        }
    }

    fn item(self) -> Option<&'a Item> {
        match self {
            Self::Token(_) => None,
            Self::Item(row) => Some(&row.item),
        }
    }
}

#[expect(clippy::too_many_lines, reason = "a line for each column")]
fn table(bundle: &Bundle) -> PolarsResult<DataFrame> {
    let context = Context::new(bundle);
    let jobs: std::collections::HashMap<u32, &JobOutcome> = bundle
        .manifest
        .jobs
        .iter()
        .map(|outcome| (outcome.job.id.index, outcome))
        .collect();
    let mut samples: Vec<(Sample<'_>, &JobOutcome)> = bundle
        .tokens
        .iter()
        .map(Sample::Token)
        .chain(bundle.items.iter().map(Sample::Item))
        .filter_map(|sample| Some((sample, *jobs.get(&sample.job_index())?)))
        .collect();
    // Stable: tokens and items keep their order within a job.
    samples.sort_by_key(|(sample, _)| sample.job_index());

    let run = bundle.manifest.run.id.to_string();
    macro_rules! of_job {
        ($value:expr) => {
            samples
                .iter()
                .map(|(_, outcome)| $value(*outcome))
                .collect::<Vec<_>>()
        };
    }
    macro_rules! of_token {
        ($value:expr) => {
            samples
                .iter()
                .map(|(sample, _)| sample.token().map($value))
                .collect::<Vec<_>>()
        };
    }
    macro_rules! of_item {
        ($value:expr) => {
            samples
                .iter()
                .map(|(sample, _)| sample.item().map($value))
                .collect::<Vec<_>>()
        };
    }
    macro_rules! of_answer {
        ($value:expr) => {
            samples
                .iter()
                .map(|(sample, _)| sample.item().and_then($value))
                .collect::<Vec<_>>()
        };
    }
    macro_rules! lists {
        ($name:literal, $type:expr, $value:expr) => {{
            let lists: Vec<Option<Series>> = samples
                .iter()
                .map(|(sample, _)| {
                    let choices = &sample.item()?.choices;
                    let values: Vec<_> = choices.iter().map($value).collect();
                    Some(Series::new(PlSmallStr::EMPTY, values))
                })
                .collect();
            Series::new($name.into(), lists).cast(&DataType::List(Box::new($type)))?
        }};
    }
    df!(
        "kind" => samples.iter().map(|(sample, _)| match sample {
            Sample::Token(_) => "token",
            Sample::Item(_) => "item",
        }).collect::<Vec<_>>(),
        "run" => vec![run; samples.len()],
        "job_index" => of_job!(|outcome: &JobOutcome| outcome.job.id.index),
        "state" => of_job!(|outcome: &JobOutcome| outcome.state.name()),
        "machine_id" => of_job!(|outcome: &JobOutcome| outcome.machine_id.clone()),
        "machine" => of_job!(|outcome: &JobOutcome| {
            bundle.machine_of(outcome).map(|machine| machine.hostname.clone())
        }),
        "model" => of_job!(|outcome: &JobOutcome| outcome.job.model.id.clone()),
        "role" => of_job!(|outcome: &JobOutcome| context.role(&outcome.job.model.id).name()),
        "weight_format" => of_job!(|outcome: &JobOutcome| {
            outcome.facts.as_ref().map(|facts| facts.weight_format.clone())
        }),
        "kernel" => of_job!(|outcome: &JobOutcome| {
            outcome
                .facts
                .as_ref()
                .map_or_else(|| outcome.job.kernel.clone(), |facts| facts.kernel.clone())
        }),
        "threads" => of_job!(|outcome: &JobOutcome| outcome.job.threads.get()),
        "suite" => of_job!(|outcome: &JobOutcome| outcome.job.suite.name()),
        "n_prompt" => of_token!(|token| token.workload.n_prompt),
        "n_gen" => of_token!(|token| token.workload.n_gen),
        "n_depth" => of_token!(|token| token.workload.n_depth),
        "n_batch" => of_token!(|token| token.workload.n_batch),
        "repetition" => of_token!(|token| token.repetition),
        "token_index" => of_token!(|token| token.token_index),
        "token_id" => of_token!(|token| token.token_id),
        "task" => of_item!(|item| item.task.clone()),
        "item_index" => of_item!(|item| item.index),
        "doc_hash" => of_item!(|item| item.doc_hash.clone()),
        "prompt_hash" => of_item!(|item| item.prompt_hash.clone()),
        "gold" => of_item!(|item| item.gold),
        "predicted" => of_item!(|item| item.predicted),
        "predicted_norm" => of_answer!(|item| item.predicted_norm),
        "acc" => of_answer!(|item| Score::Acc.is_right(item)),
        "acc_norm" => of_answer!(|item| Score::AccNorm.is_right(item)),
        "loglikelihoods" => lists!("loglikelihoods", DataType::Float64, |c: &Choice| c.loglikelihood),
        "is_greedy" => lists!("is_greedy", DataType::Boolean, |c: &Choice| c.is_greedy),
        "choice_tokens" => lists!("choice_tokens", DataType::UInt32, |c: &Choice| c.n_tokens),
        "choice_chars" => lists!("choice_chars", DataType::UInt32, |c: &Choice| c.n_chars),
        "elapsed_ns" => samples.iter().map(|(sample, _)| match sample {
            Sample::Token(row) => row.elapsed_ns,
            Sample::Item(row) => row.item.elapsed_ns,
        }).collect::<Vec<_>>(),
    )
}
