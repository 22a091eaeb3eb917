//! What a report says, before it is HTML or Markdown: headings, cells, notes, all as text.
//!
//! Rows of the summary go in, strings come out. The templates lay them out and decide nothing.

mod agreement;
mod cells;
mod groups;
mod headline;
mod machines;
mod models;
mod problems;
mod side_by_side;
mod suites;
mod tokens;

use jiff::Timestamp;
use serde::Serialize;
use tritmark_proto::bundle::JobState;

pub(crate) use self::{
    agreement::AgreementTable, groups::GroupTable, headline::Card, machines::MachineView,
    models::ModelView, problems::Problems, side_by_side::SideBySide, suites::SuiteTable,
    tokens::TokenTable,
};
use crate::{
    bundle::Bundle,
    stats::MIN_FOR_FULL_COVERAGE,
    summary::{Status, SummaryRow},
    units,
};

/// A report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct View {
    pub(crate) title: String,
    pub(crate) run_id: String,
    pub(crate) submitted: String,
    pub(crate) duration: Option<String>,
    pub(crate) version: String,
    pub(crate) counts: Vec<Count>,
    pub(crate) cards: Vec<Card>,
    pub(crate) nothing: Option<String>,
    pub(crate) machines: Vec<MachineView>,
    pub(crate) side_by_side: Vec<SideBySide>,
    pub(crate) suites: Vec<SuiteTable>,
    pub(crate) groups: Vec<GroupTable>,
    pub(crate) agreement: Vec<AgreementTable>,
    pub(crate) tokens: Vec<TokenTable>,
    pub(crate) problems: Problems,
    pub(crate) models: Vec<ModelView>,
    pub(crate) plan: String,
    pub(crate) few_repetitions: bool,
}

/// A number of jobs or values in the head of the page.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Count {
    pub(crate) text: String,
    /// `good`, `bad` or `plain`.
    pub(crate) kind: &'static str,
}

/// A figure of a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Cell {
    /// The figure.
    pub(crate) text: String,
    /// Spread and n beneath it.
    pub(crate) sub: String,
    /// Every digit, and what else is known.
    pub(crate) title: String,
    /// `value`, `better`, `worse`, `missing` or `none`.
    pub(crate) kind: &'static str,
}

impl Cell {
    fn none() -> Self {
        Self {
            text: "–".to_owned(),
            kind: "none",
            ..Self::default()
        }
    }
}

impl View {
    /// Returns what a report of `bundle` says.
    pub(crate) fn new(bundle: &Bundle, rows: &[SummaryRow]) -> Self {
        let run = &bundle.manifest.run;
        let agreement = agreement::tables(bundle);
        let has_values = !agreement.is_empty() || rows.iter().any(|row| row.value.is_some());
        Self {
            title: run.name.clone(),
            run_id: run.id.to_string(),
            submitted: moment(run.submitted_at),
            duration: run.ended_at.map(|end| duration(run.submitted_at, end)),
            version: run.tritmark_version.clone(),
            counts: counts(bundle, rows, &agreement),
            cards: headline::cards(bundle, rows),
            nothing: (!has_values).then(|| nothing(bundle)),
            machines: machines::views(bundle),
            side_by_side: side_by_side::tables(bundle, rows),
            suites: suites::tables(bundle, rows),
            groups: groups::tables(bundle, rows),
            agreement,
            tokens: tokens::tables(bundle, rows),
            problems: problems::problems(bundle, rows),
            models: models::views(bundle),
            plan: run.plan_toml.clone(),
            few_repetitions: rows
                .iter()
                .any(|row| row.ci95_low.is_some() && row.n < MIN_FOR_FULL_COVERAGE),
        }
    }
}

fn nothing(bundle: &Bundle) -> String {
    let failed = count_of(bundle, |state| state == JobState::Failed);
    let jobs = bundle.manifest.jobs.len();
    match (jobs, failed) {
        (0, _) => "This run has no jobs.".to_owned(),
        (jobs, failed) if jobs == failed => {
            format!("Nothing was measured: {} failed.", all_of(jobs, "job"))
        }
        _ => "Nothing has been measured yet.".to_owned(),
    }
}

fn all_of(n: usize, noun: &str) -> String {
    if n == 1 {
        format!("the only {noun}")
    } else {
        format!("all {n} {noun}s")
    }
}

fn count_of(bundle: &Bundle, wanted: impl Fn(JobState) -> bool) -> usize {
    let jobs = &bundle.manifest.jobs;
    jobs.iter().filter(|outcome| wanted(outcome.state)).count()
}

fn counts(bundle: &Bundle, rows: &[SummaryRow], agreement: &[AgreementTable]) -> Vec<Count> {
    let total = bundle.manifest.jobs.len();
    let succeeded = count_of(bundle, |state| state == JobState::Succeeded);
    let mut counts = vec![Count {
        text: format!(
            "{succeeded} of {} succeeded",
            units::plural(total as u64, "job")
        ),
        kind: if succeeded == total { "good" } else { "plain" },
    }];
    let mut add = |n: usize, what: &str, kind| {
        if n > 0 {
            counts.push(Count {
                text: format!("{n} {what}"),
                kind,
            });
        }
    };
    add(
        count_of(bundle, |state| state == JobState::Failed),
        "failed",
        "bad",
    );
    add(
        count_of(bundle, |state| state == JobState::Cancelled),
        "cancelled",
        "plain",
    );
    add(
        count_of(bundle, |state| !state.is_final()),
        "not finished",
        "plain",
    );
    let unmeasurable = rows
        .iter()
        .filter(|row| row.status == Status::Unmeasurable)
        .count();
    let noun = if unmeasurable == 1 { "value" } else { "values" };
    add(unmeasurable, &format!("{noun} not measurable"), "plain");
    if agreement.iter().any(|table| !table.agrees) {
        counts.push(Count {
            text: "kernels or machines disagree".to_owned(),
            kind: "bad",
        });
    } else if !agreement.is_empty() {
        counts.push(Count {
            text: "kernels and machines agree".to_owned(),
            kind: "good",
        });
    }
    counts
}

fn moment(at: Timestamp) -> String {
    at.strftime("%-d %B %Y, %H:%M UTC").to_string()
}

fn duration(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.as_second().saturating_sub(from.as_second()).max(0);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, _) => format!("{minutes} min {seconds} s"),
        _ => format!("{hours} h {minutes} min"),
    }
}
