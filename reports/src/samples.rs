//! `samples.parquet`: every token, every item and every score of a run in one long table.
//!
//! `kind` is `token`, `item` or `score`; columns of other kinds are null, but for `task` to
//! `prompt_hash`, which scores share with their items. Whatever the summary leaves out,
//! such as what a failed job had recorded before it failed, is here.

use polars::prelude::*;
use tritmark_proto::{
    bundle::JobOutcome,
    record::{Choice, ChoiceAnswer, GeneratedAnswer, Item, ItemEnergy, ItemScore, RollingAnswer},
};

use crate::{
    bundle::Bundle,
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

/// A row of any kind.
#[derive(Clone, Copy)]
enum Sample<'a> {
    Token(&'a TokenRow),
    Item(&'a ItemRow),
    Score(&'a ItemRow, &'a ItemScore),
}

impl<'a> Sample<'a> {
    fn job_index(self) -> u32 {
        match self {
            Self::Token(row) => row.job_index,
            Self::Item(row) | Self::Score(row, _) => row.job_index,
        }
    }

    fn token(self) -> Option<&'a TokenRow> {
        match self {
            Self::Token(row) => Some(row),
            Self::Item(_) | Self::Score(..) => None,
        }
    }

    /// Returns the item of an item's row or of a score's.
    fn subject(self) -> Option<&'a Item> {
        match self {
            Self::Token(_) => None,
            Self::Item(row) | Self::Score(row, _) => Some(&row.item),
        }
    }

    fn item(self) -> Option<&'a Item> {
        match self {
            Self::Item(row) => Some(&row.item),
            Self::Token(_) | Self::Score(..) => None,
        }
    }

    fn score(self) -> Option<&'a ItemScore> {
        match self {
            Self::Score(_, score) => Some(score),
            Self::Token(_) | Self::Item(_) => None,
        }
    }

    fn choice(self) -> Option<&'a ChoiceAnswer> {
        self.item()?.choice()
    }

    fn choices(self) -> Option<&'a [Choice]> {
        Some(&self.choice()?.choices)
    }

    fn energy(self) -> Option<&'a [ItemEnergy]> {
        Some(&self.item()?.energy)
    }

    fn generated(self) -> Option<&'a GeneratedAnswer> {
        self.item()?.generated()
    }

    fn rolling(self) -> Option<&'a RollingAnswer> {
        self.item()?.rolling()
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
        .chain(bundle.items.iter().flat_map(|row| {
            let scores = row.item.scores.iter();
            std::iter::once(Sample::Item(row)).chain(scores.map(|score| Sample::Score(row, score)))
        }))
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
    // Of what a row may not have.
    macro_rules! of {
        ($part:ident, $value:expr) => {
            samples
                .iter()
                .map(|(sample, _)| sample.$part().map($value))
                .collect::<Vec<_>>()
        };
    }
    macro_rules! maybe_of {
        ($part:ident, $value:expr) => {
            samples
                .iter()
                .map(|(sample, _)| sample.$part().and_then($value))
                .collect::<Vec<_>>()
        };
    }
    macro_rules! lists {
        ($name:literal, $parts:ident, $type:expr, $value:expr) => {{
            let lists: Vec<Option<Series>> = samples
                .iter()
                .map(|(sample, _)| {
                    let values: Vec<_> = sample.$parts()?.iter().map($value).collect();
                    Some(Series::new(PlSmallStr::EMPTY, values))
                })
                .collect();
            Series::new($name.into(), lists).cast(&DataType::List(Box::new($type)))?
        }};
    }
    let is_right = |metric: &'static str| {
        move |item: &Item| {
            let answer = item.score(metric, tritmark_proto::record::NO_FILTER)?;
            Some(answer.value? >= 1.0)
        }
    };
    df!(
        "kind" => samples.iter().map(|(sample, _)| match sample {
            Sample::Token(_) => "token",
            Sample::Item(_) => "item",
            Sample::Score(..) => "score",
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
        "n_prompt" => of!(token, |token| token.workload.n_prompt),
        "n_gen" => of!(token, |token| token.workload.n_gen),
        "n_depth" => of!(token, |token| token.workload.n_depth),
        "n_batch" => of!(token, |token| token.workload.n_batch),
        "repetition" => of!(token, |token| token.repetition),
        "token_index" => of!(token, |token| token.token_index),
        "token_id" => of!(token, |token| token.token_id),
        "task" => of!(subject, |item| item.task.clone()),
        "group" => maybe_of!(subject, |item| item.group.clone()),
        "item_index" => of!(subject, |item| item.index),
        "doc_hash" => of!(subject, |item| item.doc_hash.clone()),
        "prompt_hash" => of!(subject, |item| item.prompt_hash.clone()),
        "gold" => of!(choice, |answer| answer.gold),
        "predicted" => of!(choice, |answer| answer.predicted),
        "predicted_norm" => maybe_of!(choice, |answer| answer.predicted_norm),
        "acc" => maybe_of!(item, is_right("acc")),
        "acc_norm" => maybe_of!(item, is_right("acc_norm")),
        "loglikelihoods" => lists!("loglikelihoods", choices, DataType::Float64, |c: &Choice| c.loglikelihood),
        "is_greedy" => lists!("is_greedy", choices, DataType::Boolean, |c: &Choice| c.is_greedy),
        "choice_tokens" => lists!("choice_tokens", choices, DataType::UInt32, |c: &Choice| c.n_tokens),
        "choice_chars" => lists!("choice_chars", choices, DataType::UInt32, |c: &Choice| c.n_chars),
        "text" => of!(generated, |answer| answer.text.clone()),
        "target" => of!(generated, |answer| answer.target.clone()),
        "end" => of!(generated, |answer| answer.end.clone()),
        "n_prompt_tokens" => of!(generated, |answer| answer.n_prompt_tokens),
        "n_tokens" => maybe_of!(item, Item::n_tokens),
        "rolling_loglikelihood" => of!(rolling, |answer| answer.loglikelihood),
        "n_words" => of!(rolling, |answer| answer.n_words),
        "n_bytes" => of!(rolling, |answer| answer.n_bytes),
        "metric" => of!(score, |score| score.metric.clone()),
        "filter" => of!(score, |score| score.filter.clone()),
        "value" => maybe_of!(score, |score| score.value),
        "extracted" => maybe_of!(score, |score| score.extracted.clone()),
        "reason" => maybe_of!(score, |score| score.reason.clone()),
        "elapsed_ns" => samples.iter().map(|(sample, _)| match sample {
            Sample::Token(row) => Some(row.elapsed_ns),
            Sample::Item(row) => row.item.elapsed_ns,
            Sample::Score(..) => None,
        }).collect::<Vec<_>>(),
        "energy_sources" => lists!("energy_sources", energy, DataType::String, |e: &ItemEnergy| e.source.clone()),
        "energy_j" => lists!("energy_j", energy, DataType::Float64, |e: &ItemEnergy| e.joules),
    )
}
