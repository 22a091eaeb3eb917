//! Scores programs that were written elsewhere: no model, only the task's tests and the sandbox.

use std::{collections::BTreeMap, num::NonZeroU32, thread};

use tritmark_proto::{
    job::{Job, SuiteSpec},
    record::{Answer, Item, RecordBody},
};

use super::{
    Data, Question,
    judge::{Judge, Program},
    task_of,
};
use crate::{Context, Sink, SuiteError};

/// Scores the pending items of a job, which must be programs; each becomes a record, in order, with
/// all it came with.
///
/// # Errors
/// An item that is not one of the data set's, or of other data, is an error: its tests are not known.
pub fn score(
    job: &Job,
    items: Vec<Item>,
    context: &Context<'_>,
    sink: &mut dyn Sink,
) -> Result<(), SuiteError> {
    let SuiteSpec::Accuracy(spec) = &job.suite else {
        return Err(refused(
            job.suite.name(),
            "only accuracy jobs have programs",
        ));
    };
    let task = task_of(spec)?;
    let refused = |problem: String| refused(&spec.task, &problem);
    let cannot_read = |source| SuiteError::Data {
        task: spec.task.clone(),
        source,
    };
    let data = Data::open(&task, spec)
        .map_err(cannot_read)?
        .to_be_scored(spec.chat.is_some());
    let threads = thread::available_parallelism()
        .ok()
        .and_then(|threads| NonZeroU32::try_from(threads).ok())
        .unwrap_or(NonZeroU32::MIN);
    let judge = Judge::new(&task, spec, threads, context)?;
    let n_items = items.len() as u64;
    let mut items: BTreeMap<u32, Item> = items.into_iter().map(|item| (item.index, item)).collect();
    let mut n_done = 0;
    // As many at a time as there are threads, so that little is lost with this process.
    let mut at_hand = Vec::new();
    for prompt in data {
        let prompt = prompt.map_err(cannot_read)?;
        let Some(item) = items.remove(&prompt.index) else {
            continue;
        };
        let index = item.index;
        if item.doc_hash != prompt.doc_hash || item.task != task.name() {
            return Err(refused(format!(
                "item {index} was asked of other data than there is here"
            )));
        }
        let Question::Program(question) = prompt.question else {
            return Err(refused("its answers are no programs".to_owned()));
        };
        at_hand.push((item, question));
        if at_hand.len() >= threads.get() as usize || items.is_empty() {
            for item in scored(&judge, std::mem::take(&mut at_hand))? {
                sink.progress("scoring", n_done, n_items)
                    .map_err(SuiteError::Sink)?;
                n_done += 1;
                sink.record(RecordBody::Item(item))
                    .map_err(SuiteError::Sink)?;
            }
        }
        if items.is_empty() {
            break;
        }
    }
    match items.keys().next() {
        Some(index) => Err(refused(format!(
            "there is no item {index} in the data here"
        ))),
        None => sink
            .progress("scoring", n_items, n_items)
            .map_err(SuiteError::Sink),
    }
}

fn scored(
    judge: &Judge,
    at_hand: Vec<(Item, super::ProgramQuestion)>,
) -> Result<Vec<Item>, SuiteError> {
    let programs = at_hand
        .iter()
        .map(|(item, question)| match &item.answer {
            Answer::Generated(answer) => Ok(Program {
                index: item.index,
                question,
                text: &answer.text,
            }),
            Answer::Choice(_) | Answer::Rolling(_) => {
                let problem = format!("the answer to item {} is no text", item.index);
                Err(refused(&item.task, &problem))
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    let scores = judge.scores(&programs)?;
    let items = at_hand.into_iter().zip(scores);
    Ok(items
        .map(|((item, _), scores)| Item {
            scores,
            scored_on: judge.machine_id.clone(),
            ..item
        })
        .collect())
}

fn refused(task: &str, problem: &str) -> SuiteError {
    SuiteError::NotScored {
        task: task.to_owned(),
        problem: problem.to_owned(),
    }
}
