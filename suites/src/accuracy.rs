//! Accuracy: items of a task, asked one after another and scored as the reference harnesses do.
//!
//! A [`Task`] says what is asked, [`Data`] makes prompts of a data set's lines, with examples or as
//! a chat; the engine scores or generates. Items are recorded one by one and in order, so that a
//! later attempt goes on where an earlier one stopped.

mod answer;
mod data;
mod dataset;
pub mod definition;
mod examples;
mod filter;
pub mod lm_eval_task;
pub mod math;
mod random;
mod task;
mod tasks;
mod template;
mod wikitext;

use tritmark_engine::{chat::ChatTemplate, tokenizer::TokenizerError};
use tritmark_proto::{
    job::{AccuracySpec, Job},
    record::{Grade, Item, Measurement, Metric, Outcome, Reading, RecordBody},
};

pub use data::{Data, Prompt};
pub use dataset::{DataError, DataFile, FieldError, Line, Lines, MAX_LINE_BYTES};
pub use definition::{Definition, DefinitionError};
pub use examples::Examples;
pub use random::PythonRandom;
pub use task::{ChoiceQuestion, ProgramQuestion, Question, Request, Solved, Task, UnknownTask};

use answer::Asker;

use crate::{
    Context, Sink, SuiteError, clock, harness::per_second, model::Opened, sandbox::Sandbox,
};

/// Items that are scored together where a plan says nothing; of those whose answers are generated,
/// as many are at hand, of which the plan's number decodes at a time.
const BATCH: u32 = 64;

/// Scores a task's items from `context.items_done` on.
pub(crate) fn run(
    job: &Job,
    spec: &AccuracySpec,
    context: &Context<'_>,
    sink: &mut dyn Sink,
) -> Result<(), SuiteError> {
    let task = match &spec.definition {
        Some(text) => Task::parse(text).map_err(SuiteError::Definition)?,
        None => Task::named(&spec.task)?,
    };
    let cannot_read = |source| SuiteError::Data {
        task: spec.task.clone(),
        source,
    };
    // Before the model: what is wrong with the data, or with the machine, is known at once then.
    let mut data = Data::open(&task, spec).map_err(cannot_read)?;
    let is_program = task.definition.kind == definition::Kind::Program;
    let sandbox = is_program
        .then(|| Sandbox::detect(&context.sandbox))
        .transpose()
        .map_err(SuiteError::Sandbox)?;
    let mut opened = Opened::open(job, context, sink)?;
    let tokenizer = opened
        .tokenizer
        .take()
        .ok_or(SuiteError::Tokenizer(TokenizerError::NoVocabulary))?;
    if let Some(chat) = &spec.chat {
        let template = ChatTemplate::of(&tokenizer).map_err(SuiteError::Chat)?;
        data = data.in_chat(template.ok_or(SuiteError::NoChat)?, chat);
    }
    let mut facts = opened.facts(Some(data.hash.clone()))?;
    facts.n_items = Some(data.n_items);
    sink.record(RecordBody::Facts(facts))
        .map_err(SuiteError::Sink)?;

    let n_items = data.n_items;
    let at_hand = match (task.definition.kind, spec.batch) {
        (
            definition::Kind::MultipleChoice | definition::Kind::LoglikelihoodRolling,
            Some(batch),
        ) => batch.get(),
        (_, Some(batch)) => batch.get().max(BATCH),
        (_, None) => BATCH,
    };
    let batch = at_hand as usize;
    let truth_dir = context.cache_dir.join("evalplus");
    let mut asker = Asker::new(&task, spec, opened.engine, tokenizer, sandbox, truth_dir);
    let start_ns = context.clock.now_ns();
    let (mut n_done, mut n_scored) = (0, 0);
    let mut failure = None;
    while failure.is_none() {
        let mut prompts = Vec::with_capacity(batch);
        while prompts.len() < batch {
            match data.next().transpose() {
                Ok(None) => break,
                Ok(Some(prompt)) => {
                    n_done += 1;
                    if n_done > context.items_done {
                        prompts.push(prompt);
                    }
                }
                // What comes before the bad item is still asked.
                Err(error) => {
                    failure = Some(cannot_read(error));
                    break;
                }
            }
        }
        if prompts.is_empty() {
            break;
        }
        let first = n_done - prompts.len() as u64;
        let mut recorded = 0;
        asker.ask(&prompts, context.clock, &mut |item: Item| {
            sink.progress("items", first + recorded, n_items)
                .map_err(SuiteError::Sink)?;
            recorded += 1;
            sink.record(RecordBody::Item(item))
                .map_err(SuiteError::Sink)
        })?;
        n_scored += recorded;
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    sink.progress("items", n_items, n_items)
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
