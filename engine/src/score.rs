//! Teacher-forced log-likelihoods, as lm-evaluation-harness defines them.
//!
//! The answers of one item share most of their tokens: their longest common prefix is evaluated
//! once. Since the forward pass gives the same bits however it is cut, so do the scores: those of
//! one item ([`loglikelihoods`]), of many items at a time ([`Scorer`]), and of whole texts
//! ([`Scorer::rolling`]).

mod batch;
mod rolling;

use thiserror::Error;

pub use batch::Scorer;

use crate::{
    engine::{Engine, ForwardError, Logits},
    kernels::{ExpSum, Kernel},
    kv_cache::KvCache,
};

/// A continuation to be scored behind a context.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Tokens given; at least one.
    pub context: &'a [u32],
    /// Tokens scored; at least one.
    pub continuation: &'a [u32],
}

/// How well a continuation fits its context.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Sum of `ln p(token | tokens before)` over the continuation.
    pub loglikelihood: f64,
    /// Whether each token of the continuation is the most likely one.
    pub is_greedy: bool,
    /// Tokens of the continuation.
    pub n_tokens: u32,
}

impl Score {
    /// Of a continuation none of whose tokens has been scored.
    const NONE: Self = Self {
        loglikelihood: 0.0,
        is_greedy: true,
        n_tokens: 0,
    };

    fn add(&mut self, token: TokenScore) {
        self.loglikelihood += token.logprob;
        self.is_greedy &= token.is_greedy;
        self.n_tokens += 1;
    }
}

/// How well one token fits what is before it.
#[derive(Clone, Copy, Debug)]
struct TokenScore {
    logprob: f64,
    is_greedy: bool,
}

/// Why requests could not be scored.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ScoreError {
    /// There is nothing to condition on, or nothing to score.
    #[error("request {index} has an empty context or continuation")]
    Empty {
        /// Place of the request.
        index: usize,
    },
    /// The continuation alone exceeds the model's context.
    #[error("the continuation of request {index} has {len} tokens, and the model takes {max_len}")]
    TooLong {
        /// Place of the request.
        index: usize,
        /// Tokens of the continuation.
        len: usize,
        /// Positions of the model.
        max_len: usize,
    },
    /// The tokens could not be evaluated.
    #[error(transparent)]
    Forward(#[from] ForwardError),
}

/// Scores the requests of one item.
///
/// What the cache holds is forgotten. A request longer than the model's context loses tokens on
/// the left (`(context + continuation)[-(max_len + 1):][:-1]`, lm-evaluation-harness 0.4).
pub fn loglikelihoods(
    engine: &mut Engine,
    cache: &mut KvCache,
    requests: &[Request<'_>],
) -> Result<Vec<Score>, ScoreError> {
    let max_len = engine.config().context_length;
    let inputs = requests
        .iter()
        .enumerate()
        .map(|(index, request)| Scored::new(index, request, max_len))
        .collect::<Result<Vec<_>, _>>()?;
    let Some((first, others)) = inputs.split_first() else {
        return Ok(Vec::new());
    };
    let shared = others
        .iter()
        .map(|other| common_prefix(first.input(), other.input()))
        .min()
        .unwrap_or(first.input().len());

    let mut scores = vec![Score::NONE; inputs.len()];
    cache.truncate(0);
    // A single token may be all that an answer adds: then its logits come from the prefix.
    let first_scored = inputs.iter().map(|input| input.first_scored).min();
    let from = first_scored.unwrap_or(shared).min(shared);
    evaluate(
        engine,
        cache,
        &first.input()[..shared],
        from,
        |position, row| {
            for (input, score) in inputs.iter().zip(&mut scores) {
                input.add(position, row, score);
            }
        },
    )?;
    for (input, score) in inputs.iter().zip(&mut scores) {
        cache.truncate(shared);
        let from = input.first_scored.max(shared);
        evaluate(engine, cache, input.input(), from, |position, row| {
            input.add(position, row, score);
        })?;
    }
    Ok(scores)
}

/// Returns `ln p(tokens[t] | tokens[..t])` for every `t` from 1.
///
/// What the cache holds is forgotten.
pub fn token_logprobs(
    engine: &mut Engine,
    cache: &mut KvCache,
    tokens: &[u32],
) -> Result<Vec<f64>, ForwardError> {
    cache.truncate(0);
    let mut logprobs = Vec::with_capacity(tokens.len().saturating_sub(1));
    let input = &tokens[..tokens.len().saturating_sub(1)];
    evaluate(engine, cache, input, 0, |position, row| {
        logprobs.push(row.logprob(tokens[position + 1]));
    })?;
    Ok(logprobs)
}

/// A request after the cut to the model's context.
struct Scored {
    // The input, and the last token, which is only scored.
    tokens: Vec<u32>,
    // First position whose logits are scored.
    first_scored: usize,
}

impl Scored {
    fn new(index: usize, request: &Request<'_>, max_len: usize) -> Result<Self, ScoreError> {
        let Request {
            context,
            continuation,
        } = request;
        if context.is_empty() || continuation.is_empty() {
            return Err(ScoreError::Empty { index });
        }
        let len = continuation.len();
        if len > max_len {
            return Err(ScoreError::TooLong {
                index,
                len,
                max_len,
            });
        }
        let mut tokens = [*context, *continuation].concat();
        tokens.drain(..tokens.len().saturating_sub(max_len + 1));
        Ok(Self {
            first_scored: tokens.len() - 1 - len,
            tokens,
        })
    }

    fn input(&self) -> &[u32] {
        &self.tokens[..self.tokens.len() - 1]
    }

    /// Returns what the logits at `position` say of the token behind it, if that is scored.
    fn token(&self, position: usize, row: &Row<'_>) -> Option<TokenScore> {
        (position >= self.first_scored).then(|| {
            let token = self.tokens[position + 1];
            TokenScore {
                logprob: row.logprob(token),
                is_greedy: row.is_greedy(token),
            }
        })
    }

    /// Adds what the logits at `position` say of the token behind it.
    fn add(&self, position: usize, row: &Row<'_>, score: &mut Score) {
        if let Some(token) = self.token(position, row) {
            score.add(token);
        }
    }
}

fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Evaluates `input` from where the cache ends, and hands over what is known of the logits of the
/// positions from `from` on.
fn evaluate(
    engine: &mut Engine,
    cache: &mut KvCache,
    input: &[u32],
    from: usize,
    mut each: impl FnMut(usize, &Row<'_>),
) -> Result<(), ForwardError> {
    // 32 MiB of logits at a time, whatever the vocabulary.
    const LOGITS: usize = 8 << 20;
    let vocab_size = engine.config().vocab_size;
    let rows = (LOGITS / vocab_size).clamp(1, 512);
    let mut logits = Vec::new();
    if cache.len() < from {
        let unscored = &input[cache.len()..from];
        engine.forward(cache, unscored, Logits::None, &mut logits)?;
    }
    for piece in input[cache.len().min(input.len())..].chunks(rows) {
        let first = cache.len();
        engine.forward(cache, piece, Logits::All, &mut logits)?;
        for (i, row) in logits.chunks_exact(vocab_size).enumerate() {
            each(first + i, &Row::new(engine.kernel(), row));
        }
    }
    Ok(())
}

/// The logits of one position, with what a log-softmax needs of them.
struct Row<'a> {
    logits: &'a [f32],
    max: f32,
    // ln(sum(e^(logit − max)))
    log_sum: f64,
}

impl<'a> Row<'a> {
    fn new(kernel: &dyn Kernel, logits: &'a [f32]) -> Self {
        let mut of_all = ExpSum::NONE;
        kernel.exp_sum(logits, &mut of_all);
        Self {
            logits,
            max: of_all.max,
            log_sum: libm::log(of_all.sum),
        }
    }

    fn logprob(&self, token: u32) -> f64 {
        f64::from(self.logits[token as usize]) - f64::from(self.max) - self.log_sum
    }

    /// Returns whether a token is the most likely one, the first of equals.
    #[expect(clippy::float_cmp, reason = "the greatest is one of them")]
    fn is_greedy(&self, token: u32) -> bool {
        let (before, rest) = self.logits.split_at(token as usize);
        rest[0] == self.max && !before.contains(&self.max)
    }
}

/// Returns the place of the largest logit, the first of equals.
///
/// # Panics
/// If there are none.
pub fn argmax(logits: &[f32]) -> usize {
    assert!(!logits.is_empty(), "a vocabulary has tokens");
    let mut best = 0;
    for (i, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    #![expect(clippy::float_cmp, reason = "equal bits are what is promised")]

    use super::*;
    use crate::{
        config::ModelConfig,
        engine::EngineOptions,
        testing::{TestRng, tiny_config, tiny_model},
    };

    fn engine(context_length: usize) -> (Engine, KvCache) {
        let (_, weights) = tiny_model(9);
        let config = ModelConfig {
            context_length,
            ..tiny_config()
        };
        let engine = Engine::new(config, weights, &EngineOptions::default()).unwrap();
        let cache = engine.new_cache(context_length);
        (engine, cache)
    }

    /// Scores by the definition: every token from a fresh evaluation of all tokens before it.
    fn by_definition(engine: &mut Engine, request: &Request<'_>) -> Score {
        let all = [request.context, request.continuation].concat();
        let max_len = engine.config().context_length;
        let all = &all[all.len().saturating_sub(max_len + 1)..];
        let mut score = Score::NONE;
        for t in all.len() - request.continuation.len()..all.len() {
            let mut cache = engine.new_cache(max_len);
            let mut logits = Vec::new();
            engine
                .forward(&mut cache, &all[..t], Logits::Last, &mut logits)
                .unwrap();
            let row = Row::new(engine.kernel(), &logits);
            score.loglikelihood += row.logprob(all[t]);
            score.is_greedy &= argmax(&logits) == all[t] as usize;
            score.n_tokens += 1;
        }
        score
    }

    #[test]
    fn shared_prefixes_change_no_bit() {
        let (mut engine, mut cache) = engine(24);
        let mut rng = TestRng::new(1);
        let context = rng.tokens(12, 101);
        let other = [&context[..7], &rng.tokens(20, 101)].concat();
        let answers: Vec<Vec<u32>> = [1, 1, 3, 9].map(|n| rng.tokens(n, 101)).to_vec();
        // One answer is the model's own first choice.
        let mut logits = Vec::new();
        let mut fresh = engine.new_cache(12);
        engine
            .forward(&mut fresh, &context, Logits::Last, &mut logits)
            .unwrap();
        let greedy = vec![argmax(&logits) as u32];
        for chosen in [
            vec![
                (&context, &answers[0]),
                (&context, &answers[1]),
                (&context, &greedy),
            ],
            vec![
                (&context, &answers[2]),
                (&context, &answers[3]),
                (&context, &greedy),
            ],
            vec![(&context, &answers[3]), (&other, &answers[3])],
            vec![(&other, &answers[0])],
        ] {
            let requests: Vec<_> = chosen
                .into_iter()
                .map(|(context, continuation)| Request {
                    context,
                    continuation,
                })
                .collect();
            let scores = loglikelihoods(&mut engine, &mut cache, &requests).unwrap();
            for (request, score) in requests.iter().zip(scores) {
                assert_eq!(score, by_definition(&mut engine, request));
                assert_eq!(score.is_greedy, *request.continuation == greedy[..]);
            }
        }
        assert!(
            loglikelihoods(&mut engine, &mut cache, &[])
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn token_logprobs_are_those_of_single_requests() {
        let (mut engine, mut cache) = engine(64);
        let tokens = TestRng::new(2).tokens(40, 101);
        let logprobs = token_logprobs(&mut engine, &mut cache, &tokens).unwrap();
        assert_eq!(logprobs.len(), 39);
        for t in [1, 7, 39] {
            let request = Request {
                context: &tokens[..t],
                continuation: &tokens[t..=t],
            };
            let [score] = loglikelihoods(&mut engine, &mut cache, &[request]).unwrap()[..] else {
                panic!("one score for one request")
            };
            assert_eq!(score.loglikelihood, logprobs[t - 1]);
        }
        assert!(
            token_logprobs(&mut engine, &mut cache, &[])
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn logprobs_are_a_distribution() {
        let (engine, _) = engine(1);
        let row = Row::new(engine.kernel(), &[1.0, -2.0, 700.0, 699.0]);
        let total: f64 = (0..4).map(|token| libm::exp(row.logprob(token))).sum();
        assert!((total - 1.0).abs() < 1e-14);
        assert!(row.is_greedy(2) && !row.is_greedy(3));
        // ln(e / (1 + e)), as Python's math module gives it.
        assert!((row.logprob(2) + 0.313_261_687_518_222_8).abs() < 1e-12);
    }

    #[test]
    fn impossible_requests_are_named() {
        let (mut engine, mut cache) = engine(4);
        let mut error = |context: &[u32], continuation: &[u32]| {
            let request = Request {
                context,
                continuation,
            };
            let good = Request {
                context: &[1],
                continuation: &[2],
            };
            loglikelihoods(&mut engine, &mut cache, &[good, request]).unwrap_err()
        };
        assert_eq!(error(&[], &[1]), ScoreError::Empty { index: 1 });
        assert_eq!(error(&[1], &[]), ScoreError::Empty { index: 1 });
        assert_eq!(
            error(&[1], &[1; 5]),
            ScoreError::TooLong {
                index: 1,
                len: 5,
                max_len: 4
            }
        );
        assert_eq!(
            error(&[1000], &[1]),
            ScoreError::Forward(ForwardError::TokenOutOfRange {
                token: 1000,
                vocab_size: 101
            })
        );
    }
}
