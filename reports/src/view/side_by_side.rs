//! A model and its baseline, metric by metric, with their ratio.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{
    Cell,
    cells::{against_baseline, cell, common_scale},
};
use crate::{
    bundle::Bundle,
    compare::{self, Pair},
    labels,
    summary::{ITL, Role, Status, SummaryRow},
    units::{self, Scale},
};

/// One pair on one machine.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SideBySide {
    pub(crate) machine: String,
    pub(crate) candidate: String,
    pub(crate) candidate_role: &'static str,
    pub(crate) candidate_format: String,
    pub(crate) baseline: String,
    pub(crate) baseline_format: String,
    pub(crate) groups: Vec<Group>,
    pub(crate) scope: Option<String>,
}

/// Lines under one heading.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Group {
    pub(crate) title: String,
    pub(crate) lines: Vec<Line>,
}

/// One metric.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) label: String,
    /// Kind of evidence.
    pub(crate) grade: String,
    pub(crate) candidate: Cell,
    pub(crate) baseline: Cell,
    pub(crate) against: Cell,
}

/// Returns a table for each pair on each machine where the candidate has results.
pub(super) fn tables(bundle: &Bundle, rows: &[SummaryRow]) -> Vec<SideBySide> {
    let mut tables = Vec::new();
    for machine in &bundle.manifest.machines {
        for pair in compare::pairs(&bundle.manifest) {
            let here: Vec<&SummaryRow> = rows
                .iter()
                .filter(|row| row.machine_id.as_ref() == Some(&machine.id))
                .collect();
            tables.extend(table(&machine.hostname, &pair, &here));
        }
    }
    tables
}

fn table(machine: &str, pair: &Pair, rows: &[&SummaryRow]) -> Option<SideBySide> {
    let of = |model: &str| -> Vec<&SummaryRow> {
        rows.iter()
            .copied()
            .filter(|row| row.model == model)
            .filter(|row| is_compared(row))
            // Groups have their own table.
            .filter(|row| row.group.is_none())
            .collect()
    };
    let candidates = of(&pair.candidate);
    let baselines = of(&pair.baseline);
    let first = *candidates.first()?;
    let several_kernels = candidates
        .iter()
        .map(|row| &row.kernel)
        .collect::<BTreeSet<_>>()
        .len()
        > 1;

    let mut groups: Vec<Group> = Vec::new();
    for suite in suites(&candidates) {
        let of_suite: Vec<&SummaryRow> = candidates
            .iter()
            .copied()
            .filter(|row| row.suite == suite)
            .collect();
        for (title, lines) in grouped(suite, &of_suite, &baselines, several_kernels) {
            groups.push(Group { title, lines });
        }
    }
    let format = |rows: &[&SummaryRow]| {
        rows.iter()
            .find_map(|row| row.weight_format.clone())
            .unwrap_or_default()
    };
    Some(SideBySide {
        machine: machine.to_owned(),
        candidate: pair.candidate.clone(),
        candidate_role: match first.role {
            Role::Ternary => "ternary",
            _ => "candidate",
        },
        candidate_format: format(&candidates),
        baseline: pair.baseline.clone(),
        baseline_format: format(&baselines),
        groups,
        scope: candidates
            .iter()
            .find(|row| row.baseline_ratio_low.is_some())
            .and_then(|row| row.ci_scope.clone()),
    })
}

/// Tokens have their own table; what accuracy jobs took and what the machine could do is no comparison.
fn is_compared(row: &SummaryRow) -> bool {
    let metric = row.metric.as_deref();
    let is_other = row.is_cost_of_accuracy() || row.is_of_roofline();
    metric.is_some_and(|metric| metric != ITL) && !is_other
}

fn suites<'a>(rows: &[&'a SummaryRow]) -> Vec<&'a str> {
    let mut suites: Vec<&str> = Vec::new();
    for row in rows {
        if !suites.contains(&row.suite.as_str()) {
            suites.push(&row.suite);
        }
    }
    // Rows come ordered within a kernel and thread count; suites stand in their own order.
    let rank = |suite: &str| {
        tritmark_proto::job::SuiteSpec::NAMES
            .iter()
            .position(|name| *name == suite)
    };
    suites.sort_by_key(|suite| rank(suite).unwrap_or(usize::MAX));
    suites
}

/// Returns headings with their lines. Lines that say the same at every thread count are said once.
fn grouped(
    suite: &str,
    candidates: &[&SummaryRow],
    baselines: &[&SummaryRow],
    several_kernels: bool,
) -> Vec<(String, Vec<Line>)> {
    let is_speed = suite == "latency";
    let mut threads: Vec<u32> = candidates.iter().map(|row| row.threads).collect();
    threads.sort_unstable();
    threads.dedup();
    let mut groups: Vec<(String, Vec<Line>)> = Vec::new();
    for row in candidates {
        let mut line = line(row, counterpart(row, baselines), several_kernels);
        let mut title = labels::suite(suite).to_owned();
        if is_speed {
            title = format!("{title}, {}", units::threads(row.threads));
            if let Some(workload) = row.workload() {
                title = format!("{title}, {}", units::workload(workload));
            }
        } else if threads.len() > 1 && suite != "accuracy" && !is_constant(row, candidates) {
            line.label = format!("{}, {}", line.label, units::threads(row.threads));
        }
        match groups.iter_mut().find(|(known, _)| *known == title) {
            Some((_, lines)) if !is_speed && lines.iter().any(|known| is_same(known, &line)) => {}
            Some((_, lines)) => lines.push(line),
            None => groups.push((title, vec![line])),
        }
    }
    groups
}

/// Tells whether a value is the same at every thread count.
fn is_constant(row: &SummaryRow, rows: &[&SummaryRow]) -> bool {
    rows.iter()
        .filter(|other| {
            other.metric == row.metric
                && other.phase == row.phase
                && other.kernel == row.kernel
                && other.grade == row.grade
                && other.workload() == row.workload()
        })
        .all(|other| other.value == row.value && other.reason == row.reason)
}

fn is_same(left: &Line, right: &Line) -> bool {
    left.label == right.label
        && left.candidate == right.candidate
        && left.baseline == right.baseline
        && left.against == right.against
}

fn counterpart<'a>(row: &SummaryRow, baselines: &[&'a SummaryRow]) -> Option<&'a SummaryRow> {
    let alike = |other: &&&SummaryRow| {
        other.threads == row.threads
            && other.suite == row.suite
            && other.task == row.task
            && other.num_fewshot == row.num_fewshot
            && other.add_bos == row.add_bos
            && other.variant == row.variant
            && other.metric == row.metric
            && other.filter == row.filter
            && other.phase == row.phase
            && other.workload() == row.workload()
    };
    let found: Vec<&SummaryRow> = baselines.iter().filter(alike).copied().collect();
    // The one that was compared with, told by its value; else whatever says why there is none.
    row.baseline_ratio
        .zip(row.value)
        .and_then(|(ratio, value)| {
            let wanted = value / ratio;
            found
                .iter()
                .copied()
                .filter(|other| other.grade == row.grade)
                .find(|other| {
                    other
                        .value
                        .is_some_and(|value| (value - wanted).abs() <= 1e-9 * wanted.abs())
                })
        })
        .or_else(|| found.iter().copied().find(|other| other.grade == row.grade))
        .or_else(|| found.iter().copied().find(|other| other.value.is_none()))
}

fn line(row: &SummaryRow, baseline: Option<&SummaryRow>, with_kernel: bool) -> Line {
    let scale = common_scale([row].into_iter().chain(baseline));
    let own = |row: &SummaryRow| {
        Scale::fit(
            row.unit.as_deref().unwrap_or_default(),
            row.value.unwrap_or_default(),
        )
    };
    let show = |row: &SummaryRow| cell(row, scale.unwrap_or_else(|| own(row)), true);
    let metric = row.metric.as_deref().unwrap_or_default();
    let mut label = match &row.task {
        Some(task) => labels::figure_of_task(task, metric, row.filter.as_deref()),
        None => labels::metric(metric).to_owned(),
    };
    if row.num_fewshot.is_some_and(|shots| shots > 0) {
        label = format!("{label}, {}-shot", row.num_fewshot.unwrap_or_default());
    }
    if let Some(variant) = &row.variant {
        label = format!("{label}, {variant}");
    }
    if row.suite == "energy"
        && let Some(phase) = &row.phase
    {
        label = format!("{label}, {phase}");
    }
    if row.suite == "energy"
        && row.status == Status::Ok
        && let Some(source) = &row.source
    {
        label = format!("{label} ({source})");
    }
    if with_kernel {
        label = format!("{label}, {}", row.kernel);
    }
    Line {
        label,
        grade: row.grade.clone().unwrap_or_default(),
        candidate: show(row),
        baseline: baseline.map_or_else(Cell::none, show),
        against: against_baseline(row),
    }
}
