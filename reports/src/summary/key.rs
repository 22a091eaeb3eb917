//! What makes a row of the summary, and where it stands.

use tritmark_proto::{
    bundle::JobOutcome,
    job::{SuiteSpec, Workload},
    record::{Grade, Metric, Phase},
};

use super::context::Context;

/// What makes a row, in the order of rows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) machine_rank: usize,
    pub(super) model_rank: usize,
    pub(super) threads: u32,
    pub(super) kernel: String,
    pub(super) suite_rank: usize,
    pub(super) suite: String,
    pub(super) task: Option<String>,
    pub(super) num_fewshot: Option<u32>,
    pub(super) add_bos: Option<bool>,
    /// Tells apart what has been scored on different data.
    pub(super) data_hash: Option<String>,
    pub(super) n_items: Option<u64>,
    pub(super) workload: Option<Workload>,
    pub(super) metric_rank: usize,
    pub(super) metric: String,
    pub(super) unit: String,
    pub(super) phase: Option<Phase>,
    pub(super) grade_rank: usize,
    pub(super) grade: Option<&'static str>,
    pub(super) source: String,
    pub(super) reason: String,
    /// Only where a row is a whole job.
    pub(super) job_index: Option<u32>,
}

impl Key {
    pub(super) fn of_job(context: &Context<'_>, outcome: &JobOutcome) -> Self {
        let job = &outcome.job;
        let suite = job.suite.name();
        let mut key = Self {
            machine_rank: outcome
                .machine_id
                .as_deref()
                .and_then(|id| context.machine_ranks.get(id).copied())
                .unwrap_or(usize::MAX),
            model_rank: context
                .model_ranks
                .get(job.model.id.as_str())
                .copied()
                .unwrap_or(usize::MAX),
            threads: job.threads.get(),
            kernel: outcome
                .facts
                .as_ref()
                .map_or_else(|| job.kernel.clone(), |facts| facts.kernel.clone()),
            suite_rank: SuiteSpec::NAMES
                .iter()
                .position(|name| *name == suite)
                .unwrap_or(SuiteSpec::NAMES.len()),
            suite: suite.to_owned(),
            task: None,
            num_fewshot: None,
            add_bos: None,
            data_hash: None,
            n_items: None,
            workload: match &job.suite {
                SuiteSpec::Latency(spec) => Some(spec.workload),
                SuiteSpec::Memory(spec) => Some(spec.workload),
                SuiteSpec::Energy(spec) => Some(spec.workload),
                SuiteSpec::Accuracy(_) => None,
            },
            metric_rank: 0,
            metric: String::new(),
            unit: String::new(),
            phase: None,
            grade_rank: 0,
            grade: None,
            source: String::new(),
            reason: String::new(),
            job_index: Some(job.id.index),
        };
        if let SuiteSpec::Accuracy(spec) = &job.suite {
            key.task = Some(spec.task.clone());
            key.num_fewshot = Some(spec.num_fewshot);
            key.add_bos = Some(spec.add_bos);
            if let Some(facts) = &outcome.facts {
                key.data_hash.clone_from(&facts.data_hash);
                key.n_items = facts.n_items;
            }
        }
        key
    }

    pub(super) fn of_metric(
        context: &Context<'_>,
        outcome: &JobOutcome,
        metric: &str,
        unit: &str,
    ) -> Self {
        Self {
            metric_rank: metric_rank(metric),
            metric: metric.to_owned(),
            unit: unit.to_owned(),
            job_index: None,
            ..Self::of_job(context, outcome)
        }
    }

    pub(super) fn graded(self, grade: Grade, source: &str) -> Self {
        Self {
            grade_rank: 1 + Grade::ALL
                .iter()
                .position(|known| *known == grade)
                .unwrap_or_default(),
            grade: Some(grade.name()),
            source: source.to_owned(),
            ..self
        }
    }
}

/// Accuracy comes before what is said beside it; metrics of newer writers come last.
fn metric_rank(metric: &str) -> usize {
    match metric {
        "acc" => 0,
        "acc_norm" => 1,
        "itl_ns" => 2 + 2 * metric_position("tpot_ns") + 1,
        _ => 2 + 2 * metric_position(metric),
    }
}

fn metric_position(metric: &str) -> usize {
    Metric::ALL
        .iter()
        .position(|known| known.name() == metric)
        .unwrap_or(Metric::ALL.len())
}
