//! A task's definition: a short TOML file, so that a task is added without writing Rust.
//!
//! The keys are lm-evaluation-harness's ideas under plain names: what is asked (`prompt`), of which
//! data (`data`), after which examples (`fewshot`), and what is made of the answer (`filters`,
//! `metrics`). Texts are Jinja templates over an item's keys; `choices`, `contexts`, `gold` and
//! `right` are Jinja expressions. `docs/tasks.md` explains every key.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most bytes of a definition.
pub const MAX_BYTES: usize = 1 << 20;

/// A task as its file states it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Name in plans and results.
    pub name: String,
    /// Raised whenever a prompt, a choice or a score changes.
    pub version: u32,
    /// How a model is asked.
    pub kind: Kind,
    /// Where items come from.
    #[serde(default)]
    pub data: Data,
    /// What is asked.
    #[serde(default)]
    pub prompt: Prompt,
    /// Solved examples before the question.
    #[serde(default)]
    pub fewshot: Fewshot,
    /// How an answer is generated.
    #[serde(default)]
    pub generation: Option<Generation>,
    /// What is made of a generated answer before it is scored; each filter is a score of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// How answers are scored.
    pub metrics: Vec<Metric>,
    /// How texts are made comparable.
    #[serde(default)]
    pub exact_match: ExactMatch,
}

/// How a model is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Which of several continuations is most likely.
    MultipleChoice,
    /// What follows the prompt, up to a stop text.
    GenerateUntil,
    /// How likely a text is, token after token.
    LoglikelihoodRolling,
    /// A program, which is run against tests.
    Program,
}

/// Where items come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Folder below the plan's data folder; the task's name where none is given.
    pub folder: Option<String>,
    /// Files with the items, in order of preference, without their endings.
    #[serde(default)]
    pub items: Vec<String>,
    /// Files examples are drawn from, in order of preference.
    #[serde(default)]
    pub examples: Vec<String>,
    /// How the files are written.
    #[serde(default)]
    pub format: Format,
    /// Expression: the part of the task an item belongs to. Examples come from the same part.
    pub group: Option<String>,
    /// Where the official data set is.
    pub hub: Option<Hub>,
}

/// How a data file is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON object a line.
    #[default]
    JsonLines,
    /// `WikiText`: plain text, a page from each heading of the first level; an item has `page`.
    WikiText,
}

impl Format {
    /// Returns how a file's name ends, but for `.gz`.
    pub fn ending(self) -> &'static str {
        match self {
            Self::JsonLines => ".jsonl",
            Self::WikiText => "",
        }
    }
}

/// A data set of the Hugging Face hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hub {
    /// Owner and name.
    pub repo: String,
    /// Commit the files are taken from.
    pub revision: String,
    /// File of the repository for each local file.
    pub files: std::collections::BTreeMap<String, Vec<String>>,
}

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// Template: what stands before the examples, or is part of the system's turn of a chat.
    pub description: Option<String>,
    /// Template: the question.
    pub question: Option<String>,
    /// Expression: the choices, a list of texts.
    pub choices: Option<String>,
    /// Expression instead of `question`: one context for each choice.
    pub contexts: Option<String>,
    /// Template instead of `choices`: what follows each of the contexts.
    pub continuation: Option<String>,
    /// Expression: the right choice's position.
    pub gold: Option<String>,
    /// Expression: for each choice whether it is right (0 or 1).
    pub right: Option<String>,
    /// Template: the answer a generated one is compared with, and the examples' answers. Of a
    /// choice, instead of `gold` and `right`: the right choice's position, or its text.
    pub target: Option<String>,
    /// Between question and answer.
    pub target_delimiter: Option<String>,
    /// Template: the text that is scored by `loglikelihood_rolling`.
    pub text: Option<String>,
    /// Template: the text whose words and bytes a perplexity is per; `text` where none is given.
    pub original: Option<String>,
    /// Which benchmark's programs are asked for, and how they are tested.
    pub program: Option<Program>,
}

/// Benchmarks of programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// `HumanEval`: the problem's own `check` function.
    Humaneval,
    /// `EvalPlus`: base and plus inputs, against the canonical solution's outputs.
    Evalplus,
}

/// Solved examples before the question.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fewshot {
    /// Examples where a plan gives no number.
    #[serde(default)]
    pub count: u32,
    /// Whether `count` cannot be changed.
    #[serde(default)]
    pub fixed: bool,
    /// Which examples are taken.
    #[serde(default)]
    pub sampler: Sampler,
    /// Whether one more is drawn than needed, as the reference harness does where the examples'
    /// split is not named: the item itself is taken out of them if it is there.
    #[serde(default)]
    pub draws_one_more: bool,
    /// Behind each example; an empty line where none is given.
    pub delimiter: Option<String>,
    /// The examples themselves, instead of a file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<toml::Table>,
}

/// Which examples are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampler {
    /// Drawn for each item, by `CPython`'s `random.Random(1234).sample`.
    #[default]
    Random,
    /// The first ones.
    FirstN,
}

/// How an answer is generated: greedily.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// Texts that end the answer.
    #[serde(default)]
    pub until: Vec<String>,
    /// Most tokens.
    pub max_new: u32,
}

/// A way to make an answer comparable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Name in results.
    pub name: String,
    /// What is done, in order.
    pub steps: Vec<Step>,
}

/// A step of a filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Step {
    /// Takes a match of a regular expression of Python's kind.
    Regex(RegexStep),
    /// Takes the answer to a problem of mathematics: the last `\boxed{}`, else what follows
    /// "the answer is", else the last number.
    MathAnswer {},
    /// Takes blanks off both ends, as Python's `str.strip`.
    Strip {},
    /// Makes capital letters small.
    Lowercase {},
    /// Makes small letters capital.
    Uppercase {},
}

/// Takes a match of a regular expression.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegexStep {
    /// Of Python's kind.
    pub pattern: String,
    /// Which match: 0 for the first, -1 for the last.
    #[serde(default)]
    pub take: i32,
    /// What an answer without match becomes.
    #[serde(default = "invalid")]
    pub fallback: String,
}

fn invalid() -> String {
    "[invalid]".to_owned()
}

/// How answers are scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The most likely choice is right.
    Acc,
    /// The choice most likely per character is right.
    AccNorm,
    /// Share of the probability that lies on right choices (`TruthfulQA`'s MC2).
    Mc2,
    /// The texts are equal.
    ExactMatch,
    /// The answers are the same number, fraction, tuple or set.
    MathEqual,
    /// The program passes.
    #[serde(rename = "pass@1")]
    PassAt1,
    /// Perplexity per word.
    WordPerplexity,
    /// Perplexity per byte.
    BytePerplexity,
    /// Binary logarithm of the perplexity per byte.
    BitsPerByte,
}

impl Metric {
    /// Returns the name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acc => "acc",
            Self::AccNorm => "acc_norm",
            Self::Mc2 => "mc2",
            Self::ExactMatch => "exact_match",
            Self::MathEqual => "math_equal",
            Self::PassAt1 => "pass@1",
            Self::WordPerplexity => "word_perplexity",
            Self::BytePerplexity => "byte_perplexity",
            Self::BitsPerByte => "bits_per_byte",
        }
    }
}

/// How texts are made comparable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExactMatch {
    /// Whether capital letters are small ones.
    #[serde(default)]
    pub ignore_case: bool,
    /// Whether ASCII punctuation is left out.
    #[serde(default)]
    pub ignore_punctuation: bool,
    /// Regular expressions whose matches are left out, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
}

/// Why a definition cannot be used.
#[derive(Debug, Error)]
#[error("task definition{}: {problem}", name.as_ref().map_or(String::new(), |name| format!(" `{name}`")))]
pub struct DefinitionError {
    /// The task, as far as it is known.
    pub name: Option<String>,
    /// Key and reason; for what is no TOML, with line and column.
    pub problem: String,
}

impl Definition {
    /// Parses a definition and checks that its keys fit together.
    pub fn parse(text: &str) -> Result<Self, DefinitionError> {
        let anonymous = |problem: String| DefinitionError {
            name: None,
            problem,
        };
        if text.len() > MAX_BYTES {
            let problem = format!("has {} bytes, more than {MAX_BYTES}", text.len());
            return Err(anonymous(problem));
        }
        let definition: Self = toml::from_str(text)
            .map_err(|error| anonymous(error.to_string().trim_end().to_owned()))?;
        definition.check().map_err(|problem| DefinitionError {
            name: Some(definition.name.clone()),
            problem,
        })?;
        Ok(definition)
    }

    /// Returns the folder of its data below the plan's.
    pub fn folder(&self) -> &str {
        self.data.folder.as_deref().unwrap_or(&self.name)
    }

    fn check(&self) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let is_name = |name: &str| {
            !name.is_empty()
                && name.len() <= 100
                && !name.starts_with('.')
                && name.chars().all(plain)
        };
        if !is_name(&self.name) {
            return Err("`name` must be letters, digits, `_`, `-` and `.`".to_owned());
        }
        // A definition may come over the network: it names nothing outside the data folder.
        let files = self.data.items.iter().chain(&self.data.examples);
        if let Some(name) = files.chain(&self.data.folder).find(|name| !is_name(name)) {
            return Err(format!(
                "`data` names `{name}`, which is no plain file name"
            ));
        }
        if self.data.items.is_empty() {
            return Err("`data.items` is missing".to_owned());
        }
        if self.metrics.is_empty() {
            return Err("`metrics` is empty".to_owned());
        }
        self.check_keys()?;
        let prompt = &self.prompt;
        let n_answers = [&prompt.gold, &prompt.right, &prompt.target]
            .into_iter()
            .flatten()
            .count();
        if self.kind == Kind::MultipleChoice && n_answers != 1 {
            let problem = "one of `prompt.gold`, `prompt.right` and `prompt.target` is needed";
            return Err(problem.to_owned());
        }
        if self.metrics.contains(&Metric::Mc2) && prompt.right.is_none() {
            return Err("metric `mc2` needs `prompt.right`".to_owned());
        }
        if self
            .generation
            .as_ref()
            .is_some_and(|generation| generation.max_new == 0)
        {
            return Err("`generation.max_new` must be at least 1".to_owned());
        }
        let is_rolling = matches!(self.kind, Kind::LoglikelihoodRolling | Kind::Program);
        let fewshot = &self.fewshot;
        if is_rolling && (fewshot.count > 0 || !fewshot.samples.is_empty()) {
            return Err("`fewshot` means nothing to this kind of task".to_owned());
        }
        if !fewshot.samples.is_empty() && (fewshot.count as usize) > fewshot.samples.len() {
            let n = fewshot.samples.len();
            return Err(format!("`fewshot.count` exceeds the {n} samples"));
        }
        Ok(())
    }

    /// Checks that the keys given are those the task's kind reads.
    fn check_keys(&self) -> Result<(), String> {
        let prompt = &self.prompt;
        let present = [
            ("prompt.question", prompt.question.is_some()),
            ("prompt.choices", prompt.choices.is_some()),
            ("prompt.contexts", prompt.contexts.is_some()),
            ("prompt.continuation", prompt.continuation.is_some()),
            ("prompt.gold", prompt.gold.is_some()),
            ("prompt.right", prompt.right.is_some()),
            ("prompt.target", prompt.target.is_some()),
            ("prompt.text", prompt.text.is_some()),
            ("prompt.original", prompt.original.is_some()),
            ("prompt.program", prompt.program.is_some()),
            ("generation", self.generation.is_some()),
            ("filters", !self.filters.is_empty()),
        ];
        let (needed, allowed, metrics): (&[&str], &[&str], &[Metric]) = match self.kind {
            Kind::MultipleChoice if prompt.contexts.is_some() => (
                &["prompt.contexts", "prompt.continuation"],
                &["prompt.gold", "prompt.right"],
                &[Metric::Acc, Metric::AccNorm, Metric::Mc2],
            ),
            Kind::MultipleChoice => (
                &["prompt.question", "prompt.choices"],
                &["prompt.gold", "prompt.right", "prompt.target"],
                &[Metric::Acc, Metric::AccNorm, Metric::Mc2],
            ),
            Kind::GenerateUntil => (
                &["prompt.question", "prompt.target", "generation"],
                &["filters"],
                &[Metric::ExactMatch, Metric::MathEqual],
            ),
            Kind::LoglikelihoodRolling => (
                &["prompt.text"],
                &["prompt.original"],
                &[
                    Metric::WordPerplexity,
                    Metric::BytePerplexity,
                    Metric::BitsPerByte,
                ],
            ),
            Kind::Program => (&["prompt.program", "generation"], &[], &[Metric::PassAt1]),
        };
        for (key, is_there) in present {
            if needed.contains(&key) && !is_there {
                return Err(format!("`{key}` is missing"));
            }
            if is_there && !needed.contains(&key) && !allowed.contains(&key) {
                return Err(format!("`{key}` means nothing to this kind of task"));
            }
        }
        if let Some(metric) = self.metrics.iter().find(|metric| !metrics.contains(metric)) {
            let name = metric.name();
            return Err(format!(
                "metric `{name}` means nothing to this kind of task"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
