//! Rolling log-likelihoods: how likely a whole text is, each token of it scored once.
//!
//! Windows are the engine's ([`Scorer::rolling`]), which are lm-evaluation-harness's.

use tritmark_engine::{score::Scorer, tokenizer::TokenizerError};
use tritmark_proto::record::{Answer, ItemScore, RollingAnswer};

use super::{Answered, Asker, MAX_TOKENS, item};
use crate::{
    SuiteError,
    accuracy::{
        data::Prompt,
        definition::Metric,
        energy::Ended,
        outbox::Outbox,
        task::{Question, Task},
    },
};

/// Tokens of a window where the model takes more: what the reference harness assumes of a model
/// that does not say, and what the published figures were taken with.
const MAX_WINDOW: usize = 2048;

impl Asker<'_> {
    pub(super) fn rollings(
        &mut self,
        prompts: &[Prompt],
        out: &mut Outbox<'_>,
    ) -> Result<(), SuiteError> {
        let start_ns = out.now_ns();
        let mut texts = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            if let Question::Rolling { text, .. } = &prompt.question {
                let tokens = self.tokenizer.encode(text, self.special(), true);
                texts.push(tokens.map_err(self.tokens_error(prompt.index))?);
            }
        }
        let prefix = self.tokenizer.prefix_id();
        let missing = SuiteError::Tokenizer(TokenizerError::NoPrefixToken);
        let prefix = prefix.ok_or(missing)?;
        let slices: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let all = Scorer::new(&mut self.engine, MAX_TOKENS)
            .rolling(&slices, prefix, MAX_WINDOW)
            .map_err(|source| SuiteError::ItemScore {
                task: self.task.name().to_owned(),
                index: prompts[0].index,
                source,
            })?;
        let elapsed_ns = (out.now_ns() - start_ns) / prompts.len().max(1) as u64;
        out.end(prompts.iter().map(|prompt| Ended {
            index: prompt.index,
            elapsed_ns,
        }))?;
        for (prompt, score) in prompts.iter().zip(all) {
            let Question::Rolling {
                n_words, n_bytes, ..
            } = &prompt.question
            else {
                continue;
            };
            self.finite(prompt.index, score.loglikelihood)?;
            let answer = RollingAnswer {
                loglikelihood: score.loglikelihood,
                n_tokens: score.n_tokens,
                n_words: *n_words,
                n_bytes: *n_bytes,
            };
            let answered = Answered {
                scores: perplexities(self.task, &answer),
                answer: Answer::Rolling(answer),
                elapsed_ns,
            };
            out.take(item(self.task, prompt, answered))?;
        }
        Ok(())
    }
}

/// Returns the perplexities of one text; those of the whole set are not their mean.
fn perplexities(task: &Task, answer: &RollingAnswer) -> Vec<ItemScore> {
    let per = |count: u32| -answer.loglikelihood / f64::from(count.max(1));
    task.definition
        .metrics
        .iter()
        .filter_map(|metric| {
            let value = match metric {
                Metric::WordPerplexity => per(answer.n_words).exp(),
                Metric::BytePerplexity => per(answer.n_bytes).exp(),
                Metric::BitsPerByte => per(answer.n_bytes) / std::f64::consts::LN_2,
                _ => return None,
            };
            // Of a short text the perplexity per word may exceed every number.
            let value = value.is_finite().then_some(value);
            let reason = value.is_none().then(|| "exceeds every number".to_owned());
            Some(ItemScore {
                value,
                reason,
                ..ItemScore::plain(metric.name(), 0.0)
            })
        })
        .collect()
}
