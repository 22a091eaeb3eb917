//! Generated answers: greedy, up to a stop text, filtered and compared.

use std::{collections::BTreeMap, num::NonZeroUsize, ops::ControlFlow};

use tritmark_engine::{
    generate::{self, End, Generation, Params},
    sampler::Sampling,
};
use tritmark_proto::record::{Answer, GeneratedAnswer, ItemScore, NO_FILTER};

use super::{Answered, Asker, item};
use crate::{
    SuiteError,
    accuracy::{
        data::Prompt,
        definition::Metric,
        energy::Ended,
        math::{self, Equality},
        outbox::Outbox,
        task::{Question, Task},
    },
};

/// Sequences that decode together where a plan says nothing.
const MAX_BATCH: NonZeroUsize = NonZeroUsize::new(16).expect("it is not 0");

/// Takes a prompt's answer with the time it took, and may hand its item on.
type TakeAnswer<'t, 'p> =
    &'t mut dyn FnMut(&mut Outbox<'_>, &'p Prompt, GeneratedAnswer, u64) -> Result<(), SuiteError>;

impl Asker<'_> {
    pub(super) fn generations(
        &mut self,
        prompts: &[Prompt],
        out: &mut Outbox<'_>,
    ) -> Result<(), SuiteError> {
        let task = self.task;
        self.generate(prompts, out, &mut |out, prompt, answer, elapsed_ns| {
            let answered = Answered {
                scores: judge(task, &answer),
                answer: Answer::Generated(answer),
                elapsed_ns,
            };
            out.take(item(task, prompt, answered))
        })
    }

    /// Generates behind all prompts, handing the answers over in order. The time of an answer is
    /// that since another one of the batch ended.
    pub(super) fn generate<'p>(
        &mut self,
        prompts: &'p [Prompt],
        out: &mut Outbox<'_>,
        take: TakeAnswer<'_, 'p>,
    ) -> Result<(), SuiteError> {
        let mut asked = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            let (context, target, stops) = match &prompt.question {
                Question::Generate { context, target } => (context.as_str(), target.as_str(), None),
                Question::Program(question) => (
                    question.context(),
                    question.task_id(),
                    Some(question.stops()),
                ),
                Question::Choice(_) | Question::Rolling { .. } => continue,
            };
            let mut params = self.params();
            if let Some(stops) = stops {
                params.stop = stops;
            }
            let tokens = self.prompt_tokens(prompt.index, context, params.max_new)?;
            asked.push((prompt, target, tokens, params));
        }
        let requests: Vec<_> = asked
            .iter()
            .map(|(_, _, tokens, params)| generate::Prompt { tokens, params })
            .collect();
        let mut last_ns = out.now_ns();
        // Those that ended before one that stands before them.
        let mut early = BTreeMap::new();
        let mut next = 0;
        let mut failure = None;
        let max_batch = self.spec.batch.map_or(MAX_BATCH, |batch| {
            NonZeroUsize::try_from(batch).unwrap_or(MAX_BATCH)
        });
        let name = self.task.name();
        let ran = generate::generate_many(
            &mut self.engine,
            &self.tokenizer,
            &requests,
            max_batch,
            |at, generation| {
                let now_ns = out.now_ns();
                let elapsed_ns = now_ns - last_ns;
                last_ns = now_ns;
                early.insert(at, (generation, elapsed_ns));
                let ended = Ended {
                    index: asked[at].0.index,
                    elapsed_ns,
                };
                if let Err(error) = out.end([ended]) {
                    failure = Some(error);
                    return ControlFlow::Break(());
                }
                while let Some((generation, elapsed_ns)) = early.remove(&next) {
                    let (prompt, target, tokens, _) = &asked[next];
                    let taken = generation
                        .map_err(|source| SuiteError::ItemGenerate {
                            task: name.to_owned(),
                            index: prompt.index,
                            source: Box::new(source),
                        })
                        .and_then(|generation| {
                            let answer = answer(target, tokens.len(), generation);
                            take(out, prompt, answer, elapsed_ns)
                        });
                    if let Err(error) = taken {
                        failure = Some(error);
                        return ControlFlow::Break(());
                    }
                    next += 1;
                }
                ControlFlow::Continue(())
            },
        );
        ran.map_err(SuiteError::Forward)?;
        failure.map_or(Ok(()), Err)
    }

    fn params(&self) -> Params {
        let generation = self.task.definition.generation.as_ref();
        let limit = generation.map_or(1, |generation| generation.max_new);
        let max_new = self.spec.max_new.map_or(limit, std::num::NonZeroU32::get);
        Params {
            max_new: max_new as usize,
            sampling: Sampling::default(),
            stop: generation
                .map(|generation| generation.until.clone())
                .unwrap_or_default(),
            ignore_eos: false,
        }
    }

    /// Returns a prompt's last tokens, as many as leave room for the answer.
    fn prompt_tokens(
        &self,
        index: u32,
        context: &str,
        max_new: usize,
    ) -> Result<Vec<u32>, SuiteError> {
        let mut tokens = self
            .tokenizer
            .encode(context, self.special(), true)
            .map_err(self.tokens_error(index))?;
        let room = self.engine.config().context_length.saturating_sub(max_new);
        if room == 0 {
            return Err(SuiteError::NoRoom {
                task: self.task.name().to_owned(),
                max_new,
                context_length: self.engine.config().context_length,
            });
        }
        tokens.drain(..tokens.len().saturating_sub(room));
        if tokens.is_empty() {
            let prefix = self.tokenizer.prefix_id();
            let missing = tritmark_engine::tokenizer::TokenizerError::NoPrefixToken;
            tokens.push(prefix.ok_or(missing).map_err(self.tokens_error(index))?);
        }
        Ok(tokens)
    }
}

fn answer(target: &str, n_prompt_tokens: usize, generation: Generation) -> GeneratedAnswer {
    // The reference harness cuts at each stop text in the list's order; what is left is the text
    // before the first of all of them, which is where the generation ended.
    let Generation { tokens, text, end } = generation;
    GeneratedAnswer {
        text,
        target: target.to_owned(),
        n_prompt_tokens: n_prompt_tokens as u32,
        n_tokens: tokens.len() as u32,
        end: match end {
            End::MaxNew => "max_new",
            End::ContextFull => "context_full",
            End::EndToken(_) => "end_token",
            End::Stop(_) | End::Cancelled => "stop",
        }
        .to_owned(),
    }
}

/// Scores an answer by each metric behind each filter.
pub(super) fn judge(task: &Task, answer: &GeneratedAnswer) -> Vec<ItemScore> {
    let filtered: Vec<(&str, Result<String, String>)> = if task.filters.is_empty() {
        vec![(NO_FILTER, Ok(answer.text.clone()))]
    } else {
        let apply = |filter: &'_ super::super::filter::Compiled| filter.apply(&answer.text);
        let filters = task.filters.iter();
        filters
            .map(|filter| (filter.name.as_str(), apply(filter)))
            .collect()
    };
    let mut scores = Vec::new();
    for (filter, extracted) in filtered {
        for metric in &task.definition.metrics {
            let judged = extracted.as_ref().map_err(Clone::clone).and_then(|text| {
                Ok(match metric {
                    Metric::MathEqual => math::equal(text, &answer.target),
                    _ if task.comparison.equal(text, &answer.target)? => Equality::Equal,
                    _ => Equality::Different,
                })
            });
            let (value, reason) = match judged {
                Ok(Equality::Equal) => (Some(1.0), None),
                Ok(Equality::Different) => (Some(0.0), None),
                Ok(Equality::Undecided { reason }) | Err(reason) => (None, Some(reason)),
            };
            scores.push(ItemScore {
                metric: metric.name().to_owned(),
                filter: filter.to_owned(),
                value,
                extracted: extracted.as_ref().ok().cloned(),
                reason,
                pending: false,
            });
        }
    }
    scores
}
