//! The table of an agreement's cells.

use std::{num::NonZeroU32, path::Path};

use tritmark_proto::{
    bundle::AGREEMENT_COLUMNS,
    record::{AgreementCell, Parted},
};

use super::table::Table;
use crate::error::ReportError;

/// A row of the cells.
#[derive(Clone, Debug, PartialEq)]
pub struct CellRow {
    /// Job.
    pub job_index: u32,
    /// Attempt of the job.
    pub attempt: u32,
    /// Position in the attempt.
    pub sequence: u64,
    /// The cell.
    pub cell: AgreementCell,
}

/// Reads the cells in the file's order.
pub fn read_cells(path: &Path) -> Result<Vec<CellRow>, ReportError> {
    let table = Table::read(path, &AGREEMENT_COLUMNS)?;
    let job_index = table.required("job_index", table.u32("job_index")?)?;
    let attempt = table.required("attempt", table.u32("attempt")?)?;
    let sequence = table.required("sequence", table.u64("sequence")?)?;
    let kernel = table.required("kernel", table.text("kernel")?)?;
    let threads = table.required("threads", table.u32("threads")?)?;
    let n_batch = table.required("n_batch", table.u32("n_batch")?)?;
    let reused_prefix = table.required("reused_prefix", table.flags("reused_prefix")?)?;
    let equal = table.required("equal", table.u64("equal")?)?;
    let positions = table.required("positions", table.u64("positions")?)?;
    let fingerprint = table.required("fingerprint", table.text("fingerprint")?)?;
    let reference = table.required("reference", table.text("reference")?)?;
    let parted = read_parted(&table)?;

    let number = |column, row: usize, value: u32| {
        NonZeroU32::new(value).ok_or_else(|| table.bad(column, row, "must be at least 1"))
    };
    (0..table.height())
        .map(|row| {
            let cell = AgreementCell {
                kernel: kernel[row].clone(),
                threads: number("threads", row, threads[row])?,
                n_batch: number("n_batch", row, n_batch[row])?,
                reused_prefix: reused_prefix[row],
                equal: equal[row],
                positions: positions[row],
                fingerprint: fingerprint[row].clone(),
                reference: reference[row].clone(),
                parted: parted[row],
            };
            if let Some(what) = cell.contradiction() {
                return Err(table.bad("equal", row, &what));
            }
            Ok(CellRow {
                job_index: job_index[row],
                attempt: attempt[row],
                sequence: sequence[row],
                cell,
            })
        })
        .collect()
}

/// Reads where each cell parts first: all of its columns have a value, or none has.
fn read_parted(table: &Table) -> Result<Vec<Option<Parted>>, ReportError> {
    let prompt = table.u32("prompt")?;
    let position = table.u32("position")?;
    let max_abs = table.f64("max_abs")?;
    let kl = table.f64("kl")?;
    let margin = table.f64("margin")?;
    let expected = table.u32("expected")?;
    let found = table.u32("found")?;
    (0..table.height())
        .map(|row| {
            let whole = (
                prompt[row],
                position[row],
                max_abs[row],
                kl[row],
                margin[row],
                expected[row],
                found[row],
            );
            match whole {
                (None, None, None, None, None, None, None) => Ok(None),
                (
                    Some(prompt),
                    Some(position),
                    Some(max_abs),
                    Some(kl),
                    Some(margin),
                    Some(expected),
                    Some(found),
                ) => Ok(Some(Parted {
                    prompt,
                    position,
                    // Both were written from 32 bits.
                    max_abs: max_abs as f32,
                    kl,
                    margin: margin as f32,
                    expected,
                    found,
                })),
                _ => Err(table.bad("prompt", row, "half a difference")),
            }
        })
        .collect()
}
