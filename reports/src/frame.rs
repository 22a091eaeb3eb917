//! The tables of a bundle, from Parquet to rows: the only place that knows their columns.
//!
//! A bundle may come from anywhere. A damaged file is an error that names file and column: sizes are
//! checked before anything is decoded, and a panic of the decoder is caught.

use std::{
    fs,
    io::Cursor,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use polars::prelude::*;
use tritmark_proto::{
    bundle::{ITEM_COLUMNS, MEASUREMENT_COLUMNS, TOKEN_COLUMNS},
    job::Workload,
    record::{Choice, Grade, Item, Outcome, Phase, Reading},
};

use crate::error::ReportError;

/// Most rows a table may claim; the largest real ones hold a few million tokens.
const MAX_ROWS: usize = 200_000_000;
/// Most bytes a table may claim to unpack to.
const MAX_UNPACKED_BYTES: usize = 16 << 30;

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

/// A row of the items.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemRow {
    /// Job.
    pub job_index: u32,
    /// Attempt of the job.
    pub attempt: u32,
    /// Position in the attempt.
    pub sequence: u64,
    /// The question and its answer.
    pub item: Item,
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

/// Reads the items in the file's order.
pub fn read_items(path: &Path) -> Result<Vec<ItemRow>, ReportError> {
    let table = Table::read(path, &ITEM_COLUMNS)?;
    let job_index = table.required("job_index", table.u32("job_index")?)?;
    let attempt = table.required("attempt", table.u32("attempt")?)?;
    let sequence = table.required("sequence", table.u64("sequence")?)?;
    let task = table.required("task", table.text("task")?)?;
    let item_index = table.required("item_index", table.u32("item_index")?)?;
    let doc_hash = table.required("doc_hash", table.text("doc_hash")?)?;
    let prompt_hash = table.required("prompt_hash", table.text("prompt_hash")?)?;
    let gold = table.required("gold", table.u32("gold")?)?;
    let predicted = table.required("predicted", table.u32("predicted")?)?;
    let predicted_norm = table.u32("predicted_norm")?;
    let loglikelihoods = table.f64_lists("loglikelihoods")?;
    let is_greedy = table.bool_lists("is_greedy")?;
    let choice_tokens = table.u32_lists("choice_tokens")?;
    let choice_chars = table.u32_lists("choice_chars")?;
    let elapsed_ns = table.required("elapsed_ns", table.u64("elapsed_ns")?)?;

    (0..table.height())
        .map(|row| {
            let n_choices = loglikelihoods[row].len();
            for (column, len) in [
                ("is_greedy", is_greedy[row].len()),
                ("choice_tokens", choice_tokens[row].len()),
                ("choice_chars", choice_chars[row].len()),
            ] {
                if len != n_choices {
                    let what = format!("{len} choices where `loglikelihoods` has {n_choices}");
                    return Err(table.bad(column, row, &what));
                }
            }
            let in_range = |column, choice: u32| {
                if (choice as usize) < n_choices {
                    return Ok(choice);
                }
                let what = format!("choice {choice} of {n_choices}");
                Err(table.bad(column, row, &what))
            };
            let choices = (0..n_choices)
                .map(|choice| Choice {
                    loglikelihood: loglikelihoods[row][choice],
                    is_greedy: is_greedy[row][choice],
                    n_tokens: choice_tokens[row][choice],
                    n_chars: choice_chars[row][choice],
                })
                .collect();
            Ok(ItemRow {
                job_index: job_index[row],
                attempt: attempt[row],
                sequence: sequence[row],
                item: Item {
                    task: task[row].clone(),
                    index: item_index[row],
                    doc_hash: doc_hash[row].clone(),
                    prompt_hash: prompt_hash[row].clone(),
                    gold: in_range("gold", gold[row])?,
                    choices,
                    predicted: in_range("predicted", predicted[row])?,
                    predicted_norm: predicted_norm[row]
                        .map(|choice| in_range("predicted_norm", choice))
                        .transpose()?,
                    elapsed_ns: elapsed_ns[row],
                },
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

/// A table in memory, its columns known to exist.
struct Table {
    path: PathBuf,
    frame: DataFrame,
}

impl Table {
    /// Reads `columns` of a file; other columns, which a newer writer may have, are left alone.
    fn read(path: &Path, columns: &'static [&'static str]) -> Result<Self, ReportError> {
        let bytes = fs::read(path).map_err(|source| ReportError::Read {
            path: path.to_owned(),
            source,
        })?;
        let frame = guarded(path, || {
            let mut reader = ParquetReader::new(Cursor::new(bytes.as_slice()));
            check_sizes(path, &mut reader)?;
            let schema = reader.schema().map_err(|error| unreadable(path, error))?;
            for column in columns {
                if !schema.contains(column) {
                    return Err(ReportError::MissingColumn {
                        path: path.to_owned(),
                        column,
                    });
                }
            }
            let wanted = columns.iter().map(|column| (*column).to_owned()).collect();
            let frame = reader
                .with_columns(Some(wanted))
                .finish()
                .map_err(|error| unreadable(path, error))?;
            frame
                .lazy()
                .select(
                    columns
                        .iter()
                        .map(|column| col(*column))
                        .collect::<Vec<_>>(),
                )
                .collect()
                .map_err(|error| unreadable(path, error))
        })?;
        Ok(Self {
            path: path.to_owned(),
            frame,
        })
    }

    fn height(&self) -> usize {
        self.frame.height()
    }

    fn bad(&self, column: &'static str, row: usize, what: &str) -> ReportError {
        ReportError::BadValue {
            path: self.path.clone(),
            column,
            row,
            what: what.to_owned(),
        }
    }

    fn column(&self, name: &'static str, expected: &DataType) -> Result<&Column, ReportError> {
        let column = self
            .frame
            .column(name)
            .map_err(|_| ReportError::MissingColumn {
                path: self.path.clone(),
                column: name,
            })?;
        if column.dtype() != expected {
            return Err(ReportError::ColumnType {
                path: self.path.clone(),
                column: name,
                found: column.dtype().to_string(),
                expected: expected.to_string(),
            });
        }
        Ok(column)
    }

    fn broken(&self, error: PolarsError) -> ReportError {
        unreadable(&self.path, error)
    }

    fn u32(&self, name: &'static str) -> Result<Vec<Option<u32>>, ReportError> {
        let column = self.column(name, &DataType::UInt32)?;
        let values = column.u32().map_err(|error| self.broken(error))?;
        Ok(values.iter().collect())
    }

    fn u64(&self, name: &'static str) -> Result<Vec<Option<u64>>, ReportError> {
        let column = self.column(name, &DataType::UInt64)?;
        let values = column.u64().map_err(|error| self.broken(error))?;
        Ok(values.iter().collect())
    }

    fn f64(&self, name: &'static str) -> Result<Vec<Option<f64>>, ReportError> {
        let column = self.column(name, &DataType::Float64)?;
        let values = column.f64().map_err(|error| self.broken(error))?;
        Ok(values.iter().collect())
    }

    fn text(&self, name: &'static str) -> Result<Vec<Option<String>>, ReportError> {
        let column = self.column(name, &DataType::String)?;
        let values = column.str().map_err(|error| self.broken(error))?;
        Ok(values.iter().map(|text| text.map(str::to_owned)).collect())
    }

    fn required<T>(
        &self,
        column: &'static str,
        values: Vec<Option<T>>,
    ) -> Result<Vec<T>, ReportError> {
        values
            .into_iter()
            .enumerate()
            .map(|(row, value)| value.ok_or_else(|| self.bad(column, row, "no value")))
            .collect()
    }

    fn lists<T>(
        &self,
        name: &'static str,
        inner: DataType,
        read: impl Fn(&Series) -> PolarsResult<Vec<Option<T>>>,
    ) -> Result<Vec<Vec<T>>, ReportError> {
        let column = self.column(name, &DataType::List(Box::new(inner)))?;
        let lists = column.list().map_err(|error| self.broken(error))?;
        (0..self.height())
            .map(|row| {
                let series = lists
                    .get_as_series(row)
                    .ok_or_else(|| self.bad(name, row, "no list"))?;
                read(&series)
                    .map_err(|error| self.broken(error))?
                    .into_iter()
                    .collect::<Option<Vec<T>>>()
                    .ok_or_else(|| self.bad(name, row, "a list with holes"))
            })
            .collect()
    }

    fn f64_lists(&self, name: &'static str) -> Result<Vec<Vec<f64>>, ReportError> {
        self.lists(name, DataType::Float64, |series| {
            Ok(series.f64()?.iter().collect())
        })
    }

    fn u32_lists(&self, name: &'static str) -> Result<Vec<Vec<u32>>, ReportError> {
        self.lists(name, DataType::UInt32, |series| {
            Ok(series.u32()?.iter().collect())
        })
    }

    fn bool_lists(&self, name: &'static str) -> Result<Vec<Vec<bool>>, ReportError> {
        self.lists(name, DataType::Boolean, |series| {
            Ok(series.bool()?.iter().collect())
        })
    }
}

fn unreadable(path: &Path, source: PolarsError) -> ReportError {
    ReportError::ReadTable {
        path: path.to_owned(),
        source: Box::new(source),
    }
}

/// Refuses sizes that no run has, before they are allocated.
fn check_sizes(path: &Path, reader: &mut ParquetReader<Cursor<&[u8]>>) -> Result<(), ReportError> {
    let metadata = reader
        .get_metadata()
        .map_err(|error| unreadable(path, error))?;
    let damaged = |what: String| ReportError::DamagedTable {
        path: path.to_owned(),
        what,
    };
    let in_groups = metadata
        .row_groups
        .iter()
        .try_fold(0_usize, |sum, group| sum.checked_add(group.num_rows()));
    if in_groups != Some(metadata.num_rows) {
        return Err(damaged(format!(
            "its row groups do not add up to the {} rows it claims",
            metadata.num_rows
        )));
    }
    if metadata.num_rows > MAX_ROWS {
        return Err(damaged(format!("it claims {} rows", metadata.num_rows)));
    }
    let unpacked = metadata.row_groups.iter().try_fold(0_usize, |sum, group| {
        sum.checked_add(group.total_byte_size())
    });
    if unpacked.is_none_or(|bytes| bytes > MAX_UNPACKED_BYTES) {
        return Err(damaged(
            "it claims to unpack to more than 16 GiB".to_owned(),
        ));
    }
    Ok(())
}

/// Turns a panic of the Parquet decoder, which some damaged files provoke, into an error.
fn guarded<T>(
    path: &Path,
    read: impl FnOnce() -> Result<T, ReportError>,
) -> Result<T, ReportError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|payload| {
        let message = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(ReportError::DamagedTable {
            path: path.to_owned(),
            what: format!("the decoder gave up ({message})"),
        })
    })
}
