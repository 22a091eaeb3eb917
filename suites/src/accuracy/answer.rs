//! A model's answers to items, and what they are worth.

mod choice;
mod generated;
mod rolling;

use tritmark_engine::{
    engine::Engine,
    kv_cache::KvCache,
    score::ScoreError,
    tokenizer::{Tokenizer, TokenizerError},
};
use tritmark_proto::{
    job::AccuracySpec,
    record::{Answer, Item, ItemScore},
};

use super::{data::Prompt, definition::Kind, task::Task};
use crate::{SuiteError, clock::Clock};

/// Asks a model.
pub(super) struct Asker<'a> {
    task: &'a Task,
    spec: &'a AccuracySpec,
    engine: Engine,
    tokenizer: Tokenizer,
    /// Kept from one batch to the next.
    cache: Option<KvCache>,
}

/// Takes items in order.
pub(super) type Take<'t> = &'t mut dyn FnMut(Item) -> Result<(), SuiteError>;

/// What is known of one item when its answer is there.
struct Answered {
    answer: Answer,
    scores: Vec<ItemScore>,
    elapsed_ns: u64,
}

impl<'a> Asker<'a> {
    pub(super) fn new(
        task: &'a Task,
        spec: &'a AccuracySpec,
        engine: Engine,
        tokenizer: Tokenizer,
    ) -> Self {
        Self {
            task,
            spec,
            engine,
            tokenizer,
            cache: None,
        }
    }

    /// Answers all prompts, handing their items over in order, each as soon as all before it are
    /// there.
    pub(super) fn ask(
        &mut self,
        prompts: &[Prompt],
        clock: &dyn Clock,
        take: Take<'_>,
    ) -> Result<(), SuiteError> {
        match self.task.definition.kind {
            Kind::MultipleChoice => self.choices(prompts, clock, take),
            Kind::GenerateUntil => self.generations(prompts, clock, take),
            Kind::LoglikelihoodRolling => self.rollings(prompts, clock, take),
            Kind::Program => Err(SuiteError::NoSandbox),
        }
    }

    fn item(&self, prompt: &Prompt, answered: Answered) -> Item {
        let Answered {
            answer,
            scores,
            elapsed_ns,
        } = answered;
        Item {
            task: self.task.name().to_owned(),
            group: prompt.group.clone(),
            index: prompt.index,
            doc_hash: prompt.doc_hash.clone(),
            prompt_hash: prompt.hash(),
            answer,
            scores,
            elapsed_ns,
        }
    }

    fn tokens_error(&self, index: u32) -> impl Fn(TokenizerError) -> SuiteError + use<> {
        let task = self.task.name().to_owned();
        move |source| SuiteError::ItemTokens {
            task: task.clone(),
            index,
            source,
        }
    }

    fn score_error(&self, index: u32) -> impl Fn(ScoreError) -> SuiteError + use<> {
        let task = self.task.name().to_owned();
        move |source| SuiteError::ItemScore {
            task: task.clone(),
            index,
            source,
        }
    }

    fn finite(&self, index: u32, loglikelihood: f64) -> Result<(), SuiteError> {
        if loglikelihood.is_finite() {
            return Ok(());
        }
        Err(SuiteError::NotFinite {
            task: self.task.name().to_owned(),
            index,
        })
    }

    /// Returns a cache of at least `capacity` positions.
    fn cache(engine: &Engine, kept: &mut Option<KvCache>, capacity: usize) -> KvCache {
        match kept.take() {
            Some(cache) if cache.capacity() >= capacity => cache,
            _ => engine.new_cache(capacity),
        }
    }
}
