//! A record: one thing a worker found out, written once.

use std::{fmt, num::NonZeroU32, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    job::{AttemptId, JobId, KvType, Numerics, RunId, Workload},
    roofline::Demand,
};

/// One thing a worker found out, keyed by (job, attempt, sequence).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// From 0 within an attempt, without gaps.
    pub sequence: u64,
    /// When it was found out, in nanoseconds since 1970.
    pub at_unix_ns: i64,
    /// What was found out.
    pub body: RecordBody,
}

/// What a record holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordBody {
    /// One value of one metric, or why there is none.
    Measurement(Measurement),
    /// Every token of one timed generation.
    Tokens(TokenTimes),
    /// One question, scored.
    Item(Item),
    /// What the worker really ran; the first record of every attempt.
    Facts(ModelFacts),
    /// One way of computing, against the scalar reference.
    Cell(AgreementCell),
}

/// One value of one metric in one repetition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Suite that made it.
    pub suite: String,
    /// What is measured.
    pub metric: Metric,
    /// Token shape; `None` where the metric has none.
    pub workload: Option<Workload>,
    /// Part of the workload; `None` where the metric belongs to the whole.
    pub phase: Option<Phase>,
    /// Repetition from 0; `None` where there is one value a job.
    pub repetition: Option<u32>,
    /// The value or the reason.
    pub outcome: Outcome,
}

/// A part of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The prompt.
    Prefill,
    /// The generated tokens.
    Decode,
}

/// A value, or why there is none. What cannot be measured is never 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A value.
    Reading(Reading),
    /// Why there is none.
    Skipped {
        /// In a reader's words.
        reason: String,
    },
}

/// A value with what it rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// In the metric's unit.
    pub value: f64,
    /// Kind of evidence.
    pub grade: Grade,
    /// Clock, counter or formula, e.g. `clock:monotonic`, `powercap:package-0`, `aoe:7nm`.
    pub source: String,
}

/// Kinds of evidence, never mixed in one column of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// An external meter.
    Metered,
    /// A counter of the machine: clock, RAPL, resident memory.
    Counted,
    /// Exact arithmetic on what is stored, e.g. bytes of the weights.
    Computed,
    /// A model of the machine.
    Estimated,
}

/// Everything that is measured. The unit stands last in the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// From opening the model's files to being ready for the first token.
    LoadNs,
    /// Prompt tokens per second.
    PrefillTokPerS,
    /// Generated tokens per second.
    DecodeTokPerS,
    /// From handing over the prompt to the first generated token.
    TtftNs,
    /// Mean time of the generated tokens after the first.
    TpotNs,
    /// Bytes of all weights as they lie in memory.
    WeightBytes,
    /// Bytes of the block linears alone.
    LinearWeightBytes,
    /// Bytes of the model's files.
    FileBytes,
    /// Bytes of the KV cache for the workload.
    KvBytes,
    /// Highest resident memory of the worker process.
    PeakRssBytes,
    /// Energy of the window.
    EnergyJ,
    /// Energy of the window less the idle draw.
    EnergyNetJ,
    /// Energy per token.
    EnergyPerTokenJ,
    /// Energy per token less the idle draw.
    EnergyNetPerTokenJ,
    /// Idle draw before and after.
    IdleW,
    /// The papers' arithmetic estimate for a whole sequence (`protocols` section 4).
    EnergyEstimateJ,
    /// The same for each token of that sequence.
    EnergyEstimatePerTokenJ,
    /// Wall time of one item set.
    ItemsPerS,
    /// The machine's bound of reading memory ([`Bounds`](crate::roofline::Bounds)).
    MemoryReadBytesPerS,
    /// Its bound of int8 multiply-adds.
    Int8OpsPerS,
    /// Its bound of f32 multiply-adds.
    F32OpsPerS,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 21] = [
        Self::LoadNs,
        Self::PrefillTokPerS,
        Self::DecodeTokPerS,
        Self::TtftNs,
        Self::TpotNs,
        Self::WeightBytes,
        Self::LinearWeightBytes,
        Self::FileBytes,
        Self::KvBytes,
        Self::PeakRssBytes,
        Self::EnergyJ,
        Self::EnergyNetJ,
        Self::EnergyPerTokenJ,
        Self::EnergyNetPerTokenJ,
        Self::IdleW,
        Self::EnergyEstimateJ,
        Self::EnergyEstimatePerTokenJ,
        Self::ItemsPerS,
        Self::MemoryReadBytesPerS,
        Self::Int8OpsPerS,
        Self::F32OpsPerS,
    ];

    /// Returns the name used in plans, stores, columns and exports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LoadNs => "load_ns",
            Self::PrefillTokPerS => "prefill_tok_per_s",
            Self::DecodeTokPerS => "decode_tok_per_s",
            Self::TtftNs => "ttft_ns",
            Self::TpotNs => "tpot_ns",
            Self::WeightBytes => "weight_bytes",
            Self::LinearWeightBytes => "linear_weight_bytes",
            Self::FileBytes => "file_bytes",
            Self::KvBytes => "kv_bytes",
            Self::PeakRssBytes => "peak_rss_bytes",
            Self::EnergyJ => "energy_j",
            Self::EnergyNetJ => "energy_net_j",
            Self::EnergyPerTokenJ => "energy_per_token_j",
            Self::EnergyNetPerTokenJ => "energy_net_per_token_j",
            Self::IdleW => "idle_w",
            Self::EnergyEstimateJ => "energy_estimate_j",
            Self::EnergyEstimatePerTokenJ => "energy_estimate_per_token_j",
            Self::ItemsPerS => "items_per_s",
            Self::MemoryReadBytesPerS => "memory_read_bytes_per_s",
            Self::Int8OpsPerS => "int8_ops_per_s",
            Self::F32OpsPerS => "f32_ops_per_s",
        }
    }

    /// Returns the unit of the values.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::LoadNs | Self::TtftNs | Self::TpotNs => "ns",
            Self::PrefillTokPerS | Self::DecodeTokPerS => "tok/s",
            Self::WeightBytes
            | Self::LinearWeightBytes
            | Self::FileBytes
            | Self::KvBytes
            | Self::PeakRssBytes => "B",
            Self::EnergyJ | Self::EnergyNetJ | Self::EnergyEstimateJ => "J",
            Self::EnergyPerTokenJ | Self::EnergyNetPerTokenJ | Self::EnergyEstimatePerTokenJ => {
                "J/tok"
            }
            Self::IdleW => "W",
            Self::ItemsPerS => "items/s",
            Self::MemoryReadBytesPerS => "B/s",
            Self::Int8OpsPerS | Self::F32OpsPerS => "op/s",
        }
    }

    /// Tells whether a larger value is better.
    pub const fn higher_is_better(self) -> bool {
        matches!(
            self,
            Self::PrefillTokPerS
                | Self::DecodeTokPerS
                | Self::ItemsPerS
                | Self::MemoryReadBytesPerS
                | Self::Int8OpsPerS
                | Self::F32OpsPerS
        )
    }
}

/// A name that no value of the enum has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {kind} `{name}`")]
pub struct UnknownName {
    /// What was looked for.
    pub kind: &'static str,
    /// What was found.
    pub name: String,
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Metric {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        by_name("metric", name, &Self::ALL, Self::name)
    }
}

impl Grade {
    /// Every grade.
    pub const ALL: [Self; 4] = [
        Self::Metered,
        Self::Counted,
        Self::Computed,
        Self::Estimated,
    ];

    /// Returns the name used everywhere.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Metered => "metered",
            Self::Counted => "counted",
            Self::Computed => "computed",
            Self::Estimated => "estimated",
        }
    }
}

impl FromStr for Grade {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        by_name("grade", name, &Self::ALL, Self::name)
    }
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 2] = [Self::Prefill, Self::Decode];

    /// Returns the name used everywhere.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        }
    }
}

impl FromStr for Phase {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        by_name("phase", name, &Self::ALL, Self::name)
    }
}

fn by_name<T: Copy>(
    kind: &'static str,
    name: &str,
    all: &[T],
    name_of: fn(T) -> &'static str,
) -> Result<T, UnknownName> {
    all.iter()
        .copied()
        .find(|value| name_of(*value) == name)
        .ok_or_else(|| UnknownName {
            kind,
            name: name.to_owned(),
        })
}

/// Every token of one timed generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenTimes {
    /// Token shape.
    pub workload: Workload,
    /// Repetition from 0.
    pub repetition: u32,
    /// The tokens.
    pub token_ids: Vec<u32>,
    /// `[0]` is the time to first token, then each inter-token latency; as long as `token_ids`.
    pub elapsed_ns: Vec<u64>,
}

/// One question of a task, scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Task name.
    pub task: String,
    /// Part of the task the item belongs to, e.g. MMLU's subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Position in the data set.
    pub index: u32,
    /// blake3 of the item's JSON line, hex.
    pub doc_hash: String,
    /// blake3 of all its requests, hex.
    pub prompt_hash: String,
    /// What the model said.
    pub answer: Answer,
    /// What that is worth: at least one, in the task's order.
    pub scores: Vec<ItemScore>,
    /// Wall time of the item; of the batch it was evaluated in, divided evenly, where it shared one.
    /// `None` of an item that nobody timed, as one from a cache.
    pub elapsed_ns: Option<u64>,
    /// What each counter of the machine says it took, no source twice; empty where it was not
    /// measured, as of an item from a cache.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub energy: Vec<ItemEnergy>,
    /// The attempt that evaluated it, where that was another one and the item is from a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_cache: Option<ItemOrigin>,
    /// Of a program: the id of the machine that ran it against its tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scored_on: Option<String>,
}

/// What one counter says an item took.
///
/// A counter is read where batches or answers end, and its window lasts until it is long enough. The
/// items that ended in a window divide all of its joules in proportion to their
/// [`elapsed_ns`](Item::elapsed_ns): nothing is counted twice, and nothing is left over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemEnergy {
    /// The counter, e.g. `powercap:package-0`. Those of several domains are never added up: one may
    /// contain the other.
    pub source: String,
    /// Joules, gross: the idle draw, and whatever else ran on the machine, included. Finite, and not
    /// negative.
    pub joules: f64,
}

/// Why something cannot be an item's energy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnergyFault {
    /// It names no source.
    NoSource,
    /// The item has an energy of that source.
    SourceTwice,
    /// It is no number of joules.
    Joules,
}

impl ItemEnergy {
    /// Returns why this cannot be an energy of an item that has `known` ones.
    pub fn fault(&self, known: &[Self]) -> Option<EnergyFault> {
        let Self { source, joules } = self;
        if source.is_empty() {
            Some(EnergyFault::NoSource)
        } else if known.iter().any(|known| known.source == *source) {
            Some(EnergyFault::SourceTwice)
        } else if !joules.is_finite() || *joules < 0.0 {
            Some(EnergyFault::Joules)
        } else {
            None
        }
    }
}

/// The attempt that evaluated an item; as text, `run/job/attempt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ItemOrigin {
    /// Its job.
    pub job: JobId,
    /// Its count from 1.
    pub attempt: NonZeroU32,
}

impl From<AttemptId> for ItemOrigin {
    fn from(AttemptId { job, attempt, .. }: AttemptId) -> Self {
        Self { job, attempt }
    }
}

impl fmt::Display for ItemOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.job, self.attempt)
    }
}

impl FromStr for ItemOrigin {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = || {
            let mut parts = text.splitn(3, '/');
            let run: RunId = parts.next()?.parse().ok()?;
            let index = parts.next()?.parse().ok()?;
            let attempt = parts.next()?.parse().ok()?;
            let job = JobId { run, index };
            Some(Self { job, attempt })
        };
        parsed().ok_or_else(|| UnknownName {
            kind: "attempt",
            name: text.to_owned(),
        })
    }
}

impl Item {
    /// Tells whether one of its scores is still to be made.
    pub fn is_pending(&self) -> bool {
        self.scores.iter().any(|score| score.pending)
    }

    /// Returns the score of this metric and filter; `None` where the task has no such score.
    pub fn score(&self, metric: &str, filter: &str) -> Option<&ItemScore> {
        self.scores
            .iter()
            .find(|score| score.metric == metric && score.filter == filter)
    }

    /// Returns the answer where it is a choice.
    pub fn choice(&self) -> Option<&ChoiceAnswer> {
        match &self.answer {
            Answer::Choice(answer) => Some(answer),
            Answer::Generated(_) | Answer::Rolling(_) => None,
        }
    }

    /// Returns the answer where it is a text.
    pub fn generated(&self) -> Option<&GeneratedAnswer> {
        match &self.answer {
            Answer::Generated(answer) => Some(answer),
            Answer::Choice(_) | Answer::Rolling(_) => None,
        }
    }

    /// Returns the answer where it is how likely the item itself is.
    pub fn rolling(&self) -> Option<&RollingAnswer> {
        match &self.answer {
            Answer::Rolling(answer) => Some(answer),
            Answer::Choice(_) | Answer::Generated(_) => None,
        }
    }

    /// Returns the choices' scores; none where the answer is no choice.
    pub fn choices(&self) -> &[Choice] {
        self.choice().map_or(&[], |answer| &answer.choices)
    }

    /// Returns the tokens of a text that was generated, or that was rated; a choice has those of
    /// each of its choices instead.
    pub fn n_tokens(&self) -> Option<u32> {
        match &self.answer {
            Answer::Choice(_) => None,
            Answer::Generated(answer) => Some(answer.n_tokens),
            Answer::Rolling(answer) => Some(answer.n_tokens),
        }
    }
}

/// What a model said to one item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// How likely each choice is.
    Choice(ChoiceAnswer),
    /// A text.
    Generated(GeneratedAnswer),
    /// How likely the item itself is.
    Rolling(RollingAnswer),
}

/// How likely each choice of an item is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChoiceAnswer {
    /// Index of the right choice; the first of them where several are right.
    pub gold: u32,
    /// Each choice's score; at least one.
    pub choices: Vec<Choice>,
    /// Arg max of the log-likelihoods, the first of equals.
    pub predicted: u32,
    /// Arg max of log-likelihood per character; `None` where the task has no `acc_norm`.
    pub predicted_norm: Option<u32>,
}

/// A generated answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeneratedAnswer {
    /// The text, without the stop text.
    pub text: String,
    /// What it is compared with, e.g. the right answer or a program's tests' name.
    pub target: String,
    /// Tokens of the prompt.
    pub n_prompt_tokens: u32,
    /// Tokens generated, those of a stop text included.
    pub n_tokens: u32,
    /// Why it ended: `max_new`, `context_full`, `end_token` or `stop`.
    pub end: String,
}

/// How likely an item's text is, token after token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RollingAnswer {
    /// Sum of natural log p of all tokens.
    pub loglikelihood: f64,
    /// Tokens scored.
    pub n_tokens: u32,
    /// Words of the original text (perplexity per word is over these).
    pub n_words: u32,
    /// UTF-8 bytes of the original text.
    pub n_bytes: u32,
}

/// One metric of one item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemScore {
    /// The metric, by lm-evaluation-harness's name where it has one: `acc`, `acc_norm`, `mc2`,
    /// `exact_match`, `pass@1`.
    pub metric: String,
    /// What the answer went through before, `none` where nothing: `strict-match`, `base`, `plus`.
    pub filter: String,
    /// From 0 to 1; `None` where it cannot be decided.
    pub value: Option<f64>,
    /// What the filter made of a generated answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extracted: Option<String>,
    /// Why it failed or cannot be decided, in a reader's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether nobody has scored it yet: neither right nor wrong nor undecided, and without a value.
    #[serde(default, skip_serializing_if = "is_false")]
    pub pending: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands a reference over"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl ItemScore {
    /// Returns a score that is decided, of an answer taken as it is.
    pub fn plain(metric: &str, value: f64) -> Self {
        Self {
            metric: metric.to_owned(),
            filter: NO_FILTER.to_owned(),
            value: Some(value),
            extracted: None,
            reason: None,
            pending: false,
        }
    }

    /// Returns a score that is still to be made.
    pub fn pending(metric: &str, filter: &str) -> Self {
        Self {
            metric: metric.to_owned(),
            filter: filter.to_owned(),
            value: None,
            extracted: None,
            reason: None,
            pending: true,
        }
    }
}

/// The filter of a score that took the answer as it is.
pub const NO_FILTER: &str = "none";

impl ChoiceAnswer {
    /// Returns `acc`, and `acc_norm` where the task has it.
    pub fn scores(&self) -> Vec<ItemScore> {
        let right = |predicted: u32| f64::from(u8::from(predicted == self.gold));
        let acc = ItemScore::plain("acc", right(self.predicted));
        let norm = self
            .predicted_norm
            .map(|predicted| ItemScore::plain("acc_norm", right(predicted)));
        std::iter::once(acc).chain(norm).collect()
    }
}

/// One choice of an item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Sum of natural log p of the continuation's tokens.
    pub loglikelihood: f64,
    /// Whether every token was the arg max.
    pub is_greedy: bool,
    /// Tokens of the continuation.
    pub n_tokens: u32,
    /// Unicode code points of the choice's text, without the leading space.
    pub n_chars: u32,
}

/// What the worker really ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// blake3 over the model's files, hex.
    pub weights_hash: String,
    /// The file's architecture name.
    pub architecture: String,
    /// Format of the block linears, e.g. `i2_s`, `bf16`.
    pub weight_format: String,
    /// Format of the output head.
    pub head_format: String,
    /// The kernel chosen.
    pub kernel: String,
    /// Whether the kernel rounds what others compute exactly: its logits are its own.
    #[serde(default)]
    pub lossy_kernel: bool,
    /// How dense matrices in block formats were multiplied; exact where there are none.
    #[serde(default)]
    pub numerics: Numerics,
    /// How keys and values are kept.
    #[serde(default)]
    pub kv: KvType,
    /// Version of the engine's numerics.
    pub numerics_version: u32,
    /// Parameters of the whole model.
    pub n_params: u64,
    /// Parameters of the block linears.
    pub n_linear_params: u64,
    /// Bytes of the model's files.
    pub file_bytes: u64,
    /// Bytes of all weights in memory.
    pub weight_bytes: u64,
    /// Bytes of the block linears in memory.
    pub linear_weight_bytes: u64,
    /// What one token asks of the machine; `None` in records of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub demand: Option<Demand>,
    /// Stored bits per weight of the block linears, scales included.
    pub bits_per_weight: f64,
    /// 128 bits, hex, of the logits of a fixed short prompt.
    pub logits_fingerprint: String,
    /// Accuracy: blake3 of the template and the data, hex.
    pub data_hash: Option<String>,
    /// Accuracy: items the task has under its limit.
    pub n_items: Option<u64>,
    /// What a reader must know of this model file.
    pub warnings: Vec<String>,
}

/// One way of computing an agreement's prompts, against the scalar reference on the same machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgreementCell {
    /// The kernel.
    pub kernel: String,
    /// Threads.
    pub threads: NonZeroU32,
    /// Tokens of a prompt that are submitted at once.
    pub n_batch: NonZeroU32,
    /// Whether each prompt is evaluated behind its own first half, kept from an earlier evaluation.
    pub reused_prefix: bool,
    /// Positions whose logits are the reference's, bit for bit.
    pub equal: u64,
    /// Positions in all, each prompt token's and each generated token's: at least one.
    pub positions: u64,
    /// blake3 of all logits and tokens, 128 bits, hex.
    pub fingerprint: String,
    /// The same of the reference, which is one on every machine.
    pub reference: String,
    /// The first position that differs; `None` exactly where all are equal.
    pub parted: Option<Parted>,
}

impl AgreementCell {
    /// Tells whether every bit is the reference's.
    pub fn agrees(&self) -> bool {
        self.parted.is_none()
    }

    /// Returns what contradicts itself, in a reader's words; `None` of what may be.
    pub fn contradiction(&self) -> Option<String> {
        let Self {
            equal,
            positions,
            fingerprint,
            reference,
            parted,
            ..
        } = self;
        for (name, text) in [("fingerprint", fingerprint), ("reference", reference)] {
            let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            if text.len() != 32 || !text.bytes().all(is_hex) {
                return Some(format!("its {name} has not 32 hexadecimal digits"));
            }
        }
        if *positions == 0 || equal > positions {
            return Some(format!("{equal} of {positions} positions cannot be equal"));
        }
        let is_equal = equal == positions;
        if is_equal != parted.is_none() || is_equal != (fingerprint == reference) {
            let what = "positions, fingerprints and the first difference contradict each other";
            return Some(what.to_owned());
        }
        parted.as_ref().and_then(Parted::contradiction)
    }
}

/// Where a cell first parts from the reference, and how far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parted {
    /// The prompt, from 0.
    pub prompt: u32,
    /// The position within prompt and continuation, from 0.
    pub position: u32,
    /// Largest difference of two logits there.
    pub max_abs: f32,
    /// Kullback–Leibler divergence of the cell's next-token distribution from the reference's, nats.
    pub kl: f64,
    /// The reference's greatest logit less its second.
    pub margin: f32,
    /// The reference's most likely token.
    pub expected: u32,
    /// The cell's.
    pub found: u32,
}

impl Parted {
    fn contradiction(&self) -> Option<String> {
        let sizes = [self.max_abs.into(), self.kl, self.margin.into()];
        let odd = sizes
            .into_iter()
            .find(|size| !(0.0..f64::INFINITY).contains(size))?;
        Some(format!("its first difference is of the size {odd}"))
    }
}
