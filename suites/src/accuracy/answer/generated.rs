//! Generated answers: greedy, up to a stop text, filtered and compared.

use std::ops::ControlFlow;

use tritmark_engine::{
    generate::{self, End, Generation, Params},
    sampler::Sampling,
    tokenizer::Special,
};
use tritmark_proto::record::{Answer, GeneratedAnswer, ItemScore, NO_FILTER};

use super::{Answered, Asker, Take};
use crate::{
    SuiteError,
    accuracy::{
        data::Prompt,
        definition::Metric,
        math::{self, Equality},
        task::{Question, Task},
    },
    clock::Clock,
};

impl Asker<'_> {
    pub(super) fn generations(
        &mut self,
        prompts: &[Prompt],
        clock: &dyn Clock,
        take: Take<'_>,
    ) -> Result<(), SuiteError> {
        let params = self.params();
        for prompt in prompts {
            let Question::Generate { context, target } = &prompt.question else {
                continue;
            };
            let start_ns = clock.now_ns();
            let tokens = self.prompt_tokens(prompt.index, context, params.max_new)?;
            let capacity = tokens.len() + params.max_new;
            let mut cache = Self::cache(&self.engine, &mut self.cache, capacity);
            cache.truncate(0);
            let generation = generate::generate(
                &mut self.engine,
                &mut cache,
                &self.tokenizer,
                &tokens,
                &params,
                |_| ControlFlow::Continue(()),
            )
            .map_err(|source| SuiteError::ItemGenerate {
                task: self.task.name().to_owned(),
                index: prompt.index,
                source: Box::new(source),
            })?;
            self.cache = Some(cache);
            let answer = answer(&params, target, tokens.len(), generation);
            let scores = judge(self.task, &answer);
            take(self.item(
                prompt,
                Answered {
                    answer: Answer::Generated(answer),
                    scores,
                    elapsed_ns: clock.now_ns() - start_ns,
                },
            ))?;
        }
        Ok(())
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
        let special = if self.spec.add_bos {
            Special::Bos
        } else {
            Special::None
        };
        let mut tokens = self
            .tokenizer
            .encode(context, special, true)
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

fn answer(
    params: &Params,
    target: &str,
    n_prompt_tokens: usize,
    generation: Generation,
) -> GeneratedAnswer {
    let Generation { tokens, text, end } = generation;
    // The reference harness cuts at each stop text in the list's order; what is left is the text
    // before the first of all of them, which is where the generation ended.
    debug_assert!(
        params
            .stop
            .iter()
            .all(|stop| stop.is_empty() || !text.contains(stop))
    );
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
            });
        }
    }
    scores
}
