//! Grouped-query attention over each sequence's cache (arXiv 2305.13245).

use super::{
    Compute,
    rope::{Rope, Ropes},
};
use crate::{
    config::ModelConfig,
    kernels::{AttentionHead, Kernel},
    kv_cache::KvSliceMut,
    transformer::Sequence,
    weights::Layer,
};

/// Where a token of a pass stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Its sequence's place in the batch.
    pub(crate) sequence: usize,
    /// Its position in the sequence.
    pub(crate) position: usize,
}

/// What one layer's attention needs besides the tokens' queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention<'a> {
    pub(crate) config: &'a ModelConfig,
    /// The layer's place.
    index: usize,
    rope: &'a Rope,
    /// Gains of the norms of each query and key head, `(head_dim)`, where there are such.
    q_norm: Option<&'a [f32]>,
    k_norm: Option<&'a [f32]>,
    /// The most positions a token sees, its own included.
    window: usize,
}

impl<'a> Attention<'a> {
    pub(crate) fn new(
        config: &'a ModelConfig,
        ropes: &'a Ropes,
        index: usize,
        layer: &'a Layer,
    ) -> Self {
        let local = config.local_attention(index);
        Self {
            config,
            index,
            rope: ropes.of_layer(config, index),
            q_norm: layer.q_norm.as_deref(),
            k_norm: layer.k_norm.as_deref(),
            window: local.map_or(usize::MAX, |local| local.window),
        }
    }

    /// Norms one head, where the layer does, and rotates it to its token's position.
    fn place(
        &self,
        kernel: &dyn Kernel,
        gain: Option<&[f32]>,
        position: usize,
        head: &[f32],
        out: &mut [f32],
    ) {
        match gain {
            Some(gain) => kernel.rms_norm(head, gain, self.config.rms_norm_eps, out),
            None => out.copy_from_slice(head),
        }
        self.rope.rotate(position, out);
    }
}

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
    /// Computes each query head's attention over the positions its token sees: those of its sequence
    /// up to its own, or the last of them.
    ///
    /// `queries` is `(n, n_heads, head_dim)`, not yet normed and rotated; the caches already hold
    /// the new positions behind their lengths.
    pub(crate) fn attend(
        &mut self,
        compute: &mut Compute,
        attention: &Attention<'_>,
        batch: &[Sequence<'_>],
        places: &[Place],
        queries: &[f32],
    ) {
        let config = attention.config;
        let shape = Shape::new(attention, places);
        let dim = config.head_dim;
        let plain_scale = 1.0 / (dim as f32).sqrt();
        let scale = config.attention_scale.unwrap_or(plain_scale);
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
                let Place { sequence, position } = places[token];
                let first_query = token * config.n_heads + kv_head * shape.group + within;
                scratch.queries.resize(heads * dim, 0.0);
                for (query, out) in queries[first_query * dim..]
                    .chunks_exact(dim)
                    .zip(scratch.queries.chunks_exact_mut(dim))
                {
                    attention.place(kernel, attention.q_norm, position, query, out);
                }
                let n_keys = shape.keys_of(token);
                let seen = position + 1 - n_keys..position + 1;
                let cache = &batch[sequence].cache;
                let (keys, values) = cache.head(attention.index, kv_head, seen);
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
struct Shape<'a> {
    /// The tokens.
    places: &'a [Place],
    n_kv_heads: usize,
    /// Query heads per key/value head.
    group: usize,
    /// The most positions a token sees.
    window: usize,
}

impl<'a> Shape<'a> {
    fn new(attention: &Attention<'_>, places: &'a [Place]) -> Self {
        let Attention { config, window, .. } = *attention;
        Self {
            places,
            n_kv_heads: config.n_kv_heads,
            group: config.n_heads / config.n_kv_heads,
            window,
        }
    }

    /// Returns the number of positions that a token of the pass sees.
    fn keys_of(self, token: usize) -> usize {
        (self.places[token].position + 1).min(self.window)
    }

    /// Returns the key/value head, the token and the query head within the group of a unit.
    fn place(self, unit: usize) -> (usize, usize, usize) {
        let within = unit % self.group;
        let n = self.places.len();
        (unit / self.group / n, unit / self.group % n, within)
    }

    /// Returns where each thread's stretch of units ends, so that all see about as many keys.
    fn ends(self, parts: usize) -> impl Iterator<Item = usize> + use<'a> {
        let n = self.places.len();
        let keys_of = move |token| self.keys_of(token);
        let keys_per_head: usize = (0..n).map(keys_of).sum::<usize>() * self.group;
        let all = keys_per_head * self.n_kv_heads;
        let units_per_head = n * self.group;
        (1..=parts).map(move |part| {
            let target = all * part / parts;
            let mut unit = target / keys_per_head * units_per_head;
            let mut left = target % keys_per_head;
            for token in 0..n {
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

/// Stores the keys, normed and rotated, and the values of the new tokens in a layer of the caches.
///
/// `keys` and `values` are `(n, n_kv_heads, head_dim)`.
pub(crate) fn store(
    compute: &mut Compute,
    attention: &Attention<'_>,
    batch: &mut [Sequence<'_>],
    keys: &[f32],
    values: &[f32],
) {
    /// A head of one sequence.
    struct Head<'a> {
        keys: KvSliceMut<'a>,
        values: KvSliceMut<'a>,
        index: usize,
        /// The sequence's first token, among those of the pass and in the sequence.
        first: usize,
        position: usize,
        tokens: usize,
    }

    let (dim, n_heads) = (attention.config.head_dim, attention.config.n_kv_heads);
    let n = keys.len() / (n_heads * dim);
    let mut first = 0;
    let mut heads = Vec::with_capacity(batch.len() * n_heads);
    for Sequence { cache, tokens } in batch {
        let (position, tokens) = (cache.len(), tokens.len());
        let of_sequence = cache.heads_mut(attention.index).into_iter();
        heads.extend(of_sequence.enumerate().map(|(index, (keys, values))| Head {
            keys,
            values,
            index,
            first,
            position,
            tokens,
        }));
        first += tokens;
    }
    // One token is too little to wake a thread for.
    let n_parts = if n == 1 { 1 } else { compute.pool.threads() };
    let per_part = heads.len().div_ceil(n_parts);
    let mut parts: Vec<_> = heads.chunks_mut(per_part).collect();
    let kernel = &*compute.kernel;
    compute.pool.run(&mut parts, |_, heads| {
        let mut key = vec![0.0; dim];
        for head in heads.iter_mut() {
            for token in 0..head.tokens {
                let from = ((head.first + token) * n_heads + head.index) * dim;
                let from = from..from + dim;
                let position = head.position + token;
                let to = position * dim;
                attention.place(
                    kernel,
                    attention.k_norm,
                    position,
                    &keys[from.clone()],
                    &mut key,
                );
                head.keys.write(to, &key);
                head.values.write(to, &values[from]);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_the_units_evenly() {
        // First position and tokens of each sequence.
        for (sequences, n_kv_heads, group, window) in [
            (&[(0, 1)][..], 5, 4, usize::MAX),
            (&[(100, 1)], 5, 4, usize::MAX),
            (&[(0, 512)], 5, 4, usize::MAX),
            (&[(0, 512)], 5, 4, 64),
            (&[(7, 3)], 1, 1, 9),
            (&[(300, 1), (0, 200), (17, 1), (5, 4)], 5, 4, usize::MAX),
            (&[(300, 1), (0, 200), (17, 1), (5, 4)], 2, 3, 50),
        ] {
            let places: Vec<_> = sequences
                .iter()
                .enumerate()
                .flat_map(|(sequence, &(first, n))| {
                    (first..first + n).map(move |position| Place { sequence, position })
                })
                .collect();
            let shape = Shape {
                places: &places,
                n_kv_heads,
                group,
                window,
            };
            let units = places.len() * n_kv_heads * group;
            let longest = sequences.iter().map(|(first, n)| first + n).max();
            for parts in 1..=16 {
                let ends: Vec<_> = shape.ends(parts).collect();
                assert!(ends.is_sorted());
                assert_eq!(*ends.last().unwrap(), units);
                let keys = |range: std::ops::Range<usize>| -> usize {
                    range.map(|unit| shape.keys_of(shape.place(unit).1)).sum()
                };
                let fair = keys(0..units) / parts;
                let mut start = 0;
                for end in ends {
                    assert!(keys(start..end) <= fair + longest.unwrap() + 1);
                    start = end;
                }
            }
        }
    }
}
