//! Grouped-query attention over the cache (arXiv 2305.13245).

use super::{Compute, rope::Rope};
use crate::{config::ModelConfig, kernels::AttentionHead, kv_cache::KvCache};

/// What attention yields for the tokens of a pass.
#[derive(Debug, Default)]
pub(crate) struct Attended {
    // (n_kv_heads, n, group, head_dim): the order in which threads share the work, so that each
    // writes one contiguous stretch.
    out: Vec<f32>,
    // One for each thread.
    scratch: Vec<Scratch>,
}

/// Scratch of one thread.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    // (group, head_dim)
    queries: Vec<f32>,
    // (group, n_keys)
    scores: Vec<f32>,
}

impl Attended {
    /// Computes each query head's attention over the positions up to its own token.
    ///
    /// `queries` is `(n, n_heads, head_dim)`, not yet rotated; the cache already holds the `n` new
    /// positions behind `cache.len()`.
    pub(crate) fn attend(
        &mut self,
        compute: &mut Compute,
        rope: &Rope,
        cache: &KvCache,
        layer: usize,
        queries: &[f32],
        config: &ModelConfig,
    ) {
        let shape = Shape::new(config, cache.len(), queries.len());
        let dim = config.head_dim;
        let scale = 1.0 / (dim as f32).sqrt();
        let threads = compute.pool.threads();
        self.scratch.resize_with(threads, Scratch::default);
        self.out.resize(queries.len(), 0.0);

        let mut rest = &mut self.out[..];
        let mut start = 0;
        let mut parts: Vec<_> = Vec::with_capacity(threads);
        for (end, scratch) in shape.ends(threads).zip(&mut self.scratch) {
            let (part, others) = rest.split_at_mut((end - start) * dim);
            rest = others;
            parts.push((start, part, scratch));
            start = end;
        }
        let kernel = &*compute.kernel;
        compute.pool.run(&mut parts, |_, (start, out, scratch)| {
            let mut unit = *start;
            let mut out = &mut **out;
            while !out.is_empty() {
                // A run of query heads of one token that share a key/value head.
                let (kv_head, token, within) = shape.place(unit);
                let heads = (shape.group - within).min(out.len() / dim);
                let (these, others) = out.split_at_mut(heads * dim);
                let position = shape.first + token;
                let first_query = token * config.n_heads + kv_head * shape.group + within;
                scratch.queries.clear();
                scratch
                    .queries
                    .extend_from_slice(&queries[first_query * dim..][..heads * dim]);
                for query in scratch.queries.chunks_exact_mut(dim) {
                    rope.rotate(position, query);
                }
                let n_keys = position + 1;
                let (keys, values) = cache.head(layer, kv_head, n_keys);
                if scratch.scores.len() < heads * n_keys {
                    scratch.scores.resize(heads * n_keys, 0.0);
                }
                let head = AttentionHead {
                    head_dim: dim,
                    queries: &scratch.queries,
                    keys,
                    values,
                    scale,
                };
                kernel.attend(&head, &mut scratch.scores[..heads * n_keys], these);
                out = others;
                unit += heads;
            }
        });
    }

    /// Copies one token's heads, `(n_heads, head_dim)`.
    pub(crate) fn gather(&self, token: usize, config: &ModelConfig, out: &mut [f32]) {
        let width = config.n_heads / config.n_kv_heads * config.head_dim;
        let n = self.out.len() / (config.n_kv_heads * width);
        for (head, out) in out.chunks_exact_mut(width).enumerate() {
            out.copy_from_slice(&self.out[(head * n + token) * width..][..width]);
        }
    }
}

/// The units of attention, one query head of one token each, ordered `(n_kv_heads, n, group)`.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// Position of the first token.
    first: usize,
    /// Tokens.
    n: usize,
    n_kv_heads: usize,
    /// Query heads per key/value head.
    group: usize,
}

impl Shape {
    fn new(config: &ModelConfig, first: usize, queries_len: usize) -> Self {
        Self {
            first,
            n: queries_len / (config.n_heads * config.head_dim),
            n_kv_heads: config.n_kv_heads,
            group: config.n_heads / config.n_kv_heads,
        }
    }

    /// Returns the key/value head, the token and the query head within the group of a unit.
    fn place(self, unit: usize) -> (usize, usize, usize) {
        let within = unit % self.group;
        let token = unit / self.group % self.n;
        (unit / self.group / self.n, token, within)
    }

    /// Returns where each thread's stretch of units ends, so that all see about as many keys.
    fn ends(self, parts: usize) -> impl Iterator<Item = usize> {
        let keys_of = move |token: usize| self.first + token + 1;
        let keys_per_head: usize = (0..self.n).map(keys_of).sum::<usize>() * self.group;
        let all = keys_per_head * self.n_kv_heads;
        let units_per_head = self.n * self.group;
        (1..=parts).map(move |part| {
            let target = all * part / parts;
            let mut unit = target / keys_per_head * units_per_head;
            let mut left = target % keys_per_head;
            for token in 0..self.n {
                let keys = keys_of(token);
                if left < keys * self.group {
                    return unit + left / keys;
                }
                left -= keys * self.group;
                unit += self.group;
            }
            unit
        })
    }
}

/// Stores the rotated keys and the values of `n` new tokens in a layer of the cache.
///
/// `keys` and `values` are `(n, n_kv_heads, head_dim)`.
pub(crate) fn store(
    compute: &mut Compute,
    rope: &Rope,
    cache: &mut KvCache,
    layer: usize,
    keys: &[f32],
    values: &[f32],
    config: &ModelConfig,
) {
    let (dim, n_heads) = (config.head_dim, config.n_kv_heads);
    let n = keys.len() / (n_heads * dim);
    let first = cache.len();
    // One token is too little to wake a thread for.
    let n_parts = if n == 1 { 1 } else { compute.pool.threads() };
    let mut heads = cache.heads_mut(layer);
    let per_part = n_heads.div_ceil(n_parts);
    let mut parts: Vec<_> = heads.chunks_mut(per_part).collect();
    compute.pool.run(&mut parts, |part, heads| {
        let mut key = vec![0.0; dim];
        for (i, (cached_keys, cached_values)) in heads.iter_mut().enumerate() {
            let head = part * per_part + i;
            for token in 0..n {
                let from = (token * n_heads + head) * dim..(token * n_heads + head + 1) * dim;
                let to = (first + token) * dim;
                key.copy_from_slice(&keys[from.clone()]);
                rope.rotate(first + token, &mut key);
                cached_keys.write(to, &key);
                cached_values.write(to, &values[from]);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_the_units_evenly() {
        for (first, n, n_kv_heads, group) in
            [(0, 1, 5, 4), (100, 1, 5, 4), (0, 512, 5, 4), (7, 3, 1, 1)]
        {
            let shape = Shape {
                first,
                n,
                n_kv_heads,
                group,
            };
            let units = n * n_kv_heads * group;
            for parts in 1..=16 {
                let ends: Vec<_> = shape.ends(parts).collect();
                assert!(ends.is_sorted());
                assert_eq!(*ends.last().unwrap(), units);
                let keys = |range: std::ops::Range<usize>| -> usize {
                    range.map(|unit| first + shape.place(unit).1 + 1).sum()
                };
                let fair = keys(0..units) / parts;
                let mut start = 0;
                for end in ends {
                    assert!(keys(start..end) <= fair + first + n + 1);
                    start = end;
                }
            }
        }
    }
}
