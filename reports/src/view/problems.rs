//! What failed and what cannot be measured, each with its reason.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tritmark_proto::bundle::{FailureClass, JobOutcome, JobState};

use crate::{
    bundle::Bundle,
    labels,
    summary::{Status, SummaryRow},
    units,
};

/// Everything without a value.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Problems {
    pub(crate) jobs: Vec<FailedJob>,
    pub(crate) unmeasurable: Vec<Unmeasurable>,
    /// Values that lack items.
    pub(crate) incomplete: Vec<Unmeasurable>,
}

impl Problems {
    /// Tells whether there is nothing to say.
    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.unmeasurable.is_empty() && self.incomplete.is_empty()
    }
}

/// A job without a result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FailedJob {
    pub(crate) index: u32,
    pub(crate) what: String,
    pub(crate) state: &'static str,
    pub(crate) class: Option<&'static str>,
    pub(crate) message: String,
    pub(crate) stderr: String,
}

/// A reason and what it stands for.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Unmeasurable {
    pub(crate) reason: String,
    pub(crate) metrics: String,
    pub(crate) models: String,
    pub(crate) machines: String,
}

/// Returns what failed and what cannot be measured.
pub(super) fn problems(bundle: &Bundle, rows: &[SummaryRow]) -> Problems {
    let jobs = bundle
        .manifest
        .jobs
        .iter()
        .filter(|outcome| outcome.state != JobState::Succeeded)
        .map(|outcome| failed(bundle, outcome))
        .collect();
    Problems {
        jobs,
        unmeasurable: by_reason(rows, |row| row.status == Status::Unmeasurable),
        incomplete: by_reason(rows, |row| {
            let lacks_items = row.status == Status::Incomplete
                || row.n_undecided.is_some_and(|undecided| undecided > 0);
            row.value.is_some() && lacks_items && row.group.is_none()
        }),
    }
}

fn failed(bundle: &Bundle, outcome: &JobOutcome) -> FailedJob {
    let job = &outcome.job;
    let mut what = vec![
        job.model.id.clone(),
        labels::suite(job.suite.name()).to_lowercase(),
        units::threads(job.threads.get()),
    ];
    if let tritmark_proto::job::SuiteSpec::Accuracy(spec) = &job.suite {
        what.push(spec.task.clone());
    }
    what.push(match bundle.machine_of(outcome) {
        Some(machine) => machine.hostname.clone(),
        None => "no machine".to_owned(),
    });
    let failure = outcome.failure.as_ref();
    FailedJob {
        index: job.id.index,
        what: what.join(" · "),
        state: outcome.state.name(),
        class: failure.map(|failure| match failure.class {
            FailureClass::Transient => "may succeed if tried again",
            FailureClass::Permanent => "will fail again in the same way",
            FailureClass::Infrastructure => "the agent or its machine, not the job",
            FailureClass::Expired => "nobody began it before its run expired",
        }),
        message: failure.map_or_else(
            || format!("the job is {}", outcome.state.name()),
            |failure| failure.message.clone(),
        ),
        stderr: failure.map_or_else(String::new, |failure| failure.stderr.clone()),
    }
}

fn by_reason(rows: &[SummaryRow], wanted: impl Fn(&SummaryRow) -> bool) -> Vec<Unmeasurable> {
    #[derive(Default)]
    struct Found<'a> {
        metrics: Vec<String>,
        models: Vec<&'a str>,
        machines: BTreeSet<&'a str>,
    }
    let mut by_reason: BTreeMap<&str, Found<'_>> = BTreeMap::new();
    for row in rows.iter().filter(|row| wanted(row)) {
        let found = by_reason
            .entry(row.reason.as_deref().unwrap_or("no reason given"))
            .or_default();
        let name = row.metric.as_deref().unwrap_or_default();
        let metric = match &row.task {
            Some(task) if row.filter.is_some() => {
                labels::figure_of_task(task, name, row.filter.as_deref())
            }
            _ => labels::metric(name).to_owned(),
        };
        if !found.metrics.contains(&metric) {
            found.metrics.push(metric);
        }
        if !found.models.contains(&row.model.as_str()) {
            found.models.push(&row.model);
        }
        found.machines.extend(row.machine.as_deref());
    }
    by_reason
        .into_iter()
        .map(|(reason, found)| Unmeasurable {
            reason: reason.to_owned(),
            metrics: found.metrics.join(", "),
            models: found.models.join(", "),
            machines: found.machines.into_iter().collect::<Vec<_>>().join(", "),
        })
        .collect()
}
