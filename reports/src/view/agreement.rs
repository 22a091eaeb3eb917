//! One table an agreement: kernels and threads down, machine by machine, batches across.

use serde::Serialize;
use tritmark_proto::record::{AgreementCell, Parted};

use super::Cell;
use crate::{
    agreement::{self, CellsOfJob, Group, Verdict},
    bundle::Bundle,
    units,
};

/// An agreement of one model.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AgreementTable {
    pub(crate) model: String,
    /// What was evaluated, and how.
    pub(crate) setting: String,
    pub(crate) sentences: Vec<String>,
    pub(crate) agrees: bool,
    /// Batches, with and without a reused prefix.
    pub(crate) columns: Vec<String>,
    pub(crate) machines: Vec<MachineCells>,
}

/// What one machine gave.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MachineCells {
    pub(crate) machine: String,
    /// Of its reference.
    pub(crate) fingerprint: String,
    pub(crate) verdict: String,
    pub(crate) lines: Vec<CellLine>,
    /// Where cells part, each in a sentence.
    pub(crate) differences: Vec<String>,
}

/// One kernel with one number of threads.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CellLine {
    pub(crate) kernel: String,
    pub(crate) threads: String,
    pub(crate) cells: Vec<Cell>,
}

/// Returns the agreements in the order of their jobs.
pub(super) fn tables(bundle: &Bundle) -> Vec<AgreementTable> {
    agreement::groups(bundle).iter().map(table).collect()
}

/// A batch, and whether each prompt stands behind a reused prefix.
type Column = (bool, u32);

fn column_of(cell: &AgreementCell) -> Column {
    (cell.reused_prefix, cell.n_batch.get())
}

fn table(group: &Group<'_>) -> AgreementTable {
    let cells = group.jobs.iter().flat_map(|job| &job.cells);
    let mut columns: Vec<Column> = cells.map(|cell| column_of(cell)).collect();
    columns.sort_unstable();
    columns.dedup();
    let Verdict {
        model,
        setting,
        agrees,
        sentences,
    } = group.verdict();
    AgreementTable {
        model,
        setting,
        sentences,
        agrees,
        columns: columns.iter().copied().map(column_name).collect(),
        machines: group
            .jobs
            .iter()
            .map(|job| machine(job, &columns))
            .collect(),
    }
}

fn column_name((reused_prefix, n_batch): Column) -> String {
    let prefix = if reused_prefix { ", reused prefix" } else { "" };
    format!("batch {n_batch}{prefix}")
}

fn machine(job: &CellsOfJob<'_>, columns: &[Column]) -> MachineCells {
    let mut subjects: Vec<(&str, u32)> = Vec::new();
    for cell in &job.cells {
        let subject = (&*cell.kernel, cell.threads.get());
        if !subjects.contains(&subject) {
            subjects.push(subject);
        }
    }
    let lines = subjects
        .into_iter()
        .map(|(kernel, threads)| CellLine {
            kernel: kernel.to_owned(),
            threads: threads.to_string(),
            cells: columns
                .iter()
                .map(|column| {
                    let found = job.cells.iter().find(|cell| {
                        (&*cell.kernel, cell.threads.get(), column_of(cell))
                            == (kernel, threads, *column)
                    });
                    found.map_or_else(Cell::none, |cell| figure(cell))
                })
                .collect(),
        })
        .collect();
    let n_cells = units::plural(job.cells.len() as u64, "cell");
    MachineCells {
        machine: job.machine.to_owned(),
        fingerprint: job.references().join(", "),
        verdict: match job.n_parted() {
            0 => format!("{n_cells} equal"),
            n_parted => format!("{n_parted} of {n_cells} part"),
        },
        lines,
        differences: job
            .cells
            .iter()
            .filter_map(|cell| difference(cell))
            .collect(),
    }
}

fn figure(cell: &AgreementCell) -> Cell {
    let AgreementCell {
        equal,
        positions,
        fingerprint,
        ..
    } = cell;
    Cell {
        text: format!("{equal}/{positions}"),
        sub: if cell.agrees() { "" } else { "parts" }.to_owned(),
        title: format!("{equal} of {positions} positions are equal, fingerprint {fingerprint}"),
        kind: if cell.agrees() { "value" } else { "parted" },
    }
}

/// Returns where a cell parts first.
fn difference(cell: &AgreementCell) -> Option<String> {
    let Parted {
        prompt,
        position,
        max_abs,
        kl,
        margin,
        expected,
        found,
    } = cell.parted?;
    let tokens = if expected == found {
        format!("token {expected} stays the likeliest")
    } else {
        format!("token {found} in place of {expected}")
    };
    Some(format!(
        "{}, {}, {}: first at prompt {prompt}, position {position}: logits differ by {max_abs:.2e} where the \
         reference's margin is {margin:.2e}, KL {kl:.1e}, {tokens}",
        cell.kernel,
        units::threads(cell.threads.get()),
        column_name(column_of(cell)),
    ))
}
