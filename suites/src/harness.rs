//! Runs a token shape on an engine, and takes the time.
//!
//! Conventions are llama-bench's: prompt tokens are random, the first is the vocabulary's BOS where
//! it has one; nothing is tokenized; a token is sampled by arg max; tokens that end a text do not
//! end a generation. Every repetition runs the same tokens and every value is kept.

use std::num::NonZeroUsize;

use tritmark_engine::{
    engine::{Engine, ForwardError, Logits},
    kv_cache::KvCache,
};
use tritmark_proto::job::Workload;

use crate::clock::Clock;

/// Seed of the prompt's tokens: the same in every run.
const PROMPT_SEED: u64 = 1234;

/// A token shape, ready to run again and again.
pub(crate) struct Generation {
    workload: Workload,
    // Depth, then prompt (or the one token that stands for it).
    tokens: Vec<u32>,
    cache: KvCache,
    // The greatest logit of the last token evaluated.
    greatest: Vec<(u32, f32)>,
}

/// When the tokens of one repetition came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timed {
    /// Time of the whole prompt, sampling apart; `None` without a prompt.
    pub(crate) prefill_ns: Option<u64>,
    /// The generated tokens.
    pub(crate) token_ids: Vec<u32>,
    /// Time to the first token, then from each token to the next.
    pub(crate) elapsed_ns: Vec<u64>,
}

impl Generation {
    /// Prepares a shape and fills the cache to its depth.
    pub(crate) fn new(
        engine: &mut Engine,
        workload: Workload,
        bos: Option<u32>,
    ) -> Result<Self, ForwardError> {
        let n_depth = workload.n_depth as usize;
        let n_prompt = workload.n_prompt.max(1) as usize;
        let tokens = random_tokens(n_depth + n_prompt, engine.config().vocab_size, bos);
        let mut generation = Self {
            workload,
            cache: engine.new_cache(tokens.len() + workload.n_gen as usize),
            tokens,
            greatest: Vec::new(),
        };
        for batch in generation.tokens[..n_depth].chunks(batch_size(workload)) {
            engine.forward(&mut generation.cache, batch, Logits::None, &mut Vec::new())?;
        }
        Ok(generation)
    }

    /// Returns the bytes of the key/value cache for this shape.
    pub(crate) fn kv_bytes(&self) -> u64 {
        self.cache.bytes() as u64
    }

    /// Evaluates the prompt behind the depth; the last token's greatest logit is kept.
    pub(crate) fn prefill(&mut self, engine: &mut Engine) -> Result<(), ForwardError> {
        let n_depth = self.workload.n_depth as usize;
        self.cache.truncate(n_depth);
        let mut batches = self.tokens[n_depth..]
            .chunks(batch_size(self.workload))
            .peekable();
        while let Some(batch) = batches.next() {
            if batches.peek().is_some() {
                engine.forward(&mut self.cache, batch, Logits::None, &mut Vec::new())?;
            } else {
                engine.top(
                    &mut self.cache,
                    batch,
                    NonZeroUsize::MIN,
                    &mut self.greatest,
                )?;
            }
        }
        Ok(())
    }

    /// Generates the shape's tokens behind a prompt that was evaluated by
    /// [`prefill`](Self::prefill), one evaluation each.
    pub(crate) fn decode(&mut self, engine: &mut Engine) -> Result<(), ForwardError> {
        self.cache.truncate(self.tokens.len());
        let mut token = *self.tokens.last().expect("a shape has at least one token");
        for _ in 0..self.workload.n_gen {
            self.evaluate(engine, &[token])?;
            token = self.greatest[0].0;
        }
        Ok(())
    }

    /// Evaluates tokens and finds the greatest logit of the last one, the first of equals.
    fn evaluate(&mut self, engine: &mut Engine, tokens: &[u32]) -> Result<(), ForwardError> {
        engine.top(
            &mut self.cache,
            tokens,
            NonZeroUsize::MIN,
            &mut self.greatest,
        )
    }

    /// Runs the shape once and takes the time of every token.
    pub(crate) fn timed(
        &mut self,
        engine: &mut Engine,
        clock: &dyn Clock,
    ) -> Result<Timed, ForwardError> {
        let n_gen = self.workload.n_gen as usize;
        let mut timed = Timed {
            prefill_ns: None,
            token_ids: Vec::with_capacity(n_gen),
            elapsed_ns: Vec::with_capacity(n_gen),
        };
        let mut before_ns = clock.now_ns();
        self.prefill(engine)?;
        if self.workload.n_prompt > 0 {
            timed.prefill_ns = Some(clock.now_ns() - before_ns);
        }
        for i in 0..n_gen {
            if let Some(last) = timed.token_ids.last() {
                debug_assert!(i > 0);
                self.evaluate(engine, &[*last])?;
            }
            timed.token_ids.push(self.greatest[0].0);
            let now_ns = clock.now_ns();
            timed.elapsed_ns.push(now_ns - before_ns);
            before_ns = now_ns;
        }
        Ok(timed)
    }
}

impl Timed {
    /// Prompt tokens per second.
    pub(crate) fn prefill_tok_per_s(&self, n_prompt: u32) -> Option<f64> {
        self.prefill_ns
            .map(|ns| per_second(u64::from(n_prompt), ns))
    }

    /// Time to the first token, in nanoseconds.
    pub(crate) fn ttft_ns(&self) -> Option<u64> {
        self.elapsed_ns.first().copied()
    }

    /// Evaluations of single tokens per second. Behind a prompt the first token is the prompt's;
    /// without one it counts, as llama-bench's `tg` has it.
    pub(crate) fn decode_tok_per_s(&self) -> Option<f64> {
        let single = if self.prefill_ns.is_some() {
            self.elapsed_ns.get(1..)?
        } else {
            &self.elapsed_ns[..]
        };
        let total_ns = single.iter().sum();
        (!single.is_empty()).then(|| per_second(single.len() as u64, total_ns))
    }

    /// Mean time of the tokens after the first, in nanoseconds.
    pub(crate) fn tpot_ns(&self) -> Option<f64> {
        let later = self.elapsed_ns.get(1..)?;
        let total_ns: u64 = later.iter().sum();
        (!later.is_empty()).then(|| total_ns as f64 / later.len() as f64)
    }
}

/// Returns a rate; a time too short for the clock counts as 1 ns.
pub(crate) fn per_second(count: u64, elapsed_ns: u64) -> f64 {
    count as f64 * 1e9 / elapsed_ns.max(1) as f64
}

fn batch_size(workload: Workload) -> usize {
    match workload.n_batch {
        0 => usize::MAX,
        n_batch => n_batch as usize,
    }
}

/// Returns `n` tokens by `SplitMix64`; the first is `bos` where there is one.
fn random_tokens(n: usize, vocab_size: usize, bos: Option<u32>) -> Vec<u32> {
    let mut state = PROMPT_SEED;
    let mut tokens: Vec<u32> = (0..n)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((word ^ (word >> 31)) % vocab_size as u64) as u32
        })
        .collect();
    if let (Some(first), Some(bos)) = (tokens.first_mut(), bos)
        && (bos as usize) < vocab_size
    {
        *first = bos;
    }
    tokens
}

#[cfg(test)]
mod tests {
    use tritmark_engine::{
        engine::{EngineOptions, HeadChoice},
        testing::tiny_model,
    };

    use super::*;
    use crate::clock::fake::FakeClock;

    fn engine() -> Engine {
        let (config, weights) = tiny_model(5);
        let options = EngineOptions {
            head: HeadChoice::Screened,
            ..EngineOptions::default()
        };
        Engine::new(config, weights, &options).unwrap()
    }

    fn workload(n_prompt: u32, n_gen: u32, n_depth: u32, n_batch: u32) -> Workload {
        Workload {
            n_prompt,
            n_gen,
            n_depth,
            n_batch,
        }
    }

    fn run(shape: Workload) -> Timed {
        let mut engine = engine();
        let mut generation = Generation::new(&mut engine, shape, Some(3)).unwrap();
        let clock = FakeClock::new(10);
        let first = generation.timed(&mut engine, &clock).unwrap();
        let second = generation.timed(&mut engine, &clock).unwrap();
        assert_eq!(first, second, "repetitions run the same tokens");
        first
    }

    #[test]
    fn every_token_has_its_time_and_the_rates_follow_from_them() {
        // A look at the clock per prompt and per token, each 10 ns after the one before.
        let timed = run(workload(7, 4, 0, 512));
        assert_eq!(timed.prefill_ns, Some(10));
        assert_eq!(timed.elapsed_ns, [20, 10, 10, 10]);
        assert_eq!(timed.token_ids.len(), 4);
        assert_eq!(timed.prefill_tok_per_s(7), Some(7e8));
        assert_eq!(timed.ttft_ns(), Some(20));
        assert_eq!(timed.tpot_ns(), Some(10.0));
        assert_eq!(timed.decode_tok_per_s(), Some(1e8));
    }

    #[test]
    fn without_a_prompt_every_generated_token_counts() {
        let timed = run(workload(0, 4, 0, 512));
        assert_eq!(timed.prefill_ns, None);
        assert_eq!(timed.elapsed_ns, [10; 4]);
        assert_eq!(timed.decode_tok_per_s(), Some(1e8));
    }

    #[test]
    fn what_was_not_run_has_no_value() {
        let timed = run(workload(5, 0, 0, 512));
        assert_eq!(timed.ttft_ns(), None);
        assert_eq!(timed.decode_tok_per_s(), None);
        let timed = run(workload(5, 1, 0, 512));
        assert_eq!(timed.ttft_ns(), Some(20));
        assert_eq!(timed.tpot_ns(), None);
        assert_eq!(timed.decode_tok_per_s(), None);
    }

    #[test]
    fn batches_and_depth_do_not_change_the_tokens() {
        let whole = run(workload(9, 5, 0, 512)).token_ids;
        assert_eq!(run(workload(9, 5, 0, 2)).token_ids, whole);
        assert_eq!(run(workload(4, 5, 5, 3)).token_ids, whole);
        assert_eq!(run(workload(1, 5, 8, 0)).token_ids, whole);
    }

    #[test]
    fn decoding_alone_starts_from_the_prompt_each_time() {
        let mut engine = engine();
        let shape = workload(6, 3, 2, 4);
        let mut generation = Generation::new(&mut engine, shape, None).unwrap();
        generation.prefill(&mut engine).unwrap();
        generation.decode(&mut engine).unwrap();
        let first = generation.greatest.clone();
        assert_eq!(first.len(), 1);
        generation.decode(&mut engine).unwrap();
        assert_eq!(generation.greatest, first);
    }

    #[test]
    fn the_prompt_begins_with_the_first_token_of_the_vocabulary() {
        let tokens = random_tokens(100, 50, Some(3));
        assert_eq!(tokens[0], 3);
        assert!(tokens.iter().all(|&token| token < 50));
        assert_eq!(random_tokens(100, 50, Some(3)), tokens);
        assert_ne!(random_tokens(2, 50, None)[0], random_tokens(2, 50, None)[1]);
        assert!(
            random_tokens(4, 50, Some(50))
                .iter()
                .all(|&token| token < 50)
        );
    }
}
