//! A task: what is asked of a model about each item, and what its answer is worth.
//!
//! Prompts, choices and metrics of the built-in tasks are those of lm-evaluation-harness 0.4;
//! they are written down in `tasks/*.toml`.

use serde_json::Value;
use thiserror::Error;

use super::{
    dataset::FieldError,
    definition::{Definition, DefinitionError, Kind, Sampler},
    filter::{Comparison, Compiled},
    tasks::BUILT_IN,
    template::{Templates, context},
    wikitext,
};
use crate::{evalplus, humaneval};

/// An accuracy data set with its prompt and scoring.
#[derive(Debug)]
pub struct Task {
    /// As the task's file states it.
    pub definition: Definition,
    templates: Templates,
    pub(super) filters: Vec<Compiled>,
    pub(super) comparison: Comparison,
}

/// What is asked about one item.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// Which continuation is most likely?
    Choice(ChoiceQuestion),
    /// What follows?
    Generate {
        /// What comes before, without examples.
        context: String,
        /// The right answer.
        target: String,
    },
    /// How likely is this text?
    Rolling {
        /// What is scored.
        text: String,
        /// Words of the original text.
        n_words: u32,
        /// UTF-8 bytes of the original text.
        n_bytes: u32,
    },
    /// Which program solves the problem?
    Program(ProgramQuestion),
}

/// A problem that a program solves, and how it is asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum ProgramQuestion {
    /// `HumanEval`: the model goes on with the head of a function.
    HumanEval {
        /// With its tests.
        problem: Box<humaneval::Problem>,
    },
    /// `HumanEval+` or `MBPP+` as `EvalPlus` asks.
    EvalPlus {
        /// With its tests.
        problem: Box<evalplus::Problem>,
        /// Whether it is a chat.
        style: evalplus::Style,
        /// The whole prompt.
        context: String,
    },
}

impl ProgramQuestion {
    /// Returns the whole prompt.
    pub fn context(&self) -> &str {
        match self {
            Self::HumanEval { problem } => &problem.prompt,
            Self::EvalPlus { context, .. } => context,
        }
    }

    /// Returns the problem's name.
    pub fn task_id(&self) -> &str {
        match self {
            Self::HumanEval { problem } => &problem.task_id,
            Self::EvalPlus { problem, .. } => &problem.task_id,
        }
    }

    /// Returns the texts that end the program.
    pub fn stops(&self) -> Vec<String> {
        let stops = match self {
            Self::HumanEval { .. } => humaneval::STOPS.to_vec(),
            Self::EvalPlus { problem, style, .. } => problem.stops(*style),
        };
        stops.into_iter().map(str::to_owned).collect()
    }
}

/// One request a choice.
#[derive(Clone, Debug, PartialEq)]
pub struct ChoiceQuestion {
    /// At least one.
    pub requests: Vec<Request>,
    /// For each request whether it is right; at least one is.
    pub right: Vec<bool>,
}

impl ChoiceQuestion {
    /// Returns the position of the first right choice.
    pub fn gold(&self) -> usize {
        self.right.iter().position(|right| *right).unwrap_or(0)
    }
}

/// How likely is this text after that one?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What comes before, without examples.
    pub context: String,
    /// What is scored, with the blank before it.
    pub continuation: String,
    /// Unicode code points that the log-likelihood is divided by: those of the continuation without
    /// the blank (`len(choice)` of the reference harness).
    pub n_chars: u32,
}

/// A solved example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Solved {
    /// The question.
    pub question: String,
    /// Its answer, without what stands between.
    pub answer: String,
}

/// A name that no task has.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown task `{name}` (there are {})", Task::names().join(", "))]
pub struct UnknownTask {
    /// What was asked for.
    pub name: String,
}

// Keys of templates, which errors name.
const DESCRIPTION: &str = "prompt.description";
const QUESTION: &str = "prompt.question";
const CHOICES: &str = "prompt.choices";
const CONTEXTS: &str = "prompt.contexts";
const CONTINUATION: &str = "prompt.continuation";
const GOLD: &str = "prompt.gold";
const RIGHT: &str = "prompt.right";
const TARGET: &str = "prompt.target";
const TEXT: &str = "prompt.text";
const ORIGINAL: &str = "prompt.original";
const GROUP: &str = "data.group";

impl Task {
    /// Returns the names of all built-in tasks, sorted.
    pub fn names() -> Vec<&'static str> {
        BUILT_IN.iter().map(|(name, _)| *name).collect()
    }

    /// Returns the built-in task of this name.
    ///
    /// # Panics
    ///
    /// Never: the built-in definitions are tested to hold.
    pub fn named(name: &str) -> Result<Self, UnknownTask> {
        let (_, text) = BUILT_IN
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| UnknownTask {
                name: name.to_owned(),
            })?;
        Ok(Self::parse(text).expect("the built-in definitions hold"))
    }

    /// Reads a task's definition and compiles its templates.
    pub fn parse(text: &str) -> Result<Self, DefinitionError> {
        let definition = Definition::parse(text)?;
        let name = definition.name.clone();
        Self::compile(definition).map_err(|problem| DefinitionError {
            name: Some(name),
            problem,
        })
    }

    fn compile(definition: Definition) -> Result<Self, String> {
        let mut templates = Templates::new();
        let prompt = &definition.prompt;
        for (key, source) in [
            (DESCRIPTION, &prompt.description),
            (QUESTION, &prompt.question),
            (CONTINUATION, &prompt.continuation),
            (TARGET, &prompt.target),
            (TEXT, &prompt.text),
            (ORIGINAL, &prompt.original),
        ] {
            if let Some(source) = source {
                templates.template(key, source)?;
            }
        }
        for (key, source) in [
            (CHOICES, &prompt.choices),
            (CONTEXTS, &prompt.contexts),
            (GOLD, &prompt.gold),
            (RIGHT, &prompt.right),
            (GROUP, &definition.data.group),
        ] {
            if let Some(source) = source {
                templates.expression(key, source)?;
            }
        }
        let filters = definition.filters.iter().map(Compiled::new);
        Ok(Self {
            filters: filters.collect::<Result<_, _>>()?,
            comparison: Comparison::new(&definition.exact_match)?,
            definition,
            templates,
        })
    }

    /// Returns the task's name.
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// Returns what stands between a question and its answer.
    pub fn target_delimiter(&self) -> &str {
        self.definition
            .prompt
            .target_delimiter
            .as_deref()
            .unwrap_or(" ")
    }

    /// Returns how many examples stand before a question: as asked, or the task's own number where
    /// that is fixed or none is asked for.
    pub fn num_fewshot(&self, asked: Option<u32>) -> u32 {
        let fewshot = &self.definition.fewshot;
        match asked {
            Some(asked) if !fewshot.fixed => asked,
            _ => fewshot.count,
        }
    }

    /// Tells whether examples are the same for every item (of one group).
    pub fn has_same_examples(&self) -> bool {
        self.definition.fewshot.sampler == Sampler::FirstN
    }

    /// Returns the part of the task an item belongs to.
    pub(super) fn group(&self, item: &Value) -> Result<Option<String>, FieldError> {
        if !self.templates.has(GROUP) {
            return Ok(None);
        }
        match self.templates.evaluate(GROUP, &context(item))? {
            Value::String(text) => Ok(Some(text)),
            other => Err(FieldError::new(
                GROUP,
                format!("is {other}, which is no text"),
            )),
        }
    }

    /// Returns what stands before the examples; nothing where the task has no description.
    pub(super) fn description(&self, item: &Value) -> Result<String, FieldError> {
        if self.templates.has(DESCRIPTION) {
            self.templates.render(DESCRIPTION, &context(item))
        } else {
            Ok(String::new())
        }
    }

    /// Makes a question of an item.
    pub fn question(&self, item: &Value) -> Result<Question, FieldError> {
        let keys = context(item);
        let render = |key| self.templates.render(key, &keys);
        Ok(match self.definition.kind {
            Kind::MultipleChoice => Question::Choice(self.choice(&keys)?),
            Kind::GenerateUntil => Question::Generate {
                context: render(QUESTION)?,
                target: render(TARGET)?,
            },
            Kind::LoglikelihoodRolling => {
                let text = render(TEXT)?;
                let original = if self.templates.has(ORIGINAL) {
                    render(ORIGINAL)?
                } else {
                    text.clone()
                };
                Question::Rolling {
                    text,
                    n_words: wikitext::count_words(&original),
                    n_bytes: u32::try_from(original.len()).unwrap_or(u32::MAX),
                }
            }
            Kind::Program => {
                let problem = "is a program's, which is read from its line";
                return Err(FieldError::new("kind", problem));
            }
        })
    }

    fn choice(&self, keys: &minijinja::Value) -> Result<ChoiceQuestion, FieldError> {
        let delimiter = self.target_delimiter();
        let requests: Vec<Request> = if self.templates.has(CONTEXTS) {
            let continuation = self.templates.render(CONTINUATION, keys)?;
            texts(CONTEXTS, self.templates.evaluate(CONTEXTS, keys)?)?
                .into_iter()
                .map(|context| request(context, delimiter, &continuation))
                .collect()
        } else {
            let question = self.templates.render(QUESTION, keys)?;
            texts(CHOICES, self.templates.evaluate(CHOICES, keys)?)?
                .iter()
                .map(|choice| request(question.clone(), delimiter, choice))
                .collect()
        };
        if let Some(i) = requests.iter().position(|request| request.n_chars == 0) {
            return Err(FieldError::new(
                CHOICES,
                format!("is empty at position {i}"),
            ));
        }
        let n = requests.len();
        let right = if self.templates.has(GOLD) {
            let gold = position(&self.templates.evaluate(GOLD, keys)?, n)?;
            (0..n).map(|i| i == gold).collect()
        } else if self.templates.has(TARGET) {
            let target = self.templates.render(TARGET, keys)?;
            let gold = named(&target, &requests, delimiter.len())?;
            (0..n).map(|i| i == gold).collect()
        } else {
            flags(&self.templates.evaluate(RIGHT, keys)?, n)?
        };
        Ok(ChoiceQuestion { requests, right })
    }

    /// Makes a solved example of an item.
    pub(super) fn solved(&self, item: &Value) -> Result<Solved, FieldError> {
        let keys = context(item);
        match self.definition.kind {
            Kind::MultipleChoice => {
                let mut asked = self.choice(&keys)?;
                let request = asked.requests.swap_remove(asked.gold());
                let answer = &request.continuation[self.target_delimiter().len()..];
                Ok(Solved {
                    answer: answer.to_owned(),
                    question: request.context,
                })
            }
            _ => Ok(Solved {
                question: self.templates.render(QUESTION, &keys)?,
                answer: self.templates.render(TARGET, &keys)?,
            }),
        }
    }
}

fn request(context: String, delimiter: &str, choice: &str) -> Request {
    Request {
        context,
        continuation: format!("{delimiter}{choice}"),
        n_chars: u32::try_from(choice.chars().count()).unwrap_or(u32::MAX),
    }
}

fn texts(key: &'static str, value: Value) -> Result<Vec<String>, FieldError> {
    let Value::Array(list) = value else {
        return Err(FieldError::new(key, "is not a list"));
    };
    if list.is_empty() {
        return Err(FieldError::new(key, "is an empty list"));
    }
    list.into_iter()
        .enumerate()
        .map(|(i, entry)| match entry {
            Value::String(text) => Ok(text),
            Value::Number(number) => Ok(number.to_string()),
            _ => Err(FieldError::new(
                key,
                format!("holds no text at position {i}"),
            )),
        })
        .collect()
}

/// Reads a position: a number, a text that is one, or false and true for 0 and 1.
fn position(value: &Value, n: usize) -> Result<usize, FieldError> {
    let found = match value {
        Value::Bool(answer) => Some(u64::from(*answer)),
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    found
        .and_then(|found| usize::try_from(found).ok())
        .filter(|found| *found < n)
        .ok_or_else(|| FieldError::new(GOLD, format!("is {value}, which is none of {n} choices")))
}

/// Finds the choice a target names: its position in digits, else its text.
fn named(target: &str, requests: &[Request], n_delimiter: usize) -> Result<usize, FieldError> {
    let is_number = !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_digit());
    let found = if is_number {
        target.parse().ok().filter(|at| *at < requests.len())
    } else {
        let choice = |request: &Request| request.continuation[n_delimiter..] == *target;
        requests.iter().position(choice)
    };
    found.ok_or_else(|| {
        let problem = format!("is `{target}`, which is none of {} choices", requests.len());
        FieldError::new(TARGET, problem)
    })
}

fn flags(value: &Value, n: usize) -> Result<Vec<bool>, FieldError> {
    let wrong = || {
        let problem = format!("is {value}, where {n} times 0 or 1 is needed, one 1 at least");
        FieldError::new(RIGHT, problem)
    };
    let list = value.as_array().filter(|list| list.len() == n);
    let right = list
        .ok_or_else(wrong)?
        .iter()
        .map(|entry| match entry {
            Value::Bool(right) => Some(*right),
            Value::Number(number) => match number.as_u64() {
                Some(0) => Some(false),
                Some(1) => Some(true),
                _ => None,
            },
            _ => None,
        })
        .collect::<Option<Vec<bool>>>()
        .ok_or_else(wrong)?;
    if right.contains(&true) {
        Ok(right)
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests;
