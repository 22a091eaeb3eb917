//! Rolling log-likelihoods: how likely a whole text is, each token of it scored once.
//!
//! As lm-evaluation-harness does it (`get_rolling_token_windows`): the text's tokens are cut into
//! windows of the model's length. The first is conditioned on the vocabulary's first token, each
//! other full one on the token before it; the last is as long as the others, with tokens scored
//! before as its context.

use std::ops::Range;

use tritmark_engine::{
    score,
    tokenizer::{Special, TokenizerError},
};
use tritmark_proto::record::{Answer, ItemScore, RollingAnswer};

use super::{Answered, Asker, Take};
use crate::{
    SuiteError,
    accuracy::{
        data::Prompt,
        definition::Metric,
        task::{Question, Task},
    },
    clock::Clock,
};

/// Tokens of a window where the model takes more: what the reference harness assumes of a model
/// that does not say, and what the published figures were taken with.
const MAX_WINDOW: usize = 2048;

impl Asker<'_> {
    pub(super) fn rollings(
        &mut self,
        prompts: &[Prompt],
        clock: &dyn Clock,
        take: Take<'_>,
    ) -> Result<(), SuiteError> {
        for prompt in prompts {
            let Question::Rolling {
                text,
                n_words,
                n_bytes,
            } = &prompt.question
            else {
                continue;
            };
            let start_ns = clock.now_ns();
            let special = if self.spec.add_bos {
                Special::Bos
            } else {
                Special::None
            };
            let tokens_error = self.tokens_error(prompt.index);
            let tokens = self
                .tokenizer
                .encode(text, special, true)
                .map_err(&tokens_error)?;
            let prefix = self
                .tokenizer
                .prefix_id()
                .ok_or(TokenizerError::NoPrefixToken)
                .map_err(&tokens_error)?;
            let window = self.engine.config().context_length.min(MAX_WINDOW);
            let mut cache = Self::cache(&self.engine, &mut self.cache, window);
            let tokens = [&[prefix], &tokens[..]].concat();
            let mut loglikelihood = 0.0;
            for (context, scored) in windows(tokens.len(), window) {
                let request = score::Request {
                    context: &tokens[context],
                    continuation: &tokens[scored],
                };
                let scores = score::loglikelihoods(&mut self.engine, &mut cache, &[request])
                    .map_err(self.score_error(prompt.index))?;
                loglikelihood += scores[0].loglikelihood;
            }
            self.cache = Some(cache);
            self.finite(prompt.index, loglikelihood)?;
            let answer = RollingAnswer {
                loglikelihood,
                n_tokens: (tokens.len() - 1) as u32,
                n_words: *n_words,
                n_bytes: *n_bytes,
            };
            let scores = perplexities(self.task, &answer);
            take(self.item(
                prompt,
                Answered {
                    answer: Answer::Rolling(answer),
                    scores,
                    elapsed_ns: clock.now_ns() - start_ns,
                },
            ))?;
        }
        Ok(())
    }
}

/// Cuts `len` tokens, the first of which is not scored, into contexts and what is scored after them.
fn windows(len: usize, window: usize) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    (1..len).step_by(window).map(move |start| {
        let end = (start + window).min(len);
        (end.saturating_sub(window + 1)..start, start..end)
    })
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

#[cfg(test)]
mod tests {
    use super::windows;

    #[test]
    fn every_token_but_the_first_is_scored_once_and_the_last_window_is_full() {
        let found: Vec<_> = windows(11, 4).collect();
        assert_eq!(found, [(0..1, 1..5), (4..5, 5..9), (6..9, 9..11)]);
        let short: Vec<_> = windows(3, 4).collect();
        assert_eq!(short, [(0..1, 1..3)]);
        assert_eq!(windows(1, 4).count(), 0);
    }
}
