//! A model's answers to items, and what they are worth.

mod choice;
mod generated;
mod program;
mod rolling;

use tritmark_engine::{
    engine::Engine,
    tokenizer::{Special, Tokenizer, TokenizerError},
};
use tritmark_proto::{
    job::AccuracySpec,
    record::{Answer, Item, ItemScore},
};

use super::{data::Prompt, definition::Kind, judge::Judge, outbox::Outbox, task::Task};
use crate::SuiteError;

/// Positions of the caches that items are scored in together: some hundred MB of the largest models
/// here, and enough to make passes full.
const MAX_TOKENS: usize = 4096;

/// Asks a model.
pub(super) struct Asker<'a> {
    task: &'a Task,
    spec: &'a AccuracySpec,
    engine: Engine,
    tokenizer: Tokenizer,
    /// Scores programs; without it they stay pending.
    judge: Option<Judge>,
}

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
        judge: Option<Judge>,
    ) -> Self {
        Self {
            task,
            spec,
            engine,
            tokenizer,
            judge,
        }
    }

    /// Answers all prompts, handing their items over in order, each as soon as all before it are
    /// there. The times of items add up to that of their evaluation.
    pub(super) fn ask(
        &mut self,
        prompts: &[Prompt],
        out: &mut Outbox<'_>,
    ) -> Result<(), SuiteError> {
        match self.task.definition.kind {
            Kind::MultipleChoice => self.choices(prompts, out),
            Kind::GenerateUntil => self.generations(prompts, out),
            Kind::LoglikelihoodRolling => self.rollings(prompts, out),
            Kind::Program => self.programs(prompts, out),
        }
    }

    pub(super) fn task_name(&self) -> &str {
        self.task.name()
    }

    /// Says whether BOS stands before a text.
    fn special(&self) -> Special {
        if self.spec.add_bos {
            Special::Bos
        } else {
            Special::None
        }
    }

    fn tokens_error(&self, index: u32) -> impl FnOnce(TokenizerError) -> SuiteError + use<> {
        let task = self.task.name().to_owned();
        move |source| SuiteError::ItemTokens {
            task,
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
}

fn item(task: &Task, prompt: &Prompt, answered: Answered) -> Item {
    let Answered {
        answer,
        scores,
        elapsed_ns,
    } = answered;
    Item {
        task: task.name().to_owned(),
        group: prompt.group.clone(),
        index: prompt.index,
        doc_hash: prompt.doc_hash.clone(),
        prompt_hash: prompt.hash(),
        answer,
        scores,
        elapsed_ns: Some(elapsed_ns),
        energy: Vec::new(),
        from_cache: None,
        scored_on: None,
    }
}
