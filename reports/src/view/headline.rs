//! The figures that come first: what ternary weights gain and cost on each machine.

use std::collections::BTreeSet;

use serde::Serialize;
use tritmark_proto::machine::Machine;

use super::cells::against_baseline;
use crate::{
    bundle::Bundle,
    compare::{self, Pair},
    labels, stats,
    summary::{Role, SummaryRow},
    units,
};

/// A model, beside its baseline where it has one, on one machine.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Card {
    pub(crate) model: String,
    pub(crate) baseline: Option<String>,
    pub(crate) machine: String,
    pub(crate) figures: Vec<Figure>,
    /// Why figures are missing.
    pub(crate) notes: Vec<String>,
}

/// A large figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) value: String,
    /// Stands smaller beside it.
    pub(crate) spread: String,
    pub(crate) label: String,
    /// Lines beneath, the first says what it rests on.
    pub(crate) lines: Vec<String>,
    pub(crate) title: String,
    pub(crate) kind: &'static str,
}

/// Returns a card for each pair and for each model without one, on each machine.
pub(super) fn cards(bundle: &Bundle, rows: &[SummaryRow]) -> Vec<Card> {
    let pairs = compare::pairs(&bundle.manifest);
    let paired: BTreeSet<&str> = pairs
        .iter()
        .flat_map(|pair| [pair.candidate.as_str(), pair.baseline.as_str()])
        .collect();
    let mut cards = Vec::new();
    for machine in &bundle.manifest.machines {
        for pair in &pairs {
            cards.extend(pair_card(machine, pair, rows));
        }
        let mut alone: Vec<&str> = Vec::new();
        for row in rows {
            if !paired.contains(row.model.as_str()) && !alone.contains(&row.model.as_str()) {
                alone.push(&row.model);
            }
        }
        for model in alone {
            cards.extend(single_card(machine, model, rows));
        }
    }
    cards
}

fn pair_card(machine: &Machine, pair: &Pair, all: &[SummaryRow]) -> Option<Card> {
    let has_baseline = all.iter().any(|row| {
        row.machine_id.as_ref() == Some(&machine.id)
            && row.model == pair.baseline
            && row.value.is_some()
    });
    let rows: Vec<&SummaryRow> = all
        .iter()
        .filter(|row| {
            row.machine_id.as_ref() == Some(&machine.id)
                && row.model == pair.candidate
                && row.baseline.as_ref() == Some(&pair.baseline)
        })
        .collect();
    let mut figures = Vec::new();
    for metric in ["decode_tok_per_s", "prefill_tok_per_s", "peak_rss_bytes"] {
        figures.extend(ratio_figure(metric, &rows));
    }
    figures.extend(accuracy_figure(&rows));
    let mut notes: Vec<String> = rows
        .iter()
        .filter(|row| {
            row.value.is_some() && row.baseline_ratio.is_none() && row.baseline_difference.is_none()
        })
        .filter_map(|row| row.baseline_note.clone())
        .collect();
    notes.sort();
    notes.dedup();
    let has_values = rows.iter().any(|row| row.value.is_some());
    if !has_values {
        notes = vec![format!(
            "Nothing of {} was measured on this machine.",
            pair.candidate
        )];
    }
    (has_values || has_baseline).then(|| Card {
        model: pair.candidate.clone(),
        baseline: Some(pair.baseline.clone()),
        machine: machine.hostname.clone(),
        figures,
        notes,
    })
}

/// Returns the ratio at most threads, the other thread counts beneath.
fn ratio_figure(metric: &str, rows: &[&SummaryRow]) -> Option<Figure> {
    let mut found: Vec<&SummaryRow> = rows
        .iter()
        .copied()
        .filter(|row| row.is_value_of(metric) && row.baseline_ratio.is_some())
        .collect();
    found.sort_by_key(|row| std::cmp::Reverse(row.threads));
    let first = *found.first()?;
    let cell = against_baseline(first);
    let unit = first.unit.as_deref().unwrap_or_default();
    let value = first.value?;
    let baseline = value / first.baseline_ratio?;
    let mut lines = vec![format!(
        "{} against {}",
        units::text(unit, value),
        units::text(unit, baseline)
    )];
    let others: Vec<&SummaryRow> = found[1..]
        .iter()
        .copied()
        .filter(|row| row.threads != first.threads)
        .filter(|row| row.workload() == first.workload() && row.kernel == first.kernel)
        .collect();
    let n = format!("n {} + {}", first.n, first.baseline_n.unwrap_or_default());
    let shape = first.workload().map(units::workload).unwrap_or_default();
    let at = [units::threads(first.threads), shape]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(", ");
    lines.push(format!("{at} · {n}"));
    for other in others {
        if let Some(ratio) = other.baseline_ratio {
            lines.push(format!(
                "{}: {}",
                units::threads(other.threads),
                units::ratio(ratio)
            ));
        }
    }
    lines.dedup();
    Some(Figure {
        value: cell.text,
        spread: cell.sub,
        label: labels::metric(metric).to_owned(),
        lines,
        title: cell.title,
        kind: cell.kind,
    })
}

/// Returns the mean of the tasks' differences; its standard error takes the tasks for independent.
fn accuracy_figure(rows: &[&SummaryRow]) -> Option<Figure> {
    let mut seen = BTreeSet::new();
    let found: Vec<&SummaryRow> = rows
        .iter()
        .copied()
        .filter(|row| row.is_main_share() && row.baseline_difference.is_some())
        // Other kernels and threads give the same answers: one row a task is enough.
        .filter(|row| seen.insert((&row.task, row.num_fewshot, row.add_bos, &row.variant)))
        .collect();
    let differences: Vec<f64> = found
        .iter()
        .filter_map(|row| row.baseline_difference)
        .collect();
    let value = stats::mean(&differences)?;
    let stderr = found
        .iter()
        .map(|row| row.baseline_difference_stderr.map(|error| error * error))
        .sum::<Option<f64>>()
        .map(|squares| squares.sqrt() / found.len() as f64);
    let items: usize = found.iter().filter_map(|row| row.baseline_n).sum();
    let shares: Vec<f64> = found.iter().filter_map(|row| row.value).collect();
    let share = stats::mean(&shares)?;
    let baseline = share - value;
    let clear = stderr.is_some_and(|error| value.abs() > 1.96 * error);
    let tasks = match found.as_slice() {
        [only] => only.task.clone().unwrap_or_default(),
        _ => format!("mean of {} tasks", found.len()),
    };
    Some(Figure {
        value: units::points(value),
        spread: stderr
            .map(|error| format!("±\u{a0}{}", units::points_of_error(error)))
            .unwrap_or_default(),
        label: "Accuracy, points".to_owned(),
        lines: vec![
            format!(
                "{} against {}",
                units::text("1", share),
                units::text("1", baseline)
            ),
            format!("{tasks} · n {} items", units::count(items as u64)),
        ],
        title: format!(
            "difference {value}, standard error {}",
            stderr.map_or_else(|| "unknown".to_owned(), |error| error.to_string())
        ),
        kind: match (clear, value > 0.0) {
            (true, true) => "better",
            (true, false) => "worse",
            _ => "value",
        },
    })
}

fn single_card(machine: &Machine, model: &str, rows: &[SummaryRow]) -> Option<Card> {
    let rows: Vec<&SummaryRow> = rows
        .iter()
        .filter(|row| row.machine_id.as_ref() == Some(&machine.id) && row.model == model)
        .collect();
    let mut figures: Vec<Figure> = ["decode_tok_per_s", "prefill_tok_per_s", "peak_rss_bytes"]
        .into_iter()
        .filter_map(|metric| value_figure(metric, &rows))
        .collect();
    let tasks: Vec<&SummaryRow> = rows
        .iter()
        .copied()
        .filter(|row| row.is_main_share())
        .collect();
    let shares: Vec<f64> = tasks.iter().filter_map(|row| row.value).collect();
    if let Some(share) = stats::mean(&shares) {
        let squares: Option<f64> = tasks.iter().map(|row| row.stderr.map(|e| e * e)).sum();
        let error = squares.map(|squares| squares.sqrt() / tasks.len() as f64);
        let items: usize = tasks.iter().map(|row| row.n).sum();
        figures.push(Figure {
            value: units::text("1", share),
            spread: error
                .map(|error| format!("±\u{a0}{}", units::points_of_error(error)))
                .unwrap_or_default(),
            label: "Accuracy".to_owned(),
            lines: vec![format!(
                "mean of {} · n {items} items",
                units::plural(tasks.len() as u64, "task")
            )],
            title: share.to_string(),
            kind: "value",
        });
    }
    let is_ternary = rows.iter().any(|row| row.role == Role::Ternary);
    (!figures.is_empty()).then(|| Card {
        model: model.to_owned(),
        baseline: None,
        machine: machine.hostname.clone(),
        figures,
        notes: if is_ternary {
            vec!["The plan names no full-precision baseline for this model.".to_owned()]
        } else {
            Vec::new()
        },
    })
}

fn value_figure(metric: &str, rows: &[&SummaryRow]) -> Option<Figure> {
    let row = rows
        .iter()
        .copied()
        .filter(|row| row.is_value_of(metric))
        .max_by_key(|row| row.threads)?;
    let unit = row.unit.as_deref().unwrap_or_default();
    let value = row.value?;
    let scale = units::Scale::fit(unit, value);
    let spread = row
        .p5
        .zip(row.p95)
        .map(|(low, high)| format!("{}–{}", scale.number(low), scale.number(high)));
    Some(Figure {
        value: scale.text(value),
        spread: spread.unwrap_or_default(),
        label: labels::metric(metric).to_owned(),
        lines: vec![format!("{} · n {}", units::threads(row.threads), row.n)],
        title: units::exact(unit, value),
        kind: "value",
    })
}
