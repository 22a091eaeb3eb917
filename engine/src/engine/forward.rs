//! Evaluation of tokens: of one sequence, or of several that share each reading of the weights.

use std::num::NonZeroUsize;

use thiserror::Error;

use super::Engine;
use crate::{
    kernels::Kernel,
    kv_cache::{CacheError, KvCache},
    ops::{Compute, linear},
    transformer::{self, MICRO_BATCH, Sequence},
};

/// Why tokens could not be evaluated. All caches are then as they were.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ForwardError {
    /// A token id the embedding has no row for.
    #[error("token {token} is not in a vocabulary of {vocab_size}")]
    TokenOutOfRange {
        /// The id.
        token: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// The cache has no room, or belongs to another model.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// Which positions' logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// None: the tokens only join the cache.
    None,
    /// Those of the last token, `(vocab_size)`.
    Last,
    /// Those of every token, `(n, vocab_size)`.
    All,
}

/// Tokens of one sequence, to be evaluated behind those in its cache.
#[derive(Debug)]
pub struct Segment<'a> {
    /// The sequence's keys and values, to which the tokens are added.
    pub cache: &'a mut KvCache,
    /// The tokens.
    pub tokens: &'a [u32],
    /// How many of the last tokens' logits are wanted; all if there are fewer tokens.
    pub wanted: usize,
}

impl Segment<'_> {
    /// Returns how many rows of logits there will be.
    fn rows(&self) -> usize {
        self.wanted.min(self.tokens.len())
    }
}

impl Engine {
    /// Evaluates `tokens` behind those in the cache, and adds them to it.
    ///
    /// `out` is replaced by the logits asked for; without tokens there are none.
    pub fn forward(
        &mut self,
        cache: &mut KvCache,
        tokens: &[u32],
        logits: Logits,
        out: &mut Vec<f32>,
    ) -> Result<(), ForwardError> {
        let wanted = match logits {
            Logits::None => 0,
            Logits::Last => 1,
            Logits::All => tokens.len(),
        };
        let segment = Segment {
            cache,
            tokens,
            wanted,
        };
        self.forward_many(&mut [segment], out)
    }

    /// Evaluates the tokens of several sequences together, each behind those in its own cache.
    ///
    /// `out` is replaced by the logits asked for, `(wanted tokens of all segments, vocab_size)`, in
    /// order. The bits are those of each sequence alone.
    pub fn forward_many(
        &mut self,
        segments: &mut [Segment<'_>],
        out: &mut Vec<f32>,
    ) -> Result<(), ForwardError> {
        self.check(segments)?;
        let vocab_size = self.config.vocab_size;
        out.resize(
            segments.iter().map(Segment::rows).sum::<usize>() * vocab_size,
            0.0,
        );
        let mut rest = &mut out[..];
        self.passes(segments, |engine, rows| {
            let (out, others) = std::mem::take(&mut rest).split_at_mut(rows * vocab_size);
            rest = others;
            engine.logits_of(0..rows, out);
        });
        Ok(())
    }

    /// Evaluates segments as [`forward_many`](Self::forward_many) does, and returns what `map` makes
    /// of each row of logits, given the kernel and its place among all that are wanted.
    ///
    /// The threads share the calls of `map`, and no more than 32 MiB of logits are there at a time.
    pub fn map_logits<T: Send>(
        &mut self,
        segments: &mut [Segment<'_>],
        map: impl Fn(&dyn Kernel, usize, &[f32]) -> T + Sync,
    ) -> Result<Vec<T>, ForwardError> {
        const LOGITS: usize = 8 << 20;
        self.check(segments)?;
        let vocab_size = self.config.vocab_size;
        let at_a_time = (LOGITS / vocab_size).max(1);
        let mut mapped = Vec::with_capacity(segments.iter().map(Segment::rows).sum());
        self.passes(segments, |engine, rows| {
            for first in (0..rows).step_by(at_a_time) {
                let rows = first..rows.min(first + at_a_time);
                let mut logits = std::mem::take(&mut engine.logits);
                logits.resize(rows.len() * vocab_size, 0.0);
                engine.logits_of(rows.clone(), &mut logits);
                let done = mapped.len();
                let Compute { kernel, pool, .. } = &mut engine.compute;
                let kernel = &**kernel;
                let per_part = rows.len().div_ceil(pool.threads());
                let mut results: Vec<Option<T>> = rows.map(|_| None).collect();
                let mut parts: Vec<_> = results
                    .chunks_mut(per_part)
                    .zip(logits.chunks(per_part * vocab_size))
                    .collect();
                pool.run(&mut parts, |part, (results, logits)| {
                    let first = done + part * per_part;
                    let logits = logits.chunks_exact(vocab_size);
                    for (i, (result, row)) in results.iter_mut().zip(logits).enumerate() {
                        *result = Some(map(kernel, first + i, row));
                    }
                });
                mapped.extend(results.into_iter().flatten());
                engine.logits = logits;
            }
        });
        Ok(mapped)
    }

    /// Evaluates `tokens` as [`forward`](Self::forward) does, and fills `out` with the `k` greatest
    /// logits of the last one, as [`greatest`](crate::sampler::greatest) leaves them.
    ///
    /// They are the same to the bit with a screened head and with the full one.
    pub fn top(
        &mut self,
        cache: &mut KvCache,
        tokens: &[u32],
        k: NonZeroUsize,
        out: &mut Vec<(u32, f32)>,
    ) -> Result<(), ForwardError> {
        let segment = Segment {
            cache,
            tokens,
            wanted: 1,
        };
        let segments = &mut [segment];
        self.check(segments)?;
        out.clear();
        self.passes(segments, |engine, _| {
            let Self {
                config,
                weights,
                compute,
                state,
                screen,
                screening,
                logits,
                ..
            } = engine;
            let x = transformer::output(config, weights, compute, state, 0..1);
            linear::top(
                compute,
                weights.head(),
                screen.as_ref().map(|screen| (screen, screening)),
                x,
                k.get(),
                logits,
                out,
            );
        });
        Ok(())
    }

    fn check(&self, segments: &[Segment<'_>]) -> Result<(), ForwardError> {
        segments
            .iter()
            .try_for_each(|Segment { cache, tokens, .. }| {
                self.check_vocabulary(tokens)?;
                Ok(cache.check(&self.config, tokens.len())?)
            })
    }

    /// Checks that the embedding has a row for each token.
    pub(crate) fn check_vocabulary(&self, tokens: &[u32]) -> Result<(), ForwardError> {
        let vocab_size = self.config.vocab_size;
        match tokens.iter().find(|&&id| id as usize >= vocab_size) {
            Some(&token) => Err(ForwardError::TokenOutOfRange { token, vocab_size }),
            None => Ok(()),
        }
    }

    /// Sends checked segments through the layers, as many tokens at once as a pass takes. After each
    /// pass that has wanted tokens `head` is called with their number.
    fn passes(&mut self, segments: &mut [Segment<'_>], mut head: impl FnMut(&mut Self, usize)) {
        let (mut index, mut done) = (0, 0);
        while index < segments.len() {
            let mut batch = Vec::new();
            let mut wanted = Vec::new();
            let mut n = 0;
            for segment in &mut segments[index..] {
                let first_wanted = segment.tokens.len() - segment.rows();
                let end = segment.tokens.len().min(done + MICRO_BATCH - n);
                wanted.extend((done.max(first_wanted)..end).map(|token| n + token - done));
                n += end - done;
                if end > done {
                    batch.push(Sequence {
                        cache: &mut *segment.cache,
                        tokens: &segment.tokens[done..end],
                    });
                }
                if end < segment.tokens.len() {
                    done = end;
                    break;
                }
                (index, done) = (index + 1, 0);
            }
            if batch.is_empty() {
                break;
            }
            transformer::forward(
                &self.config,
                &self.weights,
                &mut self.compute,
                &mut self.ropes,
                &mut batch,
                &wanted,
                &mut self.state,
            );
            if !wanted.is_empty() {
                head(self, wanted.len());
            }
        }
    }

    /// Computes the logits of some of the last pass's wanted tokens.
    fn logits_of(&mut self, rows: std::ops::Range<usize>, out: &mut [f32]) {
        transformer::logits(
            &self.config,
            &self.weights,
            &mut self.compute,
            &mut self.state,
            rows,
            out,
        );
    }
}
