//! The folder of an exported run: file names, columns, format version.
//!
//! A bundle is complete in itself: `run.json` says what was run where, the Parquet files hold every
//! raw value. Attempts that were superseded are left out; the store keeps them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    job::{Job, RunId},
    machine::Machine,
    record::ModelFacts,
};

/// Version of everything in this module; a reader refuses a newer one.
///
/// 2: answers that are no choice, and [`SCORES`]. 3: items from caches, and scores that are pending.
/// 4: jobs that expired. 5: energy of items, and [`AGREEMENT`].
pub const FORMAT_VERSION: u32 = 5;

/// The manifest's file name.
pub const MANIFEST: &str = "run.json";
/// One row a measurement.
pub const MEASUREMENTS: &str = "measurements.parquet";
/// One row an item.
pub const ITEMS: &str = "items.parquet";
/// One row a score of an item.
pub const SCORES: &str = "scores.parquet";
/// One row a generated token.
pub const TOKENS: &str = "tokens.parquet";
/// One row a cell of an agreement; since version 5.
pub const AGREEMENT: &str = "agreement.parquet";

/// Every record as its agent sent it, with the agents' signatures: `AttemptEvidence` messages of
/// `tritmark/v1/signature.proto`, each after its length. Bundles of older versions have none.
pub const EVIDENCE: &str = "evidence.pb";

/// Every file of a bundle, the manifest first.
pub const FILES: [&str; 7] = [
    MANIFEST,
    EVIDENCE,
    MEASUREMENTS,
    ITEMS,
    SCORES,
    TOKENS,
    AGREEMENT,
];

/// Columns of [`MEASUREMENTS`].
///
/// `job_index`, `attempt`: u32; `sequence`: u64; `at_unix_ns`: i64; `suite`, `metric`, `unit`: str;
/// `phase`, `grade`, `source`, `skipped_reason`: str or null; `n_prompt`, `n_gen`, `n_depth`,
/// `n_batch`, `repetition`: u32 or null; `value`: f64 or null (null exactly where `skipped_reason`
/// is given).
pub const MEASUREMENT_COLUMNS: [&str; 17] = [
    "job_index",
    "attempt",
    "sequence",
    "at_unix_ns",
    "suite",
    "metric",
    "unit",
    "phase",
    "n_prompt",
    "n_gen",
    "n_depth",
    "n_batch",
    "repetition",
    "value",
    "grade",
    "source",
    "skipped_reason",
];

/// Columns of [`ITEMS`].
///
/// `job_index`, `attempt`, `item_index`: u32; `sequence`: u64; `at_unix_ns`: i64; `task`, `doc_hash`,
/// `prompt_hash`: str; `group`: str or null; `elapsed_ns`: u64, or null of an item that nobody timed.
///
/// Choices: `gold`, `predicted`: u32 or null; `predicted_norm`: u32 or null; `loglikelihoods`: list
/// of f64; `is_greedy`: list of bool; `choice_tokens`, `choice_chars`: list of u32 (empty lists
/// where the answer is no choice).
///
/// Generated answers: `text`, `target`, `end`: str or null; `n_prompt_tokens`, `n_tokens`: u32 or
/// null (`n_tokens` is also given for rolling answers).
///
/// Rolling answers: `rolling_loglikelihood`: f64 or null; `n_words`, `n_bytes`: u32 or null.
///
/// `from_cache`: str or null, the attempt that evaluated an item from a cache, `run/job/attempt`;
/// `scored_on`: str or null, the id of the machine that ran a program against its tests.
///
/// `energy_sources`: list of str, the counters of energy that were read, none twice; `energy_j`: list of
/// f64 as long, the item's share of what each of them counted (empty lists where it was not measured,
/// as of an item from a cache).
///
/// Version 1 had neither `group` nor anything from `text` on, version 2 neither `from_cache` nor
/// `scored_on`; energy came with version 5.
pub const ITEM_COLUMNS: [&str; 29] = [
    "job_index",
    "attempt",
    "sequence",
    "at_unix_ns",
    "task",
    "group",
    "item_index",
    "doc_hash",
    "prompt_hash",
    "gold",
    "predicted",
    "predicted_norm",
    "loglikelihoods",
    "is_greedy",
    "choice_tokens",
    "choice_chars",
    "text",
    "target",
    "end",
    "n_prompt_tokens",
    "n_tokens",
    "rolling_loglikelihood",
    "n_words",
    "n_bytes",
    "elapsed_ns",
    "from_cache",
    "scored_on",
    "energy_sources",
    "energy_j",
];

/// Columns of [`SCORES`], in the items' order.
///
/// `job_index`, `attempt`, `item_index`: u32; `sequence`: u64, the item's; `task`, `metric`,
/// `filter`: str; `value`: f64 or null (null where it cannot be decided, or is pending); `extracted`,
/// `reason`: str or null; `pending`: bool, whether nobody has scored it yet. Since version 2, which
/// had no `pending`; in version 1 `acc` and `acc_norm` follow from the items.
pub const SCORE_COLUMNS: [&str; 11] = [
    "job_index",
    "attempt",
    "sequence",
    "task",
    "item_index",
    "metric",
    "filter",
    "value",
    "extracted",
    "reason",
    "pending",
];

/// Columns of [`TOKENS`].
///
/// `job_index`, `attempt`, `n_prompt`, `n_gen`, `n_depth`, `n_batch`, `repetition`, `token_index`,
/// `token_id`: u32; `sequence`, `elapsed_ns`: u64. `token_index` 0 holds the time to first token,
/// the others the inter-token latency.
pub const TOKEN_COLUMNS: [&str; 11] = [
    "job_index",
    "attempt",
    "sequence",
    "n_prompt",
    "n_gen",
    "n_depth",
    "n_batch",
    "repetition",
    "token_index",
    "token_id",
    "elapsed_ns",
];

/// Columns of [`AGREEMENT`].
///
/// `job_index`, `attempt`, `threads`, `n_batch`: u32; `sequence`, `equal`, `positions`: u64;
/// `at_unix_ns`: i64; `kernel`, `fingerprint`, `reference`: str; `reused_prefix`: bool.
///
/// The first position that differs: `prompt`, `position`, `expected`, `found`: u32 or null; `max_abs`,
/// `kl`, `margin`: f64 or null (null exactly where `equal` is `positions`).
pub const AGREEMENT_COLUMNS: [&str; 19] = [
    "job_index",
    "attempt",
    "sequence",
    "at_unix_ns",
    "kernel",
    "threads",
    "n_batch",
    "reused_prefix",
    "equal",
    "positions",
    "fingerprint",
    "reference",
    "prompt",
    "position",
    "max_abs",
    "kl",
    "margin",
    "expected",
    "found",
];

/// `run.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the writer.
    pub format_version: u32,
    /// The run.
    pub run: Run,
    /// Machines that did at least one job, sorted by id.
    pub machines: Vec<Machine>,
    /// All jobs in order.
    pub jobs: Vec<JobOutcome>,
}

/// What a run was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The plan's name.
    pub name: String,
    /// The plan as submitted.
    pub plan_toml: String,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// When its last job ended; `None` while it runs.
    pub ended_at: Option<Timestamp>,
    /// Version of the coordinator.
    pub tritmark_version: String,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobOutcome {
    /// The job.
    pub job: Job,
    /// Its state when the bundle was written.
    pub state: JobState,
    /// The attempt whose records the bundle holds.
    pub attempt: u32,
    /// The machine of that attempt.
    pub machine_id: Option<String>,
    /// What that attempt ran; `None` where it never came to load the model.
    pub facts: Option<ModelFacts>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Start of that attempt.
    pub started_at: Option<Timestamp>,
    /// End of that attempt.
    pub ended_at: Option<Timestamp>,
}

/// States of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waiting for an agent.
    Queued,
    /// An agent has it.
    Running,
    /// Every record is stored.
    Succeeded,
    /// Given up.
    Failed,
    /// Cancelled by a person.
    Cancelled,
}

impl JobState {
    /// Tells whether nothing more will happen to the job.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// Returns the name used everywhere.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What may help.
    pub class: FailureClass,
    /// In a reader's words.
    pub message: String,
    /// The worker's standard error, its last part.
    pub stderr: String,
}

/// Kinds of failure, by what may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// May well succeed if tried again.
    Transient,
    /// Will fail again in the same way.
    Permanent,
    /// The agent or its machine, not the job.
    Infrastructure,
    /// Nobody began it before its run expired.
    Expired,
}

impl FailureClass {
    /// Returns the name used everywhere.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Infrastructure => "infrastructure",
            Self::Expired => "expired",
        }
    }
}
