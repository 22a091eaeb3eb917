//! One table a suite and machine: models down, metrics across, evidence of one grade a column.

use serde::Serialize;
use tritmark_proto::job::{SuiteSpec, Workload};

use super::{
    Cell,
    cells::{cell, common_scale},
};
use crate::{
    bundle::Bundle,
    labels,
    summary::{ITL, PREFILL_F32_SHARE, PREFILL_INT8_SHARE, SummaryRow},
    units::{self, Scale},
};

/// A table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SuiteTable {
    pub(crate) suite: String,
    pub(crate) title: String,
    pub(crate) machine: String,
    /// Token shape, empty where there is none.
    pub(crate) workload: String,
    pub(crate) columns: Vec<ColumnHead>,
    pub(crate) lines: Vec<Line>,
}

/// A column's head.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ColumnHead {
    pub(crate) label: String,
    /// Unit where all cells share one.
    pub(crate) unit: String,
    pub(crate) grade: String,
}

/// One model as it ran.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) model: String,
    pub(crate) role: &'static str,
    pub(crate) kernel: String,
    pub(crate) threads: String,
    pub(crate) cells: Vec<Cell>,
}

/// What makes a column.
#[derive(Clone, Debug, PartialEq)]
struct ColumnKey<'a> {
    metric: &'a str,
    task: Option<&'a str>,
    num_fewshot: Option<u32>,
    add_bos: Option<bool>,
    variant: Option<&'a str>,
    filter: Option<&'a str>,
    phase: Option<&'a str>,
    grade: Option<&'a str>,
    source: Option<&'a str>,
}

/// Returns the tables, in the order of machines and suites.
pub(super) fn tables(bundle: &Bundle, rows: &[SummaryRow]) -> Vec<SuiteTable> {
    let mut tables = Vec::new();
    for machine in &bundle.manifest.machines {
        for suite in SuiteSpec::NAMES {
            let here: Vec<&SummaryRow> = rows
                .iter()
                .filter(|row| {
                    row.machine_id.as_ref() == Some(&machine.id)
                        && row.suite == suite
                        && is_shown(row)
                        && row.group.is_none()
                })
                .collect();
            let mut workloads: Vec<Option<Workload>> =
                here.iter().map(|row| row.workload()).collect();
            workloads.sort_unstable();
            workloads.dedup();
            for workload in workloads {
                let rows: Vec<&SummaryRow> = here
                    .iter()
                    .copied()
                    .filter(|row| row.workload() == workload)
                    .collect();
                tables.push(table(&machine.hostname, suite, workload, &rows));
            }
        }
    }
    tables
}

/// Tokens have their own table; what accuracy jobs took, on a machine they share, and the machine's bounds
/// are in the CSV.
fn is_shown(row: &SummaryRow) -> bool {
    let metric = row.metric.as_deref();
    metric.is_some_and(|metric| metric != ITL) && !row.is_cost_of_accuracy() && !row.is_bound()
}

fn table(
    machine: &str,
    suite: &str,
    workload: Option<Workload>,
    rows: &[&SummaryRow],
) -> SuiteTable {
    let mut keys: Vec<ColumnKey<'_>> = Vec::new();
    // Columns with values come first, so that what has none finds its place among them.
    for row in rows.iter().filter(|row| row.value.is_some()) {
        let key = ColumnKey::new(row);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    for row in rows.iter().filter(|row| row.value.is_none()) {
        let key = ColumnKey::new(row);
        if !keys.iter().any(|known| known.takes(&key)) {
            keys.push(key);
        }
    }
    // Then all stand in the order of their metrics.
    keys.sort_by_key(|key| {
        let key = key.clone().of_kind();
        rows.iter()
            .position(|row| key.takes(&ColumnKey::new(row).of_kind()))
            .unwrap_or(usize::MAX)
    });
    let column_rows: Vec<Vec<&SummaryRow>> = keys
        .iter()
        .map(|key| {
            rows.iter()
                .copied()
                .filter(|row| key.takes(&ColumnKey::new(row)))
                .collect()
        })
        .collect();
    let scales: Vec<Option<Scale>> = column_rows
        .iter()
        .map(|rows| common_scale(rows.iter().copied()))
        .collect();
    let columns = keys
        .iter()
        .zip(&scales)
        .map(|(key, scale)| key.head(*scale))
        .collect();

    let mut subjects: Vec<&SummaryRow> = Vec::new();
    for row in rows {
        if !subjects.iter().any(|known| is_same_subject(known, row)) {
            subjects.push(row);
        }
    }
    let lines = subjects
        .into_iter()
        .map(|subject| Line {
            model: subject.model.clone(),
            role: subject.role.name(),
            kernel: subject.kernel.clone(),
            threads: units::count(u64::from(subject.threads)),
            cells: column_rows
                .iter()
                .zip(&scales)
                .map(|(rows, scale)| {
                    let of_subject = || rows.iter().filter(|row| is_same_subject(subject, row));
                    let row = of_subject()
                        .find(|row| row.value.is_some())
                        .or_else(|| of_subject().next());
                    row.map_or_else(Cell::none, |row| show(row, *scale))
                })
                .collect(),
        })
        .collect();
    SuiteTable {
        suite: suite.to_owned(),
        title: labels::suite(suite).to_owned(),
        machine: machine.to_owned(),
        workload: workload.map(units::workload).unwrap_or_default(),
        columns,
        lines,
    }
}

fn show(row: &SummaryRow, scale: Option<Scale>) -> Cell {
    let own = || {
        let unit = row.unit.as_deref().unwrap_or_default();
        Scale::fit(unit, row.value.unwrap_or_default())
    };
    // The unit stands in the column's head where all cells share one.
    cell(row, scale.unwrap_or_else(own), scale.is_none())
}

fn is_same_subject(left: &SummaryRow, right: &SummaryRow) -> bool {
    left.model == right.model && left.kernel == right.kernel && left.threads == right.threads
}

impl<'a> ColumnKey<'a> {
    fn new(row: &'a SummaryRow) -> Self {
        Self {
            metric: row.metric.as_deref().unwrap_or_default(),
            task: row.task.as_deref(),
            num_fewshot: row.num_fewshot,
            add_bos: row.add_bos,
            variant: row.variant.as_deref(),
            filter: row.filter.as_deref(),
            phase: row.phase.as_deref(),
            grade: row.grade.as_deref(),
            // Package and DRAM do not share a column; clocks and formulas need no telling apart.
            source: row.source.as_deref().filter(|_| row.suite == "energy"),
        }
    }

    /// Returns the key by which columns are ordered: shares of both peaks stand side by side, though no
    /// model has both.
    fn of_kind(self) -> Self {
        let metric = match self.metric {
            PREFILL_F32_SHARE => PREFILL_INT8_SHARE,
            other => other,
        };
        Self { metric, ..self }
    }

    /// Tells whether a row of that key belongs into this column; what has no value has no grade and
    /// goes with any.
    fn takes(&self, other: &Self) -> bool {
        if other.grade.is_none() {
            return Self {
                grade: None,
                source: None,
                ..self.clone()
            } == *other;
        }
        self == other
    }

    fn head(&self, scale: Option<Scale>) -> ColumnHead {
        let mut label = match self.task {
            Some(task) if self.metric == "acc_norm" => format!("{task}, norm."),
            Some(task) => labels::figure_of_task(task, self.metric, self.filter),
            None => labels::metric(self.metric).to_owned(),
        };
        if let Some(shots) = self.num_fewshot.filter(|shots| *shots > 0) {
            label = format!("{label}, {shots}-shot");
        }
        if let Some(variant) = self.variant {
            label = format!("{label}, {variant}");
        }
        if let Some(phase) = self.phase
            && self.metric.starts_with("energy")
        {
            label = format!("{label}, {phase}");
        }
        if let Some(source) = self.source {
            label = format!("{label} ({source})");
        }
        // A share says its % itself, with its error.
        let is_share = self.filter.is_some() && scale.is_some_and(|scale| scale.unit == "%");
        ColumnHead {
            label,
            unit: match scale {
                Some(scale) if !is_share => scale.unit.to_owned(),
                _ => String::new(),
            },
            grade: self.grade.unwrap_or_default().to_owned(),
        }
    }
}
