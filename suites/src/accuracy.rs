//! Accuracy by log-likelihood: each choice of an item is scored as the continuation of its context.
//!
//! A [`Task`] says what is asked, a [`DataFile`] holds the items, [`Examples`] stand before the
//! question; the engine scores. Items are recorded one by one, so that a later attempt goes on
//! where an earlier one stopped.

mod dataset;
mod examples;
mod random;
mod task;
mod tasks;

use tritmark_engine::{
    kv_cache::KvCache,
    score::{self, Score},
    tokenizer::{Pair, Tokenizer, TokenizerError},
};
use tritmark_proto::{
    job::{AccuracySpec, Job},
    record::{Choice, Grade, Item, Measurement, Metric, Outcome, Reading, RecordBody},
};

pub use dataset::{DataError, DataFile, FieldError, Line, Lines, MAX_LINE_BYTES};
pub use examples::Examples;
pub use random::PythonRandom;
pub use task::{Question, Request, Task, UnknownTask};

use crate::{Context, Sink, SuiteError, clock, harness::per_second, model::Opened};

/// Scores a task's items from `context.items_done` on.
pub(crate) fn run(
    job: &Job,
    spec: &AccuracySpec,
    context: &Context<'_>,
    sink: &mut dyn Sink,
) -> Result<(), SuiteError> {
    let task = Task::named(&spec.task)?;
    let mut data = Data::open(task, spec).map_err(|source| SuiteError::Data {
        task: spec.task.clone(),
        source,
    })?;
    let mut opened = Opened::open(job, context, sink)?;
    let mut facts = opened.facts(Some(data.hash.clone()))?;
    facts.n_items = Some(data.n_items);
    let tokenizer = opened
        .tokenizer
        .take()
        .ok_or(SuiteError::Tokenizer(TokenizerError::NoVocabulary))?;
    sink.record(RecordBody::Facts(facts))
        .map_err(SuiteError::Sink)?;

    let mut scorer = Scorer {
        opened,
        tokenizer,
        cache: None,
        spec,
    };
    let start_ns = context.clock.now_ns();
    let mut n_scored = 0;
    while let Some(prompt) = data.next().transpose().map_err(|source| SuiteError::Data {
        task: spec.task.clone(),
        source,
    })? {
        if u64::from(prompt.index) < context.items_done {
            continue;
        }
        sink.progress("items", prompt.index.into(), data.n_items)
            .map_err(SuiteError::Sink)?;
        let item = scorer.item(&task, &prompt, context)?;
        sink.record(RecordBody::Item(item))
            .map_err(SuiteError::Sink)?;
        n_scored += 1;
    }
    sink.progress("items", data.n_items, data.n_items)
        .map_err(SuiteError::Sink)?;
    if n_scored > 0 {
        let value = per_second(n_scored, context.clock.now_ns() - start_ns);
        sink.record(RecordBody::Measurement(Measurement {
            suite: "accuracy".to_owned(),
            metric: Metric::ItemsPerS,
            workload: None,
            phase: None,
            repetition: None,
            outcome: Outcome::Reading(Reading {
                value,
                grade: Grade::Counted,
                source: clock::SOURCE.to_owned(),
            }),
        }))
        .map_err(SuiteError::Sink)?;
    }
    Ok(())
}

/// The items of a task under its limit, with their examples.
pub struct Data {
    task: Task,
    file: DataFile,
    lines: Lines,
    examples: Examples,
    next: u32,
    /// blake3 of the task's version, its data and its examples, hex.
    pub hash: String,
    /// Items under the limit.
    pub n_items: u64,
}

/// What is asked of a model about one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Position of the item from 0.
    pub index: u32,
    /// blake3 of the item's line, hex.
    pub doc_hash: String,
    /// Requests with their whole contexts.
    pub question: Question,
}

impl Data {
    /// Finds a task's files and hashes them whole, whatever the limit.
    pub fn open(task: Task, spec: &AccuracySpec) -> Result<Self, DataError> {
        let folder = spec.data_dir.join(task.name);
        let file = DataFile::find(&folder, task.items)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{} {}\n", task.name, task.version).as_bytes());
        let mut n_items = 0;
        for line in file.lines()? {
            hasher.update(&line?.bytes);
            hasher.update(b"\n");
            n_items += 1;
        }
        if n_items == 0 {
            return Err(DataError::Empty { path: file.path });
        }
        let examples = if spec.num_fewshot == 0 {
            Examples::none()
        } else {
            hasher.update(format!("{} examples\n", spec.num_fewshot).as_bytes());
            let pool = DataFile::find(&folder, task.examples)?;
            Examples::read(&pool, &task, spec.num_fewshot, &mut hasher)?
        };
        Ok(Self {
            task,
            lines: file.lines()?,
            file,
            examples,
            next: 0,
            hash: hasher.finalize().to_hex().to_string(),
            n_items: spec
                .limit
                .map_or(n_items, |limit| n_items.min(limit.get().into())),
        })
    }
}

impl Iterator for Data {
    type Item = Result<Prompt, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if u64::from(self.next) >= self.n_items {
            return None;
        }
        let line = match self.lines.next()? {
            Ok(line) => line,
            Err(error) => return Some(Err(error)),
        };
        let index = self.next;
        self.next += 1;
        let examples = self.examples.next_prefix();
        let question = line.parse(&self.file.path, self.task.question);
        Some(question.map(|mut question| {
            for request in &mut question.requests {
                request.context.insert_str(0, &examples);
            }
            Prompt {
                index,
                doc_hash: blake3::hash(&line.bytes).to_hex().to_string(),
                question,
            }
        }))
    }
}

impl Prompt {
    /// Returns the blake3 hash of all requests, hex.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for request in &self.question.requests {
            for text in [&request.context, &request.continuation] {
                hasher.update(&(text.len() as u64).to_le_bytes());
                hasher.update(text.as_bytes());
            }
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Returns the tokens of all requests, with or without the vocabulary's BOS before them.
    pub fn tokens(
        &self,
        tokenizer: &Tokenizer,
        add_bos: bool,
    ) -> Result<Vec<Pair>, TokenizerError> {
        let requests = self.question.requests.iter();
        requests
            .map(|request| tokenizer.pair(&request.context, &request.continuation, add_bos))
            .collect()
    }
}

struct Scorer<'a> {
    opened: Opened,
    tokenizer: Tokenizer,
    cache: Option<KvCache>,
    spec: &'a AccuracySpec,
}

impl Scorer<'_> {
    fn item(
        &mut self,
        task: &Task,
        prompt: &Prompt,
        context: &Context<'_>,
    ) -> Result<Item, SuiteError> {
        let index = prompt.index;
        let start_ns = context.clock.now_ns();
        let pairs = prompt
            .tokens(&self.tokenizer, self.spec.add_bos)
            .map_err(|source| SuiteError::ItemTokens {
                task: task.name.to_owned(),
                index,
                source,
            })?;
        let scores = self.score(&pairs).map_err(|source| SuiteError::ItemScore {
            task: task.name.to_owned(),
            index,
            source,
        })?;
        let elapsed_ns = context.clock.now_ns() - start_ns;
        if scores.iter().any(|score| !score.loglikelihood.is_finite()) {
            return Err(SuiteError::NotFinite {
                task: task.name.to_owned(),
                index,
            });
        }
        let choices: Vec<Choice> = scores
            .iter()
            .zip(&prompt.question.requests)
            .map(|(score, request)| Choice {
                loglikelihood: score.loglikelihood,
                is_greedy: score.is_greedy,
                n_tokens: score.n_tokens,
                n_chars: request.n_chars,
            })
            .collect();
        let predicted = first_max(choices.iter().map(|choice| choice.loglikelihood));
        let predicted_norm = task.has_acc_norm.then(|| {
            let per_char = |choice: &Choice| choice.loglikelihood / f64::from(choice.n_chars);
            first_max(choices.iter().map(per_char))
        });
        Ok(Item {
            task: task.name.to_owned(),
            index,
            doc_hash: prompt.doc_hash.clone(),
            prompt_hash: prompt.hash(),
            gold: prompt.question.gold,
            choices,
            predicted,
            predicted_norm,
            elapsed_ns,
        })
    }

    fn score(&mut self, pairs: &[Pair]) -> Result<Vec<Score>, score::ScoreError> {
        let requests: Vec<score::Request<'_>> = pairs
            .iter()
            .map(|pair| score::Request {
                context: &pair.context,
                continuation: &pair.continuation,
            })
            .collect();
        let engine = &mut self.opened.engine;
        let longest = pairs
            .iter()
            .map(|pair| pair.context.len() + pair.continuation.len())
            .max()
            .unwrap_or(0)
            .min(engine.config().context_length);
        let cache = match &mut self.cache {
            Some(cache) if cache.capacity() >= longest => cache,
            cache => cache.insert(engine.new_cache(longest)),
        };
        score::loglikelihoods(engine, cache, &requests)
    }
}

/// Returns the position of the largest value, the first of equals.
fn first_max(values: impl Iterator<Item = f64>) -> u32 {
    let mut best = (0, f64::NEG_INFINITY);
    for (i, value) in values.enumerate() {
        if value > best.1 {
            best = (i as u32, value);
        }
    }
    best.0
}
