//! Finds a row's counterpart of the baseline and compares the two.

use std::collections::HashMap;

use tritmark_proto::job::Workload;

use super::{ITL, SummaryRow, context::Context, entry::Entry};
use crate::{
    compare,
    score::{Figure, Rolling},
};

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
    variant: Option<&'a str>,
    group: Option<&'a str>,
    metric: Option<&'a str>,
    filter: Option<&'a str>,
    phase: Option<&'a str>,
    workload: Option<Workload>,
    grade: Option<&'a str>,
}

impl<'a> ComparisonKey<'a> {
    fn new(model: &'a str, entry: &'a Entry<'_>) -> Self {
        let row = &entry.row;
        Self {
            model,
            // What was scored on several machines belongs to none of them.
            machine_id: row.machine_id.as_deref().filter(|_| !entry.spans_machines),
            threads: row.threads,
            suite: &row.suite,
            task: row.task.as_deref(),
            num_fewshot: row.num_fewshot,
            add_bos: row.add_bos,
            variant: row.variant.as_deref(),
            group: row.group.as_deref(),
            metric: row.metric.as_deref(),
            filter: row.filter.as_deref(),
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
                    .entry(ComparisonKey::new(&entry.row.model, entry))
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
        // Tokens of an answer are no independent values.
        let is_itl = row.metric.as_deref() == Some(ITL);
        let is_uncompared = is_itl || row.is_cost_of_accuracy() || row.is_of_roofline();
        if row.value.is_none() || is_uncompared {
            return Comparison::default();
        }
        let found = self
            .entries
            .get(&ComparisonKey::new(name, entry))
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
        match &entry.figure {
            Some(Figure::Rolling(rolling)) => compare_texts(*rolling, entry, baseline),
            Some(figure) => compare_scores(figure, entry, baseline),
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

fn compare_scores(figure: &Figure, entry: &Entry<'_>, baseline: &Entry<'_>) -> Comparison {
    let Some(scores) = compare::scores(figure, &entry.items, &baseline.items) else {
        return none_in_common();
    };
    let n = scores.difference.n;
    let mut notes = Vec::from_iter(other_prompts(scores.different_prompts, n));
    if scores.n_undecided > 0 {
        notes.push(format!(
            "{} items are undecided for one or both and left out",
            scores.n_undecided
        ));
    }
    Comparison {
        n: Some(n),
        scores: Some(scores),
        note: (!notes.is_empty()).then(|| notes.join("; ")),
        ..Comparison::default()
    }
}

fn compare_texts(rolling: Rolling, entry: &Entry<'_>, baseline: &Entry<'_>) -> Comparison {
    let Some(texts) = compare::rolling(rolling, &entry.items, &baseline.items) else {
        return none_in_common();
    };
    Comparison {
        n: Some(texts.n),
        ratio: Some(compare::Ratio {
            value: texts.ratio,
            interval: None,
        }),
        note: other_prompts(texts.different_prompts, texts.n),
        ..Comparison::default()
    }
}

fn none_in_common() -> Comparison {
    Comparison {
        note: Some("both models answered none of the same items".to_owned()),
        ..Comparison::default()
    }
}

fn other_prompts(different: usize, n: usize) -> Option<String> {
    (different > 0).then(|| format!("{different} of {n} items had other prompts"))
}

/// What a row gets from its baseline.
#[derive(Default)]
pub(super) struct Comparison {
    ratio: Option<compare::Ratio>,
    scores: Option<compare::ScoreComparison>,
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
        if let Some(scores) = self.scores {
            row.baseline_difference = Some(scores.difference.value);
            row.baseline_difference_stderr = scores.difference.stderr;
            row.mcnemar_p = scores.mcnemar_p;
            row.min_detectable_difference = scores.min_detectable;
        }
        row
    }
}
