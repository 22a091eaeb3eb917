//! Log-likelihoods of whole texts, in windows (lm-evaluation-harness 0.4's `loglikelihood_rolling`).

use super::{Request, Score, ScoreError, Scorer};

/// A text behind its prefix token.
struct Text(Vec<u32>);

impl Text {
    fn new(tokens: &[u32], prefix: u32) -> Self {
        Self([&[prefix], tokens].concat())
    }

    /// Returns the windows that score each token of the text once.
    ///
    /// The first begins with the prefix token. Those that follow score `max_len` tokens behind a
    /// context of one, which is the last token scored before; only the last window, where fewer are
    /// left, has as long a context as fits.
    fn windows(&self, max_len: usize) -> impl Iterator<Item = Request<'_>> {
        let Self(tokens) = self;
        (1..tokens.len()).step_by(max_len).map(move |first| {
            let end = tokens.len().min(first + max_len);
            // `max_len` tokens of input, of which the last is one before the last token scored.
            let start = if first == 1 { 0 } else { end - 1 - max_len };
            Request {
                context: &tokens[start..first],
                continuation: &tokens[first..end],
            }
        })
    }
}

impl Scorer<'_> {
    /// Scores whole texts, each token given those before it in a window of `max_len` tokens or of
    /// the model's context, the shorter; the first one given `prefix` (the token that begins a text,
    /// or ends one, as the model has it).
    ///
    /// Perplexity by words is `exp(−loglikelihoods / words)`. A text without tokens scores 0.
    ///
    /// # Panics
    /// If `max_len` is 0.
    pub fn rolling(
        &mut self,
        texts: &[&[u32]],
        prefix: u32,
        max_len: usize,
    ) -> Result<Vec<Score>, ScoreError> {
        assert!(max_len > 0, "a window has tokens");
        let max_len = max_len.min(self.engine().config().context_length);
        let texts: Vec<_> = texts.iter().map(|text| Text::new(text, prefix)).collect();
        let windows: Vec<Vec<_>> = texts
            .iter()
            .map(|text| text.windows(max_len).collect())
            .collect();
        let items: Vec<_> = windows.iter().flatten().map(std::slice::from_ref).collect();
        let mut scores = self.score(&items)?.into_iter().flatten();
        let sum = |windows: &Vec<_>| {
            let scores = scores.by_ref().take(windows.len());
            scores.fold(Score::NONE, |sum, score| Score {
                loglikelihood: sum.loglikelihood + score.loglikelihood,
                is_greedy: sum.is_greedy && score.is_greedy,
                n_tokens: sum.n_tokens + score.n_tokens,
            })
        };
        Ok(windows.iter().map(sum).collect())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::float_cmp, reason = "equal bits are what is promised")]

    use super::*;
    use crate::{
        engine::{Engine, EngineOptions},
        score::token_logprobs,
        testing::{TestRng, tiny_model},
    };

    /// The tokens of each window: its context and what it scores.
    fn windows(n: u32, max_len: usize) -> Vec<(Vec<u32>, Vec<u32>)> {
        let tokens: Vec<_> = (1..=n).collect();
        Text::new(&tokens, 0)
            .windows(max_len)
            .map(|window| (window.context.to_vec(), window.continuation.to_vec()))
            .collect()
    }

    #[test]
    fn windows_are_lm_evals() {
        // `list(map(make_disjoint_window, get_rolling_token_windows(tokens, 0, max_len, 1)))`.
        assert_eq!(windows(0, 4), []);
        assert_eq!(windows(3, 4), [(vec![0], vec![1, 2, 3])]);
        assert_eq!(windows(4, 4), [(vec![0], vec![1, 2, 3, 4])]);
        assert_eq!(
            windows(10, 4),
            [
                (vec![0], vec![1, 2, 3, 4]),
                (vec![4], vec![5, 6, 7, 8]),
                (vec![6, 7, 8], vec![9, 10]),
            ]
        );
        assert_eq!(
            windows(3, 1),
            [(vec![0], vec![1]), (vec![1], vec![2]), (vec![2], vec![3])]
        );
    }

    #[test]
    fn a_rolling_score_is_the_sum_of_its_windows() {
        let (config, weights) = tiny_model(9);
        let mut engine = Engine::new(config, weights, &EngineOptions::default()).unwrap();
        let mut cache = engine.new_cache(64);
        let tokens = TestRng::new(3).tokens(50, 101);
        let mut expected = 0.0;
        for (context, continuation) in [
            (&[7][..], &tokens[..20]),
            (&tokens[19..20], &tokens[20..40]),
            (&tokens[29..40], &tokens[40..50]),
        ] {
            let all = [context, continuation].concat();
            let logprobs = token_logprobs(&mut engine, &mut cache, &all).unwrap();
            expected += logprobs[context.len() - 1..].iter().sum::<f64>();
        }
        for max_tokens in [1, 64, 10_000] {
            let scores = Scorer::new(&mut engine, max_tokens)
                .rolling(&[&tokens, &[], &tokens[..1]], 7, 20)
                .unwrap();
            assert_eq!(scores[0].loglikelihood, expected);
            assert_eq!(scores[0].n_tokens, 50);
            assert_eq!(scores[1], Score::NONE);
            assert_eq!(scores[2].n_tokens, 1);
        }
    }
}
