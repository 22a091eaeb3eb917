//! From a row to the figure of a table.

use std::fmt::Write as _;

use super::Cell;
use crate::{
    labels,
    summary::{Status, SummaryRow},
    units::{self, Scale},
};

/// Returns the figure of a row in the scale of its neighbours.
pub(super) fn cell(row: &SummaryRow, scale: Scale, with_unit: bool) -> Cell {
    let Some(value) = row.value else {
        return missing(row);
    };
    if row.is_score() {
        return share(row, value);
    }
    let unit = row.unit.as_deref().unwrap_or_default();
    let text = if with_unit {
        scale.text(value)
    } else {
        scale.number(value)
    };
    let mut sub = Vec::new();
    if let Some((low, high)) = row.p5.zip(row.p95) {
        sub.push(format!("{}–{}", scale.number(low), scale.number(high)));
    }
    if !is_exact(row) {
        sub.push(format!("n\u{a0}{}", units::count(row.n as u64)));
    }
    if row.status == Status::Incomplete {
        sub.push("incomplete".to_owned());
    }
    Cell {
        text,
        sub: sub.join(" · "),
        title: title(row, unit, value),
        kind: "value",
    }
}

/// Returns a share of right answers with its standard error.
fn share(row: &SummaryRow, value: f64) -> Cell {
    let share = units::points_of_error(value);
    let text = match row.stderr {
        Some(error) => format!("{share} ±\u{a0}{}\u{202f}%", units::points_of_error(error)),
        None => format!("{share}\u{202f}%"),
    };
    let mut sub = vec![format!("n\u{a0}{}", units::count(row.n as u64))];
    if let Some(n) = row.n_undecided.filter(|n| *n > 0) {
        sub.push(format!("{} undecided", units::count(n as u64)));
    }
    if let Some(n) = row.n_pending.filter(|n| *n > 0) {
        sub.push(format!("{} pending", units::count(n as u64)));
    }
    if let Some(n) = row.n_cached.filter(|n| *n > 0) {
        sub.push(format!("{} from the cache", units::count(n as u64)));
    }
    if row.status == Status::Incomplete {
        sub.push("incomplete".to_owned());
    }
    let mut title = match row.stderr {
        Some(error) => format!("{value}, standard error {error}, {} items", row.n),
        None => format!("{value}, {} items", row.n),
    };
    if let Some(reason) = &row.reason {
        let _ = write!(title, "; {reason}");
    }
    Cell {
        text,
        sub: sub.join(" · "),
        title,
        kind: "value",
    }
}

/// Tells whether a value follows from what is stored, so that one is all there can be.
fn is_exact(row: &SummaryRow) -> bool {
    row.n == 1 && matches!(row.grade.as_deref(), Some("computed" | "estimated"))
}

fn missing(row: &SummaryRow) -> Cell {
    let text = match row.status {
        Status::Unmeasurable if row.n_pending.is_some_and(|n| n > 0) => "pending",
        Status::Unmeasurable if row.n_undecided.is_some_and(|n| n > 0) => "undecided",
        Status::Unmeasurable => "not measurable",
        other => other.name(),
    };
    Cell {
        text: text.to_owned(),
        sub: String::new(),
        title: row.reason.clone().unwrap_or_default(),
        kind: "missing",
    }
}

/// Lists every digit of a row.
fn title(row: &SummaryRow, unit: &str, value: f64) -> String {
    let mut parts = vec![match row.n {
        _ if row.median.is_none() => units::exact(unit, value),
        1 => units::exact(unit, value),
        _ => format!("median {}", units::exact(unit, value)),
    }];
    for (name, value) in [
        ("mean", row.mean.filter(|_| row.n > 1)),
        ("standard deviation", row.sd),
        ("5 %", row.p5),
        ("95 %", row.p95),
        ("99 %", row.p99),
    ] {
        if let Some(value) = value {
            parts.push(format!("{name} {}", units::exact(unit, value)));
        }
    }
    if let Some((low, high)) = row.ci95_low.zip(row.ci95_high) {
        parts.push(format!(
            "95 % interval of the median {low} to {high} {unit}"
        ));
    }
    parts.extend(row.grade.clone());
    parts.extend(row.source.clone());
    parts.join("; ")
}

/// Returns the cell that sets a row against its baseline.
pub(super) fn against_baseline(row: &SummaryRow) -> Cell {
    if row.baseline_difference.is_some() {
        return difference(row);
    }
    let Some(ratio) = row.baseline_ratio else {
        return Cell {
            title: row.baseline_note.clone().unwrap_or_default(),
            ..Cell::none()
        };
    };
    let interval = row.baseline_ratio_low.zip(row.baseline_ratio_high);
    let mut title = format!("ratio {ratio}");
    let mut sub = String::new();
    if let Some((low, high)) = interval {
        sub = format!("{}–{}", bare(low), bare(high));
        let _ = write!(title, "; 95 % interval {low} to {high}");
        if let Some(scope) = &row.ci_scope {
            let _ = write!(title, ", {scope}");
        }
    }
    let (low, high) = interval.unwrap_or((ratio, ratio));
    let higher = row.metric.as_deref().and_then(labels::higher_is_better);
    // One value a side tells nothing of its spread, unless it is arithmetic.
    let is_clear = interval.is_some() || row.grade.as_deref() == Some("computed");
    let kind = match higher {
        _ if !is_clear => "value",
        Some(higher) if low > 1.0 => verdict(higher),
        Some(higher) if high < 1.0 => verdict(!higher),
        _ => "value",
    };
    Cell {
        text: units::ratio(ratio),
        sub,
        title,
        kind,
    }
}

fn verdict(is_better: bool) -> &'static str {
    if is_better { "better" } else { "worse" }
}

fn bare(ratio: f64) -> String {
    units::ratio(ratio).trim_end_matches('×').to_owned()
}

/// Returns the difference of two shares in points.
fn difference(row: &SummaryRow) -> Cell {
    let value = row.baseline_difference.unwrap_or_default();
    let mut text = units::points(value);
    let mut title = format!("difference {value}");
    if let Some(error) = row.baseline_difference_stderr {
        let _ = write!(text, " ±\u{a0}{}", units::points_of_error(error));
        let _ = write!(title, ", standard error {error}");
    }
    let mut sub = Vec::new();
    if let Some(p) = row.mcnemar_p {
        sub.push(format!("p {}", units::probability(p)));
        let _ = write!(title, "; exact McNemar p = {p}");
    }
    if let Some(smallest) = row.min_detectable_difference {
        sub.push(format!("finds ≥ {}", units::points_of_error(smallest)));
    }
    if let Some(n) = row.baseline_n {
        let _ = write!(title, "; {n} items both answered");
    }
    if let Some(note) = &row.baseline_note {
        let _ = write!(title, "; {note}");
    }
    // Scores between right and wrong have no McNemar test; two standard errors stand for it.
    let is_clear = match row.mcnemar_p {
        Some(p) => p < 0.05,
        None => row
            .baseline_difference_stderr
            .is_some_and(|error| value.abs() > 1.96 * error),
    };
    Cell {
        text,
        sub: sub.join(" · "),
        title,
        kind: if is_clear {
            verdict(value > 0.0)
        } else {
            "value"
        },
    }
}

/// Returns the scale of cells that stand together: that of the smallest unless the largest would run
/// to five digits. Values too far apart have none.
pub(super) fn common_scale<'a>(rows: impl Iterator<Item = &'a SummaryRow>) -> Option<Scale> {
    let mut unit = None;
    let mut low = f64::INFINITY;
    let mut high = 0.0_f64;
    for row in rows {
        let Some(value) = row.value else { continue };
        if *unit.get_or_insert(row.unit.as_deref()) != row.unit.as_deref() {
            return None;
        }
        if value != 0.0 {
            low = low.min(value.abs());
            high = high.max(value.abs());
        }
    }
    let unit = unit?.unwrap_or_default();
    if !low.is_finite() {
        return Some(Scale::fit(unit, 0.0));
    }
    let of_low = Scale::fit(unit, low);
    if of_low.apply(high) < 10_000.0 {
        return Some(of_low);
    }
    let of_high = Scale::fit(unit, high);
    (of_high.apply(low) >= 0.01).then_some(of_high)
}
