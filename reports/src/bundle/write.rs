//! Writes a bundle's folder, as a coordinator does: for runs that come from other programs.

use std::{fs, path::Path};

use polars::prelude::*;
use tritmark_proto::{
    bundle::{AGREEMENT, ITEMS, MANIFEST, MEASUREMENTS, SCORES, TOKENS},
    record::{Choice, Item, ItemEnergy, Outcome},
};

use super::Bundle;
use crate::{error::ReportError, report::replace};

impl Bundle {
    /// Writes the bundle into `dir`, which is made where it is missing; the manifest comes last.
    ///
    /// Records have no times of their own here: `at_unix_ns` counts on from the run's start.
    ///
    /// # Errors
    ///
    /// Fails where a table cannot be built or a file not be written.
    pub fn write(&self, dir: &Path) -> Result<(), ReportError> {
        fs::create_dir_all(dir).map_err(|source| ReportError::Write {
            path: dir.to_owned(),
            source,
        })?;
        for (name, frame) in [
            (MEASUREMENTS, measurements(self)),
            (ITEMS, items(self)),
            (SCORES, scores(self)),
            (TOKENS, tokens(self)),
            (AGREEMENT, cells(self)),
        ] {
            let bytes = frame
                .and_then(parquet)
                .map_err(|source| ReportError::BuildTable {
                    name,
                    source: Box::new(source),
                })?;
            replace(&dir.join(name), &bytes)?;
        }
        let mut manifest = serde_json::to_vec_pretty(&self.manifest).map_err(ReportError::Json)?;
        manifest.push(b'\n');
        replace(&dir.join(MANIFEST), &manifest)
    }

    fn at_unix_ns(&self, sequence: u64) -> i64 {
        let start = self.manifest.run.submitted_at.as_nanosecond();
        i64::try_from(start)
            .unwrap_or_default()
            .saturating_add(i64::try_from(sequence).unwrap_or(i64::MAX))
    }
}

/// Returns a table as a Parquet file.
pub(crate) fn parquet(mut frame: DataFrame) -> PolarsResult<Vec<u8>> {
    let mut bytes = Vec::new();
    ParquetWriter::new(&mut bytes).finish(&mut frame)?;
    Ok(bytes)
}

/// Builds the table of measurements.
pub(crate) fn measurements(bundle: &Bundle) -> PolarsResult<DataFrame> {
    let rows = &bundle.measurements;
    let reading = |row: &crate::frame::MeasurementRow| match &row.outcome {
        Outcome::Reading(reading) => Some(reading.clone()),
        Outcome::Skipped { .. } => None,
    };
    let reason = |row: &crate::frame::MeasurementRow| match &row.outcome {
        Outcome::Reading(_) => None,
        Outcome::Skipped { reason } => Some(reason.clone()),
    };
    macro_rules! column {
        ($value:expr) => {
            rows.iter().map($value).collect::<Vec<_>>()
        };
    }
    df!(
        "job_index" => column!(|row| row.job_index),
        "attempt" => column!(|row| row.attempt),
        "sequence" => column!(|row| row.sequence),
        "at_unix_ns" => column!(|row| bundle.at_unix_ns(row.sequence)),
        "suite" => column!(|row| row.suite.clone()),
        "metric" => column!(|row| row.metric.clone()),
        "unit" => column!(|row| row.unit.clone()),
        "phase" => column!(|row| row.phase.map(tritmark_proto::record::Phase::name)),
        "n_prompt" => column!(|row| row.workload.map(|workload| workload.n_prompt)),
        "n_gen" => column!(|row| row.workload.map(|workload| workload.n_gen)),
        "n_depth" => column!(|row| row.workload.map(|workload| workload.n_depth)),
        "n_batch" => column!(|row| row.workload.map(|workload| workload.n_batch)),
        "repetition" => column!(|row| row.repetition),
        "value" => column!(|row| reading(row).map(|reading| reading.value)),
        "grade" => column!(|row| reading(row).map(|reading| reading.grade.name())),
        "source" => column!(|row| reading(row).map(|reading| reading.source)),
        "skipped_reason" => column!(reason),
    )
}

/// Builds the table of items.
pub(crate) fn items(bundle: &Bundle) -> PolarsResult<DataFrame> {
    let rows = &bundle.items;
    macro_rules! column {
        ($value:expr) => {
            rows.iter().map($value).collect::<Vec<_>>()
        };
    }
    macro_rules! lists {
        ($name:literal, $parts:expr, $type:expr, $value:expr) => {{
            let lists: Vec<Series> = rows
                .iter()
                .map(|row| {
                    let values = $parts(&row.item).iter().map($value).collect::<Vec<_>>();
                    Series::new(PlSmallStr::EMPTY, values)
                })
                .collect();
            Series::new($name.into(), lists).cast(&DataType::List(Box::new($type)))?
        }};
    }
    df!(
        "job_index" => column!(|row| row.job_index),
        "attempt" => column!(|row| row.attempt),
        "sequence" => column!(|row| row.sequence),
        "at_unix_ns" => column!(|row| bundle.at_unix_ns(row.sequence)),
        "task" => column!(|row| row.item.task.clone()),
        "group" => column!(|row| row.item.group.clone()),
        "item_index" => column!(|row| row.item.index),
        "doc_hash" => column!(|row| row.item.doc_hash.clone()),
        "prompt_hash" => column!(|row| row.item.prompt_hash.clone()),
        "gold" => column!(|row| row.item.choice().map(|answer| answer.gold)),
        "predicted" => column!(|row| row.item.choice().map(|answer| answer.predicted)),
        "predicted_norm" => column!(|row| row.item.choice().and_then(|answer| answer.predicted_norm)),
        "loglikelihoods" => lists!("loglikelihoods", Item::choices, DataType::Float64, |c: &Choice| c.loglikelihood),
        "is_greedy" => lists!("is_greedy", Item::choices, DataType::Boolean, |c: &Choice| c.is_greedy),
        "choice_tokens" => lists!("choice_tokens", Item::choices, DataType::UInt32, |c: &Choice| c.n_tokens),
        "choice_chars" => lists!("choice_chars", Item::choices, DataType::UInt32, |c: &Choice| c.n_chars),
        "text" => column!(|row| row.item.generated().map(|answer| answer.text.clone())),
        "target" => column!(|row| row.item.generated().map(|answer| answer.target.clone())),
        "end" => column!(|row| row.item.generated().map(|answer| answer.end.clone())),
        "n_prompt_tokens" => column!(|row| row.item.generated().map(|answer| answer.n_prompt_tokens)),
        "n_tokens" => column!(|row| row.item.n_tokens()),
        "rolling_loglikelihood" => column!(|row| row.item.rolling().map(|answer| answer.loglikelihood)),
        "n_words" => column!(|row| row.item.rolling().map(|answer| answer.n_words)),
        "n_bytes" => column!(|row| row.item.rolling().map(|answer| answer.n_bytes)),
        "elapsed_ns" => column!(|row| row.item.elapsed_ns),
        "from_cache" => column!(|row| row.item.from_cache.map(|origin| origin.to_string())),
        "scored_on" => column!(|row| row.item.scored_on.clone()),
        "energy_sources" => lists!("energy_sources", energy, DataType::String, |e: &ItemEnergy| e.source.clone()),
        "energy_j" => lists!("energy_j", energy, DataType::Float64, |e: &ItemEnergy| e.joules),
    )
}

fn energy(item: &Item) -> &[ItemEnergy] {
    &item.energy
}

/// Builds the table of scores.
pub(crate) fn scores(bundle: &Bundle) -> PolarsResult<DataFrame> {
    let rows: Vec<_> = bundle
        .items
        .iter()
        .flat_map(|row| row.item.scores.iter().map(move |score| (row, score)))
        .collect();
    macro_rules! column {
        ($value:expr) => {
            rows.iter().map($value).collect::<Vec<_>>()
        };
    }
    df!(
        "job_index" => column!(|(row, _)| row.job_index),
        "attempt" => column!(|(row, _)| row.attempt),
        "sequence" => column!(|(row, _)| row.sequence),
        "task" => column!(|(row, _)| row.item.task.clone()),
        "item_index" => column!(|(row, _)| row.item.index),
        "metric" => column!(|(_, score)| score.metric.clone()),
        "filter" => column!(|(_, score)| score.filter.clone()),
        "value" => column!(|(_, score)| score.value),
        "extracted" => column!(|(_, score)| score.extracted.clone()),
        "reason" => column!(|(_, score)| score.reason.clone()),
        "pending" => column!(|(_, score)| score.pending),
    )
}

/// Builds the table of tokens.
pub(crate) fn tokens(bundle: &Bundle) -> PolarsResult<DataFrame> {
    let rows = &bundle.tokens;
    macro_rules! column {
        ($value:expr) => {
            rows.iter().map($value).collect::<Vec<_>>()
        };
    }
    df!(
        "job_index" => column!(|row| row.job_index),
        "attempt" => column!(|row| row.attempt),
        "sequence" => column!(|row| row.sequence),
        "n_prompt" => column!(|row| row.workload.n_prompt),
        "n_gen" => column!(|row| row.workload.n_gen),
        "n_depth" => column!(|row| row.workload.n_depth),
        "n_batch" => column!(|row| row.workload.n_batch),
        "repetition" => column!(|row| row.repetition),
        "token_index" => column!(|row| row.token_index),
        "token_id" => column!(|row| row.token_id),
        "elapsed_ns" => column!(|row| row.elapsed_ns),
    )
}

/// Builds the table of cells.
pub(crate) fn cells(bundle: &Bundle) -> PolarsResult<DataFrame> {
    let rows = &bundle.cells;
    macro_rules! column {
        ($value:expr) => {
            rows.iter().map($value).collect::<Vec<_>>()
        };
    }
    macro_rules! parted {
        ($value:expr) => {
            column!(|row| row.cell.parted.map($value))
        };
    }
    df!(
        "job_index" => column!(|row| row.job_index),
        "attempt" => column!(|row| row.attempt),
        "sequence" => column!(|row| row.sequence),
        "at_unix_ns" => column!(|row| bundle.at_unix_ns(row.sequence)),
        "kernel" => column!(|row| row.cell.kernel.clone()),
        "threads" => column!(|row| row.cell.threads.get()),
        "n_batch" => column!(|row| row.cell.n_batch.get()),
        "reused_prefix" => column!(|row| row.cell.reused_prefix),
        "equal" => column!(|row| row.cell.equal),
        "positions" => column!(|row| row.cell.positions),
        "fingerprint" => column!(|row| row.cell.fingerprint.clone()),
        "reference" => column!(|row| row.cell.reference.clone()),
        "prompt" => parted!(|parted| parted.prompt),
        "position" => parted!(|parted| parted.position),
        "max_abs" => parted!(|parted| f64::from(parted.max_abs)),
        "kl" => parted!(|parted| parted.kl),
        "margin" => parted!(|parted| f64::from(parted.margin)),
        "expected" => parted!(|parted| parted.expected),
        "found" => parted!(|parted| parted.found),
    )
}
