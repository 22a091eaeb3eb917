//! Finds a row's counterpart of the baseline and compares the two.

use std::collections::HashMap;

use tritmark_proto::job::Workload;

use super::{ITL, SummaryRow, context::Context, entry::Entry};
use crate::compare::{self, Score};

/// What two rows must share to be compared.
#[derive(PartialEq, Eq, Hash)]
struct ComparisonKey<'a> {
    model: &'a str,
    machine_id: Option<&'a str>,
    threads: u32,
    suite: &'a str,
    task: Option<&'a str>,
    num_fewshot: Option<u32>,
    add_bos: Option<bool>,
    metric: Option<&'a str>,
    phase: Option<&'a str>,
    workload: Option<Workload>,
    grade: Option<&'a str>,
}

impl<'a> ComparisonKey<'a> {
    fn new(model: &'a str, row: &'a SummaryRow) -> Self {
        Self {
            model,
            machine_id: row.machine_id.as_deref(),
            threads: row.threads,
            suite: &row.suite,
            task: row.task.as_deref(),
            num_fewshot: row.num_fewshot,
            add_bos: row.add_bos,
            metric: row.metric.as_deref(),
            phase: row.phase.as_deref(),
            workload: row.workload(),
            grade: row.grade.as_deref(),
        }
    }
}

/// Rows with a value, by what they can be compared on.
pub(super) struct ByComparison<'e, 'a> {
    entries: HashMap<ComparisonKey<'e>, Vec<&'e Entry<'a>>>,
}

impl<'e, 'a> ByComparison<'e, 'a> {
    pub(super) fn new(all: &'e [Entry<'a>]) -> Self {
        let mut entries: HashMap<_, Vec<_>> = HashMap::new();
        for entry in all {
            if entry.row.value.is_some() {
                entries
                    .entry(ComparisonKey::new(&entry.row.model, &entry.row))
                    .or_default()
                    .push(entry);
            }
        }
        Self { entries }
    }

    pub(super) fn compare(&self, context: &Context<'_>, entry: &Entry<'a>) -> Comparison {
        let row = &entry.row;
        let Some(name) = &row.baseline else {
            return Comparison::default();
        };
        // Tokens of an answer are no independent values. Accuracy jobs may share their machine, so
        // their speed is no comparison.
        let is_timing_of_accuracy = row.suite == "accuracy" && entry.score.is_none();
        if row.value.is_none() || row.metric.as_deref() == Some(ITL) || is_timing_of_accuracy {
            return Comparison::default();
        }
        let found = self
            .entries
            .get(&ComparisonKey::new(name, row))
            .map(Vec::as_slice)
            .unwrap_or_default();
        let Some(baseline) = counterpart(entry, found) else {
            let why = if !found.is_empty() {
                format!("`{name}` ran on several kernels, none of them the same choice")
            } else if context.troubled.contains(name.as_str()) {
                format!("`{name}` has jobs that did not succeed")
            } else {
                format!("`{name}` has no such value on this machine with these threads")
            };
            return Comparison {
                note: Some(why),
                ..Comparison::default()
            };
        };
        match entry.score {
            Some(score) => compare_answers(score, entry, baseline),
            None => compare_values(entry, baseline),
        }
    }
}

/// Chooses among a baseline's rows: the one whose kernel was asked for in the same words, else the
/// one chosen automatically, else the only one. Sources of a reading go before kernels.
fn counterpart<'e, 'a>(entry: &Entry<'a>, found: &[&'e Entry<'a>]) -> Option<&'e Entry<'a>> {
    let same_source: Vec<&Entry<'a>> = found
        .iter()
        .copied()
        .filter(|other| other.row.source == entry.row.source)
        .collect();
    let found = if entry.row.suite == "energy" || !same_source.is_empty() {
        // Package and DRAM are different quantities.
        same_source
    } else {
        found.to_vec()
    };
    let asked_for = |kernel: &str| {
        found
            .iter()
            .copied()
            .find(|other| other.requested_kernels.contains(kernel))
    };
    entry
        .requested_kernels
        .iter()
        .find_map(|kernel| asked_for(kernel))
        .or_else(|| asked_for("auto"))
        .or(match found.as_slice() {
            [only] => Some(*only),
            _ => None,
        })
}

fn compare_values(entry: &Entry<'_>, baseline: &Entry<'_>) -> Comparison {
    let (candidate, other) = (entry.clusters(), baseline.clusters());
    let Some(ratio) = compare::ratio(&candidate, &other) else {
        return Comparison {
            note: Some("the baseline's median is not positive".to_owned()),
            ..Comparison::default()
        };
    };
    Comparison {
        ratio: Some(ratio),
        scope: ratio
            .interval
            .map(|_| compare::ratio_scope(candidate.len(), other.len())),
        n: Some(baseline.row.n),
        ..Comparison::default()
    }
}

fn compare_answers(score: Score, entry: &Entry<'_>, baseline: &Entry<'_>) -> Comparison {
    let Some(accuracy) = compare::accuracy(score, &entry.items, &baseline.items) else {
        return Comparison {
            note: Some("both models answered none of the same items".to_owned()),
            ..Comparison::default()
        };
    };
    let note = (accuracy.different_prompts > 0).then(|| {
        format!(
            "{} of {} items had other prompts",
            accuracy.different_prompts, accuracy.difference.n
        )
    });
    Comparison {
        n: Some(accuracy.difference.n),
        accuracy: Some(accuracy),
        note,
        ..Comparison::default()
    }
}

/// What a row gets from its baseline.
#[derive(Default)]
pub(super) struct Comparison {
    ratio: Option<compare::Ratio>,
    accuracy: Option<compare::AccuracyComparison>,
    n: Option<usize>,
    scope: Option<String>,
    note: Option<String>,
}

impl Comparison {
    pub(super) fn into_row(self, mut row: SummaryRow) -> SummaryRow {
        row.baseline_ratio = self.ratio.map(|ratio| ratio.value);
        let interval = self.ratio.and_then(|ratio| ratio.interval);
        row.baseline_ratio_low = interval.map(|interval| interval.low);
        row.baseline_ratio_high = interval.map(|interval| interval.high);
        row.baseline_n = self.n;
        row.baseline_note = self.note;
        if let Some(scope) = self.scope {
            row.ci_scope = Some(scope);
        }
        if let Some(accuracy) = self.accuracy {
            row.baseline_difference = Some(accuracy.difference.value);
            row.baseline_difference_stderr = accuracy.difference.stderr;
            row.mcnemar_p = Some(accuracy.mcnemar_p);
            row.min_detectable_difference = Some(accuracy.min_detectable);
        }
        row
    }
}
