//! One tidy row per machine, model, kernel, threads, workload, metric and kind of evidence.
//!
//! A row says what was found (`value`, `n`, spread), or why there is nothing (`status`, `reason`).
//! Nothing is rounded here. The headline `value` of a repeated metric is its median, of a task the
//! mean of its items' scores, of anything else the one value there is.

mod build;
pub(crate) mod context;
mod counterpart;
mod entry;
mod key;
mod roofline;
mod shards;

use serde::Serialize;
use tritmark_proto::{job::Workload, record::Metric};

pub use build::rows;
pub(crate) use key::variant;

/// Time between two tokens of an answer; derived from the tokens, so no metric of a record.
pub(crate) const ITL: &str = "itl_ns";

/// Mean energy of an accuracy job's items; derived from the items, so no metric of a record.
pub(crate) const ENERGY_PER_ITEM: &str = "energy_per_item_j";

/// Decode speed by its roofline; derived like [`ITL`].
pub(crate) const DECODE_READ_SHARE: &str = "decode_read_share";

/// Prefill speed by its roofline, of a model whose linears multiply int8.
pub(crate) const PREFILL_INT8_SHARE: &str = "prefill_int8_share";

/// The same of one whose linears multiply f32.
pub(crate) const PREFILL_F32_SHARE: &str = "prefill_f32_share";

/// What a model is to the others of its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Ternary weights.
    Ternary,
    /// Names a baseline, but its weights are not ternary.
    Candidate,
    /// Full precision, named by another model.
    Baseline,
    /// Neither ternary nor part of a pair.
    Single,
}

impl Role {
    /// Returns the name used everywhere.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ternary => "ternary",
            Self::Candidate => "candidate",
            Self::Baseline => "baseline",
            Self::Single => "single",
        }
    }
}

/// What became of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// There is a value.
    Ok,
    /// There is a value, which lacks items or shards; the reason says which.
    Incomplete,
    /// It cannot be measured here; the reason says why.
    Unmeasurable,
    /// The job failed; the reason says why.
    Failed,
    /// The job was cancelled.
    Cancelled,
    /// The job had not ended when the run was exported.
    Unfinished,
}

impl Status {
    /// Returns the name used everywhere.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Incomplete => "incomplete",
            Self::Unmeasurable => "unmeasurable",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Unfinished => "unfinished",
        }
    }
}

/// A row of the summary; the fields are the columns of `summary.csv`, in this order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SummaryRow {
    /// Run's id.
    pub run: String,
    /// Machine's id; `None` where no machine had the job.
    pub machine_id: Option<String>,
    /// Machine's host name.
    pub machine: Option<String>,
    /// Model's id in the plan.
    pub model: String,
    /// What it is to the others.
    pub role: Role,
    /// Model it is compared with.
    pub baseline: Option<String>,
    /// Format of the block linears.
    pub weight_format: Option<String>,
    /// Kernel that ran, or the one asked for where the model never loaded.
    pub kernel: String,
    /// Threads of the engine.
    pub threads: u32,
    /// Suite.
    pub suite: String,
    /// Task, of accuracy alone.
    pub task: Option<String>,
    /// Solved examples before each question, of accuracy alone.
    pub num_fewshot: Option<u32>,
    /// Whether BOS stands before the context, of accuracy alone.
    pub add_bos: Option<bool>,
    /// What else a task was asked with, e.g. `chat`; of accuracy alone.
    pub variant: Option<String>,
    /// Part of the task, e.g. MMLU's subject; `None` where the row is of the whole.
    pub group: Option<String>,
    /// Metric; `None` where a whole job has no result.
    pub metric: Option<String>,
    /// What answers went through before they were scored, `none` where nothing; of scores alone.
    pub filter: Option<String>,
    /// Unit of `value` to `ci95_high`; `1` for shares.
    pub unit: Option<String>,
    /// Part of the workload.
    pub phase: Option<String>,
    /// Prompt tokens.
    pub n_prompt: Option<u32>,
    /// Generated tokens.
    pub n_gen: Option<u32>,
    /// Tokens in the KV cache before.
    pub n_depth: Option<u32>,
    /// Tokens submitted at once.
    pub n_batch: Option<u32>,
    /// Values the row rests on: repetitions, tokens or items.
    pub n: usize,
    /// Items that are neither right nor wrong, and not among `n`; of scores alone.
    pub n_undecided: Option<usize>,
    /// Items that nobody has scored yet, and not among `n` or `n_undecided`; of scores alone.
    pub n_pending: Option<usize>,
    /// Items that were not evaluated in this run but are from a cache; of accuracy alone.
    pub n_cached: Option<usize>,
    /// Jobs, which is to say processes, these came from.
    pub n_jobs: usize,
    /// The headline.
    pub value: Option<f64>,
    /// Median.
    pub median: Option<f64>,
    /// Mean.
    pub mean: Option<f64>,
    /// Sample standard deviation.
    pub sd: Option<f64>,
    /// Median absolute deviation, unscaled.
    pub median_abs_dev: Option<f64>,
    /// 5 % quantile.
    pub p5: Option<f64>,
    /// 95 % quantile.
    pub p95: Option<f64>,
    /// 99 % quantile; `None` of fewer than 1000 values.
    pub p99: Option<f64>,
    /// Lower end of the bootstrap interval of the median.
    pub ci95_low: Option<f64>,
    /// Upper end.
    pub ci95_high: Option<f64>,
    /// What the interval, and that of the ratio, hold for.
    pub ci_scope: Option<String>,
    /// Standard error of a score, the items' standard deviation over sqrt(n); of a task with groups,
    /// pooled over them.
    pub stderr: Option<f64>,
    /// Kind of evidence.
    pub grade: Option<String>,
    /// Clock, counter or formula.
    pub source: Option<String>,
    /// What became of it.
    pub status: Status,
    /// Why there is no value, or what a reader must know of the one there is.
    pub reason: Option<String>,
    /// This value / the baseline's.
    pub baseline_ratio: Option<f64>,
    /// Lower end of its 95 % bootstrap interval.
    pub baseline_ratio_low: Option<f64>,
    /// Upper end.
    pub baseline_ratio_high: Option<f64>,
    /// Mean score less the baseline's, over the items decided for both.
    pub baseline_difference: Option<f64>,
    /// Its standard error, from the per-item differences.
    pub baseline_difference_stderr: Option<f64>,
    /// Items or values of the baseline in the comparison.
    pub baseline_n: Option<usize>,
    /// P value of the exact two-sided `McNemar` test.
    pub mcnemar_p: Option<f64>,
    /// Smallest difference found with 80 % power at α = 0.05.
    pub min_detectable_difference: Option<f64>,
    /// Why there is no comparison, or what a reader must know of the one there is.
    pub baseline_note: Option<String>,
    /// blake3 of template and data, of accuracy alone.
    pub data_hash: Option<String>,
    /// Items the task has under its limit, of accuracy alone.
    pub n_items: Option<u64>,
    /// Whether this is the first of its task's figures.
    #[serde(skip)]
    pub is_main: bool,
}

impl SummaryRow {
    /// Returns a row that says nothing.
    pub(crate) const fn blank() -> Self {
        Self {
            run: String::new(),
            machine_id: None,
            machine: None,
            model: String::new(),
            role: Role::Single,
            baseline: None,
            weight_format: None,
            kernel: String::new(),
            threads: 0,
            suite: String::new(),
            task: None,
            num_fewshot: None,
            add_bos: None,
            variant: None,
            group: None,
            metric: None,
            filter: None,
            unit: None,
            phase: None,
            n_prompt: None,
            n_gen: None,
            n_depth: None,
            n_batch: None,
            n: 0,
            n_undecided: None,
            n_pending: None,
            n_cached: None,
            n_jobs: 0,
            value: None,
            median: None,
            mean: None,
            sd: None,
            median_abs_dev: None,
            p5: None,
            p95: None,
            p99: None,
            ci95_low: None,
            ci95_high: None,
            ci_scope: None,
            stderr: None,
            grade: None,
            source: None,
            status: Status::Ok,
            reason: None,
            baseline_ratio: None,
            baseline_ratio_low: None,
            baseline_ratio_high: None,
            baseline_difference: None,
            baseline_difference_stderr: None,
            baseline_n: None,
            mcnemar_p: None,
            min_detectable_difference: None,
            baseline_note: None,
            data_hash: None,
            n_items: None,
            is_main: false,
        }
    }

    /// Returns the token shape.
    pub fn workload(&self) -> Option<Workload> {
        Some(Workload {
            n_prompt: self.n_prompt?,
            n_gen: self.n_gen?,
            n_depth: self.n_depth?,
            n_batch: self.n_batch?,
        })
    }

    /// Tells whether the row is of this metric and has a value.
    pub fn is_value_of(&self, metric: &str) -> bool {
        self.has_value() && self.metric.as_deref() == Some(metric)
    }

    /// Tells whether there is a value, of all items or of some.
    pub fn has_value(&self) -> bool {
        matches!(self.status, Status::Ok | Status::Incomplete)
    }

    /// Tells whether the row says what an accuracy job took, in time or energy, and not what it scored.
    /// Such jobs may share their machine, so that these are no comparison; they stand in
    /// `summary.csv` alone.
    pub fn is_cost_of_accuracy(&self) -> bool {
        self.suite == "accuracy" && self.metric.is_some() && self.filter.is_none()
    }

    /// Tells whether the row says what the machine could do, as a bound or as a share of one. Neither is
    /// compared with a baseline's; the bounds stand in `summary.csv` alone.
    pub(crate) fn is_of_roofline(&self) -> bool {
        let metric = self.metric.as_deref().unwrap_or_default();
        [DECODE_READ_SHARE, PREFILL_INT8_SHARE, PREFILL_F32_SHARE].contains(&metric)
            || self.is_bound()
    }

    /// Tells whether the row is a bound of the machine.
    pub(crate) fn is_bound(&self) -> bool {
        let metric = self.metric.as_deref().unwrap_or_default();
        [
            Metric::MemoryReadBytesPerS,
            Metric::Int8OpsPerS,
            Metric::F32OpsPerS,
        ]
        .iter()
        .any(|bound| bound.name() == metric)
    }

    /// Tells whether the value is the mean of items' scores.
    pub(crate) fn is_score(&self) -> bool {
        self.filter.is_some() && self.unit.as_deref() == Some("1")
    }

    /// Tells whether the row is a share that stands for its whole task: the first of its scores.
    pub(crate) fn is_main_share(&self) -> bool {
        self.is_main
            && self.group.is_none()
            && self.unit.as_deref() == Some("1")
            && self.has_value()
    }
}

#[cfg(test)]
mod tests;
