//! A job: the piece of a run that one agent does in one fresh process.

use std::{collections::BTreeMap, fmt, num::NonZeroU32, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::artefact::FileSet;

/// Names a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub Uuid);

impl RunId {
    /// Returns a new id; ids made later sort later (UUID v7).
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RunId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// Names a job: its run and its position in the plan's expansion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobId {
    /// The run.
    pub run: RunId,
    /// Position from 0.
    pub index: u32,
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.run, self.index)
    }
}

/// One attempt at a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttemptId {
    /// The job.
    pub job: JobId,
    /// Count from 1.
    pub attempt: NonZeroU32,
    /// The coordinator's fencing token; an older one is refused.
    pub fence: u64,
}

/// How dense matrices in block formats are multiplied; see the engine's `Numerics`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Numerics {
    /// By inputs in f32.
    #[default]
    Exact,
    /// By inputs rounded to int8.
    Fast,
}

impl Numerics {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Exact, Self::Fast];

    /// Returns the name users know it by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Fast => "fast",
        }
    }

    /// Returns what a name stands for.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|numerics| numerics.name() == name)
    }
}

/// How keys and values are kept; see the engine's `KvType`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum KvType {
    /// As they were computed.
    #[default]
    F32,
    /// Rounded to f16.
    F16,
}

impl KvType {
    /// Both.
    pub const ALL: [Self; 2] = [Self::F32, Self::F16];

    /// Returns the name users know it by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }

    /// Returns what a name stands for.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kv| kv.name() == name)
    }
}

/// How the greatest logits are found; see the engine's `HeadChoice`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Head {
    /// Among all logits.
    Full,
    /// Among those that an int8 copy of the head cannot rule out: the same to the bit.
    Screened,
}

impl Head {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Full, Self::Screened];

    /// Returns the name users know it by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Screened => "screened",
        }
    }

    /// Returns what a name stands for.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|head| head.name() == name)
    }
}

/// Where programs that a model wrote are run against their tests.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum ScoreOn {
    /// Where they are written.
    #[default]
    Agent,
    /// All in one place, whoever wrote them.
    Coordinator,
}

impl ScoreOn {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Agent, Self::Coordinator];

    /// Returns the name users know it by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Coordinator => "coordinator",
        }
    }

    /// Returns what a name stands for.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|place| place.name() == name)
    }
}

/// A job as an agent gets it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// What is measured.
    pub model: Model,
    /// `auto` or a kernel's name.
    pub kernel: String,
    /// How dense matrices in block formats are multiplied.
    #[serde(default)]
    pub numerics: Numerics,
    /// How keys and values are kept.
    #[serde(default)]
    pub kv: KvType,
    /// How the greatest logits are found; `None` for what suits the suite: all logits for accuracy,
    /// a screen elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Head>,
    /// Threads of the engine.
    pub threads: NonZeroU32,
    /// How it is measured.
    pub suite: SuiteSpec,
    /// Who may do it.
    pub selector: Selector,
}

impl Job {
    /// Returns the sets of files that are named by their contents: the model's, its adapter's and the
    /// data's.
    pub fn file_sets(&self) -> impl Iterator<Item = &FileSet> {
        let model = match &self.model.source {
            ModelSource::Files(files) => Some(files),
            ModelSource::Path(_) | ModelSource::Synth(_) => None,
        };
        let adapter = match &self.model.adapter {
            Some(Adapter::Files(files)) => Some(files),
            Some(Adapter::Path(_)) | None => None,
        };
        let data = match &self.suite {
            SuiteSpec::Accuracy(spec) => spec.data.as_ref(),
            _ => None,
        };
        model.into_iter().chain(adapter).chain(data)
    }
}

/// A model of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// The plan's name for it.
    pub id: String,
    /// Where it comes from.
    pub source: ModelSource,
    /// What is put beside its linears.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<Adapter>,
    /// The id of the full-precision model it is compared with.
    pub baseline: Option<String>,
}

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelSource {
    /// A GGUF file or a Hugging Face folder on the agent's machine.
    Path(PathBuf),
    /// Random weights of a published shape, made on the agent.
    Synth(Synth),
    /// Files that the agent fetches from the coordinator.
    Files(FileSet),
}

/// Where a LoRA adapter's folder, as peft writes it, comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Adapter {
    /// On the agent's machine.
    Path(PathBuf),
    /// Files that the agent fetches from the coordinator.
    Files(FileSet),
}

/// Random weights of a published shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Synth {
    /// Name of the shape, e.g. `125m` or `2b4t`.
    pub shape: String,
    /// Format of the linears, e.g. `i2_s` or `f16`.
    pub format: String,
    /// Seed of the weights.
    pub seed: u64,
}

/// A token shape (llama-bench's vocabulary).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Workload {
    /// Prompt tokens processed in batches.
    pub n_prompt: u32,
    /// Tokens generated one by one.
    pub n_gen: u32,
    /// Tokens already in the KV cache when timing starts.
    pub n_depth: u32,
    /// Tokens submitted at once.
    pub n_batch: u32,
}

/// What an agent must be to get a job. An empty selector asks nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selector {
    /// Architecture, e.g. `x86_64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// CPU features, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub isa: Vec<String>,
    /// Installed memory, at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_min_bytes: Option<u64>,
    /// One machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
    /// Labels the agent was started with, all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Selector {
    /// Tells whether an agent on `machine` with `labels` may do the job.
    pub fn matches(
        &self,
        machine: &crate::machine::Machine,
        labels: &BTreeMap<String, String>,
    ) -> bool {
        let Self {
            arch,
            isa,
            memory_min_bytes,
            machine_id,
            labels: wanted,
        } = self;
        arch.as_ref().is_none_or(|arch| *arch == machine.arch)
            && isa.iter().all(|feature| machine.isa.contains(feature))
            && memory_min_bytes.is_none_or(|bytes| machine.memory_bytes >= bytes)
            && machine_id.as_ref().is_none_or(|id| *id == machine.id)
            && wanted
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
    }
}

impl Selector {
    /// Returns in a reader's words why an agent may not do the job, `None` if it may.
    pub fn mismatch(
        &self,
        machine: &crate::machine::Machine,
        labels: &BTreeMap<String, String>,
    ) -> Option<String> {
        if self.matches(machine, labels) {
            return None;
        }
        let Self {
            arch,
            isa,
            memory_min_bytes,
            machine_id,
            labels: wanted,
        } = self;
        if let Some(arch) = arch.as_ref().filter(|arch| **arch != machine.arch) {
            return Some(format!("it is {} and not {arch}", machine.arch));
        }
        if let Some(feature) = isa.iter().find(|feature| !machine.isa.contains(feature)) {
            return Some(format!("its CPU has no {feature}"));
        }
        if let Some(least) = memory_min_bytes.filter(|least| machine.memory_bytes < *least) {
            let has = machine.memory_bytes;
            return Some(format!("it has {has} bytes of memory and not {least}"));
        }
        if machine_id.as_ref().is_some_and(|id| *id != machine.id) {
            return Some("it is another machine".to_owned());
        }
        let label = wanted
            .iter()
            .find(|(key, value)| labels.get(*key) != Some(value));
        label.map(|(key, value)| format!("it has no label {key}={value}"))
    }
}

/// A suite and its parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "suite")]
pub enum SuiteSpec {
    /// Load time, prefill, decode, TTFT, TPOT.
    Latency(LatencySpec),
    /// Weight, file and KV bytes, peak RSS.
    Memory(MemorySpec),
    /// Energy of prefill and decode.
    Energy(EnergySpec),
    /// A task scored by log-likelihood.
    Accuracy(AccuracySpec),
    /// Kernels, threads, batches and reused prefixes against the scalar reference.
    Agreement(AgreementSpec),
}

impl SuiteSpec {
    /// Tells whether the coordinator is to score what the job's model writes.
    pub fn is_scored_by_coordinator(&self) -> bool {
        matches!(self, Self::Accuracy(spec) if spec.score_on == ScoreOn::Coordinator)
    }

    /// Every suite's name.
    pub const NAMES: [&str; 5] = ["latency", "memory", "energy", "accuracy", "agreement"];

    /// Returns the suite's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Latency(_) => "latency",
            Self::Memory(_) => "memory",
            Self::Energy(_) => "energy",
            Self::Accuracy(_) => "accuracy",
            Self::Agreement(_) => "agreement",
        }
    }

    /// Tells whether the machine must do nothing else meanwhile.
    ///
    /// Neither accuracy nor agreement depends on time, everything else does.
    pub fn is_exclusive(&self) -> bool {
        !matches!(self, Self::Accuracy(_) | Self::Agreement(_))
    }

    /// Tells whether an agent can do it whose build says that it has `suites`. A build that says
    /// nothing is older than agreement.
    pub fn is_among(&self, suites: &[String]) -> bool {
        if suites.is_empty() {
            return !matches!(self, Self::Agreement(_));
        }
        suites.iter().any(|suite| suite == self.name())
    }
}

/// Parameters of the latency suite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencySpec {
    /// Token shape.
    pub workload: Workload,
    /// Untimed repetitions before.
    pub warm_ups: u32,
    /// Timed repetitions.
    pub repetitions: NonZeroU32,
    /// Whether the machine's bounds are measured before the model is loaded.
    #[serde(default)]
    pub probe: bool,
}

/// Parameters of the memory suite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemorySpec {
    /// Token shape that is run once, so that the peak includes work.
    pub workload: Workload,
}

/// Parameters of the energy suite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnergySpec {
    /// Token shape of one repetition.
    pub workload: Workload,
    /// Windows per phase.
    pub repetitions: NonZeroU32,
    /// Seconds of idle draw read before and after.
    pub idle_seconds: f64,
    /// Shortest window, in seconds, that a counter is trusted over.
    pub window_seconds: f64,
}

/// Parameters of the accuracy suite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccuracySpec {
    /// Task name.
    pub task: String,
    /// Folder that holds `<task>/<split>.jsonl` or `.jsonl.gz`.
    pub data_dir: PathBuf,
    /// Only this many leading items.
    pub limit: Option<NonZeroU32>,
    /// Solved examples before the question.
    pub num_fewshot: u32,
    /// Whether the tokenizer's BOS stands before the context.
    pub add_bos: bool,
    /// The task's TOML, where it is none of those every agent has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// The question as a turn of a chat; `None` without chat template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<ChatSpec>,
    /// Most tokens of a generated answer, instead of the task's own limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_new: Option<NonZeroU32>,
    /// Items evaluated together; results do not depend on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<NonZeroU32>,
    /// Which items; `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// `EvalPlus` 0.3.1 as it is, its wrong verdict on `HumanEval/32` included.
    #[serde(default)]
    pub evalplus_compat: bool,
    /// Where programs are scored; of no other answers.
    #[serde(default)]
    pub score_on: ScoreOn,
    /// Whether items that were evaluated before, in just this way, are taken from the agent's cache.
    #[serde(default)]
    pub cache: bool,
    /// The task's folder as files that the agent fetches from the coordinator; `data_dir` is not
    /// read then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<FileSet>,
}

impl AccuracySpec {
    /// Returns the parameters of a whole task of which nothing else is said: no examples, no chat,
    /// BOS before the context.
    pub fn new(task: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            task: task.into(),
            data_dir: data_dir.into(),
            limit: None,
            num_fewshot: 0,
            add_bos: true,
            definition: None,
            chat: None,
            max_new: None,
            batch: None,
            shard: None,
            evalplus_compat: false,
            score_on: ScoreOn::Agent,
            cache: false,
            data: None,
        }
    }
}

/// Parameters of the agreement suite: the lossless test of the `BitNet` papers (arXiv 2410.16144,
/// 2502.11880).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgreementSpec {
    /// Prompts of random tokens; at most [`Self::MAX_PROMPTS`].
    pub n_prompts: NonZeroU32,
    /// Tokens of the longest prompt, the lengths vary from 1 on; at most [`Self::MAX_TOKENS`].
    pub max_len: NonZeroU32,
    /// Tokens generated behind each; at most [`Self::MAX_TOKENS`].
    pub n_gen: u32,
    /// Begins the sequence of random tokens.
    pub seed: u64,
    /// Threads of the engine, each number in cells of its own: 1 to [`Self::MAX_VALUES`] numbers.
    pub threads: Vec<NonZeroU32>,
    /// Tokens of a prompt submitted at once, as [`Self::threads`].
    pub n_batch: Vec<NonZeroU32>,
}

impl AgreementSpec {
    /// Most prompts.
    pub const MAX_PROMPTS: u32 = 10_000;
    /// Most tokens of a prompt, and most behind it: the logits of all positions of a batch lie in
    /// memory at once.
    pub const MAX_TOKENS: u32 = 4096;
    /// Most threads.
    pub const MAX_THREADS: u32 = 4096;
    /// Most numbers of threads, and of batches.
    pub const MAX_VALUES: usize = 64;
}

/// How a question becomes a chat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatSpec {
    /// What the system says first, before a task's own description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Whether each example is a turn of its own, rather than all in the question's.
    #[serde(default)]
    pub fewshot_as_multiturn: bool,
}

/// Every `count`-th item from `index` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Below `count`.
    pub index: u32,
    /// Shards in all.
    pub count: NonZeroU32,
}

impl Shard {
    /// Tells whether an item is among the shard's.
    pub fn holds(self, item: u32) -> bool {
        item % self.count == self.index
    }

    /// Returns how many of a task's `n_items` items are the shard's.
    pub fn share_of(self, n_items: u64) -> u64 {
        let after = n_items.saturating_sub(u64::from(self.index));
        after.div_ceil(u64::from(self.count.get()))
    }
}
