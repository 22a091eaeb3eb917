//! A comparison as text, Markdown, CSV and JSON.

use std::fmt::Write as _;

use super::{Comparison, Overall, Row, Side, Verdict};
use crate::{error::ReportError, md, units};

/// Returns lines for a terminal.
pub(super) fn text(comparison: &Comparison) -> String {
    let mut text = String::new();
    let Comparison { a, b, margin, .. } = comparison;
    let _ = writeln!(text, "A  {}", side(a));
    let _ = writeln!(text, "B  {}", side(b));
    let _ = writeln!(
        text,
        "differences are B less A, over the items both answered; the margin is {} points\n",
        units::points_of_error(*margin)
    );
    let mut lines: Vec<[String; 9]> = vec![
        [
            "task",
            "n",
            "A",
            "B",
            "B - A",
            "95 % interval",
            "p (q)",
            "finds",
            "B is",
        ]
        .map(str::to_owned),
    ];
    lines.extend(comparison.rows.iter().map(|row| {
        [
            row.label.clone(),
            units::count(row.n as u64),
            value(row, row.a.value, row.a.stderr),
            value(row, row.b.value, row.b.stderr),
            difference(row),
            interval(row),
            p_and_q(row),
            least(row),
            row.verdict.words().to_owned(),
        ]
    }));
    let width = |column: usize| {
        let widths = lines.iter().map(|line| line[column].chars().count());
        widths.max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..9).map(width).collect();
    for line in &lines {
        let mut out = String::new();
        for (column, cell) in line.iter().enumerate() {
            let pad = " ".repeat(widths[column] - cell.chars().count());
            // Names stand left, figures right.
            match column {
                0 | 8 => write!(out, "{cell}{pad}  "),
                _ => write!(out, "{pad}{cell}  "),
            }
            .expect("a string takes everything");
        }
        let _ = writeln!(text, "{}", out.trim_end());
    }
    for (title, notes) in notes(comparison) {
        let _ = writeln!(text, "\n{title}");
        for note in notes {
            let _ = writeln!(text, "  {note}");
        }
    }
    let _ = writeln!(text, "\n{}", overall(comparison));
    text
}

/// Returns a GitHub table.
pub(super) fn markdown(comparison: &Comparison) -> String {
    let mut text = String::new();
    let Comparison { a, b, margin, .. } = comparison;
    let _ = writeln!(
        text,
        "# {} against {}\n",
        md::escape(&b.model),
        md::escape(&a.model)
    );
    let _ = writeln!(text, "- A: {}", md::escape(&side(a)));
    let _ = writeln!(text, "- B: {}", md::escape(&side(b)));
    let _ = writeln!(
        text,
        "- Margin: {} points\n",
        units::points_of_error(*margin)
    );
    let _ = writeln!(text, "**{}**\n", md::escape(&overall(comparison)));
    let _ = writeln!(
        text,
        "| task | n | A | B | B − A | 95 % interval | p | q | Wilcoxon p | finds | B is |"
    );
    let _ = writeln!(
        text,
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
    );
    for row in &comparison.rows {
        let cells = [
            md::escape(&row.label),
            units::count(row.n as u64),
            value(row, row.a.value, row.a.stderr),
            value(row, row.b.value, row.b.stderr),
            difference(row),
            interval(row),
            probability(row.p),
            probability(row.q),
            probability(row.wilcoxon_p),
            least(row),
            match row.verdict {
                Verdict::Worse => format!("**{}**", row.verdict.words()),
                other => other.words().to_owned(),
            },
        ];
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    for (title, notes) in notes(comparison) {
        let _ = writeln!(text, "\n{}\n", md::escape(&title));
        for note in notes {
            let _ = writeln!(text, "- {}", md::escape(&note));
        }
    }
    text
}

/// A row as CSV has it.
#[derive(serde::Serialize)]
struct Flat<'a> {
    a_run: &'a str,
    a_model: &'a str,
    b_run: &'a str,
    b_model: &'a str,
    task: &'a str,
    num_fewshot: u32,
    variant: Option<&'a str>,
    metric: &'a str,
    filter: &'a str,
    unit: &'a str,
    n: usize,
    n_undecided: usize,
    n_only_a: usize,
    n_only_b: usize,
    different_prompts: Option<usize>,
    a: f64,
    a_stderr: Option<f64>,
    b: f64,
    b_stderr: Option<f64>,
    difference: f64,
    stderr: Option<f64>,
    n_groups: Option<usize>,
    ci95_low: Option<f64>,
    ci95_high: Option<f64>,
    a_better: usize,
    b_better: usize,
    test: Option<&'a str>,
    p: Option<f64>,
    q: Option<f64>,
    wilcoxon_p: Option<f64>,
    min_detectable: Option<f64>,
    margin: f64,
    non_inferiority_p: Option<f64>,
    equivalence_p: Option<f64>,
    verdict: &'a str,
    incomplete: Option<&'a str>,
    notes: String,
}

/// Returns the rows as CSV.
pub(super) fn csv(comparison: &Comparison) -> Result<Vec<u8>, ReportError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in &comparison.rows {
        writer.serialize(Flat {
            a_run: &comparison.a.run,
            a_model: &comparison.a.model,
            b_run: &comparison.b.run,
            b_model: &comparison.b.model,
            task: &row.task,
            num_fewshot: row.num_fewshot,
            variant: row.variant.as_deref(),
            metric: &row.metric,
            filter: &row.filter,
            unit: row.unit,
            n: row.n,
            n_undecided: row.n_undecided,
            n_only_a: row.n_only_a,
            n_only_b: row.n_only_b,
            different_prompts: row.different_prompts,
            a: row.a.value,
            a_stderr: row.a.stderr,
            b: row.b.value,
            b_stderr: row.b.stderr,
            difference: row.difference,
            stderr: row.stderr,
            n_groups: row.n_groups,
            ci95_low: row.ci95_low,
            ci95_high: row.ci95_high,
            a_better: row.a_better,
            b_better: row.b_better,
            test: row.test,
            p: row.p,
            q: row.q,
            wilcoxon_p: row.wilcoxon_p,
            min_detectable: row.min_detectable,
            margin: comparison.margin,
            non_inferiority_p: row.non_inferiority_p,
            equivalence_p: row.equivalence_p,
            verdict: row.verdict.name(),
            incomplete: row.incomplete.as_deref(),
            notes: row.notes.join("; "),
        })?;
    }
    let text = writer
        .into_inner()
        .map_err(|error| csv::Error::from(error.into_error()))?;
    Ok(text)
}

/// Returns all of it as JSON.
pub(super) fn json(comparison: &Comparison) -> Result<String, ReportError> {
    let mut text = serde_json::to_string_pretty(comparison).map_err(ReportError::Json)?;
    text.push('\n');
    Ok(text)
}

/// Names a side: its model, its run, what ran.
pub(super) fn side(side: &Side) -> String {
    let mut parts = vec![format!("{} of {}", side.model, side.run)];
    parts.extend(side.weights.iter().map(|hash| {
        let short: String = hash.chars().take(12).collect();
        format!("weights {short}")
    }));
    parts.extend(side.kernels.iter().map(|kernel| format!("kernel {kernel}")));
    parts.join(", ")
}

/// Says what all rows together mean.
pub(super) fn overall(comparison: &Comparison) -> String {
    let of = |verdict| {
        let rows = comparison.rows.iter();
        rows.filter(|row| row.verdict == verdict).count()
    };
    let n = comparison.rows.len();
    match comparison.overall {
        Overall::Pass => "B is not worse than A in any figure.".to_owned(),
        Overall::Worse => format!(
            "B is worse than A in {} of {}.",
            of(Verdict::Worse),
            units::plural(n as u64, "figure")
        ),
        Overall::Inconclusive if n == 0 => "A and B have no task in common.".to_owned(),
        Overall::Inconclusive => format!(
            "{} of {} do not tell: more items or a wider margin would.",
            of(Verdict::Inconclusive),
            units::plural(n as u64, "figure")
        ),
        Overall::Nothing => "A and B have none of the tasks asked for in common.".to_owned(),
    }
}

/// Returns what stands beneath the table, each kind under its heading.
pub(super) fn notes(comparison: &Comparison) -> Vec<(String, Vec<String>)> {
    let mut of_rows: Vec<String> = Vec::new();
    for row in &comparison.rows {
        let prompts = row
            .different_prompts
            .filter(|n| *n > 0)
            .map(|n| format!("{n} of {} items had other prompts", row.n + row.n_undecided));
        for note in row.incomplete.iter().chain(&prompts).chain(&row.notes) {
            let line = format!("{}: {note}", row.label);
            if !of_rows.contains(&line) {
                of_rows.push(line);
            }
        }
    }
    let sections = [
        ("Beware".to_owned(), of_rows),
        ("Tasks of A alone".to_owned(), comparison.only_a.clone()),
        ("Tasks of B alone".to_owned(), comparison.only_b.clone()),
    ];
    sections
        .into_iter()
        .filter(|(_, notes)| !notes.is_empty())
        .collect()
}

/// Returns a side's value with its error.
pub(super) fn value(row: &Row, value: f64, stderr: Option<f64>) -> String {
    if row.unit != "1" {
        return units::text(row.unit, value);
    }
    match stderr {
        Some(error) => format!(
            "{} ± {} %",
            units::points_of_error(value),
            units::points_of_error(error)
        ),
        None => format!("{} %", units::points_of_error(value)),
    }
}

/// Returns the difference with its error.
pub(super) fn difference(row: &Row) -> String {
    if row.unit != "1" {
        return units::signed(row.unit, row.difference);
    }
    match row.stderr {
        Some(error) => format!(
            "{} ± {}",
            units::points(row.difference),
            units::points_of_error(error)
        ),
        None => units::points(row.difference),
    }
}

/// Returns the difference's interval.
pub(super) fn interval(row: &Row) -> String {
    let show = |value| {
        if row.unit == "1" {
            units::points(value)
        } else {
            units::signed(row.unit, value)
        }
    };
    row.ci95_low.zip(row.ci95_high).map_or_else(
        || "–".to_owned(),
        |(low, high)| format!("{} to {}", show(low), show(high)),
    )
}

/// Returns the smallest difference that would be found.
pub(super) fn least(row: &Row) -> String {
    row.min_detectable.map_or_else(
        || "–".to_owned(),
        |least| format!("≥ {}", units::points_of_error(least)),
    )
}

pub(super) fn probability(p: Option<f64>) -> String {
    p.map_or_else(|| "–".to_owned(), units::probability)
}

fn p_and_q(row: &Row) -> String {
    match row.q {
        Some(_) => format!("{} ({})", probability(row.p), probability(row.q)),
        None => probability(row.p),
    }
}
