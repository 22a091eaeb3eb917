//! What makes a row of the summary, and where it stands.

use tritmark_proto::{
    bundle::JobOutcome,
    job::{AccuracySpec, SuiteSpec, Workload},
    record::{Grade, Metric, Phase},
};

use super::context::Context;
use crate::score::Figure;

/// What makes a row, in the order of rows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// What else a task was asked with.
    pub(super) variant: Option<String>,
    /// Tells apart what has been scored on different data.
    pub(super) data_hash: Option<String>,
    pub(super) n_items: Option<u64>,
    /// Of accuracy alone: other weights or numerics under the same name give other answers.
    pub(super) weights: Option<(String, &'static str, &'static str, u32)>,
    /// The whole of a task stands before its groups.
    pub(super) group: Option<String>,
    pub(super) workload: Option<Workload>,
    pub(super) metric_rank: usize,
    pub(super) metric: String,
    pub(super) filter: Option<String>,
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
            variant: None,
            data_hash: None,
            n_items: None,
            weights: None,
            group: None,
            workload: match &job.suite {
                SuiteSpec::Latency(spec) => Some(spec.workload),
                SuiteSpec::Memory(spec) => Some(spec.workload),
                SuiteSpec::Energy(spec) => Some(spec.workload),
                SuiteSpec::Accuracy(_) | SuiteSpec::Agreement(_) => None,
            },
            metric_rank: 0,
            metric: String::new(),
            filter: None,
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
            key.variant = variant(spec);
            if let Some(facts) = &outcome.facts {
                key.data_hash.clone_from(&facts.data_hash);
                key.n_items = facts.n_items;
                key.weights = Some((
                    facts.weights_hash.clone(),
                    facts.numerics.name(),
                    facts.kv.name(),
                    facts.numerics_version,
                ));
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

    /// Returns the key of a task's figure, `rank`-th in the task's order.
    pub(super) fn of_figure(self, figure: &Figure, rank: usize, group: Option<&str>) -> Self {
        Self {
            group: group.map(str::to_owned),
            metric_rank: rank.min(OTHER_METRICS - 1),
            metric: figure.metric().to_owned(),
            filter: Some(figure.filter().to_owned()),
            unit: figure.unit().to_owned(),
            ..self
        }
        .graded(Grade::Computed, "items")
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

/// Says what else than examples and BOS a task was asked with; `None` where nothing is unusual.
pub(crate) fn variant(spec: &AccuracySpec) -> Option<String> {
    let AccuracySpec {
        chat,
        max_new,
        evalplus_compat,
        // These decide which items, or nothing, or stand in columns of their own.
        task: _,
        data_dir: _,
        limit: _,
        num_fewshot: _,
        add_bos: _,
        batch: _,
        score_on: _,
        cache: _,
        shard: _,
        // Known by the hash of template and data.
        definition: _,
        data: _,
    } = spec;
    let mut parts = Vec::new();
    if let Some(chat) = chat {
        parts.push("chat".to_owned());
        if let Some(system) = &chat.system {
            parts.push(format!("system text \u{201c}{system}\u{201d}"));
        }
        if chat.fewshot_as_multiturn {
            parts.push("examples as turns".to_owned());
        }
    }
    if let Some(max_new) = max_new {
        parts.push(format!("at most {max_new} new tokens"));
    }
    if *evalplus_compat {
        parts.push("as EvalPlus 0.3.1".to_owned());
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Where ranks of other metrics than scores begin.
const OTHER_METRICS: usize = 1 << 20;

/// Scores come before what is said beside them; metrics of newer writers come last.
fn metric_rank(metric: &str) -> usize {
    match metric {
        "itl_ns" => OTHER_METRICS + 2 * metric_position("tpot_ns") + 1,
        "decode_read_share" => OTHER_METRICS + 2 * metric_position("decode_tok_per_s") + 1,
        "prefill_int8_share" | "prefill_f32_share" => {
            OTHER_METRICS + 2 * metric_position("prefill_tok_per_s") + 1
        }
        _ => OTHER_METRICS + 2 * metric_position(metric),
    }
}

fn metric_position(metric: &str) -> usize {
    Metric::ALL
        .iter()
        .position(|known| known.name() == metric)
        .unwrap_or(Metric::ALL.len())
}
