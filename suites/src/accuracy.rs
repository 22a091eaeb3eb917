//! Accuracy: items of a task, asked one after another and scored as the reference harnesses do.
//!
//! A [`Task`] says what is asked, [`Data`] makes prompts of a data set's lines, with examples or as
//! a chat; the engine scores or generates. Items are recorded one by one and in order, so that a
//! later attempt goes on where an earlier one stopped. What was evaluated before in just the same way
//! may come from a [`cache`]; programs may be scored elsewhere than they were written ([`score()`]).
//! Where the machine has counters of energy, items say what they took (`energy`).

mod answer;
pub mod cache;
mod data;
mod dataset;
pub mod definition;
mod energy;
mod examples;
mod filter;
mod judge;
pub mod lm_eval_task;
pub mod math;
mod outbox;
mod random;
mod score;
mod task;
mod tasks;
mod template;
#[cfg(test)]
mod tests;
mod wikitext;

use tritmark_engine::{
    chat::ChatTemplate,
    tokenizer::{Tokenizer, TokenizerError},
};
use tritmark_proto::{
    job::{AccuracySpec, Job, ScoreOn},
    record::{Grade, Measurement, Metric, ModelFacts, Outcome, Reading, RecordBody},
};

pub use data::{Data, Prompt};
pub use dataset::{DataError, DataFile, FieldError, Line, Lines, MAX_LINE_BYTES};
pub use definition::{Definition, DefinitionError};
pub use examples::Examples;
pub use random::PythonRandom;
pub use score::score;
pub use task::{ChoiceQuestion, ProgramQuestion, Question, Request, Solved, Task, UnknownTask};

use answer::Asker;
use cache::{Kept, Key};
use energy::Shares;
use judge::Judge;
use outbox::Outbox;

use crate::{
    Context, Sink, SuiteError, clock,
    harness::per_second,
    meter::{SystemTree, Tree},
    model::Opened,
};

/// Items that are scored together where a plan says nothing; of those whose answers are generated,
/// as many are at hand, of which the plan's number decodes at a time.
const BATCH: u32 = 64;

/// Items from the cache that are at hand beside them.
const MAX_FOUND: usize = 1024;

/// Scores a task's items from `context.items_done` on.
pub(crate) fn run(
    job: &Job,
    spec: &AccuracySpec,
    context: &Context<'_>,
    sink: &mut dyn Sink,
) -> Result<(), SuiteError> {
    let tree = SystemTree {
        root: context.sysfs_root.clone(),
    };
    run_on(&tree, job, spec, context, sink)
}

/// Does so on a machine whose counters are in `tree`.
fn run_on(
    tree: &dyn Tree,
    job: &Job,
    spec: &AccuracySpec,
    context: &Context<'_>,
    sink: &mut dyn Sink,
) -> Result<(), SuiteError> {
    let task = task_of(spec)?;
    let cannot_read = |source| SuiteError::Data {
        task: spec.task.clone(),
        source,
    };
    // Before the model: what is wrong with the data, or with the machine, is known at once then.
    let mut data = Data::open(&task, spec).map_err(cannot_read)?;
    let is_judged_here =
        task.definition.kind == definition::Kind::Program && spec.score_on == ScoreOn::Agent;
    let judge = is_judged_here
        .then(|| Judge::new(&task, spec, job.threads, context))
        .transpose()?;
    let mut opened = Opened::open(job, context, sink)?;
    let tokenizer = opened
        .tokenizer
        .take()
        .ok_or(SuiteError::Tokenizer(TokenizerError::NoVocabulary))?;
    data = in_chat(data, spec, &tokenizer)?;
    let mut facts = opened.facts(Some(data.hash.clone()))?;
    facts.n_items = Some(data.n_items);
    let kept = kept(
        &task,
        spec,
        &facts,
        &tokenizer,
        judge.as_ref(),
        context,
        sink,
    )?;
    sink.record(RecordBody::Facts(facts))
        .map_err(SuiteError::Sink)?;

    let n_items = data.n_items;
    let asker = Asker::new(&task, spec, opened.engine, tokenizer, judge);
    let meter = energy::meter(tree, context.clock, sink).map_err(SuiteError::Sink)?;
    let start_ns = context.clock.now_ns();
    let ask = |shares: Option<Shares<'_>>, sink: &mut dyn Sink| {
        let n_done = context.items_done;
        let mut out = Outbox::new(sink, context.clock, kept, shares, n_done, n_items);
        let counts = ask_all(asker, data, at_hand(&task, spec), n_done, &mut out);
        // What was evaluated is recorded, whatever stopped the rest.
        let closed = out.close().map_err(SuiteError::Sink);
        counts.and_then(|counts| closed.map(|()| counts))
    };
    let counts = match &meter {
        Some(meter) => meter.watch(|watch| ask(Some(Shares::new(watch)), sink)),
        None => ask(None, sink),
    }?;
    sink.progress("items", n_items, n_items)
        .map_err(SuiteError::Sink)?;
    let elapsed_ns = context.clock.now_ns() - start_ns;
    speed(counts, elapsed_ns)
        .map_or(Ok(()), |speed| sink.record(speed))
        .map_err(SuiteError::Sink)
}

/// Where items came from.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// Evaluated.
    n_asked: u64,
    /// From the cache.
    n_found: u64,
}

/// Asks for every item but the first `n_done`, a batch at a time.
fn ask_all(
    mut asker: Asker<'_>,
    mut data: Data<'_>,
    batch: usize,
    n_done: u64,
    out: &mut Outbox<'_>,
) -> Result<Counts, SuiteError> {
    let mut counts = Counts::default();
    let mut n_read = 0;
    let mut failure = None;
    while failure.is_none() {
        let mut prompts = Vec::with_capacity(batch);
        while prompts.len() < batch && out.n_found() < MAX_FOUND {
            match data.next().transpose() {
                Ok(None) => break,
                Ok(Some(prompt)) => {
                    n_read += 1;
                    if n_read > n_done && !out.find(&prompt) {
                        prompts.push(prompt);
                    }
                }
                // What comes before the bad item is still asked.
                Err(source) => {
                    failure = Some(SuiteError::Data {
                        task: asker.task_name().to_owned(),
                        source,
                    });
                    break;
                }
            }
        }
        if prompts.is_empty() && out.n_found() == 0 {
            break;
        }
        counts.n_asked += prompts.len() as u64;
        counts.n_found += out.n_found() as u64;
        asker.ask(&prompts, out)?;
        out.end_batch().map_err(SuiteError::Sink)?;
    }
    failure.map_or(Ok(counts), Err)
}

/// Makes turns of a chat of the prompts, where the plan asks for it.
fn in_chat<'t>(
    data: Data<'t>,
    spec: &AccuracySpec,
    tokenizer: &Tokenizer,
) -> Result<Data<'t>, SuiteError> {
    let Some(chat) = &spec.chat else {
        return Ok(data);
    };
    let template = ChatTemplate::of(tokenizer).map_err(SuiteError::Chat)?;
    Ok(data.in_chat(template.ok_or(SuiteError::NoChat)?, chat))
}

fn task_of(spec: &AccuracySpec) -> Result<Task, SuiteError> {
    match &spec.definition {
        Some(text) => Task::parse(text).map_err(SuiteError::Definition),
        None => Ok(Task::named(&spec.task)?),
    }
}

/// Returns how many items are asked together, or are at hand for those that decode together.
fn at_hand(task: &Task, spec: &AccuracySpec) -> usize {
    let n = match (task.definition.kind, spec.batch) {
        (
            definition::Kind::MultipleChoice | definition::Kind::LoglikelihoodRolling,
            Some(batch),
        ) => batch.get(),
        (_, Some(batch)) => batch.get().max(BATCH),
        (_, None) => BATCH,
    };
    n as usize
}

/// Opens the cache where the plan asks for it and the agent has one. One that cannot be used is said
/// and done without.
fn kept(
    task: &Task,
    spec: &AccuracySpec,
    facts: &ModelFacts,
    tokenizer: &Tokenizer,
    judge: Option<&Judge>,
    context: &Context<'_>,
    sink: &mut dyn Sink,
) -> Result<Option<Kept>, SuiteError> {
    let Some(options) = context.item_cache.as_ref().filter(|_| spec.cache) else {
        return Ok(None);
    };
    let key = Key::new(task, spec, facts, tokenizer, judge);
    match Kept::open(options, &key, context.origin) {
        Ok(kept) => Ok(Some(kept)),
        Err(error) => {
            let folder = options.folder.display();
            sink.warn(&format!("no items are kept in {folder}: {error}"))
                .map_err(SuiteError::Sink)?;
            Ok(None)
        }
    }
}

/// Returns how fast items were evaluated; `None` where there were none. Items from a cache took no
/// time that says anything.
fn speed(counts: Counts, elapsed_ns: u64) -> Option<RecordBody> {
    let Counts { n_asked, n_found } = counts;
    let outcome = match (n_asked, n_found) {
        (0, 0) => return None,
        (_, 0) => Outcome::Reading(Reading {
            value: per_second(n_asked, elapsed_ns),
            grade: Grade::Counted,
            source: clock::SOURCE.to_owned(),
        }),
        (_, n_found) => Outcome::Skipped {
            reason: format!(
                "{n_found} of {} items are from the cache",
                n_asked + n_found
            ),
        },
    };
    Some(RecordBody::Measurement(Measurement {
        suite: "accuracy".to_owned(),
        metric: Metric::ItemsPerS,
        workload: None,
        phase: None,
        repetition: None,
        outcome,
    }))
}
