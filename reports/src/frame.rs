//! The tables of a bundle, from Parquet to rows: the only place that knows their columns.
//!
//! A bundle may come from anywhere. A damaged file is an error that names file and column: sizes are
//! checked before anything is decoded, and a panic of the decoder is caught.

use std::path::Path;

use tritmark_proto::{
    bundle::{MEASUREMENT_COLUMNS, TOKEN_COLUMNS},
    job::Workload,
    record::{Grade, Outcome, Phase, Reading},
};

use crate::error::ReportError;

mod cells;
mod items;
mod rows;
mod table;

pub use cells::{CellRow, read_cells};
pub use rows::json_rows;

pub use items::{ItemRow, ScoreRow, read_items, read_items_of_version_1, read_scores};

use table::Table;

/// A row of the measurements.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasurementRow {
    /// Job.
    pub job_index: u32,
    /// Attempt of the job.
    pub attempt: u32,
    /// Position in the attempt.
    pub sequence: u64,
    /// Suite that made it.
    pub suite: String,
    /// Metric's name; a newer writer may know more metrics than this reader.
    pub metric: String,
    /// Unit of the value.
    pub unit: String,
    /// Part of the workload.
    pub phase: Option<Phase>,
    /// Token shape.
    pub workload: Option<Workload>,
    /// Repetition from 0.
    pub repetition: Option<u32>,
    /// The value, or why there is none.
    pub outcome: Outcome,
}

/// A row of the tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// Job.
    pub job_index: u32,
    /// Attempt of the job.
    pub attempt: u32,
    /// Position in the attempt.
    pub sequence: u64,
    /// Token shape.
    pub workload: Workload,
    /// Repetition from 0.
    pub repetition: u32,
    /// Position in the answer; 0 holds the time to first token.
    pub token_index: u32,
    /// The token.
    pub token_id: u32,
    /// Time since the token before, or since the prompt was handed over.
    pub elapsed_ns: u64,
}

/// Reads the measurements in the file's order.
pub fn read_measurements(path: &Path) -> Result<Vec<MeasurementRow>, ReportError> {
    let table = Table::read(path, &MEASUREMENT_COLUMNS)?;
    let job_index = table.required("job_index", table.u32("job_index")?)?;
    let attempt = table.required("attempt", table.u32("attempt")?)?;
    let sequence = table.required("sequence", table.u64("sequence")?)?;
    let suite = table.required("suite", table.text("suite")?)?;
    let metric = table.required("metric", table.text("metric")?)?;
    let unit = table.required("unit", table.text("unit")?)?;
    let phase = table.text("phase")?;
    let n_prompt = table.u32("n_prompt")?;
    let n_gen = table.u32("n_gen")?;
    let n_depth = table.u32("n_depth")?;
    let n_batch = table.u32("n_batch")?;
    let repetition = table.u32("repetition")?;
    let value = table.f64("value")?;
    let grade = table.text("grade")?;
    let source = table.text("source")?;
    let skipped_reason = table.text("skipped_reason")?;

    let bad = |column, row, what: &str| table.bad(column, row, what);
    (0..table.height())
        .map(|row| {
            let phase = match &phase[row] {
                None => None,
                Some(name) => Some(
                    name.parse::<Phase>()
                        .map_err(|error| bad("phase", row, &error.to_string()))?,
                ),
            };
            let workload = match (n_prompt[row], n_gen[row], n_depth[row], n_batch[row]) {
                (None, None, None, None) => None,
                (Some(n_prompt), Some(n_gen), Some(n_depth), Some(n_batch)) => Some(Workload {
                    n_prompt,
                    n_gen,
                    n_depth,
                    n_batch,
                }),
                _ => return Err(bad("n_prompt", row, "half a workload")),
            };
            let outcome = match (value[row], &skipped_reason[row]) {
                (Some(value), None) => {
                    if !value.is_finite() {
                        return Err(bad("value", row, "not a finite number"));
                    }
                    let grade = grade[row]
                        .as_ref()
                        .ok_or_else(|| bad("grade", row, "a value without a grade"))?;
                    Outcome::Reading(Reading {
                        value,
                        grade: grade
                            .parse::<Grade>()
                            .map_err(|error| bad("grade", row, &error.to_string()))?,
                        source: source[row].clone().unwrap_or_default(),
                    })
                }
                (None, Some(reason)) => Outcome::Skipped {
                    reason: reason.clone(),
                },
                (None, None) => return Err(bad("value", row, "neither a value nor a reason")),
                (Some(_), Some(_)) => {
                    return Err(bad("skipped_reason", row, "both a value and a reason"));
                }
            };
            Ok(MeasurementRow {
                job_index: job_index[row],
                attempt: attempt[row],
                sequence: sequence[row],
                suite: suite[row].clone(),
                metric: metric[row].clone(),
                unit: unit[row].clone(),
                phase,
                workload,
                repetition: repetition[row],
                outcome,
            })
        })
        .collect()
}

/// Reads the tokens in the file's order.
pub fn read_tokens(path: &Path) -> Result<Vec<TokenRow>, ReportError> {
    let table = Table::read(path, &TOKEN_COLUMNS)?;
    let job_index = table.required("job_index", table.u32("job_index")?)?;
    let attempt = table.required("attempt", table.u32("attempt")?)?;
    let sequence = table.required("sequence", table.u64("sequence")?)?;
    let n_prompt = table.required("n_prompt", table.u32("n_prompt")?)?;
    let n_gen = table.required("n_gen", table.u32("n_gen")?)?;
    let n_depth = table.required("n_depth", table.u32("n_depth")?)?;
    let n_batch = table.required("n_batch", table.u32("n_batch")?)?;
    let repetition = table.required("repetition", table.u32("repetition")?)?;
    let token_index = table.required("token_index", table.u32("token_index")?)?;
    let token_id = table.required("token_id", table.u32("token_id")?)?;
    let elapsed_ns = table.required("elapsed_ns", table.u64("elapsed_ns")?)?;

    Ok((0..table.height())
        .map(|row| TokenRow {
            job_index: job_index[row],
            attempt: attempt[row],
            sequence: sequence[row],
            workload: Workload {
                n_prompt: n_prompt[row],
                n_gen: n_gen[row],
                n_depth: n_depth[row],
                n_batch: n_batch[row],
            },
            repetition: repetition[row],
            token_index: token_index[row],
            token_id: token_id[row],
            elapsed_ns: elapsed_ns[row],
        })
        .collect())
}
