//! Two models' answers to the same items, from one bundle or from two, with a verdict a script can
//! act on.
//!
//! A is what B is compared with: a difference is B less A, and "worse" says that B is. Only items
//! both answered count, each with its counterpart. `docs/compare.md` says what each number means.

mod page;
mod render;
mod rows;
pub(crate) mod side;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub use rows::{PairedBy, Row, Value};
pub use side::{Side, SideError};

use crate::{bundle::Bundle, error::ReportError, stats};

/// Chance of a false call that verdicts allow.
pub const ALPHA: f64 = 0.05;

/// What a comparison is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Largest difference that is taken for none, as a share (0.01 is one point); for perplexities
    /// and bits, the share of A's value.
    pub margin: f64,
    /// Only these tasks; all where empty.
    pub tasks: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            margin: 0.01,
            tasks: Vec::new(),
        }
    }
}

/// What a figure of a task says of B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The difference is no chance, and B's value the better one.
    Better,
    /// The difference lies within the margin, to either side.
    Equivalent,
    /// B is not worse than A by the margin; it may be better.
    NotWorse,
    /// The items do not tell.
    Inconclusive,
    /// The difference is no chance, and B's value the worse one.
    Worse,
}

impl Verdict {
    /// Returns the name used in JSON and CSV.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Equivalent => "equivalent",
            Self::NotWorse => "not_worse",
            Self::Inconclusive => "inconclusive",
            Self::Worse => "worse",
        }
    }

    /// Returns the verdict in a reader's words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Equivalent => "equivalent within the margin",
            Self::NotWorse => "not worse by the margin",
            Self::Inconclusive => "inconclusive",
            Self::Worse => "worse",
        }
    }
}

/// What all figures together say of B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Overall {
    /// No figure is worse, and none undecided.
    Pass,
    /// A figure is worse.
    Worse,
    /// No figure is worse, but some do not tell; or both models have no task in common.
    Inconclusive,
    /// Of the tasks asked for, there is none.
    Nothing,
}

/// A comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// What B is compared with.
    pub a: Side,
    /// What is compared.
    pub b: Side,
    /// As in [`Options`].
    pub margin: f64,
    /// What all rows together say.
    pub overall: Overall,
    /// One row a task and figure, in A's order.
    pub rows: Vec<Row>,
    /// Tasks only A has.
    pub only_a: Vec<String>,
    /// Tasks only B has.
    pub only_b: Vec<String>,
}

/// Compares model B of one bundle with model A of another, or of the same.
///
/// # Errors
///
/// Fails where a model is not there, or is not named and there are several.
pub fn compare(
    a: (&Bundle, Option<&str>),
    b: (&Bundle, Option<&str>),
    options: &Options,
) -> Result<Comparison, SideError> {
    let (a_side, a_tasks) = side::collect(a.0, a.1)?;
    let (b_side, b_tasks) = side::collect(b.0, b.1)?;
    let is_wanted =
        |task: &str| options.tasks.is_empty() || options.tasks.iter().any(|t| t == task);
    let mut rows = Vec::new();
    let mut matched_b = vec![false; b_tasks.len()];
    let mut only_a = Vec::new();
    for a_task in a_tasks.iter().filter(|task| is_wanted(&task.name)) {
        match side::counterpart(a_task, &a_tasks, &b_tasks) {
            Some(at) => {
                matched_b[at] = true;
                rows.extend(rows::of_task(a_task, &b_tasks[at], options.margin));
            }
            None => only_a.push(a_task.title()),
        }
    }
    let only_b = b_tasks
        .iter()
        .zip(matched_b)
        .filter(|(task, matched)| !matched && is_wanted(&task.name))
        .map(|(task, _)| task.title())
        .collect();
    judge(&mut rows);
    Ok(Comparison {
        overall: overall(&rows, !options.tasks.is_empty()),
        a: a_side,
        b: b_side,
        margin: options.margin,
        rows,
        only_a,
        only_b,
    })
}

/// Adjusts the p values of all rows together, and gives each row its verdict.
fn judge(rows: &mut [Row]) {
    let tested: Vec<usize> = (0..rows.len()).filter(|at| rows[*at].p.is_some()).collect();
    let p: Vec<f64> = tested.iter().filter_map(|at| rows[*at].p).collect();
    for (at, q) in tested.into_iter().zip(stats::benjamini_hochberg(&p)) {
        rows[at].q = Some(q);
    }
    for row in rows {
        row.verdict = row.judged();
    }
}

fn overall(rows: &[Row], is_selection: bool) -> Overall {
    if rows.is_empty() {
        return if is_selection {
            Overall::Nothing
        } else {
            Overall::Inconclusive
        };
    }
    let worst = rows.iter().map(|row| row.verdict).max();
    match worst {
        Some(Verdict::Worse) => Overall::Worse,
        Some(Verdict::Inconclusive) | None => Overall::Inconclusive,
        Some(_) => Overall::Pass,
    }
}

impl Comparison {
    /// Tells whether items or jobs are missing on either side.
    pub fn is_incomplete(&self) -> bool {
        self.rows.iter().any(|row| row.incomplete.is_some())
    }

    /// Returns the comparison as lines for a terminal.
    pub fn text(&self) -> String {
        render::text(self)
    }

    /// Returns the comparison as a GitHub table.
    pub fn markdown(&self) -> String {
        render::markdown(self)
    }

    /// Returns the rows as CSV, every digit.
    pub fn csv(&self) -> Result<Vec<u8>, ReportError> {
        render::csv(self)
    }

    /// Returns all of it as JSON, every digit.
    pub fn json(&self) -> Result<String, ReportError> {
        render::json(self)
    }
}

/// Returns a page of the items whose scores differ, which needs no network.
///
/// # Errors
///
/// Fails as [`compare`] does, or where the page cannot be rendered.
pub fn page(
    a: (&Bundle, Option<&str>),
    b: (&Bundle, Option<&str>),
    comparison: &Comparison,
) -> Result<String, ReportError> {
    let (_, a_tasks) = side::collect(a.0, a.1).map_err(ReportError::Side)?;
    let (_, b_tasks) = side::collect(b.0, b.1).map_err(ReportError::Side)?;
    page::render(comparison, &a_tasks, &b_tasks)
}
